"""Exponential moving average of the weights (Polyak and Juditsky 1992); what is validated, kept as best, and predicted with."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """average <- decay average + (1 - decay) weights after every step, with decay_t = min(decay, (1 + t) / (10 + t)).

    Buffers (running statistics) are copied, not averaged.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay, self.steps = module, decay, 0
        self.shadow = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.module.parameters()], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module holds the averaged weights."""
        parameters = list(self.module.parameters())
        trained = [p.detach().clone() for p in parameters]
        self._put(parameters, self.shadow)
        try:
            yield
        finally:
            self._put(parameters, trained)

    @staticmethod
    @torch.no_grad()
    def _put(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
        torch._foreach_copy_([p.detach() for p in parameters], values)

    def state_dict(self) -> dict:
        return {"shadow": self.shadow, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self._put([nn.Parameter(s, requires_grad=False) for s in self.shadow], state["shadow"])
