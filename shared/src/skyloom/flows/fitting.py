"""Data transforms by name: fitted to the training split, and rebuilt from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from skyloom.errors import ConfigError, DataError, nearest
from skyloom.flows.power import YeoJohnson
from skyloom.flows.quantile import Quantile
from skyloom.flows.transforms import (
    Affine,
    Chain,
    Complement,
    DataTransform,
    Identity,
    Log,
    Log10,
    Logit,
    PerColumn,
    Relative,
    Saturation,
    Standardise,
    Whiten,
)

__all__ = ["fit", "from_json"]


def fit(sample: Tensor, columns: Any = "standardise", whiten: bool = False) -> DataTransform:
    """The map of columns to what a flow likes: each through its own transform, then all standardised.

    Arguments:
        sample: Rows of the TRAINING split `[N, D]`, in the user's units, all finite.
        columns: One description for every column, or one for each: "standardise", "log10", "log", "logit", "quantile",
            "yeo_johnson", or a mapping with settings, such as `{"kind": "logit", "low": 0, "high": 1}` for a bounded quantity
            and `{"kind": "log10", "floor": 0.1}` for one with a lower edge.
        whiten: Decorrelate the columns at the end, instead of only standardising them.

    >>> rows = torch.tensor([[1.0, 0.2], [10.0, 0.5], [100.0, 0.9]])
    >>> transform = fit(rows, ["log10", {"kind": "logit", "low": 0.0, "high": 1.0}])
    >>> transform(rows)[0][:, 0]
    tensor([-1.2247,  0.0000,  1.2247])
    """
    sample = sample.double()
    if not bool(torch.isfinite(sample).all()):
        raise DataError("a transform cannot be fitted on values that are not finite; mask or drop those rows first.")
    each = columns if isinstance(columns, Sequence) and not isinstance(columns, str) else [columns] * sample.shape[1]
    if len(each) != sample.shape[1]:
        raise ConfigError(f"{len(each)} transforms were given for {sample.shape[1]} columns.")
    first = PerColumn([_fit_one(how, column) for how, column in zip(each, sample.split(1, 1), strict=True)])
    outside = ~first.supports(sample)
    if bool(outside.any()):
        row, column = torch.nonzero(outside)[0].tolist()
        raise DataError(f"column {column}, row {row}: {sample[row, column]:g} lies outside the support of {each[column]!r}.")
    z = first(sample)[0]
    return Chain(first, Whiten.fit(z) if whiten else Standardise.fit(z))


def _fit_one(how: Any, column: Tensor) -> DataTransform:
    if isinstance(how, str):
        how = {"kind": how}
    settings: dict[str, Any] = {str(k): v for k, v in how.items()}
    kind = settings.pop("kind", None)
    if kind == "quantile":
        return Quantile.fit(column, **settings)
    if kind == "yeo_johnson":
        scale = Standardise.fit(column)
        return Chain(scale, YeoJohnson.fit(scale(column)[0]))
    if kind in ("standardise", "identity"):
        return Identity()
    plain: dict[str, Callable[..., DataTransform]] = {k.kind: k for k in (Log, Log10, Logit, Saturation)}
    if kind not in plain:
        names = [*plain, "quantile", "yeo_johnson", "standardise", "identity"]
        raise ConfigError(f"no transform of a column is called {kind!r}.{nearest(str(kind), names)}")
    return plain[kind](**settings)


def from_json(description: Mapping[str, Any]) -> DataTransform:
    """The transform that `to_json` described.

    >>> from_json({"kind": "log", "floor": 0.5}).inverse(torch.zeros(1))
    tensor([1.5000])
    """
    single = (
        *(Identity, Affine, Standardise, Whiten, Log, Log10, Logit, Saturation, Relative, Complement),
        *(YeoJohnson, Quantile),
    )
    kinds: dict[str, Callable[..., DataTransform]] = {each.kind: each for each in single}
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if kind == "chain":
        return Chain(*(from_json(step) for step in arguments["steps"]))
    if kind == "per_column":
        return PerColumn([from_json(step) for step in arguments["columns"]])
    if kind not in kinds:
        raise ValueError(f"no transform is called {kind!r}; there are {', '.join([*kinds, 'chain', 'per_column'])}")
    return kinds[kind](**arguments)
