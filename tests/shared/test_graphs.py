"""A trained task as one graph: the same answer in three formats, for any batch size, or no file at all."""

import pytest
import torch

from skyloom.training.graphs import FORMATS, write_graph


class Parabola(torch.nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, dtype=dtype)
        self.dtype = dtype

    def example(self):
        return {"x": torch.ones(2, 3, dtype=self.dtype), "shift": torch.zeros(2, 1, dtype=self.dtype)}

    def predict(self, batch):
        y = self.layer(batch["x"]) ** 2 + batch["shift"]
        return {"y": y, "sum": y.sum(1)}


class Branching(Parabola):
    """What it does depends on the size of the batch, which no traced graph can know."""

    def predict(self, batch):
        return {"y": batch["x"] * len(batch["x"]) if torch.jit.is_tracing() else batch["x"]}


pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracers, of themselves


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_graph_answers_as_the_task_does(format, dtype, tmp_path):
    torch.manual_seed(0)
    done = write_graph(Parabola(dtype), tmp_path / f"model{FORMATS[format]}", format)
    assert (done.inputs, done.outputs) == (["x", "shift"], ["y", "sum"])
    assert done.worst < (1e-6 if dtype == torch.float32 else 1e-14)


def test_onnx_keeps_names_and_any_number_of_rows(tmp_path):
    import onnxruntime

    task = Parabola(torch.float32)
    write_graph(task, tmp_path / "model.onnx", "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    rows = {"x": torch.randn(7, 3), "shift": torch.randn(7, 1)}
    (found,) = session.run(["sum"], {name: value.numpy() for name, value in rows.items()})
    assert torch.allclose(torch.from_numpy(found), task.predict(rows)["sum"], atol=1e-5)


def test_a_graph_that_differs_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="differs from the model by"):
        write_graph(Branching(), tmp_path / "model.ts", "torchscript")
    assert not list(tmp_path.iterdir())
