"""The network inside a layer: from the coordinates that stand still, and the context, to how the others move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from skyloom.flows.bound import Given, first_layer

__all__ = ["ACTIVATIONS", "REACH", "Conditioner", "activate"]

ACTIVATIONS = {"relu": torch.relu, "elu": nn.functional.elu, "silu": nn.functional.silu, "tanh": torch.tanh}
CACHED = 2048  # columns whose hidden units fit the cache of a core
REACH = 1e4  # coordinates beyond are shown to a network as this: what it says stays finite however far the tail


def activate(name: str, hidden: Tensor) -> Tensor:
    """In place where no gradient is kept."""
    if name == "relu" and not torch.is_grad_enabled():
        return hidden.relu_()
    return ACTIVATIONS[name](hidden)


class Conditioner(nn.Module):
    """A perceptron of `[y, c]` whose first layer can be given the context's part ready made.

    Arguments:
        inputs: Coordinates `y`.
        context: Dimensions of `c`.
        outputs: Numbers that come out.
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units silenced in training.
        zero_output: Begin with zeros for every input.

    >>> net = Conditioner(3, 7, 6, hidden=(128,))
    >>> net(torch.zeros(5, 10)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        inputs: int,
        context: int,
        outputs: int,
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
        dropout: float = 0.0,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.activation, self.dropout = inputs, activation, dropout
        widths = [inputs + context, *hidden, outputs]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        if zero_output:
            last: Any = self.layers[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Of rows `[N, inputs + context]`, as FrEIA calls a subnet."""
        hidden = torch.cat([rows[:, : self.inputs].clamp(-REACH, REACH), rows[:, self.inputs :]], 1)
        *inner, last = self.layers
        for layer in inner:
            hidden = activate(self.activation, layer(hidden))
            hidden = nn.functional.dropout(hidden, self.dropout, self.training)
        return last(hidden)

    def of_context(self) -> tuple[Tensor, Tensor]:
        """Weights `[H, C]` and biases `[H]` of the first layer for the context."""
        first = self.layers[0]
        return first.weight[:, self.inputs :], first.bias

    def _alive(self, hidden: Tensor) -> Tensor:
        hidden = activate(self.activation, hidden)
        return nn.functional.dropout(hidden, self.dropout) if self.dropout and self.training else hidden

    def columns(self, y: Tensor, given: Given | None) -> Tensor:
        """Of columns `[inputs, ...]` at a context: the outputs `[outputs, ...]`, in the dtype of `y`."""
        first, *inner, last = self.layers  # unpacked: a slice of a ModuleList builds another module, at the price of a layer
        if self._objects_apart(y, given):
            return self._object_by_object(y, given)
        hidden = self._alive(first_layer(y.clamp(-REACH, REACH), given, first.weight, first.bias))
        for layer in inner:
            hidden = self._alive(torch.addmm(layer.bias.unsqueeze(1), layer.weight, hidden))
        hidden = torch.addmm(last.bias.unsqueeze(1), last.weight, hidden)
        return hidden.to(y.dtype).view(-1, *y.shape[1:])

    def _objects_apart(self, y: Tensor, given: Given | None) -> bool:
        """Whether the draws of an object lie next to each other, and no gradient is kept."""
        plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled(y.device.type))
        return plain and given is not None and given.ready and y.dim() == 3 and given.value.shape[2] == 1

    def _object_by_object(self, y: Tensor, given: Given | None) -> Tensor:
        """The same in pieces whose hidden units stay in the cache, each with the part of its object for a bias."""
        assert given is not None
        first, *inner, last = self.layers
        objects = y.shape[1]
        out = y.new_empty(last.out_features, *y.shape[1:])
        # the part of an object is one more column of its matrix: as a bias it would cost a pass over the hidden units
        rows = torch.cat([y.clamp(-REACH, REACH), torch.ones_like(y[:1])])
        matrices = torch.cat(
            [first.weight[:, : self.inputs].expand(objects, -1, -1), given.value.permute(1, 0, 2).expand(objects, -1, -1)], 2
        )
        bias, width = last.bias.unsqueeze(1), min(CACHED, y.shape[2])
        memory = y.new_empty(first.out_features, width)  # the same pages every time
        for k, matrix in enumerate(matrices.unbind()):
            seen, said = rows[:, k], out[:, k]
            for left in range(0, y.shape[2], width):
                columns = seen[:, left : left + width]
                space = memory if columns.shape[1] == width else memory.new_empty(len(memory), columns.shape[1])
                hidden = self._alive(torch.mm(matrix, columns, out=space))
                for layer in inner:
                    hidden = self._alive(torch.addmm(layer.bias.unsqueeze(1), layer.weight, hidden))
                torch.addmm(bias, last.weight, hidden, out=said[:, left : left + width])
        return out
