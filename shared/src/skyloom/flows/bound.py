"""A stack of invertible layers at a given context: what `flow(context).transform` is.

Inside, vectors lie features first, `[D, draws, objects]`: the small matrices of the layers then meet long contiguous rows,
which on a CPU is two to four times faster than rows of six numbers. What a layer's first linear map makes of the context is
computed once for each object, `W_c c + b` `[H, 1, objects]`, and shared by all of its draws; that of all layers in one matrix
product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

__all__ = ["ROWS_AT_ONCE", "Bound", "Step", "run"]

ROWS_AT_ONCE = 16_384  # rows through all layers together where no gradient is kept: their hidden units then stay in the cache
FEW_OBJECTS = 128  # below, the draws of an object lie next to each other; above, the objects do
LARGEST = 1e9  # coordinates beyond, in the flow's own units, are read as this: squares, products and gradients stay finite


class Step(nn.Module):
    """One invertible layer `y -> z` of vectors that lie features first, `[D, ...]`; `part` is what it knows of the context."""

    largest = LARGEST  # coordinates that it can take, where it is the first

    def of_context(self) -> tuple[Tensor, Tensor] | None:
        """Weights `[P, C]` and biases `[P]` whose `W c + b` is the `part` of `forward` and `inverse`; None for none."""
        return None

    def forward(self, y: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
        """`z` and `ln |det dz/dy|` (the shape of `y` without its first axis)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
        """`y` and, as in `forward`, `ln |det dz/dy|`."""
        raise NotImplementedError


def run(steps: Sequence[Step], parts: Sequence[Tensor | None], y: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """`y` `[D, ...]` through all steps (or `z` back), and `ln |det dz/dy|`."""
    total = torch.zeros_like(y[0])
    pairs = list(zip(steps, parts, strict=True))
    for step, part in reversed(pairs) if inverse else pairs:
        y, ladj = step.inverse(y, part) if inverse else step(y, part)
        total = total + ladj
    return y, total


class Bound(Transform):
    """`y [..., D] -> z [..., D]` at a context; leading axes of `y` broadcast against those of the context.

    Arguments:
        steps: The layers, first to last from data to latent.
        contexts: For each of them the vectors `[..., C]` that it is conditioned on (all of one batch shape), or None for all.
        runner: `run`, or a compiled form of it.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, steps: Sequence[Step], contexts: Sequence[Tensor | None], runner: Callable = run) -> None:
        super().__init__()
        self.steps, self.contexts, self.runner = list(steps), list(contexts), runner
        self.batch = next((tuple(c.shape[:-1]) for c in self.contexts if c is not None), ())
        self._kept: list[Tensor | None] | None = None

    def before(self, steps: Sequence[Step], context: Tensor | None) -> Bound:
        """The transform that applies `steps` first, then these."""
        return Bound([*steps, *self.steps], [*([context] * len(steps)), *self.contexts], self.runner)

    # ------------------------------------------------------------------ what torch and zuko call

    def _call(self, x: Tensor) -> Tensor:
        return self.to_latent(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.to_data(y)[0]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_latent(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.to_latent(x)[1]

    # ------------------------------------------------------------------ both ways

    def to_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`z` and `ln |det dz/dy|`."""
        largest = self.steps[0].largest if self.steps else LARGEST
        z, ladj = self._run(y.clamp(-largest, largest), inverse=False)
        return z.clamp(-LARGEST, LARGEST), ladj

    def to_data(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`y` and `ln |det dz/dy|` there."""
        return self._run(z.clamp(-LARGEST, LARGEST), inverse=True)

    def _run(self, y: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        shape = tuple(torch.broadcast_shapes(y.shape[:-1], self.batch))
        contexts, objects = self.contexts, math.prod(self.batch)
        if objects > 1 and shape[len(shape) - len(self.batch) :] != self.batch:  # the context itself is broadcast
            contexts = [c if c is None else c.expand(*shape, c.shape[-1]) for c in contexts]
            objects = math.prod(shape)
        draws = math.prod(shape) // max(objects, 1)
        rows = y.expand(*shape, y.shape[-1]).reshape(draws, objects, y.shape[-1])
        swap = draws > objects and objects < FEW_OBJECTS
        columns = rows.permute(2, 1, 0) if swap else rows.permute(2, 0, 1)
        parts = self._parts(contexts)
        if swap:
            parts = [p if p is None else p.transpose(1, 2) for p in parts]
        z, ladj = self._in_chunks(columns, parts, inverse)
        if swap:
            z, ladj = z.transpose(1, 2), ladj.T
        return z.permute(1, 2, 0).reshape(*shape, -1), ladj.reshape(shape)

    def _in_chunks(self, y: Tensor, parts: list[Tensor | None], inverse: bool) -> tuple[Tensor, Tensor]:
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or y[0].numel() <= ROWS_AT_ONCE
        if whole:
            return self.runner(self.steps, parts, y.contiguous(), inverse)
        out, total = torch.empty_like(y, memory_format=torch.contiguous_format), y.new_empty(y.shape[1:])
        for outer, inner in _tiles(y.shape[1], y.shape[2]):
            few = [p if p is None else _slice(p, outer, inner) for p in parts]
            out[:, outer, inner], total[outer, inner] = self.runner(self.steps, few, y[:, outer, inner].contiguous(), inverse)
        return out, total

    # ------------------------------------------------------------------ the context's part

    def frozen(self) -> Bound:
        """The same, with the context's part computed now, once, and no gradient to the weights through it."""
        other = Bound(self.steps, self.contexts, self.runner)
        with torch.no_grad():
            other._kept = self._parts(self.contexts)
        return other

    def _parts(self, contexts: Sequence[Tensor | None]) -> list[Tensor | None]:
        """For each step `W c + b` `[P, 1, objects]`."""
        if self._kept is not None and contexts is self.contexts:
            return self._kept
        parts: list[Tensor | None] = [None] * len(self.steps)
        for members, context in _runs(contexts):  # in full precision: it is little work, and all draws share it
            maps = [(k, found) for k in members if (found := self.steps[k].of_context()) is not None]
            if not maps:
                continue
            bias = torch.cat([b for _, (_, b) in maps]).unsqueeze(1)
            if context is not None and maps[0][1][0].shape[1]:
                weight = torch.cat([w for _, (w, _) in maps])
                with torch.autocast(weight.device.type, enabled=False):
                    bias = torch.addmm(bias, weight, context.reshape(-1, context.shape[-1]).to(weight.dtype).T)
            pieces = bias.unsqueeze(1).split([len(b) for _, (_, b) in maps])
            for (k, _), piece in zip(maps, pieces, strict=True):
                parts[k] = piece
        if not torch.is_grad_enabled() and contexts is self.contexts and not torch.compiler.is_compiling():
            self._kept = parts
        return parts


def _runs(contexts: Sequence[Tensor | None]) -> Iterator[tuple[list[int], Tensor | None]]:
    """Neighbouring steps that share a context, and that context."""
    members: list[int] = []
    for k, context in enumerate(contexts):
        if members and context is not contexts[members[-1]]:
            yield members, contexts[members[-1]]
            members = []
        members.append(k)
    if members:
        yield members, contexts[members[-1]]


def _tiles(outer: int, inner: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of at most `ROWS_AT_ONCE` rows, as wide as possible along the inner axis."""
    width = min(inner, ROWS_AT_ONCE)
    height = max(1, ROWS_AT_ONCE // width)
    for top in range(0, outer, height):
        for left in range(0, inner, width):
            yield slice(top, top + height), slice(left, left + width)


def _slice(part: Tensor, outer: slice, inner: slice) -> Tensor:
    return part[:, outer if part.shape[1] > 1 else slice(None), inner if part.shape[2] > 1 else slice(None)]
