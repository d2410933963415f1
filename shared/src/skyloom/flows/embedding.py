"""Networks in front of the context, and contexts of which a part is missing.

Each is built as `network(context)` and tells its width as `outputs`, so that a flow can be given one by name:
`embed=ContextMLP`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ContextMLP", "ContextResidual", "MaskedContext", "PassThrough", "hide"]


class PassThrough(nn.Module):
    """The context as it is."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.outputs = context

    def forward(self, c: Tensor) -> Tensor:
        return c


class ContextMLP(nn.Module):
    """A perceptron with ELUs: `context -> hidden -> ... -> outputs`, an ELU after each layer."""

    def __init__(self, context: int, outputs: int = 64, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        widths = [context, *hidden, outputs]
        self.network = nn.Sequential(*(m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ELU())))
        self.outputs = outputs

    def forward(self, c: Tensor) -> Tensor:
        return self.network(c)


class ContextResidual(nn.Module):
    """Residual blocks `h + W2 elu(W1 elu(norm(h)))` of one width, which begin as nothing: for wide or deep embeddings."""

    def __init__(self, context: int, outputs: int = 64, blocks: int = 2, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(context, width), nn.Linear(width, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Dropout(dropout), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)  # type: ignore[index]
            nn.init.zeros_(block[-1].bias)  # type: ignore[index]
        self.outputs = outputs

    def forward(self, c: Tensor) -> Tensor:
        h = self.enter(c)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(nn.functional.elu(h))


class MaskedContext(nn.Module):
    """Contexts in which NaN says that an observable is missing: `[seen * c + (1 - seen) * stand_in, seen]`, then a network.

    Trained on contexts of which a part is hidden at random (see `hide`), one flow answers for every subset of the observables,
    without retraining; the less is seen, the wider its posterior.

    >>> MaskedContext(2)(torch.tensor([[1.5, torch.nan]])).tolist()
    [[1.5, 0.0, 1.0, 0.0]]
    """

    def __init__(self, context: int, then: Callable[[int], Any] | None = None) -> None:
        super().__init__()
        self.stand_in = nn.Parameter(torch.zeros(context))
        self.then = (then or PassThrough)(2 * context)
        self.outputs = self.then.outputs

    def forward(self, c: Tensor) -> Tensor:
        seen = torch.isfinite(c)
        filled = torch.where(seen, torch.nan_to_num(c), self.stand_in.to(c.dtype))
        return self.then(torch.cat([filled, seen.to(c.dtype)], -1))


def hide(context: Tensor, share: float, generator: torch.Generator | None = None, always_seen: Sequence[int] = ()) -> Tensor:
    """`context` `[B, C]` with entries replaced by NaN at random, for training a `MaskedContext`.

    In each row a different share is hidden, uniform on `[0, 2 share]` (at most all), so that nearly complete and nearly empty
    rows are both seen; a row in ten is left complete.
    """
    rows, columns = context.shape
    u = torch.rand(rows, 2 + columns, generator=generator, device=context.device, dtype=context.dtype)
    level = (2 * share * u[:, :1]).clamp(max=1.0) * (u[:, 1:2] > 0.1)
    hidden = u[:, 2:] < level
    hidden[:, list(always_seen)] = False
    return context.masked_fill(hidden, torch.nan)
