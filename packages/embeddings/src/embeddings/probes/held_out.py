"""How well properties can be predicted from an embedding, on objects of sky cells that the prediction has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embeddings.objects.folds import grouped_folds
from embeddings.probes.mlp import mlp_predictions
from embeddings.probes.ridge import PENALTIES, cross_validated_ridge
from embeddings.probes.trees import tree_predictions
from embeddings.vectors.neighbours import knn_predictions
from embeddings.vectors.rows import Rows
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.run.seeds import numpy_generator

if TYPE_CHECKING:
    import pandas as pd

    from skyloom.metrics import Estimate

__all__ = ["KINDS", "Probe", "held_out_scores", "probe", "redshift_scores", "shuffled"]

KINDS = ("ridge", "knn", "mlp", "trees")
CATASTROPHIC = 0.05  # |dz| / (1 + z) beyond which a redshift counts as an outlier


@dataclass(frozen=True)
class Probe:
    """Scores per property, and the predictions they come from."""

    kind: str
    predictions: dict[str, np.ndarray]
    """Property -> [N] held-out prediction, NaN where the object has no vector."""
    r2: "dict[str, Estimate]"
    """1 - sum (y - prediction)^2 / sum (y - mean y)^2 over all held-out objects, with its 95 percent interval."""
    mae: "dict[str, Estimate]"
    """Mean |y - prediction|, in units of the property."""
    null_r2: dict[str, float]
    """The same R2 with the property's values shuffled among objects: what an embedding that knows nothing gets."""
    objects: dict[str, int]

    def table(self) -> "pd.DataFrame":
        """One row per property."""
        import pandas as pd

        rows = {
            name: {
                "r2": float(r2), "r2_low": r2.low, "r2_high": r2.high, "mae": float(self.mae[name]),
                "null_r2": self.null_r2.get(name, np.nan), "objects": self.objects[name],
            }
            for name, r2 in self.r2.items()
        }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")


def probe(
    vectors: Rows,
    properties: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
    kind: str = "ridge",
    *,
    present: np.ndarray | None = None,
    folds: int = 5,
    shuffles: int = 3,
    neighbours: int = 64,
    penalties: np.ndarray = PENALTIES,
    standardise: bool = False,
    resamples: int = 200,
    seed: int = 0,
) -> Probe:
    """Predict every property from the vectors by cross-validation, and score the held-out predictions.

    Arguments:
        vectors: [N, D], or a modality of a `Sample`.
        properties: Name -> [N], NaN where unknown.
        groups: [N]; objects of one group (a sky cell) stand in one fold and are resampled together. Every object by itself
            where None.
        kind: `ridge` (linear; the penalty is chosen per property within the training folds), `knn`, `mlp` (two hidden layers)
            or `trees` (boosted; give it few dimensions, such as principal components).
        present: [N] rows whose vector may be used; those that a `Sample` knows of, or all, where None.
        shuffles: Of each property, for the null.
        neighbours: Of `knn`.
        penalties, standardise: Of `ridge`, see `embeddings.probes.ridge`.
        resamples: Of groups, for the intervals.

    >>> x = np.random.default_rng(0).normal(size=(300, 4))
    >>> found = probe(x, {"sum": x.sum(axis=1), "luck": np.random.default_rng(1).normal(size=300)})
    >>> bool(found.r2["sum"] > 0.99), bool(abs(found.r2["luck"]) < 0.1)
    (True, True)
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} is no probe.{nearest(kind, KINDS)}")
    groups = np.arange(len(vectors)) if groups is None else groups
    present = getattr(vectors, "present", np.ones(len(vectors), dtype=bool)) if present is None else present
    y = _matrix(properties, len(vectors))
    fold = grouped_folds(groups, folds, seed)
    both = np.hstack([y, *shuffled(y, present, shuffles, seed)])
    if kind == "ridge":
        predicted = cross_validated_ridge(vectors, both, fold, present, penalties, standardise).predictions
    elif kind == "knn":
        predicted = knn_predictions(vectors, both, fold, present, neighbours)
    elif kind == "mlp":
        predicted = mlp_predictions(vectors, both, fold, present, seed=seed)
    else:
        predicted = tree_predictions(vectors, both, fold, present, seed=seed)
    return _scored(kind, list(properties), both, predicted, groups, resamples, seed)


def shuffled(y: np.ndarray, present: np.ndarray, shuffles: int, seed: int) -> list[np.ndarray]:
    """Copies of y [N, T] whose known values are permuted among the objects that have them and a vector."""
    copies = []
    for copy in range(shuffles):
        rng = numpy_generator(seed, "shuffled", copy)
        other = np.array(y, dtype=np.float64)
        for t in range(y.shape[1]):
            rows = np.flatnonzero(np.isfinite(y[:, t]) & present)
            other[rows, t] = y[rng.permutation(rows), t]
        copies.append(other)
    return copies


def _matrix(properties: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    for name, values in properties.items():
        if np.shape(values) != (rows,):
            raise DataError(f"property {name!r} has shape {np.shape(values)}, the vectors have {rows} rows.")
    return np.stack([np.asarray(v, dtype=np.float64) for v in properties.values()], axis=1)


def _scored(
    kind: str, names: list[str], y: np.ndarray, predicted: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> Probe:
    """`y` and `predicted` [N, T (1 + shuffles)]: the properties first, then their shuffled copies."""
    count = len(names)
    scores = held_out_scores(
        {name: (y[:, t], predicted[:, t]) for t, name in enumerate(names)}, groups, resamples=resamples, seed=seed
    )
    used = np.isfinite(y) & np.isfinite(predicted)
    null = np.array([_r2(y[u, t], predicted[u, t]) for t, u in enumerate(used.T)])[count:].reshape(-1, count)
    return Probe(
        kind,
        {name: predicted[:, t] for t, name in enumerate(names)},
        {name: scores[f"r2/{name}"] for name in names},
        {name: scores[f"mae/{name}"] for name in names},
        {name: float(null[:, t].mean()) for t, name in enumerate(names)} if len(null) else {},
        {name: int(used[:, t].sum()) for t, name in enumerate(names)},
    )


def _r2(y: np.ndarray, predicted: np.ndarray) -> float:
    spread = ((y - y.mean()) ** 2).sum() if len(y) else 0.0
    return float(1 - ((y - predicted) ** 2).sum() / spread) if spread > 0 else float("nan")


def held_out_scores(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    groups: np.ndarray,
    differences: Mapping[str, tuple[str, str]] | None = None,
    means: Mapping[str, Sequence[str]] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> "dict[str, Estimate]":
    """`r2/<name>` and `mae/<name>` of every (truth, prediction), with intervals from resampling whole groups.

    `differences` asks for `difference/<name>`: R2 of the first minus R2 of the second of two names, paired, that is within the
    same resamples; `means` for `mean/<name>`: the mean R2 over several names. Scores are functions of sums over groups, so a
    resample adds a few sums instead of all objects.
    """
    import torch

    from skyloom.metrics import bootstrap

    names = list(pairs)
    group_of_row = np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((int(group_of_row.max()) + 1, len(names), 5))
    for t, name in enumerate(names):
        y, predicted = pairs[name]
        use = np.isfinite(y) & np.isfinite(predicted)
        if not use.any():
            continue
        centred, residual = y[use] - y[use].mean(), y[use] - predicted[use]
        parts = (np.ones(use.sum()), centred, centred**2, residual**2, np.abs(residual))
        for k, part in enumerate(parts):
            sums[:, t, k] = np.bincount(group_of_row[use], part, len(sums))

    def score(rows: dict[str, torch.Tensor]) -> dict[str, float]:
        n, y, yy, rr, absolute = rows["sums"].sum(dim=0).unbind(-1)
        r2 = (1 - rr / (yy - y**2 / n)).tolist()
        found = {f"r2/{name}": r2[t] for t, name in enumerate(names)}
        found |= {f"mae/{name}": m for name, m in zip(names, (absolute / n).tolist(), strict=True)}
        for label, (first, second) in (differences or {}).items():
            found[f"difference/{label}"] = found[f"r2/{first}"] - found[f"r2/{second}"]
        for label, several in (means or {}).items():
            found[f"mean/{label}"] = sum(found[f"r2/{name}"] for name in several) / len(several)
        return found

    return bootstrap(score, {"sums": torch.as_tensor(sums)}, None, numpy_generator(seed, "bootstrap"), resamples)


def redshift_scores(
    z: np.ndarray, predicted: np.ndarray, groups: np.ndarray, resamples: int = 200, seed: int = 0
) -> "dict[str, Estimate]":
    """`nmad`: 1.4826 median |dz - median dz|, and `outliers`: the share with |dz| > 0.05, of dz = (z_pred - z) / (1 + z)."""
    import torch

    from skyloom.metrics import bootstrap

    use = np.isfinite(z) & np.isfinite(predicted)
    dz = torch.as_tensor((predicted[use] - z[use]) / (1 + z[use]))

    def score(rows: Mapping[str, torch.Tensor]) -> dict[str, float]:
        d = rows["dz"]
        return {
            "nmad": 1.4826 * float((d - d.median()).abs().median()), "outliers": float((d.abs() > CATASTROPHIC).double().mean())
        }  # fmt: skip

    rng = numpy_generator(seed, "bootstrap redshift")
    return bootstrap(score, {"dz": dz}, torch.as_tensor(np.unique(groups[use], return_inverse=True)[1]), rng, resamples)
