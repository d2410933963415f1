"""Fixed data transforms: what stands between the units of a catalogue and the unit Gaussian that a flow likes.

Each is an invertible map `y -> z` of vectors `[..., D]` with its log-determinant, and a JSON form, so that it can travel
beside the weights. A density learnt on `z` is reported in the units of `y` by the change of variables

    ln p(y | c) = ln p(z | c) + ln |det dz/dy|

so a likelihood never depends silently on how the columns were scaled. Some maps need the context `c` (a time since an
event is measured from the epoch of observation, which is a column of `c`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "Affine",
    "Chain",
    "Complement",
    "DataTransform",
    "Identity",
    "Log",
    "Log10",
    "Logit",
    "PerColumn",
    "Relative",
    "Saturation",
    "Standardise",
    "Whiten",
]


LN10 = math.log(10)


def _exp(z: Tensor) -> Tensor:
    """Exponential that ends at the largest number instead of at infinity."""
    return z.clamp(max=math.log(torch.finfo(z.dtype).max) - 1).exp()


def _just_above(edge: Tensor) -> Tensor:
    """The next number above `edge`, so that no draw lies exactly on the edge of a support, where its density is zero."""
    return torch.maximum(torch.nextafter(edge, torch.full_like(edge, torch.inf)), edge + torch.finfo(edge.dtype).tiny)


class DataTransform(nn.Module):
    """An invertible map of vectors `[..., D]`; elementwise ones work for any `D`."""

    kind: ClassVar[str]

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`z` and, per element, `ln |dz_d / dy_d|` (same shape as `y`; sum over the last axis for the log-determinant)."""
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """`y` such that `forward(y)` is `z`."""
        raise NotImplementedError

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Whether each element of `y` lies in the open domain of the map (bool, shape of `y`)."""
        return torch.isfinite(y)

    def to_json(self) -> dict[str, Any]:
        """A plain description from which `from_json` rebuilds the transform exactly."""
        return {"kind": self.kind, **{name: buffer.tolist() for name, buffer in self.named_buffers(recurse=False)}}

    def _constant(self, name: str, value: Any) -> None:
        self.register_buffer(name, torch.as_tensor(np.asarray(value, dtype=np.float64)), persistent=False)

    def _as(self, name: str, like: Tensor) -> Tensor:
        # Constants are kept in float64 and rounded once, to the dtype they meet.
        return getattr(self, name).to(dtype=like.dtype, device=like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DataTransform:
        # `.float()` on the model that owns this must not round the constants that to_json writes.
        kept = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(device=moved.device))
        return self


class Identity(DataTransform):
    """`z = y`."""

    kind = "identity"

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y, torch.zeros_like(y)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z


class Affine(DataTransform):
    """`z = (y - shift) / scale`, with one number each or one per column; `scale` in the units of `y`, not zero."""

    kind = "affine"
    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Any = 0.0, scale: Any = 1.0) -> None:
        super().__init__()
        self._constant("shift", shift)
        self._constant("scale", scale)
        if not bool(torch.isfinite(self.scale).all() & (self.scale != 0).all()):
            raise ValueError(f"a scale must be finite and not zero, found {self.scale.tolist()}; is a column constant?")

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self._as("scale", y)
        return (y - self._as("shift", y)) / scale, -scale.abs().log().expand_as(y)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z * self._as("scale", z) + self._as("shift", z)


class Standardise(Affine):
    """`z = (y - mean) / sd`: zero mean and unit variance per column of the sample it was fitted on.

    >>> scaler = Standardise.fit(torch.tensor([[1.0], [3.0]]))
    >>> scaler.to_json()
    {'kind': 'standardise', 'shift': [2.0], 'scale': [1.0]}
    """

    kind = "standardise"

    @classmethod
    def fit(cls, sample: Tensor) -> Standardise:
        """Mean and population standard deviation of the rows of `sample` `[N, D]`; give it the training split only."""
        sample = sample.double()
        return cls(sample.mean(0), sample.std(0, correction=0))


class Whiten(DataTransform):
    """`z = L^-1 (y - mean)` with a lower-triangular `L`: each column less what the columns before it predict of it.

    With `L L^T` the covariance of the sample it was fitted on, the columns come out uncorrelated and of unit variance, so
    that a small deviation from a tight relation (a ratio of two masses) is as visible as the relation's own extent.
    """

    kind = "whiten"
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Any, scale: Any) -> None:
        super().__init__()
        self._constant("mean", mean)
        self._constant("scale", scale)
        if not bool((self.scale.diagonal() > 0).all()):
            raise ValueError("whitening needs a triangular matrix with a positive diagonal; is a column constant?")

    @classmethod
    def fit(cls, sample: Tensor, jitter: float = 1e-10) -> Whiten:
        """From the rows of `sample` `[N, D]`; `jitter` is the least variance of a residual, relative to its column's."""
        sample = sample.double()
        covariance = torch.atleast_2d(sample.T.cov(correction=0))
        return cls(sample.mean(0), torch.linalg.cholesky(covariance + jitter * torch.diag(covariance.diagonal())))

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self._as("scale", y)
        centred = (y - self._as("mean", y)).unsqueeze(-1)
        z = torch.linalg.solve_triangular(scale, centred, upper=False).squeeze(-1)
        return z, -scale.diagonal().log().expand_as(y)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z @ self._as("scale", z).T + self._as("mean", z)


class Log(DataTransform):
    """`z = ln(y - floor)` for `y > floor`; natural logarithm, `floor` in the units of `y`."""

    kind = "log"
    floor: Tensor

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
        self._constant("floor", floor)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = torch.log(y - self._as("floor", y))
        return z, -z

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        floor = self._as("floor", z)
        return torch.maximum(_exp(z) + floor, _just_above(floor))

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.isfinite(y) & (y > self._as("floor", y))


class Log10(Log):
    """`z = log10(y - floor)` for `y > floor`: dex.

    >>> Log10()(torch.tensor([1000.0]))[0]
    tensor([3.])
    """

    kind = "log10"

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = torch.log10(y - self._as("floor", y))
        return z, -z * LN10 - math.log(LN10)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().inverse(z * LN10)


class Logit(DataTransform):
    """`z = ln(u / (1 - u))`, `u = (y - low) / (high - low)`, for `low < y < high`."""

    kind = "logit"
    low: Tensor
    high: Tensor

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"a logit needs low < high, found low {low} and high {high}")
        self._constant("low", low)
        self._constant("high", high)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        low, high = self._as("low", y), self._as("high", y)
        above, below = (y - low).log(), (high - y).log()
        return above - below, (high - low).log() - above - below

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        low, high = self._as("low", z), self._as("high", z)
        y = low + (high - low) * torch.sigmoid(z)
        return torch.minimum(torch.maximum(y, _just_above(low)), -_just_above(-high))

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.isfinite(y) & (y > self._as("low", y)) & (y < self._as("high", y))


class Saturation(DataTransform):
    """`z = u / (1 - u^k)^(1/k)`, `u = y / ceiling`, for `0 < y < ceiling`: `z` is `u` itself until close to the ceiling.

    The inverse is a quantity that cannot exceed its ceiling, however large `z`; `k` is how sharply it turns.
    """

    kind = "saturation"
    ceiling: Tensor
    sharpness: Tensor

    def __init__(self, ceiling: float = 1.0, sharpness: float = 8.0) -> None:
        super().__init__()
        if ceiling <= 0 or sharpness <= 0:
            raise ValueError(f"a saturation needs a positive ceiling and sharpness, found {ceiling} and {sharpness}")
        self._constant("ceiling", ceiling)
        self._constant("sharpness", sharpness)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ceiling, k = self._as("ceiling", y), self._as("sharpness", y)
        u = y / ceiling
        room = torch.log1p(-(u**k)) / k
        return u * torch.exp(-room), -(k + 1) * room - ceiling.log()

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        k, log, ceiling = self._as("sharpness", z), z.clamp(max=torch.finfo(z.dtype).max).log(), self._as("ceiling", z)
        return torch.minimum(ceiling * torch.exp(log - nn.functional.softplus(k * log) / k), -_just_above(-ceiling))

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.isfinite(y) & (y > 0) & (y < self._as("ceiling", y))


class Relative(DataTransform):
    """`z_column = y_column * y_over / y_to`, the other columns as they are: one column in units of the ratio of two others.

    Where a column nearly is that ratio, the joint density is close to a sheet, on which a flow builds huge Jacobians; what
    the column differs by is a direction of its own, and an ordinary one.
    """

    kind = "relative"

    def __init__(self, column: int, to: int, over: int) -> None:
        super().__init__()
        self.column, self.to_column, self.over_column = int(column), int(to), int(over)
        if len({self.column, self.to_column, self.over_column}) < 3:
            raise ValueError("the column and the two that make the ratio must be three different ones")

    def _with(self, y: Tensor, values: Tensor) -> Tensor:
        place = torch.arange(y.shape[-1], device=y.device) == self.column
        return torch.where(place, values.unsqueeze(-1), y)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        factor = y[..., self.over_column] / y[..., self.to_column]
        return self._with(y, y[..., self.column] * factor), self._with(torch.zeros_like(y), factor.log())

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self._with(z, z[..., self.column] * z[..., self.to_column] / z[..., self.over_column])

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        positive = (y[..., self.over_column] > 0) & (y[..., self.to_column] > 0)
        return torch.isfinite(y) & self._with(torch.ones_like(y, dtype=torch.bool), positive)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "column": self.column, "to": self.to_column, "over": self.over_column}


class Complement(DataTransform):
    """`z = offset + slope * context[..., column] - y`: what is left of a quantity that the context fixes.

    With the lookback time of the observation in `context` (slope -1) and the age of the Universe as `offset`, an age `y`
    becomes the time since then, so that bounding `z` below by zero keeps the event before the observation.
    """

    kind = "complement"
    offset: Tensor
    slope: Tensor

    def __init__(self, column: int, offset: float = 0.0, slope: float = 1.0) -> None:
        super().__init__()
        self.column = int(column)
        self._constant("offset", offset)
        self._constant("slope", slope)

    def _whole(self, like: Tensor, context: Tensor | None) -> Tensor:
        if context is None:
            raise ValueError(f"this transform reads column {self.column} of the context; call it with the context")
        whole = self.offset.to(context.device) + self.slope.to(context.device) * context[..., self.column].double()
        return whole.unsqueeze(-1).to(like.dtype)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._whole(y, context) - y, torch.zeros_like(y)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self._whole(z, context) - z

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "column": self.column}


class Chain(DataTransform):
    """One transform after another, first to last; the log-derivatives add."""

    kind = "chain"

    def __init__(self, *steps: DataTransform) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(y)
        for step in self.steps:
            y, ladj = step(y, context)
            total = total + ladj
        return y, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        step: Any
        for step in reversed(list(self.steps)):
            z = step.inverse(z, context)
        return z

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        inside = torch.ones_like(y, dtype=torch.bool)
        step: Any
        for step in self.steps:
            inside = inside & step.supports(y, context)
            y, _ = step(y, context)
        return inside

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "steps": [_described(step) for step in self.steps]}


class PerColumn(DataTransform):
    """Column `d` of the last axis through the `d`-th transform."""

    kind = "per_column"

    def __init__(self, columns: Sequence[DataTransform]) -> None:
        super().__init__()
        self.columns = nn.ModuleList(columns)

    def _pairs(self, y: Tensor) -> list[tuple[Any, Tensor]]:
        if y.shape[-1] != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} columns on the last axis, found shape {tuple(y.shape)}")
        return list(zip(self.columns, y.split(1, dim=-1), strict=True))

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mapped = [step(column, context) for step, column in self._pairs(y)]
        return torch.cat([z for z, _ in mapped], -1), torch.cat([ladj for _, ladj in mapped], -1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.cat([step.inverse(column, context) for step, column in self._pairs(z)], -1)

    def supports(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.cat([step.supports(column, context) for step, column in self._pairs(y)], -1)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": [_described(step) for step in self.columns]}


def _described(step: Any) -> dict[str, Any]:
    return step.to_json()
