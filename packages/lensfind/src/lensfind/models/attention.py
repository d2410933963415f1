"""Attention over tokens of an image, plain or leaning on evidence for arcs. One signature for all:

    attend(tokens [B, N, D], grid (rows, columns), evidence [B, E, N - prefix] or None, prefix=0) -> [B, N, D]

`prefix` counts class tokens before those of the grid. Evidence is never negative; where it is given, the scores of key j gain
beta_h * log(eps + e_j / mean e), with beta learned per head from 0: the beginning is plain attention, to the bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skyloom.errors import ConfigError, nearest

__all__ = ["ATTENTIONS", "AdaptiveAttention", "EvidenceAttention", "MultiScaleAttention", "PlainAttention", "attention"]

_EPS = 0.01


class PlainAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int, heads: int = 4, dropout: float = 0.0, evidence: int = 0):
        super().__init__()
        if width % heads:
            raise ConfigError(f"a width of {width} does not divide into {heads} heads.")
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, heads, N, D / heads]."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def bias(self, evidence: Tensor | None, prefix: int) -> Tensor | None:
        """What scores gain per key: [B, heads, 1, N], or None."""
        return None

    def weights(self, tokens: Tensor, evidence: Tensor | None = None, prefix: int = 0) -> Tensor:
        """Attention [B, heads, N, N] without dropout, to look at."""
        q, k, _ = self.split(tokens)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        bias = self.bias(evidence, prefix)
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.expand(-1, -1, q.shape[2], -1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0)
        return found.transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor, grid: tuple[int, int], evidence: Tensor | None = None, prefix: int = 0) -> Tensor:
        return self.out(self.attend(*self.split(tokens), self.bias(evidence, prefix)))


class EvidenceAttention(PlainAttention):
    """Keys with more evidence for an arc are looked at more, as much as each head finds useful."""

    def __init__(self, width: int, heads: int = 4, dropout: float = 0.0, evidence: int = 1):
        super().__init__(width, heads, dropout)
        if evidence < 1:
            raise ConfigError("attention by evidence needs an evidence map: evidence=structure_tensor or ridges.")
        self.beta = nn.Parameter(torch.zeros(heads, evidence))

    def bias(self, evidence: Tensor | None, prefix: int) -> Tensor | None:
        if evidence is None:
            raise ConfigError("attention by evidence was given none.")
        relative = torch.log(_EPS + evidence / (evidence.mean(dim=-1, keepdim=True) + 1e-6))
        keys = torch.einsum("he,ben->bhn", self.beta, relative)
        return F.pad(keys, (prefix, 0))[:, :, None]


class MultiScaleAttention(PlainAttention):
    """Queries at full resolution, keys and values also averaged over `scales` x `scales` tokens; the answers are summed with
    learned weights (softmax). Scales that give the same grid as a smaller one are left out."""

    def __init__(
        self, width: int, heads: int = 4, dropout: float = 0.0, evidence: int = 0, scales: tuple[int, ...] = (1, 2, 4)
    ):
        super().__init__(width, heads, dropout)
        self.scales = tuple(scales)
        self.share = nn.Parameter(torch.zeros(len(self.scales)))

    def forward(self, tokens: Tensor, grid: tuple[int, int], evidence: Tensor | None = None, prefix: int = 0) -> Tensor:
        q, k, v = self.split(tokens)
        found, used, grids = [], [], set()
        for number, scale in enumerate(self.scales):
            pooled = (max(1, grid[0] // scale), max(1, grid[1] // scale))
            if pooled in grids:
                continue
            grids.add(pooled)
            used.append(number)
            fewer_k, fewer_v = (self._pooled(x, grid, pooled, prefix) for x in (k, v))
            found.append(self.attend(q, fewer_k, fewer_v, None))
        shares = self.share[used].softmax(dim=0)
        return self.out(sum(share * part for share, part in zip(shares, found, strict=True)))

    @staticmethod
    def _pooled(x: Tensor, grid: tuple[int, int], pooled: tuple[int, int], prefix: int) -> Tensor:
        if pooled == grid:
            return x
        image = x[:, :, prefix:].transpose(-1, -2).flatten(0, 1).unflatten(-1, grid)
        small = F.adaptive_avg_pool2d(image, pooled).flatten(2).unflatten(0, x.shape[:2]).transpose(-1, -2)
        return torch.cat([x[:, :, :prefix], small], dim=2)


class AdaptiveAttention(nn.Module):
    """Plain attention and attention by evidence, mixed by a gate that each image sets for itself.

    g = floor + (1 - 2 floor) sigmoid(MLP(mean token, log of mean and peak of the evidence)); the floor keeps both alive.
    """

    def __init__(self, width: int, heads: int = 4, dropout: float = 0.0, evidence: int = 1, floor: float = 0.05):
        super().__init__()
        self.plain = PlainAttention(width, heads, dropout)
        self.leaning = EvidenceAttention(width, heads, dropout, evidence)
        self.floor = floor
        self.decide = nn.Sequential(nn.Linear(width + 2 * evidence, width // 4), nn.GELU(), nn.Linear(width // 4, 1))

    def gate(self, tokens: Tensor, evidence: Tensor) -> Tensor:
        """Share of attention by evidence, [B]."""
        seen = torch.cat([tokens.mean(dim=1), *(torch.log(_EPS + e) for e in (evidence.mean(-1), evidence.amax(-1)))], dim=1)
        return self.floor + (1 - 2 * self.floor) * torch.sigmoid(self.decide(seen))[:, 0]

    def weights(self, tokens: Tensor, evidence: Tensor, prefix: int = 0) -> Tensor:
        gate = self.gate(tokens, evidence)[:, None, None, None]
        return gate * self.leaning.weights(tokens, evidence, prefix) + (1 - gate) * self.plain.weights(tokens)

    def forward(self, tokens: Tensor, grid: tuple[int, int], evidence: Tensor | None = None, prefix: int = 0) -> Tensor:
        if evidence is None:
            raise ConfigError("adaptive attention needs an evidence map: evidence=structure_tensor or ridges.")
        gate = self.gate(tokens, evidence)[:, None, None]
        return gate * self.leaning(tokens, grid, evidence, prefix) + (1 - gate) * self.plain(tokens, grid, None, prefix)


ATTENTIONS: dict[str, Callable[..., nn.Module]] = {
    "plain": PlainAttention,
    "evidence": EvidenceAttention,
    "multi_scale": MultiScaleAttention,
    "adaptive": AdaptiveAttention,
}


def attention(name: str, **arguments: Any) -> nn.Module:
    if name not in ATTENTIONS:
        raise ConfigError(f"there is no attention {name!r}.{nearest(name, ATTENTIONS)}")
    return ATTENTIONS[name](**arguments)
