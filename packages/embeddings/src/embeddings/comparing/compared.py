"""The second question: how do models and modalities compare, and do they know the same?"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from embeddings.samples.question import Question

__all__ = ["Compared", "Comparing"]

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
class Compared(Question):
    how: Comparing
    TABLES = ("similarities", "differences", "joint", "cosines", "retrieval")

    def ask(self, properties: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> None:
        """Of every pair; `predictions` are those of the probes."""
        data, prepared = self.data, self.prepared
        for a, b in data.pairs():
            one, two = prepared[a.name], prepared[b.name]
            self._similar(one, two, "models")
            self._differences(one, two, predictions, list(properties))
            self._joint(one, two, "models", properties)
        for a, b in combinations(data.one_each(), 2):
            self._cosines(prepared[a.name], prepared[b.name])
        for a, b in data.within():
            one, two = prepared[a.name], prepared[b.name]
            self._similar(one, two, "modalities")
            self._joint(one, two, "modalities", properties)
            self._cosines(one, two)
            self._retrieval(one, two)

    def _similar(self, one: Prepared, two: Prepared, kind: str) -> None:
        common = self._common(one, two, self.how.objects)
        if len(common) <= max(2 * self.how.neighbours, 30):
            return
        pair = f"{one.name} ~ {two.name}"
        # plain measured columns are standardised; an embedding is taken as it is
        x, y = np.asarray(one.vectors[common]), np.asarray(two.vectors[common])
        for found in compare(x, y, self.how.neighbours, self.how.permutations, rows=None, seed=self.seed).values():
            known = self.data.known.cka.get(pair, np.nan) if found.measure == "cka_unbiased" else np.nan
            row = {"pair": pair, "first": one.name, "second": two.name, "kind": kind, "known": known}
            self.tables["similarities"].append({**row, **vars(found)})

    def _differences(self, one: Prepared, two: Prepared, predictions: Mapping[str, np.ndarray], names: list[str]) -> None:
        """R2 of the first's linear probe minus the second's on the objects that both have, paired."""
        pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        differences: dict[str, tuple[str, str]] = {}
        for name in names:
            first, second = (predictions.get(f"ridge.{p.name}.{name}") for p in (one, two))
            if first is None or second is None:
                continue
            truth = np.where(np.isfinite(first) & np.isfinite(second), self.data.properties[name], np.nan)
            if np.isfinite(truth).sum() < 2:
                continue
            pairs |= {f"a {name}": (truth, first), f"b {name}": (truth, second)}
            differences[name] = (f"a {name}", f"b {name}")
        if not pairs:
            return
        scores = held_out_scores(pairs, self.data.groups, differences, resamples=self.how.resamples, seed=self.seed)
        known = [self.data.known.r2.get(p.name, {}) for p in (one, two)]
        for name in differences:
            found = scores[f"difference/{name}"]
            self.tables["differences"].append(
                {"first": one.name, "second": two.name, "property": name, "difference": float(found), "low": found.low,
                 "high": found.high, "known": known[0].get(name, np.nan) - known[1].get(name, np.nan)}
            )  # fmt: skip

    def _joint(self, one: Prepared, two: Prepared, kind: str, properties: Mapping[str, np.ndarray]) -> None:
        rows = self._common(one, two, self.how.joint_objects)
        if len(rows) < 100:
            return
        pair = f"{one.name} ~ {two.name}"
        known, alone = self.data.known.joint_r2.get(pair, {}), [self.data.known.r2.get(p.name, {}) for p in (one, two)]
        found = joint_gain(
            one.reduced, two.reduced, rows, properties, self.fold, self.data.groups, self.how.resamples, self.seed
        )
        for name, row in found.items():
            closed = known.get(name, np.nan) - max(a.get(name, np.nan) for a in alone)
            place = {"pair": pair, "first": one.name, "second": two.name, "kind": kind, "property": name}
            self.tables["joint"].append({**place, **row, "known_gain": closed, "objects": len(rows)})

    def _cosines(self, one: Prepared, two: Prepared) -> None:
        rows = np.flatnonzero(one.present & two.present)
        found = modality_cosines(one.embedding, two.embedding, rows, self.seed)
        if found is None:
            return
        pair = f"{one.name} ~ {two.name}"
        row: dict[str, Any] = {"pair": pair, "first": one.name, "second": two.name, "objects": len(rows), "auc": found.auc}
        for kind, values in (("raw", found.raw), ("centred", found.centred), ("mismatched", found.mismatched)):
            row |= {f"{kind}_mean": values.mean(), f"{kind}_sd": values.std(), f"{kind}_median": np.median(values)}
            column = np.full(len(one.present), np.nan)
            column[rows] = values
            self.columns[f"cosine.{kind}.{pair}"] = column
        self.tables["cosines"].append({k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})

    def _retrieval(self, one: Prepared, two: Prepared) -> None:
        """Recall in both directions, as the vectors are (where they have one length) and after a held-out linear map."""
        rows = self._common(one, two, self.how.objects)
        if len(rows) < 100 or len(np.unique(self.fold[rows])) < 3:
            return
        for a, b in ((one, two), (two, one)):
            ways = {"mapped": mapped(a.matrix(rows), b.matrix(rows), self.fold[rows])}
            if one.embedding.shape[1] == two.embedding.shape[1]:
                ways["aligned"] = (np.asarray(a.embedding[rows], dtype=float), np.asarray(b.embedding[rows], dtype=float))
            target = leading(b.matrix(rows))
            explained = linear_map(a.matrix(rows), target, self.fold[rows], np.ones(len(rows), dtype=bool))[0]
            for way, (x, y) in ways.items():
                rank = ranks(x, y)
                place = {"from": a.name, "to": b.name, "way": way, "objects": len(rows), "median_rank": float(np.median(rank))}
                at = {f"recall_{k}": recall(rank, k) for k in RECALL_AT} | {f"chance_{k}": k / len(rows) for k in RECALL_AT}
                self.tables["retrieval"].append({**place, **at, "map_r2": explained})

    def _common(self, one: Prepared, two: Prepared, most: int) -> np.ndarray:
        return self.some(np.flatnonzero(one.present & two.present), most, "compared objects")
