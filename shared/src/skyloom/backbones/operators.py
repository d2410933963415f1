"""torchvision's compiled operators, which do not load beside a CPU-only torch, while timm imports torchvision."""

import importlib.util
from pathlib import Path

import torch

from skyloom.errors import UserError

__all__ = ["ensure_torchvision"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[torch.library.Library] = []  # a Library that is garbage collected takes its definitions with it


def ensure_torchvision() -> str:
    """Make `import torchvision` work; call it before timm is imported. Safe to call again.

    Returns "native" where the compiled operators load, and "stub" where they do not: then the two operators that torchvision
    registers fake kernels for are declared, without an implementation, so that importing succeeds and calling them fails.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise UserError("torchvision is not installed, and timm needs it: pip install 'skyloom[vision]' (or run `make setup`).")
    if _kept:
        return "stub"
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so")) + sorted(Path(spec.origin).parent.glob("_C*.pyd"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        libraries = []
    if libraries:
        return "native"
    definitions = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        definitions.define(name + _SCHEMA)
    _kept.append(definitions)
    return "stub"
