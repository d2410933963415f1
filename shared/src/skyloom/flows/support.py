"""An alarm for observations unlike anything a flow was trained on, with a false-alarm rate that is set, not hoped for.

Half of the kept training rows are reference points, the other half calibrate. A new row has three scores: its Mahalanobis
distance, and its mean distance to the nearest reference points, with every column mapped to normal scores (so that units and
skewness do not matter), and that distance in the plain columns too (where a curved relation keeps its shape); all whitened.
Each becomes a conformal p-value, the share of calibration rows that score as high: rows like the training split have `P(p <= a)
<= a` whatever their distribution. The smallest, times three, is the p-value of the row.

Reference: Laxhammar and Falkman 2015 (doi:10.1007/s10472-013-9381-7); Bates et al. 2023 (arXiv 2104.08279).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import DataError
from skyloom.flows.quantile import Quantile
from skyloom.flows.transforms import Affine, DataTransform, PerColumn

__all__ = ["OutsideSupport", "TrainingSupport"]


class OutsideSupport(UserWarning):
    """Some contexts are unlike the training split: what a flow says of them is an extrapolation."""


class TrainingSupport:
    """What contexts looked like in training.

    Arguments:
        reference: Rows `[R, C]` that distances are measured to.
        calibration: Other rows `[K, C]` of the same split, that say how far is usual.
        alarm: Share of ordinary rows that may raise the alarm.
        neighbours: How many of the nearest reference rows count.

    >>> rows = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    >>> support = TrainingSupport.fit(rows)
    >>> support.familiar(torch.tensor([[0.1, 0.2, -0.3], [9.0, 0.0, 0.0]])).tolist()
    [True, False]
    """

    def __init__(self, reference: Any, calibration: Any, alarm: float = 0.01, neighbours: int = 5) -> None:
        self.reference = torch.as_tensor(np.asarray(reference, dtype=np.float64))
        self.calibration = torch.as_tensor(np.asarray(calibration, dtype=np.float64))
        self.alarm, self.neighbours = float(alarm), int(neighbours)
        self._marginals = [_normal_scores(column) for column in self.reference.unbind(1)]

    @classmethod
    def fit(cls, context: Tensor, alarm: float = 0.01, rows: int = 2000, neighbours: int = 5, seed: int = 0) -> TrainingSupport:
        """From contexts `[N, C]` of the training split, of which at most `rows` are kept."""
        finite = context.double()[torch.isfinite(context).all(1)].cpu()
        if len(finite) < 6 / alarm:
            raise DataError(
                f"{len(finite)} complete rows cannot support an alarm of {alarm:.2%}: {int(np.ceil(6 / alarm))} are needed."
            )
        order = torch.randperm(len(finite), generator=torch.Generator().manual_seed(seed))[: max(rows, int(np.ceil(6 / alarm)))]
        half = len(order) // 2
        return cls(finite[order[:half]], finite[order[half:]], alarm, neighbours)

    def p_value(self, context: Tensor) -> Tensor:
        """How usual each row `[B]` of `context` `[B, C]` is: near 0 for one unlike the training split.

        NaN says that an observable is missing: the row is then compared with the training split in what it has, and one that
        has nothing is as usual as can be.
        """
        rows = context.detach().double().cpu()
        p = torch.ones(len(rows), dtype=torch.float64)
        seen = torch.isfinite(rows)
        patterns, which = torch.unique(seen, dim=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            if bool(pattern.any()):
                p[which == k] = self._p_value(rows[which == k][:, pattern], pattern)
        return p.to(context.device)

    def familiar(self, context: Tensor) -> Tensor:
        """Whether each row `[B]` is like the training split; false for at most a share `alarm` of ordinary rows."""
        return self.p_value(context) > self.alarm

    def _p_value(self, rows: Tensor, pattern: Tensor) -> Tensor:
        marginals = PerColumn([m for m, seen in zip(self._marginals, pattern.tolist(), strict=True) if seen])
        reference, calibration = self.reference[:, pattern], self.calibration[:, pattern]
        r, c, n = (marginals(part)[0] for part in (reference, calibration, rows))
        scored = _distances(r, c, n, self.neighbours)
        plain = _distances(reference, calibration, rows, self.neighbours)
        scores = [*scored, plain[1]]
        each = [_conformal(usual, found) for usual, found in scores]
        return (len(each) * torch.stack(each).amin(0)).clamp(max=1.0)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, six digits, that travel beside the weights."""
        rows = {name: np.round(getattr(self, name).numpy(), 6).tolist() for name in ("reference", "calibration")}
        return {**rows, "alarm": self.alarm, "neighbours": self.neighbours}

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> TrainingSupport:
        return cls(**description)


def _distances(
    reference: Tensor, calibration: Tensor, rows: Tensor, neighbours: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of calibration rows and of new rows, in coordinates in which the reference is white: from its mean, from its nearest."""
    covariance = torch.atleast_2d(reference.T.cov(correction=0))
    covariance = covariance + 1e-6 * torch.diag(covariance.diagonal().clamp(min=1e-12))
    factor, mean = torch.linalg.cholesky(covariance), reference.mean(0)
    points, *others = (
        torch.linalg.solve_triangular(factor, (x - mean).T, upper=False).T for x in (reference, calibration, rows)
    )
    far = [u.square().sum(1) for u in others]
    near = [
        torch.cat([torch.cdist(part, points).topk(neighbours, largest=False).values.mean(1) for part in u.split(4096)])
        for u in others
    ]
    return (far[0], far[1]), (near[0], near[1])


def _conformal(usual: Tensor, found: Tensor) -> Tensor:
    above = len(usual) - torch.searchsorted(usual.sort().values, found.contiguous())
    return (1 + above).double() / (1 + len(usual))


def _normal_scores(column: Tensor) -> DataTransform:
    """The map of a column to normal scores; one that hardly varies is only shifted, so that any other value stands out."""
    try:
        return Quantile.fit(column)
    except DataError:
        return Affine(column.mean(), max(float(column.abs().mean()) * 1e-6, 1e-12))
