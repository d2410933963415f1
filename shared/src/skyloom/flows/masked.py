"""One autoregressive layer on a masked network: density by one pass, and draws by one pass in pieces.

    z_i = f(y_i; theta_i(y_<i, c))

Groups of coordinates are drawn one after another: as many as coordinates is fully autoregressive, two is a coupling.
Networks and masks are zuko's. In a draw a hidden unit is computed once, as soon as the coordinates that it sees are known,
where the usual inverse runs the whole network once for every group.

References: Papamakarios et al. 2017 (arXiv 1705.07057); Durkan et al. 2019 (arXiv 1906.04032).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from skyloom.flows.bound import ROWS_AT_ONCE, Given, Step, first_layer
from skyloom.flows.conditioner import REACH, activate

try:
    from zuko.nn import MaskedMLP
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("autoregressive flows need zuko: pip install 'skyloom[flows]'") from error

__all__ = ["Autoregressive"]


class Autoregressive(Step):
    """One masked layer.

    Arguments:
        group: For each coordinate the number of its group `[D]`, from 0; one depends on the coordinates of lower groups.
        context: Dimensions of the context.
        univariate: `SplineMap` or `AffineMap`.
        hidden: Widths of the hidden layers.
    """

    rows_of_draws = ROWS_AT_ONCE  # a hundred numbers of each row are kept until its last group
    group: Tensor
    order_0: Tensor
    order_1: Tensor

    def __init__(
        self,
        group: Sequence[int],
        context: int,
        univariate: Any,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        identity_start: bool = False,
    ) -> None:
        super().__init__()
        self.univariate, self.activation, self.dropout = univariate, activation, dropout
        groups = torch.as_tensor(list(group))
        self.features, self.passes = len(groups), int(groups.max()) + 1
        # one number alone, without context: nothing to look at, so the network looks at a constant
        self.constant = 1 if self.passes == 1 and context == 0 else 0
        sees = torch.cat([groups[:, None] > groups, torch.ones(self.features, context + self.constant, dtype=torch.bool)], 1)
        self.network = MaskedMLP(sees.repeat_interleave(univariate.parameters, 0), hidden_features=list(hidden))
        if identity_start:
            nn.init.zeros_(self._layers()[-1].weight)
            nn.init.zeros_(self._layers()[-1].bias)
        self.register_buffer("group", groups, persistent=False)
        self._plan_the_inverse()

    def _layers(self) -> list[Any]:
        return [layer for layer in self.network if isinstance(layer, nn.Linear)]

    def of_context(self) -> tuple[Tensor, Tensor]:
        weight, bias = self._first()
        return weight[:, self.features :], bias

    def _first(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of the first layer; a constant context is a part of the bias."""
        first = self._layers()[0]
        weight = first.weight * first.mask
        if self.constant:
            return weight[:, : self.features], first.bias + weight[:, self.features]
        return weight, first.bias

    # ------------------------------------------------------------------ from data to latent: one pass

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        hidden = first_layer(y.clamp(-REACH, REACH), given, *self._first())
        for layer in self._layers()[1:]:
            hidden = self._alive(hidden)
            hidden = torch.addmm(layer.bias.unsqueeze(1), layer.weight * layer.mask, hidden)
        return self.univariate.forward(y, self._raw(hidden, y))

    def _alive(self, hidden: Tensor) -> Tensor:
        hidden = activate(self.activation, hidden)
        return dropout(hidden, self.dropout) if self.dropout and self.training else hidden

    def _raw(self, hidden: Tensor, like: Tensor) -> Tensor:
        return hidden.to(like.dtype).view(len(like), self.univariate.parameters, *like.shape[1:])

    # ------------------------------------------------------------------ from latent to data: group by group

    def _plan_the_inverse(self) -> None:
        """Units of every layer in the order in which they can be computed, and how many are ready before each group."""
        ready = torch.cat([self.group + 1, torch.zeros(self._layers()[0].in_features - self.features, dtype=torch.long)])
        orders, self._ready = [torch.argsort(self.group, stable=True)], [_counts(self.group, self.passes)]
        for layer in self._layers()[:-1]:
            ready = (ready * layer.mask).amax(1)
            orders.append(torch.argsort(ready, stable=True))
            self._ready.append(_counts(ready, self.passes))
        outputs = self.group.repeat_interleave(self.univariate.parameters)
        orders.append(torch.argsort(outputs, stable=True))
        for k, order in enumerate(orders):
            self.register_buffer(f"order_{k}", order, persistent=False)

    def _of(self, given: Given) -> Tensor:
        """`W_c c + b` `[H, ...]`."""
        if given.ready:
            return given.value
        weight, bias = self.of_context()
        return torch.addmm(bias.unsqueeze(1), weight, given.value.flatten(1)).view(-1, *given.value.shape[1:])

    def _in_order(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases, rows and columns in the order of the plan; of the first layer only what meets the coordinates."""
        layers = self._layers()
        out = []
        for k, layer in enumerate(layers):
            rows, columns = getattr(self, f"order_{k + 1}"), getattr(self, f"order_{k}")
            weight, bias = self._first() if k == 0 else (layer.weight * layer.mask, layer.bias)
            out.append((weight[rows][:, columns], bias[rows]))
        return out

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        weights = self._in_order()
        zs = z.index_select(0, self.order_0)
        given = None if given is None else Given(self._of(given).index_select(0, self.order_1), True)
        memory = [_Rows(len(self.group), z)] + [_Rows(len(b), z) for _, b in weights[:-1]]
        ladj = []
        for p in range(self.passes):
            for k, (weight, bias) in enumerate(weights[:-1]):
                low, high = self._ready[k + 1][p], self._ready[k + 1][p + 1]
                if high == low:
                    continue
                known = self._ready[k][p] if k == 0 else self._ready[k][p + 1]
                seen = memory[k].first(known)
                if k == 0:
                    part = None if given is None else Given(given.value[low:high], True)
                    columns = seen.clamp(-REACH, REACH).view(known, *z.shape[1:])
                    hidden = first_layer(columns, part, weight[low:high, :known], bias[low:high])
                else:
                    hidden = torch.addmm(bias[low:high].unsqueeze(1), weight[low:high, :known], seen)
                memory[k + 1].add(self._alive(hidden))
            weight, bias = weights[-1]
            low, high = self._ready[0][p], self._ready[0][p + 1]
            rows = slice(low * self.univariate.parameters, high * self.univariate.parameters)
            known = self._ready[-1][p + 1]
            raw = torch.addmm(bias[rows].unsqueeze(1), weight[rows, :known], memory[-1].first(known))
            y, part_ladj = self.univariate.inverse(zs[low:high], self._raw(raw, zs[low:high]))
            memory[0].add(y.reshape(high - low, -1))
            ladj.append(part_ladj)
        back = torch.argsort(self.order_0)
        return memory[0].first(self.features).view_as(z).index_select(0, back), torch.cat(ladj)


def _counts(ready: Tensor, passes: int) -> list[int]:
    """How many units are ready before group 0, 1, ... (one more number than groups)."""
    return [0] + [int((ready <= p).sum()) for p in range(passes)]


class _Rows:
    """Rows that come one after another: in one block of memory where no gradient is kept, in pieces otherwise."""

    def __init__(self, rows: int, like: Tensor) -> None:
        self._pieces: list[Tensor] = []
        self._like, self._filled = like[0].reshape(1, -1), 0
        keep = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(like.device.type)
        self._block = None if keep else like.new_empty(rows, self._like.shape[1])

    def add(self, rows: Tensor) -> None:
        if self._block is not None:
            self._block[self._filled : self._filled + len(rows)] = rows
        else:
            self._pieces = [torch.cat([*self._pieces, rows.to(self._pieces[0].dtype)])] if self._pieces else [rows]
        self._filled += len(rows)

    def first(self, n: int) -> Tensor:
        if self._block is not None:
            return self._block[:n]
        return self._pieces[0][:n] if self._pieces else self._like[:0]
