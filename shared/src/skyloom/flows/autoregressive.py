"""Flows of masked layers: splines, autoregressive or coupled (NSF), and affine maps (MAF).

References: Papamakarios et al. 2017 (arXiv 1705.07057); Durkan et al. 2019 (arXiv 1906.04032).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from skyloom.flows.bases import Base
from skyloom.flows.bound import Step
from skyloom.flows.density import Flow
from skyloom.flows.masked import Autoregressive
from skyloom.flows.mixing import LearnedRotation, Permutation, Rotation
from skyloom.flows.univariate import AffineMap, SplineMap

__all__ = ["AffineAutoregressive", "SplineAutoregressive", "SplineCoupling"]

MIXINGS: dict[str, type] = {"permutation": Permutation, "rotation": Rotation, "learned": LearnedRotation}


class _Masked(Flow):
    """Masked layers, mixed in between."""

    def __init__(
        self,
        features: int,
        context: int,
        univariate: Any,
        transforms: int,
        passes: int | None,
        hidden: Sequence[int],
        activation: str,
        dropout: float,
        identity_start: bool,
        mixing: str,
        base: Callable[..., Base] | None,
        embed: Callable[[int], Any] | None,
        tails: Callable[[int], Step] | None,
    ) -> None:
        if transforms < 1:
            raise ValueError(f"a flow needs transforms >= 1, found {transforms}")
        if mixing not in ("reversal", *MIXINGS):
            raise ValueError(f"mixing={mixing!r} must be one of reversal, {', '.join(MIXINGS)}")
        network = embed(context) if embed is not None and context else None
        width = context if network is None else network.outputs
        size = math.ceil(features / min(passes or features, features))
        steps: list[Step] = [] if tails is None else [tails(features)]
        for k in range(transforms):
            group = [i // size for i in range(features)]
            if mixing == "reversal" and k % 2:
                group = group[::-1]
            if mixing != "reversal" and k and features > 1:
                steps.append(MIXINGS[mixing](features, k))
            steps.append(Autoregressive(group, width, univariate, hidden, activation, dropout, identity_start))
        super().__init__(steps, features, context, base, network)


class SplineAutoregressive(_Masked):
    """Neural spline flow, fully autoregressive.

    Arguments:
        features: Dimensions D of `y`.
        context: Dimensions of the conditioning vector; 0 for none.
        transforms: Layers.
        bins: Of each spline.
        bound: The splines cover `[-bound, bound]`, in the units of the flow's coordinates; the identity continues them.
        hidden: Widths of the hidden layers.
        activation: "relu", "elu", "silu" or "tanh".
        dropout: Share of hidden units silenced during training only.
        identity_start: Begin as the identity.
        mixing: "reversal" of the order in every other layer; seeded "permutation" or random "rotation" between layers, or one
            that is "learned".
        base, embed, tails: As in `GlowCoupling`.

    >>> import torch
    >>> flow = SplineAutoregressive(3, 2, transforms=2)
    >>> y, log_p = flow(torch.zeros(5, 2)).sample_and_log_prob((10,))
    >>> y.shape, log_p.shape
    (torch.Size([10, 5, 3]), torch.Size([10, 5]))
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 3,
        bins: int = 8,
        bound: float = 5.0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        identity_start: bool = False,
        mixing: str = "reversal",
        base: Callable[..., Base] | None = None,
        embed: Callable[[int], Any] | None = None,
        tails: Callable[[int], Step] | None = None,
    ) -> None:
        rest = (hidden, activation, dropout, identity_start, mixing, base, embed, tails)
        super().__init__(features, context, SplineMap(bins, bound), transforms, None, *rest)


class SplineCoupling(_Masked):
    """Neural spline flow of couplings: two groups of coordinates, so that a draw takes two steps per layer, whatever D.

    The first group is transformed too, by what the context says. Arguments as in `SplineAutoregressive`.
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 4,
        bins: int = 8,
        bound: float = 5.0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        identity_start: bool = False,
        mixing: str = "permutation",
        base: Callable[..., Base] | None = None,
        embed: Callable[[int], Any] | None = None,
        tails: Callable[[int], Step] | None = None,
    ) -> None:
        rest = (hidden, activation, dropout, identity_start, mixing, base, embed, tails)
        super().__init__(features, context, SplineMap(bins, bound), transforms, 2, *rest)


class AffineAutoregressive(_Masked):
    """Masked autoregressive flow of affine maps (MAF). Arguments as in `SplineAutoregressive`."""

    def __init__(
        self,
        features: int,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        identity_start: bool = False,
        mixing: str = "reversal",
        base: Callable[..., Base] | None = None,
        embed: Callable[[int], Any] | None = None,
        tails: Callable[[int], Step] | None = None,
    ) -> None:
        rest = (hidden, activation, dropout, identity_start, mixing, base, embed, tails)
        super().__init__(features, context, AffineMap(), transforms, None, *rest)
