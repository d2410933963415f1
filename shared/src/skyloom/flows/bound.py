"""A stack of invertible layers at a given context: what `flow(context).transform` is.

Inside, vectors lie features first, `[D, draws, objects]`: the small matrices of the layers then meet long contiguous rows,
which on a CPU is two to four times faster than rows of six numbers. Where an object has several draws, what the first linear
map of each layer makes of its context is computed once, `W_c c + b` `[H, 1, objects]`, and shared by all of them; that of all
layers in one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

__all__ = ["ROWS_AT_ONCE", "Bound", "Given", "Step", "run"]

ROWS_AT_ONCE = 8192  # rows through all layers together where no gradient is kept: what fits the cache of a core
ROWS_ON_A_DEVICE = 1 << 21  # elsewhere: enough to fill it, few enough for its memory
MANY_DRAWS = 256  # from here on the draws of an object lie next to each other; below, the objects do
LARGEST = 1e9  # coordinates beyond, in the flow's own units, are read as this: squares, products and gradients stay finite


class Given(NamedTuple):
    """What a layer knows of the context: the context itself `[C, ...]`, or `ready` made `W_c c + b` `[P, ...]`."""

    value: Tensor
    ready: bool


class Step(nn.Module):
    """One invertible layer `y -> z` of vectors that lie features first, `[D, ...]`."""

    largest = LARGEST  # coordinates that it can take, where it is the first
    rows_of_draws = 2 * ROWS_AT_ONCE  # at once where an object's draws lie side by side: hidden units come object by object

    def of_context(self) -> tuple[Tensor, Tensor] | None:
        """Weights `[P, C]` and biases `[P]` of all that is linear in the context; None where there is nothing."""
        return None

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        """`z`, and rows `[m, ...]` whose sum over the first axis is `ln |det dz/dy|` (None for zero)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        """`y` and, as in `forward`, rows of `ln |det dz/dy|`."""
        raise NotImplementedError


def first_layer(y: Tensor, given: Given | None, weight: Tensor, bias: Tensor) -> Tensor:
    """`W [y, c] + b` `[H, rows]` of coordinates `y` `[d, ...]` and a context that may be ready made and shared by many rows."""
    flat = y if y.dim() == 2 else y.reshape(len(y), y.shape[1:].numel())
    if given is None:
        return torch.addmm(bias.unsqueeze(1), weight, flat)
    value = given.value
    if not given.ready:
        if value.dim() > 2:
            value = value.expand(-1, *y.shape[1:]).reshape(len(value), -1)
        return torch.addmm(bias.unsqueeze(1), weight, torch.cat([flat, value]))
    weight = weight[:, : len(y)]
    if value[0].numel() == 1:  # one object: its part is one more column of the matrix, and costs no pass over the rows
        ones = flat.new_ones(1, flat.shape[1])
        return torch.mm(torch.cat([weight, value.reshape(-1, 1).to(weight.dtype)], 1), torch.cat([flat, ones]))
    hidden = torch.mm(weight, flat).view(-1, *y.shape[1:])
    return (hidden + value if torch.is_grad_enabled() else hidden.add_(value)).reshape(len(hidden), -1)


def run(steps: Sequence[Step], givens: Sequence[Given | None], y: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """`y` `[D, ...]` through all steps (or `z` back), and `ln |det dz/dy|`."""
    ladj = []
    pairs = list(zip(steps, givens, strict=True))
    for step, given in reversed(pairs) if inverse else pairs:
        y, rows = step.inverse(y, given) if inverse else step(y, given)
        if rows is not None:
            ladj.append(rows)
    return y, torch.cat(ladj).sum(0) if ladj else torch.zeros_like(y[0])


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
        self._kept: list[Given | None] | None = None

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
        swap = draws >= MANY_DRAWS
        columns = rows.permute(2, 1, 0) if swap else rows.permute(2, 0, 1)
        givens = self._raw(contexts) if draws == 1 and self._kept is None else self._ready(contexts)
        if swap:
            givens = [g if g is None else Given(g.value.transpose(1, 2), g.ready) for g in givens]
        z, ladj = self._in_chunks(columns, givens, inverse, self._most(swap))
        if swap:
            z, ladj = z.transpose(1, 2), ladj.T
        return z.permute(1, 2, 0).reshape(*shape, -1), ladj.reshape(shape)

    def _most(self, swap: bool) -> int:
        """Rows through all layers together on a processor."""
        return min((step.rows_of_draws for step in self.steps), default=ROWS_AT_ONCE) if swap else ROWS_AT_ONCE

    def _in_chunks(self, y: Tensor, givens: list[Given | None], inverse: bool, most: int) -> tuple[Tensor, Tensor]:
        most = most if y.device.type == "cpu" else ROWS_ON_A_DEVICE
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or y[0].numel() <= most
        if whole and y.shape[1] == 1:  # two axes are handled faster than three
            flat = [g if g is None else Given(g.value.squeeze(1), g.ready) for g in givens]
            z, ladj = self.runner(self.steps, flat, y.squeeze(1).contiguous(), inverse)
            return z.unsqueeze(1), ladj.unsqueeze(0)
        if whole:
            return self.runner(self.steps, givens, y.contiguous(), inverse)
        out, total = torch.empty_like(y, memory_format=torch.contiguous_format), y.new_empty(y.shape[1:])
        for outer, inner in _tiles(y.shape[1], y.shape[2], most):
            few = [g if g is None else Given(_slice(g.value, outer, inner), g.ready) for g in givens]
            part = y[:, outer, inner].contiguous()
            out[:, outer, inner], total[outer, inner] = self.runner(self.steps, few, part, inverse)
        return out, total

    # ------------------------------------------------------------------ the context's part

    def frozen(self) -> Bound:
        """The same, with the context's part computed now, once, and no gradient to the weights through it."""
        other = Bound(self.steps, self.contexts, self.runner)
        with torch.no_grad():
            other._kept = self._ready(self.contexts)
        return other

    def _raw(self, contexts: Sequence[Tensor | None]) -> list[Given | None]:
        """For each step the context `[C, 1, objects]`."""
        columns = {id(c): Given(c.reshape(-1, c.shape[-1]).T.unsqueeze(1), False) for c in contexts if c is not None}
        return [None if c is None else columns[id(c)] for c in contexts]

    def _ready(self, contexts: Sequence[Tensor | None]) -> list[Given | None]:
        """For each step `W c + b` `[P, 1, objects]`."""
        if self._kept is not None and contexts is self.contexts:
            return self._kept
        givens: list[Given | None] = [None] * len(self.steps)
        for members, context in _runs(contexts):  # in full precision: it is little work, and all draws share it
            maps = [(k, found) for k in members if context is not None and (found := self.steps[k].of_context()) is not None]
            if not maps or context is None:
                continue
            weight, bias = torch.cat([w for _, (w, _) in maps]), torch.cat([b for _, (_, b) in maps]).unsqueeze(1)
            with torch.autocast(weight.device.type, enabled=False):
                part = torch.addmm(bias, weight, context.reshape(-1, context.shape[-1]).to(weight.dtype).T)
            pieces = part.unsqueeze(1).split([len(b) for _, (_, b) in maps])
            for (k, _), piece in zip(maps, pieces, strict=True):
                givens[k] = Given(piece, True)
        if not torch.is_grad_enabled() and contexts is self.contexts and not torch.compiler.is_compiling():
            self._kept = givens
        return givens


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


def _tiles(outer: int, inner: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of at most `most` rows, as wide as possible along the inner axis."""
    width = min(inner, most)
    height = max(1, most // width)
    for top in range(0, outer, height):
        for left in range(0, inner, width):
            yield slice(top, top + height), slice(left, left + width)


def _slice(part: Tensor, outer: slice, inner: slice) -> Tensor:
    return part[:, outer if part.shape[1] > 1 else slice(None), inner if part.shape[2] > 1 else slice(None)]
