"""Means over all rows of one optimizer step, for losses that are not means over rows.

The batch of a step may be cut over processes and over accumulated parts (gradient accumulation). A mean over rows does not
notice; a loss that takes means over some rows only, or decides by them (the non-negative risk of `skyloom.pu` steps one way or
the other by the sign of a difference of means), does: each part would decide for itself.

`step_means` gives such a loss the means of the whole step, with gradients that add up to theirs: S_k / N summed over the parts
k, where the loop averages the gradients of K parts, so each part contributes K S_k / N. Processes exchange sums and counts; the
parts of one process are measured once without gradients (`WholeStep`), and only for losses that ask.
"""

from contextvars import ContextVar, Token
from types import TracebackType

import torch
from torch import Tensor

__all__ = ["WholeStep", "step_means"]

_current: ContextVar["WholeStep | None"] = ContextVar("whole step", default=None)


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1


class WholeStep:
    """Sums over the parts of one step: within it, losses are first measured (`measure()`), then each part sees the totals.

    >>> rows = [torch.tensor([1.0, 2.0]), torch.tensor([6.0, 0.0])]
    >>> chosen = [torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])]      # means over three of the four rows
    >>> with WholeStep(parts=2) as step:
    ...     _ = [step_means(v[None], c[None]) for v, c in zip(rows, chosen)]
    ...     step.measured()
    ...     [step_means(v[None], c[None])[0].item() for v, c in zip(rows, chosen)]
    [3.0, 3.0]
    """

    def __init__(self, parts: int):
        self.parts = parts
        self.measuring = True
        self.calls = 0
        self.totals: list[Tensor] = []
        self._token: Token[WholeStep | None] | None = None

    @property
    def asked(self) -> bool:
        """Whether any loss took means over the step."""
        return bool(self.totals)

    def add(self, sums: Tensor, counts: Tensor) -> None:
        self.totals.append(torch.stack([sums.detach(), counts.detach()]))

    def measured(self) -> None:
        """All parts were seen once: add them up, here and over all processes. As many calls in each part, in one order."""
        calls = len(self.totals) // self.parts
        self.totals = [torch.stack(self.totals[k::calls]).sum(0) for k in range(calls)]
        if _processes() > 1:
            for total in self.totals:
                torch.distributed.all_reduce(total)
        self.measuring = False

    def next(self) -> Tensor:
        total = self.totals[self.calls % len(self.totals)]
        self.calls += 1
        return total

    def __enter__(self) -> "WholeStep":
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)


@torch.compiler.disable
def step_means(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means sum(w v) / sum(w) over all rows of the step, one per line of `values` and `weights` [K, B]; 0 where no row counts.

    Returns the means [K] and the sums of weights [K] of the whole step. The value is that of the whole step in every part and
    process; the gradient is the part's own share, such that the average over parts and processes is the gradient of the mean.
    Outside training (no gradients) and in one process without accumulation, the step is the batch.
    """
    sums = torch.where(weights > 0, values * weights, 0.0).sum(1)
    counts = weights.sum(1)
    step = _current.get()
    if step is not None and step.measuring:
        step.add(sums, counts)
        step = None
        share = 1
        total = torch.stack([sums, counts])
    elif step is not None:
        total, share = step.next(), step.parts * _processes()
    elif torch.is_grad_enabled() and _processes() > 1:
        total, share = torch.stack([sums, counts]).detach(), _processes()
        torch.distributed.all_reduce(total)
    else:
        total, share = torch.stack([sums, counts]), 1
    count = torch.where(total[1] > 0, total[1], 1.0)
    mine = sums * share / count
    if share == 1:
        return mine, total[1]
    return mine + (total[0] / count - mine).detach(), total[1]
