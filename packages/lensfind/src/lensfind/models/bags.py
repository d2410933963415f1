"""An image as a bag of tiles: it is a lens if one of its tiles holds an arc (multiple-instance learning)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skyloom.errors import ConfigError

__all__ = ["Bags", "GatedPooling", "tiles"]


def tiles(images: Tensor, side: int, step: int) -> Tensor:
    """Square tiles [B, n, bands, side, side] of images [B, bands, H, W], row by row, `step` pixels apart."""
    cut = images.unfold(2, side, step).unfold(3, side, step)
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


class GatedPooling(nn.Module):
    r"""Attention over instances (Ilse, Tomczak and Welling 2018, arXiv:1802.04712):
    $a_k \propto \exp(w^T(\tanh(V h_k) \odot \sigma(U h_k)))$; what is masked weighs nothing."""

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.what, self.gate, self.score = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, 1)

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Instances [B, n, D], mask [B, n] of those that exist; gives [B, D] and weights [B, n]."""
        scores = self.score(torch.tanh(self.what(instances)) * torch.sigmoid(self.gate(instances)))[..., 0]
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(dim=1)
        return (weights[..., None] * instances).sum(dim=1), weights


class Bags(nn.Module):
    """Features [B, width] of images, pooled from those of overlapping tiles that one encoder sees alike.

    `encoder(bands=, size=)` gives features [B, width]. Nothing is told of where a tile lies, so the order does not matter.
    """

    def __init__(self, bands: int, size: int, encoder: Callable[..., nn.Module], tile: int = 20, step: int = 10):
        super().__init__()
        if tile > size or (size - tile) % step:
            raise ConfigError(
                f"tiles of {tile} pixels every {step} do not cover {size} pixels: (size - tile) must divide by step."
            )
        self.bands, self.size, self.tile, self.step = bands, size, tile, step
        self.encoder = encoder(bands=bands, size=tile)
        self.width = int(self.encoder.width)  # type: ignore[arg-type]
        self.pool = GatedPooling(self.width)

    def _pooled(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cut = tiles(images, self.tile, self.step)
        return self.pool(self.encoder(cut.flatten(0, 1)).unflatten(0, cut.shape[:2]))

    def forward(self, images: Tensor) -> Tensor:
        return self._pooled(images)[0]

    def attention_maps(self, images: Tensor) -> Tensor:
        """Weight of each tile: [B, rows, columns]."""
        weights = self._pooled(images)[1]
        side = (self.size - self.tile) // self.step + 1
        return weights.unflatten(1, (side, side))
