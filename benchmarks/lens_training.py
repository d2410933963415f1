"""Training and scoring of a lens finder against bare loops over timm's networks, on the same batches."""

import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from compare import interleaved, row, write_table
from lightning_fabric import Fabric
from torch import nn

from lensfind.data.augment import dihedral
from lensfind.training.task import LensFinder
from skyloom.backbones import ensure_torchvision, image_encoder
from skyloom.backbones.stem import ConvolutionalStem
from skyloom.data import Columns, Data
from skyloom.pu import pn
from skyloom.training import Trainer
from skyloom.training.order import Order
from skyloom.training.schedules import Constant

ensure_torchvision()  # before timm
import timm  # noqa: E402

BANDS, SIZE, BATCH, ROUNDS = ("g", "r", "i"), 40, 64, 7
ROWS = {"resnet18": 10 * BATCH, "vit": 40 * BATCH}
torch.set_num_threads(1)
FABRIC = Fabric(accelerator="cpu", devices=1)
NETWORKS = {
    "resnet18": ("resnet18", {}),
    "vit": ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}),
}
ABOUT = {
    "fingerprint": "bench", "synthetic": True, "class_prior": 0.1, "bands": list(BANDS), "size": SIZE,
    "survey": {"pixel_scale": 0.2, "bands": {b: {"wavelength": w} for b, w in zip(BANDS, (486, 625, 756), strict=True)}},
    "statistics": {"noise": [1.0] * 3, "mean": [0.0] * 3, "deviation": [1.0] * 3},
}  # fmt: skip


def data(rows: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    columns = {
        "image": torch.randn(rows, 3, SIZE, SIZE, generator=generator),
        "labelled": (torch.arange(rows) % 5 == 0).to(torch.uint8),
    }
    columns["lens"] = columns["labelled"]
    train = Columns(columns)
    few = train.take(np.arange(BATCH))
    return Data(train, few, few, about=ABOUT, carry=("labelled", "lens"), augment=dihedral)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=1e-3)


def timm_network(name: str) -> nn.Module:
    """As timm makes it, with the stem that ours has."""
    recipe, options = NETWORKS[name]
    torch.manual_seed(0)
    more = {"img_size": SIZE, "embed_layer": ConvolutionalStem} if name == "vit" else {}
    return timm.create_model(recipe, in_chans=3, num_classes=1, **options, **more)


def finder(name: str) -> LensFinder:
    recipe, options = NETWORKS[name]
    torch.manual_seed(0)
    stem = "convolutional" if name == "vit" else "patch"
    return LensFinder(ABOUT, partial(image_encoder, recipe, stem=stem, **options), partial(pn), target="lens")


def bare(name: str, rows: Data) -> None:
    """Rows drawn, network, binary cross-entropy, backward, step: no augmentation, no stretch, no gradient norm, no log."""
    network = timm_network(name).train()
    optimizer = adam(network)
    for part in Order(len(rows.train), BATCH, seed=0).epoch(0):
        batch = rows.train.__getitems__(part)
        loss = nn.functional.binary_cross_entropy_with_logits(network(batch["image"])[:, 0], batch["lens"].float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(name: str, rows: Data) -> None:
    goal = [{"metric": "val/auroc", "direction": "maximize"}]
    loop = Trainer(epochs=1, batch_size=BATCH, quiet=True, objective=goal, fabric=FABRIC)
    loop.fit(finder(name), rows, adam, Constant())


def timm_inference(network: nn.Module, batches: int) -> None:
    """The inner loop of timm's benchmark.py: one batch in memory, forward again and again."""
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    with torch.no_grad():
        for _ in range(batches):
            network(images)


def our_inference(task: LensFinder, rows: Data) -> None:
    """From the rows of a data set to logits and calibrated probabilities."""
    loop = Trainer(batch_size=BATCH, quiet=True, fabric=FABRIC)
    loop.predict(task, rows.train)


def main() -> None:
    table = []
    peer, number = "timm", version("timm")
    for name in NETWORKS:
        rows = data(ROWS[name])
        seconds = interleaved({"ours": partial(ours, name, rows), "bare": partial(bare, name, rows)}, ROUNDS)
        table.append(row(f"train {name}", seconds["ours"], f"bare loop over {peer}", number, seconds["bare"], ">= 0.9"))
        network, task = timm_network(name).eval(), finder(name).eval()
        batches = len(rows.train) // BATCH
        cases = {"ours": partial(our_inference, task, rows), "timm": partial(timm_inference, network, batches)}
        seconds = interleaved(cases, ROUNDS)
        table.append(
            row(f"score {name}", seconds["ours"], f"{peer} benchmark.py, its inner loop", number, seconds["timm"], ">= 1")
        )
    write_table(
        "lens_training", "A lens finder against bare loops over timm", table,
        f"{SIZE} x {SIZE} pixels, three bands, batches of {BATCH}, one thread, CPU seconds. Ours also turns and stretches "
        "every image, watches the gradient's norm, logs, validates once on one batch; in scoring it fetches rows, stretches, "
        "and calibrates, where the peer sends one batch that is already there through the network again and again.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
