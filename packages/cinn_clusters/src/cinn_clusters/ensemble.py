"""The point-estimate baseline: an ensemble of perceptrons, all members trained at once.

Every weight has a leading axis of members, and one batched matrix product serves them all: seven members cost little more than
one. As in the literature of this method, members are trained on squared errors first and on absolute errors after, with a new
optimiser for each phase, and each phase keeps the weights of its best validation epoch, member by member; the answer is the
median over members. Members start from their own weights and see their own bootstrap of the clusters, so that their spread
means something.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from skyloom.errors import ConfigError

__all__ = ["BatchedPerceptron", "Phase", "fit_ensemble"]


@dataclass(frozen=True)
class Phase:
    """Epochs of one loss: "mse" or "mae"."""

    loss: str
    epochs: int
    rate: float

    def __post_init__(self) -> None:
        if self.loss not in _LOSSES:
            raise ConfigError(f"a phase minimises 'mse' or 'mae', not {self.loss!r}.")


_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"mse": torch.square, "mae": torch.abs}
PHASES = (Phase("mse", 100, 1e-3), Phase("mae", 50, 5e-4))


class BatchedPerceptron(nn.Module):
    """`members` perceptrons `inputs -> width x layers -> outputs`: linear maps without bias, batch normalisation, ReLU.

    >>> net = BatchedPerceptron(7, 6)
    >>> net(torch.zeros(5, 7)).shape, sum(p.numel() for p in net.parameters()) // 7
    (torch.Size([7, 5, 6]), 135942)
    """

    def __init__(self, inputs: int, outputs: int, members: int = 7, width: int = 256, layers: int = 3, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        widths = [inputs, *[width] * layers]

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(members, *shape, generator=g) - 1) / math.sqrt(fan_in))

        self.hidden = nn.ParameterList([uniform(a, a, b) for a, b in pairwise(widths)])
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(members, 1, width)) for _ in range(layers)])
        self.shift = nn.ParameterList([nn.Parameter(torch.zeros(members, 1, width)) for _ in range(layers)])
        self.out, self.bias = uniform(width, width, outputs), uniform(width, 1, outputs)
        for k in range(layers):
            self.register_buffer(f"mean{k}", torch.zeros(members, 1, width))
            self.register_buffer(f"variance{k}", torch.ones(members, 1, width))
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        """Answers `[members, B, outputs]` for inputs `[B, inputs]`, or for each member its own `[members, B, inputs]`."""
        h = x if x.dim() == 3 else x.expand(self.members, *x.shape)
        for k, weight in enumerate(self.hidden):
            h = torch.relu(self._normalised(torch.bmm(h, weight), k))
        return torch.baddbmm(self.bias, h, self.out)

    def _normalised(self, h: Tensor, k: int) -> Tensor:
        mean, variance = getattr(self, f"mean{k}"), getattr(self, f"variance{k}")
        if self.training:
            now_mean, now_variance = h.mean(1, keepdim=True), h.var(1, keepdim=True, correction=0)
            with torch.no_grad():
                mean.lerp_(now_mean, 0.1)
                variance.lerp_(now_variance * h.shape[1] / max(h.shape[1] - 1, 1), 0.1)
            mean, variance = now_mean, now_variance
        return (h - mean) * torch.rsqrt(variance + 1e-5) * self.scale[k] + self.shift[k]

    @torch.no_grad()
    def median(self, x: Tensor) -> Tensor:
        """The ensemble's answer `[B, outputs]`."""
        self.eval()
        return self(x).median(0).values


@dataclass
class History:
    """Validation loss of each member, per epoch of each phase `[epochs, members]`, and the best."""

    losses: list[Tensor] = field(default_factory=list)
    best: list[Tensor] = field(default_factory=list)


def fit_ensemble(
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    groups: Tensor | None = None,
    members: int = 7,
    width: int = 256,
    layers: int = 3,
    phases: tuple[Phase, ...] = PHASES,
    batch: int = 512,
    patience: int = 20,
    seed: int = 0,
) -> tuple[BatchedPerceptron, History]:
    """An ensemble of `y` `[N, D]` on `x` `[N, C]`, both scaled.

    Arguments:
        groups: Rows `[N]` that belong together (one cluster): each member trains on its own bootstrap of the groups; without,
            all see the same rows, in orders of their own.
        patience: Epochs without a better validation loss of any member, after which a phase ends.
    """
    net = BatchedPerceptron(x.shape[1], y.shape[1], members, width, layers, seed)
    g, history = torch.Generator().manual_seed(seed), History()
    rows = [_bootstrap(groups, len(x), g) for _ in range(members)]
    shortest = min(len(r) for r in rows)
    for phase in phases:
        error, optimizer = _LOSSES[phase.loss], torch.optim.Adam(net.parameters(), lr=phase.rate)
        best, kept, idle = torch.full((members,), math.inf), copy.deepcopy(net.state_dict()), 0
        for _ in range(phase.epochs):
            net.train()
            orders = torch.stack([r[torch.randperm(len(r), generator=g)[:shortest]] for r in rows])
            for part in orders.split(batch, dim=1):
                if part.shape[1] > 1:
                    loss = error(net(x[part]) - y[part]).mean((1, 2)).sum()  # members do not share weights: a sum trains each
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            now = _validate(net, x_val, y_val, error)
            history.losses.append(now)
            better = now < best
            idle = 0 if better.any() else idle + 1
            best = torch.where(better, now, best)
            for name, value in net.state_dict().items():
                kept[name][better] = value[better]
            if idle >= patience:
                break
        net.load_state_dict(kept)
        history.best.append(best)
    return net.eval(), history


@torch.no_grad()
def _validate(net: BatchedPerceptron, x: Tensor, y: Tensor, error: Callable[[Tensor], Tensor]) -> Tensor:
    net.eval()
    return error(net(x) - y).mean((1, 2))


def _bootstrap(groups: Tensor | None, n: int, g: torch.Generator) -> Tensor:
    """Rows of as many groups as there are, drawn with replacement."""
    if groups is None:
        return torch.arange(n)
    label = torch.unique(groups, return_inverse=True)[1]
    count = int(label.max()) + 1
    times = torch.bincount(torch.randint(count, (count,), generator=g), minlength=count)
    return torch.repeat_interleave(torch.arange(n), times[label])
