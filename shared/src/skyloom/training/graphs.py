"""A trained task as one graph that needs no Skyloom: torch.export (pt2), TorchScript or ONNX, each checked against the task.

A task gives `example() -> {name: tensor}`, a batch of the right shapes whose first axis may vary, and may give `exportable()`,
the module to write in place of `predict`. The pt2 graph takes and returns dicts of these names; TorchScript and ONNX, which
simulation codes call from C++ or Fortran, take the tensors in the order of `example()` and return a tuple of the outputs.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyloom.errors import ConfigError
from skyloom.run.files import write_whole

__all__ = ["FORMATS", "Written", "write_graph"]

FORMATS = {"pt2": ".pt2", "torchscript": ".ts", "onnx": ".onnx"}
TOLERANCE = 1e-5


@dataclass
class Written:
    inputs: list[str]
    outputs: list[str]
    worst: float
    """The largest difference from the task's own outputs, each over its largest value or 1, on a batch of another size."""


class _Predicting(nn.Module):
    def __init__(self, task: Any):
        super().__init__()
        self.task = task

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.task.predict(batch)


class _Positional(nn.Module):
    """Tensors in, tensors out, in a fixed order."""

    def __init__(self, module: nn.Module, inputs: list[str]):
        super().__init__()
        self.module, self.inputs = module, inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(dict(zip(self.inputs, tensors, strict=True))).values())


def write_graph(task: Any, path: Path, format: str = "pt2") -> Written:
    """Write `task` to `path` and read it again; if any output differs by more than 1e-5 of its largest value (or of 1),
    nothing is written."""
    module: nn.Module = task.exportable() if hasattr(task, "exportable") else _Predicting(task)
    module.eval()
    example = {name: value.detach() for name, value in task.example().items()}
    other = {name: torch.cat([value, value[:1]]) for name, value in example.items()}
    with torch.no_grad(), write_whole(path) as temporary:
        wanted = module(other)
        outputs = list(wanted)
        _WRITERS[format](module, example, outputs, temporary)
        found = _READERS[format](temporary, other, outputs)
        worst = max(float((wanted[n] - found[n]).abs().max() / wanted[n].abs().max().clamp(min=1)) for n in outputs)
        if not worst <= TOLERANCE:
            raise RuntimeError(f"the {format} graph differs from the model by {worst:.3g}: {path} is not written.")
    return Written(list(example), outputs, worst)


def _write_pt2(module: nn.Module, example: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    graph = torch.export.export(module, (example,), dynamic_shapes=({name: {0: batch} for name in example},), strict=False)
    torch.export.save(graph, path)


def _read_pt2(path: Path, batch: dict[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
    return torch.export.load(path).module()(batch)


def _write_torchscript(module: nn.Module, example: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    traced = torch.jit.trace(_Positional(module, list(example)), tuple(example.values()), check_trace=False)
    torch.jit.save(traced, str(path))


def _read_torchscript(path: Path, batch: dict[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
    return dict(zip(outputs, torch.jit.load(str(path))(*batch.values()), strict=True))


def _write_onnx(module: nn.Module, example: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    _need_onnx()
    rows = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        _Positional(module, list(example)), tuple(example.values()), str(path), input_names=list(example),
        output_names=outputs, dynamic_shapes=(tuple({0: rows} for _ in example),), external_data=False, verbose=False,
    )  # fmt: skip


def _read_onnx(path: Path, batch: dict[str, Tensor], outputs: list[str]) -> dict[str, Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(outputs, {name: value.numpy() for name, value in batch.items()})
    return {name: torch.from_numpy(value) for name, value in zip(outputs, found, strict=True)}


def _need_onnx() -> None:
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
        raise ConfigError("format=onnx needs more than is installed: pip install 'skyloom[onnx]'.")


_WRITERS = {"pt2": _write_pt2, "torchscript": _write_torchscript, "onnx": _write_onnx}
_READERS = {"pt2": _read_pt2, "torchscript": _read_torchscript, "onnx": _read_onnx}
