"""Which row of which file is the same object, and a record of how that was decided.

Every identifier column of an embedding file is tried against every identifier column of the catalogue, and the pair that
matches most objects is used. Models are never joined to each other by their own identifiers, which may be of different
kinds, but through the catalogue's rows.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embeddings.objects.identifiers import null_mask
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["Matched", "match", "overlap_table"]

WARN_BELOW = 0.95  # share of a file's objects that found their catalogue row
FAIL_BELOW = 0.01


@dataclass(frozen=True)
class Matched:
    """For each of M catalogue rows the row of the embedding file, or -1."""

    row: np.ndarray
    report: dict[str, Any]


def overlap_table(ids: Mapping[str, np.ndarray], catalogue: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every pair of identifier columns: how many of the first's objects are in the second."""
    table = []
    for left, ours in ids.items():
        valid = ours[~null_mask(ours)]
        for right, theirs in catalogue.items():
            known = theirs[~null_mask(theirs)]
            common = int(np.isin(*_comparable(valid, known)).sum())
            rate = common / len(valid) if len(valid) else 0.0
            table.append(
                {"embedding": left, "catalogue": right, "matched": common, "objects": len(valid), "rate": rate,
                 "types": [str(ours.dtype), str(theirs.dtype)], "ranges": [_range(valid), _range(known)],
                 "examples": [np.sort(valid)[:5].tolist(), np.sort(known)[:5].tolist()]}
            )  # fmt: skip
    return table


def match(
    embedded: EmbeddingSet,
    catalogue: Mapping[str, np.ndarray],
    warn_below: float = WARN_BELOW,
    fail_below: float = FAIL_BELOW,
    allow_no_match: bool = False,
) -> Matched:
    """Rows of `embedded` for the rows of `catalogue` (identifier columns, all [M]), by the best pair of columns."""
    table = overlap_table(embedded.ids, catalogue)
    best = max(table, key=lambda pair: pair["rate"])
    report: dict[str, Any] = {"model": embedded.model, "used": None, "pairs": table}
    if best["rate"] < fail_below:
        report["used"] = None
        if not allow_no_match:
            raise DataError(f"{embedded.model}: no identifier matches the catalogue.\n{_words(table)}\n{ADVICE}")
        warnings.warn(f"{embedded.model}: no identifier matches the catalogue.\n{_words(table)}", stacklevel=2)
        return Matched(np.full(len(next(iter(catalogue.values()))), -1), report)
    if best["rate"] < warn_below:
        warnings.warn(
            f"{embedded.model}: only {best['rate']:.1%} of the objects are in the catalogue.\n{_words(table)}", stacklevel=2
        )
    left, right = embedded.ids[best["embedding"]], catalogue[best["catalogue"]]
    _refuse_repeats(left, f"{embedded.model}, {best['embedding']}")
    _refuse_repeats(right, f"catalogue, {best['catalogue']}")
    report["used"] = [best["embedding"], best["catalogue"]]
    return Matched(_rows_of(*_comparable(left, right), null_mask(left), null_mask(right)), report)


ADVICE = "Are these the same objects? allow_no_match=true goes on without them."


def _rows_of(left: np.ndarray, right: np.ndarray, left_null: np.ndarray, right_null: np.ndarray) -> np.ndarray:
    """For each entry of `right` its position in `left`, or -1."""
    places = np.flatnonzero(~left_null)
    places = places[np.argsort(left[places], kind="stable")]
    ordered = left[places]
    at = np.searchsorted(ordered, right)
    at[at == len(ordered)] = 0
    found = (ordered[at] == right) & ~right_null if len(ordered) else np.zeros(len(right), dtype=bool)
    return np.where(found, places[at] if len(places) else -1, -1)


def _comparable(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64, or both as text."""
    if left.dtype.kind == right.dtype.kind:
        return left, right
    return left.astype(str), right.astype(str)


def _refuse_repeats(ids: np.ndarray, where: str) -> None:
    names, counts = np.unique(ids[~null_mask(ids)], return_counts=True)
    if (counts > 1).any():
        worst = names[counts.argmax()]
        raise DataError(
            f"{where}: {int((counts > 1).sum())} identifiers occur more than once ({len(names)} distinct among "
            f"{int(counts.sum())}; {worst} occurs {int(counts.max())} times). Which row is meant cannot be known: "
            "repeated objects must be dropped at the source."
        )


def _range(ids: np.ndarray) -> list[Any]:
    return [] if not len(ids) else [ids.min().item(), ids.max().item()] if ids.dtype.kind == "i" else [min(ids), max(ids)]


def _words(table: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"  {p['embedding']} ({p['types'][0]}, e.g. {p['examples'][0][:1]}) against {p['catalogue']} "
        f"({p['types'][1]}, e.g. {p['examples'][1][:1]}): {p['matched']} of {p['objects']}"
        for p in table
    )
