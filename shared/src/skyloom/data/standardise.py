"""Zero mean and unit deviation, fitted on the training split, kept as numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skyloom.errors import DataError

__all__ = ["Standardise"]


@dataclass(frozen=True)
class Standardise:
    """`(x - mean) / scale` per column.

    >>> s = Standardise.fit(torch.tensor([[0.0], [2.0]]))
    >>> s(torch.tensor([[1.0]])).item(), s.inverse(torch.tensor([[1.0]])).item()
    (0.0, 2.0)
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, x: Tensor, names: tuple[str, ...] | None = None) -> "Standardise":
        x = x.double()
        if not torch.isfinite(x).all():
            raise DataError("cannot fit a scaler on values that are not finite; mask or drop those rows first.")
        scale = x.std(dim=0, correction=0)
        if (scale == 0).any():
            constant = [names[i] if names else str(i) for i in torch.nonzero(scale == 0).flatten().tolist()]
            raise DataError(f"columns {constant} are constant in the training split and carry no information: drop them.")
        return cls(tuple(x.mean(dim=0).tolist()), tuple(scale.tolist()))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - x.new_tensor(self.mean)) / x.new_tensor(self.scale)

    def inverse(self, x: Tensor) -> Tensor:
        return x * x.new_tensor(self.scale) + x.new_tensor(self.mean)

    def to_json(self) -> dict[str, list[float]]:
        return {"mean": list(self.mean), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, value: dict[str, list[float]]) -> "Standardise":
        return cls(tuple(value["mean"]), tuple(value["scale"]))
