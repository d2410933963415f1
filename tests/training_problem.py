"""A small regression that exercises the loop: dropout (generator state), normalisation (buffers), augmentation."""

import torch
from torch import nn

from skyloom.data import Columns, Data
from skyloom.run.seeds import torch_generator

SYNTHETIC = {"fingerprint": "curve", "synthetic": True}


class Curve(nn.Module):
    def __init__(self, about=None, hidden=16):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            [nn.Linear(2, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, 1)]
        )
        self.about = about

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x[:, 0]

    def losses(self, batch):
        residual = self(batch["x"]) - batch["y"]
        return {"loss": residual.square().mean(), "absolute": residual.abs().mean()}

    def predict(self, batch):
        return {"y_hat": self(batch["x"])}

    def score(self, predictions):
        return {"mse": float((predictions["y_hat"] - predictions["y"]).square().mean())}


def jitter(batch, draws):
    return {**batch, "x": batch["x"] + 0.1 * draws.normal(2)}


def curve_data(rows=200, augment=jitter, about=SYNTHETIC):
    generator = torch_generator(1, "curve")
    x = torch.randn(rows, 2, generator=generator)
    y = x[:, 0] * x[:, 1] + 0.1 * torch.randn(rows, generator=generator)
    table = Columns({"x": x, "y": y})
    third = rows // 5
    parts = [table.take(range(third, rows)), table.take(range(third // 2)), table.take(range(third // 2, third))]
    return Data(*parts, about=dict(about), carry=("y",), augment=augment)
