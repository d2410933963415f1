"""The second question: how do models and modalities compare, and do they know the same?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from embeddings.comparing.modalities import modality_cosines
from embeddings.comparing.retrieval import mapped, ranks, recall
from embeddings.comparing.similarity import compare
from embeddings.comparing.subspaces import leading, linear_map
from embeddings.comparing.together import joint_gain
from embeddings.probes.held_out import held_out_scores
from embeddings.samples.prepared import Prepared
from embeddings.samples.sample import Sample
from skyloom.run.seeds import numpy_generator

__all__ = ["Compared", "Comparing"]

Table = list[dict[str, Any]]
RECALL_AT = (1, 10, 100)


@dataclass(frozen=True)
class Comparing:
    """Settings of the comparison."""

    neighbours: int = 10
    """Whose overlap is measured."""
    permutations: int = 99
    """For the nulls of similarities."""
    objects: int = 2000
    """In similarities and retrieval, at most."""
    joint_objects: int = 20_000
    """In the probes of two embeddings side by side, at most."""
    resamples: int = 200


@dataclass
class Compared:
    similarities: Table = field(default_factory=list)
    differences: Table = field(default_factory=list)
    joint: Table = field(default_factory=list)
    cosines: Table = field(default_factory=list)
    retrieval: Table = field(default_factory=list)
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def add_all(
        self,
        data: Sample,
        prepared: Mapping[str, Prepared],
        predictions: Mapping[str, np.ndarray],
        properties: Mapping[str, np.ndarray],
        fold: np.ndarray,
        how: Comparing,
        seed: int,
    ) -> None:
        for a, b in data.pairs():
            one, two = prepared[a.name], prepared[b.name]
            self._similar(data, one, two, "models", how, seed)
            self._differences(data, one, two, predictions, list(properties), how, seed)
            self._joint(data, one, two, "models", properties, fold, how, seed)
        for a, b in combinations(data.one_each(), 2):
            self._cosines(prepared[a.name], prepared[b.name], seed)
        for a, b in data.within():
            one, two = prepared[a.name], prepared[b.name]
            self._similar(data, one, two, "modalities", how, seed)
            self._joint(data, one, two, "modalities", properties, fold, how, seed)
            self._cosines(one, two, seed)
            self._retrieval(one, two, fold, how, seed)

    def _similar(self, data: Sample, one: Prepared, two: Prepared, kind: str, how: Comparing, seed: int) -> None:
        common = _common(one, two, how.objects, seed)
        if len(common) <= max(2 * how.neighbours, 30):
            return
        pair = f"{one.name} ~ {two.name}"
        # plain measured columns are standardised; an embedding is taken as it is
        x, y = np.asarray(one.vectors[common]), np.asarray(two.vectors[common])
        for found in compare(x, y, how.neighbours, how.permutations, rows=None, seed=seed).values():
            known = data.known.cka.get(pair, np.nan) if found.measure == "cka_unbiased" else np.nan
            row = {"pair": pair, "first": one.name, "second": two.name, "kind": kind, "known": known}
            self.similarities.append({**row, **vars(found)})

    def _differences(
        self, data: Sample, one: Prepared, two: Prepared, predictions: Mapping[str, np.ndarray], names: list[str],
        how: Comparing, seed: int,
    ) -> None:  # fmt: skip
        """R2 of the first's linear probe minus the second's on the objects that both have, paired."""
        pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        differences: dict[str, tuple[str, str]] = {}
        for name in names:
            first, second = (predictions.get(f"ridge.{p.name}.{name}") for p in (one, two))
            if first is None or second is None:
                continue
            truth = np.where(np.isfinite(first) & np.isfinite(second), data.properties[name], np.nan)
            if np.isfinite(truth).sum() < 2:
                continue
            pairs |= {f"a {name}": (truth, first), f"b {name}": (truth, second)}
            differences[name] = (f"a {name}", f"b {name}")
        if not pairs:
            return
        scores = held_out_scores(pairs, data.groups, differences, resamples=how.resamples, seed=seed)
        known = [data.known.r2.get(p.name, {}) for p in (one, two)]
        for name in differences:
            found = scores[f"difference/{name}"]
            self.differences.append(
                {"first": one.name, "second": two.name, "property": name, "difference": float(found), "low": found.low,
                 "high": found.high, "known": known[0].get(name, np.nan) - known[1].get(name, np.nan)}
            )  # fmt: skip

    def _joint(
        self, data: Sample, one: Prepared, two: Prepared, kind: str, properties: Mapping[str, np.ndarray], fold: np.ndarray,
        how: Comparing, seed: int,
    ) -> None:  # fmt: skip
        rows = _common(one, two, how.joint_objects, seed)
        if len(rows) < 100:
            return
        pair = f"{one.name} ~ {two.name}"
        known, alone = data.known.joint_r2.get(pair, {}), [data.known.r2.get(p.name, {}) for p in (one, two)]
        found = joint_gain(one.reduced, two.reduced, rows, properties, fold, data.groups, how.resamples, seed)
        for name, row in found.items():
            closed = known.get(name, np.nan) - max(a.get(name, np.nan) for a in alone)
            place = {"pair": pair, "first": one.name, "second": two.name, "kind": kind, "property": name}
            self.joint.append({**place, **row, "known_gain": closed, "objects": len(rows)})

    def _cosines(self, one: Prepared, two: Prepared, seed: int) -> None:
        rows = np.flatnonzero(one.present & two.present)
        found = modality_cosines(one.embedding, two.embedding, rows, seed)
        if found is None:
            return
        pair = f"{one.name} ~ {two.name}"
        row: dict[str, Any] = {"pair": pair, "first": one.name, "second": two.name, "objects": len(rows), "auc": found.auc}
        for kind, values in (("raw", found.raw), ("centred", found.centred), ("mismatched", found.mismatched)):
            row |= {f"{kind}_mean": values.mean(), f"{kind}_sd": values.std(), f"{kind}_median": np.median(values)}
            column = np.full(len(one.present), np.nan)
            column[rows] = values
            self.columns[f"cosine.{kind}.{pair}"] = column
        self.cosines.append({k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})

    def _retrieval(self, one: Prepared, two: Prepared, fold: np.ndarray, how: Comparing, seed: int) -> None:
        """Recall in both directions, as the vectors are (where they have one length) and after a held-out linear map."""
        rows = _common(one, two, how.objects, seed)
        if len(rows) < 100 or len(np.unique(fold[rows])) < 3:
            return
        for a, b in ((one, two), (two, one)):
            ways = {"mapped": mapped(a.matrix(rows), b.matrix(rows), fold[rows])}
            if one.embedding.shape[1] == two.embedding.shape[1]:
                ways["aligned"] = (np.asarray(a.embedding[rows], dtype=float), np.asarray(b.embedding[rows], dtype=float))
            target = leading(b.matrix(rows))
            explained = linear_map(a.matrix(rows), target, fold[rows], np.ones(len(rows), dtype=bool))[0]
            for way, (x, y) in ways.items():
                rank = ranks(x, y)
                place = {"from": a.name, "to": b.name, "way": way, "objects": len(rows), "median_rank": float(np.median(rank))}
                at = {f"recall_{k}": recall(rank, k) for k in RECALL_AT} | {f"chance_{k}": k / len(rows) for k in RECALL_AT}
                self.retrieval.append({**place, **at, "map_r2": explained})


def _common(one: Prepared, two: Prepared, most: int, seed: int) -> np.ndarray:
    rows = np.flatnonzero(one.present & two.present)
    return rows if len(rows) <= most else np.sort(numpy_generator(seed, "compared objects").choice(rows, most, replace=False))
