"""torch.compile where it works, the plain function where it does not."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from skyloom.data import Batch

__all__ = ["compiled"]

Losses = Callable[[Batch], dict[str, Tensor]]


def compiled(plain: Losses) -> Losses:
    """The compiled losses; the first failure to compile falls back to the plain ones for good, with a warning."""
    chosen: Losses = torch.compile(plain)

    def losses(batch: Batch) -> dict[str, Tensor]:
        nonlocal chosen
        if chosen is plain:
            return plain(batch)
        try:
            return chosen(batch)
        except Exception as error:  # the compiler raises many kinds
            warnings.warn(f"torch.compile failed ({type(error).__name__}); going on without it.", stacklevel=2)
            chosen = plain
            return plain(batch)

    return losses
