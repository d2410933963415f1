"""The training loop against a bare PyTorch loop and Lightning's Trainer, on a model of about 1 ms a step."""

import logging
import os
import sys
import warnings
from itertools import pairwise
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from compare import interleaved, row, write_table
from lightning_fabric import Fabric
from torch import nn

from skyloom.data import Columns, Data
from skyloom.training import Trainer
from skyloom.training.order import Order
from skyloom.training.schedules import Constant

STEPS, BATCH, WIDTH = 600, 128, 128
torch.set_num_threads(1)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = [32, WIDTH, WIDTH, WIDTH]
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.GELU())]
        self.net = nn.Sequential(*layers, nn.Linear(WIDTH, 1))

    def losses(self, batch):
        return {"loss": (self.net(batch["x"])[:, 0] - batch["y"]).square().mean()}

    def predict(self, batch):
        return {"y_hat": self.net(batch["x"])[:, 0]}

    def score(self, predictions):
        return {"mse": float((predictions["y_hat"] - predictions["y"]).square().mean())}


def adam(module):
    return torch.optim.AdamW(module.parameters(), lr=1e-3)


def rows(n):
    x = torch.randn(n, 32, generator=torch.Generator().manual_seed(1))
    return Columns({"x": x, "y": x[:, 0] * x[:, 1]})


TRAIN, SMALL = rows(STEPS * BATCH), rows(BATCH)
DATA = Data(TRAIN, SMALL, SMALL, about={"fingerprint": "bench", "synthetic": True}, carry=("y",))
FINAL = {}
FABRIC = Fabric(accelerator="cpu", devices=1)


def bare():
    """What nanoGPT would write: draw rows, loss, backward, step; the loss is read for the log at every step."""
    model = Network()
    optimizer = adam(model)
    total = 0.0
    for part in Order(len(TRAIN), BATCH, seed=0).epoch(0):
        batch = TRAIN.__getitems__(part)
        loss = model.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    FINAL["bare"] = model.net[0].weight.detach().clone()


def bare_checked():
    """The same, with the norm of the gradient measured and looked at before each step, as ours always does."""
    model = Network()
    optimizer = adam(model)
    parameters, total = list(model.parameters()), 0.0
    for part in Order(len(TRAIN), BATCH, seed=0).epoch(0):
        loss = model.losses(TRAIN.__getitems__(part))["loss"]
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad()
        total += loss.item()


def ours():
    model = Network()
    goal = [{"metric": "val/mse", "direction": "minimize"}]
    Trainer(epochs=1, batch_size=BATCH, quiet=True, objective=goal, fabric=FABRIC).fit(model, DATA, adam, Constant())
    FINAL["ours"] = model.net[0].weight.detach().clone()


def lightning_trainer():
    from skyloom.backbones import ensure_torchvision

    ensure_torchvision()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = Network()

        def training_step(self, batch, index):
            return self.inner.losses(batch)["loss"]

        def configure_optimizers(self):
            return adam(self.inner)

    class Batches(torch.utils.data.Dataset):
        def __init__(self):
            self.parts = Order(len(TRAIN), BATCH, seed=0).epoch(0)

        def __len__(self):
            return len(self.parts)

        def __getitem__(self, k):
            return TRAIN.__getitems__(self.parts[k])

    def fit():
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=1, barebones=False, **off)
        trainer.fit(Module(), torch.utils.data.DataLoader(Batches(), batch_size=None))

    return fit, lightning.__version__


def main():
    cases = {"ours": ours, "bare": bare, "bare, gradient checked": bare_checked}
    version = None
    try:
        cases["lightning"], version = lightning_trainer()
    except ImportError:
        print("Lightning is not installed (make setup extras=bench): leaving it out")
    seconds = interleaved(cases, rounds=25)
    assert torch.equal(FINAL["ours"], FINAL["bare"]), "the two loops must do the same work"
    per_step = 1e3 * min(seconds["bare"]) / STEPS
    case, torch_version = f"{STEPS} steps", torch.__version__
    table = [
        row(case, seconds["ours"], "bare PyTorch loop", torch_version, seconds["bare"], "≥ 0.95"),
        row(case, seconds["ours"], "bare loop, gradient checked", torch_version, seconds["bare, gradient checked"], "≥ 0.95"),
    ]
    if version:
        table.append(row(case, seconds["ours"], "Lightning Trainer, features off", version, seconds["lightning"], "≥ 1"))
    note = (
        f"One thread; {per_step:.2f} ms a bare step; 25 rounds interleaved. Ours includes what it never leaves out: schedule, "
        "seeds, the gradient's norm and its check, running means, the signal flag, and one validation of 128 rows. Making the "
        "Fabric (0.1 s, once a run) is left out on our side; making the Trainer, on Lightning's, is not. The final weights of "
        "ours and of the bare loop are bit-identical."
    )
    write_table("loop", "Overhead of the training loop", table, note)


if __name__ == "__main__":
    main()
