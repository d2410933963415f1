"""The third question: which objects are like a given one, which are like none, and do the embeddings agree on that?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from embeddings.comparing.subspaces import leading, linear_map
from embeddings.finding.density import flow_outliers
from embeddings.finding.outliers import agreement, fused_score, isolation, local_outlier_factor, percentiles, sigma, top
from embeddings.finding.search import Index
from embeddings.machine.threads import one_thread
from embeddings.samples.prepared import Prepared
from embeddings.samples.question import Question

__all__ = ["Finding", "Found"]


@dataclass(frozen=True)
class Finding:
    """Settings of the search and the outliers."""

    neighbours: int = 10
    """Of every object, kept for the page and for the agreement of embeddings; 0: none."""
    methods: tuple[str, ...] = ("isolation", "lof", "flow")
    components: int = 32
    """In which outliers are looked for."""
    flow_epochs: int = 10
    flow_objects: int = 3000
    """That the flow is fitted to; all are scored."""
    share: float = 0.01
    """Of the objects, that are listed as outliers."""
    approximate: bool | None = None
    """Search through an index; null: above a million objects."""


@dataclass
class Found(Question):
    how: Finding
    TABLES = ("agreement", "nearest", "listed")

    def ask(self) -> None:
        for p in self.prepared.values():
            self._outliers(p)
            if self.how.neighbours:
                self._neighbours(p)
        for a, b in self.data.within():
            self._mismatch(self.prepared[a.name], self.prepared[b.name])
        self._agree()
        self._list()

    def _outliers(self, p: Prepared) -> None:
        rows = np.flatnonzero(p.present)
        if len(rows) < 50:
            return
        x = p.matrix(rows)[:, : self.how.components]
        ways = {
            "isolation": lambda: isolation(x, seed=self.seed),
            "lof": lambda: local_outlier_factor(x),
            "flow": lambda: flow_outliers(x, self.how.flow_epochs, most=self.how.flow_objects, seed=self.seed),
        }
        for method in self.how.methods:
            score = np.full(len(p.present), np.nan)
            with one_thread():
                score[rows] = ways[method]()
            self.columns[f"outlier.{method}.{p.name}"] = percentiles(score)

    def _neighbours(self, p: Prepared) -> None:
        """Rows of the nearest objects, -1 where the object has no vector."""
        rows = np.flatnonzero(p.present)
        k = min(self.how.neighbours, len(rows) - 1)
        near = np.full((len(p.present), self.how.neighbours), -1, dtype=np.int64)
        near[rows, :k] = Index(p.reduced, p.present, self.how.approximate, seed=self.seed).like(rows, k).rows
        self.columns[f"nearest.{p.name}"] = near

    def _mismatch(self, one: Prepared, two: Prepared) -> None:
        """How badly each modality is predicted from the other, the mean percentile of both directions."""
        both = one.present & two.present
        rows = np.flatnonzero(both)
        if len(rows) < 200 or len(np.unique(self.fold[rows])) < 3:
            return
        errors = []
        for a, b in ((one, two), (two, one)):
            target = np.full((len(both), 0), np.nan)
            coordinates = leading(b.matrix(rows), most=20)
            target = np.full((len(both), coordinates.shape[1]), np.nan)
            target[rows] = coordinates
            errors.append(percentiles(linear_map(a.reduced, target, self.fold, both)[1]))
        pair = f"{one.name} ~ {two.name}"
        mismatch = percentiles(np.mean(errors, axis=0))
        self.columns[f"mismatch.{pair}"] = mismatch
        first, second = (self.columns.get(f"outlier.flow.{p.name}") for p in (one, two))
        if first is not None and second is not None:
            self.columns[f"fused_score.{pair}"] = fused_score(mismatch, first, second)

    def _agree(self) -> None:
        """Methods on one embedding; embeddings by one method; and whose nearest neighbours are the same."""
        scores = {k.removeprefix("outlier."): v for k, v in self.columns.items() if k.startswith("outlier.")}
        for (one, first), (two, second) in combinations(scores.items(), 2):
            same_method, same_embedding = (one.partition(".")[k] == two.partition(".")[k] for k in (0, 2))
            if same_method != same_embedding:
                self.tables["agreement"].append({"first": one, "second": two, **agreement(first, second, self.how.share)})
        lists = {e.name: self.columns[f"nearest.{e.name}"] for e in self.data.embeddings if f"nearest.{e.name}" in self.columns}
        for (one, first), (two, second) in combinations(lists.items(), 2):
            both = np.flatnonzero((first[:, 0] >= 0) & (second[:, 0] >= 0))
            if len(both) > self.how.neighbours:
                shared = (first[both][:, :, None] == second[both][:, None, :]).any(axis=2)
                row = {
                    "first": one,
                    "second": two,
                    "objects": len(both),
                    "same_nearest": float((first[both, 0] == second[both, 0]).mean()),
                }
                row |= {"overlap": float(shared.mean()), "chance": self.how.neighbours / (len(both) - 1)}
                self.tables["nearest"].append(row)

    def _list(self) -> None:
        """The strangest objects by every score, with their identifiers."""
        scores = {k: v for k, v in self.columns.items() if k.partition(".")[0] in ("outlier", "mismatch", "fused_score")}
        for name, score in scores.items():
            method, _, of = name.removeprefix("outlier.").partition(".")
            for rank, row in enumerate(top(score, self.how.share)):
                found = {"method": method, "embedding": of, "rank": rank + 1, "row": int(row), "percentile": float(score[row])}
                found["sigma"] = float(sigma(np.array([min(score[row], 1 - 1e-9)]))[0])
                self.tables["listed"].append({**found, **{key: str(v[row]) for key, v in self.data.ids.items()}})
