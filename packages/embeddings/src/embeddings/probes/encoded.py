"""The first question: what does each embedding know? Probes, their nulls, nuisances, labels needed, classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embeddings.objects.properties import NUISANCES
from embeddings.probes.classes import separate
from embeddings.probes.controlled import nothing_left, partial_predictions, smooth_functions
from embeddings.probes.held_out import held_out_scores, probe, redshift_scores, shuffled
from embeddings.probes.labels import learning_curve
from embeddings.probes.legacy import null_level, ranked
from embeddings.probes.ridge import cross_validated_ridge
from embeddings.samples.prepared import Prepared
from embeddings.samples.question import Question
from embeddings.samples.sample import Embedding
from skyloom.errors import DataError

__all__ = ["Encoded", "Probing"]

Properties = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Probing:
    """Settings of the probes."""

    folds: int = 5
    """Of groups (sky cells); each is held out once."""
    shuffles: int = 3
    """Of each property, for what an embedding that knows nothing gets."""
    neighbours: int = 64
    knn_objects: int = 4000
    """Objects at most that the nearest-neighbour probe looks at: exact distances cost the square of this."""
    other: tuple[str, ...] = ("mlp", "trees")
    """Probes beside the linear one and the neighbours."""
    other_objects: int = 1500
    tree_components: int = 32
    tree_properties: int | None = None
    """So many properties at most, the first; trees cost more than all other probes. null: all."""
    label_counts: tuple[int, ...] = (30, 100, 300, 1000, 3000, 10_000)
    label_draws: int = 3
    class_objects: int = 8000
    nuisances: tuple[str, ...] = NUISANCES
    """Properties of the observation, not of the object: partial R2 is what is known beyond them."""
    resamples: int = 200
    """Of groups, for intervals."""


@dataclass
class Encoded(Question):
    """Besides tables and held-out predictions: the linear fits of every embedding."""

    how: Probing
    mean_r2: dict[str, list[float]] = field(default_factory=dict)
    readouts: dict[str, tuple[list[str], np.ndarray, np.ndarray]] = field(default_factory=dict)
    TABLES = ("probes", "partial", "labels", "classes", "dimensions")

    def ask(self, p: Prepared, properties: Properties) -> None:
        """Ask one embedding everything."""
        names = list(properties)
        y = np.stack([properties[name] for name in names], axis=1)
        self._linear(p, names, y)
        self._neighbours(p, properties)
        self._others(p, names, y)
        self._partial(p, names, y)
        self._labels(p, names, y)
        self._classes(p)
        self._dimensions(p, names, y)

    def _linear(self, p: Prepared, names: list[str], y: np.ndarray) -> None:
        e = p.embedding
        both = np.hstack([y, *shuffled(y, e.present, self.how.shuffles, self.seed)])
        fit = cross_validated_ridge(e, both, self.fold, e.present, standardise=e.standardise)
        pairs = {str(t): (both[:, t], fit.predictions[:, t]) for t in range(both.shape[1])}
        physical = [str(t) for t, name in enumerate(names) if name not in self.how.nuisances]
        means = {"all": physical or [str(t) for t in range(len(names))]}
        scores = held_out_scores(pairs, self.data.groups, means=means, resamples=self.how.resamples, seed=self.seed)
        for t, name in enumerate(names):
            null = [float(scores[f"r2/{t + len(names) * (copy + 1)}"]) for copy in range(self.how.shuffles)]
            row = _row(e, "ridge", name, scores[f"r2/{t}"], scores[f"mae/{t}"], int((np.isfinite(y[:, t]) & e.present).sum()))
            row |= {"null_r2": max(null, key=abs, default=np.nan), "linear_r2": row["r2"]}
            row |= {"known_r2": self.data.known.r2.get(e.name, {}).get(name, np.nan)}
            if name == "redshift":
                z = redshift_scores(y[:, t], fit.predictions[:, t], self.data.groups, self.how.resamples, self.seed)
                row |= {f"{k}{end}": v for k, one in z.items() for end, v in _with_interval(one).items()}
            self.tables["probes"].append(row)
            self.columns[f"ridge.{e.name}.{name}"] = fit.predictions[:, t]
        mean = scores["mean/all"]
        self.mean_r2[e.name] = [float(mean), mean.low, mean.high]
        self.readouts[e.name] = (names, fit.weights[:, : len(names)], fit.intercepts[: len(names)])

    def _neighbours(self, p: Prepared, properties: Properties) -> None:
        e = p.embedding
        there = self.some(np.flatnonzero(e.present), self.how.knn_objects, "knn objects")
        found = probe(
            e[there], {name: v[there] for name, v in properties.items()}, self.data.groups[there], "knn",
            neighbours=self.how.neighbours, folds=self.how.folds, shuffles=1, resamples=self.how.resamples, seed=self.seed,
        )  # fmt: skip
        for name in properties:
            row = _row(e, "knn", name, found.r2[name], found.mae[name], found.objects[name])
            self.tables["probes"].append(row | {"null_r2": found.null_r2[name], "known_r2": np.nan, "linear_r2": np.nan})

    def _others(self, p: Prepared, names: list[str], y: np.ndarray) -> None:
        """Probes that are not linear, and a linear one on the same objects, components and folds to set beside them."""
        e, how = p.embedding, self.how
        if not how.other:
            return
        there = self.some(np.flatnonzero(e.present), how.other_objects, "other objects")
        enough = [t for t in range(len(names)) if np.isfinite(y[there, t]).sum() >= 60 and np.nanstd(y[there, t]) > 0]
        if not enough:
            return
        vectors = p.matrix(there)
        values = {names[t]: y[there, t] for t in enough}
        try:
            alike: dict[str, Any] = {"folds": 3, "resamples": how.resamples, "seed": self.seed}
            alike |= {"groups": self.data.groups[there]}
            linear = probe(vectors, values, kind="ridge", shuffles=0, **alike)
            fewer = dict(list(values.items())[: how.tree_properties])
            found = {
                kind: probe(
                    vectors[:, : how.tree_components] if kind == "trees" else vectors,
                    fewer if kind == "trees" else values,
                    kind=kind,
                    shuffles=1,
                    **alike,
                )
                for kind in how.other
            }
        except DataError:  # too few objects, or groups, for three folds
            return
        for kind, one in found.items():
            for name in one.r2:
                row = _row(e, kind, name, one.r2[name], one.mae[name], one.objects[name])
                more = {"null_r2": one.null_r2[name], "known_r2": np.nan, "linear_r2": float(linear.r2[name])}
                self.tables["probes"].append(row | more)

    def _partial(self, p: Prepared, names: list[str], y: np.ndarray) -> None:
        e = p.embedding
        known = [self.data.properties[n] for n in self.how.nuisances if n in self.data.properties]
        known = [v for v in known if np.isfinite(v[e.present]).mean() > 0.5]
        asked = [t for t, name in enumerate(names) if name not in self.how.nuisances]
        if not known or not asked:
            return
        try:
            left, predicted = partial_predictions(e, y[:, asked], smooth_functions(known), self.fold, e.present, e.standardise)
        except DataError:
            return
        empty = nothing_left(left, y[:, asked])
        pairs = {names[t]: (left[:, k], predicted[:, k]) for k, t in enumerate(asked) if not empty[k]}
        scores = held_out_scores(pairs, self.data.groups, resamples=self.how.resamples, seed=self.seed) if pairs else {}
        for k, t in enumerate(asked):
            name = names[t]
            value, low, high = 0.0, 0.0, 0.0
            if not empty[k]:
                r2 = scores[f"r2/{name}"]
                value, low, high = float(r2), r2.low, r2.high
            closed = self.data.known.partial_r2.get(e.name, {}).get(name, np.nan)
            self.tables["partial"].append(
                {"embedding": e.name, "property": name, "partial_r2": value, "low": low, "high": high, "known": closed,
                 "left": float(np.nanvar(left[:, k]) / np.nanvar(y[:, t])) if not empty[k] else 0.0}
            )  # fmt: skip

    def _labels(self, p: Prepared, names: list[str], y: np.ndarray) -> None:
        counts = list(self.how.label_counts)
        if not counts:
            return
        scores = learning_curve(p.reduced, y, self.fold, p.present, counts, self.how.label_draws, seed=self.seed)
        for c, count in enumerate(counts):
            for t, name in enumerate(names):
                draws = scores[c, :, t][np.isfinite(scores[c, :, t])]
                if len(draws):
                    row = {"embedding": p.name, "property": name, "labels": count, "r2": float(draws.mean())}
                    self.tables["labels"].append(row | {"r2_low": float(draws.min()), "r2_high": float(draws.max())})

    def _classes(self, p: Prepared) -> None:
        for kind, labels in self.data.classes.items():
            there = self.some(np.flatnonzero(p.present & (labels != "")), self.how.class_objects, "class objects")
            if not len(there):
                continue
            everyone = np.ones(len(there), dtype=bool)
            found = separate(
                p.matrix(there), labels[there], self.fold[there], self.data.groups[there], everyone,
                resamples=self.how.resamples, seed=self.seed,
            )  # fmt: skip
            if found is not None:
                row = {"embedding": p.name, "kind": kind, **vars(found), "confusion": found.confusion.tolist()}
                self.tables["classes"].append(row)

    def _dimensions(self, p: Prepared, names: list[str], y: np.ndarray, most: int = 5000) -> None:
        """The largest rank correlation over single dimensions, with what noise reaches."""
        e = p.embedding
        kept: dict[bytes, np.ndarray] = {}  # properties with the same gaps share the ranks of the dimensions
        for t, name in enumerate(names):
            rows = self.some(np.flatnonzero(e.present & np.isfinite(y[:, t])), most, "ranked objects")
            if rows.tobytes() not in kept:
                kept = {rows.tobytes(): ranked(np.asarray(e[rows], dtype=np.float32))}
            value = float(np.abs(kept[rows.tobytes()].T @ ranked(y[rows, t])).max())
            row = {"embedding": e.name, "property": name, "rho": value, "null": null_level(e.shape[1], len(rows))}
            self.tables["dimensions"].append(row)


def _with_interval(one: Any) -> dict[str, float]:
    return {"": float(one), "_low": one.low, "_high": one.high}


def _row(e: Embedding, kind: str, name: str, r2: Any, mae: Any, objects: int) -> dict[str, Any]:
    nothing = dict.fromkeys(["nmad", "nmad_low", "nmad_high", "outliers", "outliers_low", "outliers_high"], np.nan)
    return {
        "embedding": e.name, "model": e.model, "modality": e.modality, "probe": kind, "property": name,
        "r2": float(r2), "r2_low": r2.low, "r2_high": r2.high, "mae": float(mae), "mae_low": mae.low, "mae_high": mae.high,
        "objects": objects, **nothing,
    }  # fmt: skip
