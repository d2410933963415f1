"""Sets of vectors and a catalogue, joined by identifiers to one sample."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from embeddings.objects.catalogue import Catalogue
from embeddings.objects.folds import sky_cells
from embeddings.objects.identifiers import NO_IDENTIFIER
from embeddings.samples.matching import FAIL_BELOW, WARN_BELOW, match
from embeddings.samples.sample import Embedding, Sample
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError, nearest

__all__ = ["join"]


def join(
    sets: Sequence[EmbeddingSet],
    catalogue: Catalogue,
    properties: Iterable[str] | None = None,
    cell: float = 0.5,
    warn_below: float = WARN_BELOW,
    fail_below: float = FAIL_BELOW,
    allow_no_match: bool = False,
    group: str | None = None,
) -> Sample:
    """The catalogue's objects that have a vector of at least one model.

    Arguments:
        properties: Names to probe; all known ones that the catalogue has where None.
        cell: Side of the sky cells whose objects are kept together [deg]; without positions every object is its own group.
        warn_below, fail_below: Shares of a set's objects found in the catalogue.
        allow_no_match: Go on where none of a set's objects is found: they stand at the end, without properties.
        group: A column whose equal values are kept together instead of sky cells.
    """
    models = [s.model for s in sets]
    if len(set(models)) < len(models):
        raise DataError(f"two sets are both called {max(models, key=models.count)!r}: give them different names.")
    catalogue = catalogue.in_order()
    matches = [match(s, catalogue.ids, warn_below, fail_below, allow_no_match) for s in sets]
    kept = np.flatnonzero(np.any([m.row >= 0 for m in matches], axis=0))
    strangers = [s for s, m in zip(sets, matches, strict=True) if m.report["used"] is None]
    if not len(kept) and not strangers:
        raise DataError("no object of the catalogue has an embedding.")
    more = sum(len(s) for s in strangers)
    embeddings, at = [], len(kept)
    for s, m in zip(sets, matches, strict=True):
        place = np.concatenate([m.row[kept], np.full(more, -1)])
        if s in strangers:
            place[at : at + len(s)] = np.arange(len(s))
            at += len(s)
        for modality in s.modalities:
            row = np.where((place >= 0) & s.present[modality][place], place, -1)
            embeddings.append(Embedding(s.model, modality, s[modality], row, modality in s.columns))
    sample = Sample(
        _with_strangers({name: v[kept] for name, v in catalogue.ids.items()}, strangers),
        {name: _longer(values[kept], more) for name, values in catalogue.properties(properties).items()},
        _groups(catalogue, kept, more, cell, group),
        embeddings,
        {name: _longer(v[kept], more) for name, v in catalogue.text.items()},
        {name: _longer(v[kept], more) for name, v in catalogue.classes().items()},
        [m.report for m in matches],
        columns=[name for s in sets for names in s.columns.values() for name in names],
        synthetic=catalogue.synthetic or any(s.synthetic for s in sets),
    )
    return replace(sample, degraded=[*(_alone(s) for s in strangers), *_apart(sample)])


def _alone(s: EmbeddingSet) -> str:
    return f"no object of {s.model} is in the catalogue: its map is drawn without properties, and it is compared with nothing"


def _apart(sample: Sample) -> list[str]:
    """Models without a common object cannot be compared."""
    found = []
    for first, second in combinations(sample.models, 2):
        common = [np.any(a.present & b.present) for a in sample.of(first) for b in sample.of(second)]
        if not any(common):
            found.append(f"{first} and {second} have no object in common: they are not compared")
    return found


def _groups(catalogue: Catalogue, kept: np.ndarray, more: int, cell: float, column: str | None) -> np.ndarray:
    """[N] int64: sky cells, values of a column, or every object by itself."""
    position = catalogue.position()
    known = {**catalogue.numbers, **catalogue.text, **catalogue.ids}
    if column is not None:
        if column not in known:
            raise DataError(f"the catalogue has no column {column!r} to group by.{nearest(column, known)}")
        groups = np.unique(known[column][kept], return_inverse=True)[1].astype(np.int64)
    elif position is not None:
        groups = sky_cells(position[0][kept], position[1][kept], cell)
    else:
        groups = np.arange(len(kept))
    return np.concatenate([groups, groups.max(initial=-1) + 1 + np.arange(more)])


def _longer(values: np.ndarray, more: int) -> np.ndarray:
    """`more` unknown values at the end."""
    return np.concatenate([values, np.full(more, "" if values.dtype.kind == "U" else np.nan)]) if more else values


def _with_strangers(ids: dict[str, np.ndarray], strangers: Sequence[EmbeddingSet]) -> dict[str, np.ndarray]:
    """Identifiers of objects that no catalogue knows, in columns of their own (`<model> <identifier>`)."""
    known, more = len(next(iter(ids.values()))), sum(len(s) for s in strangers)
    if not more:
        return ids
    empty = {name: "" if v.dtype.kind == "U" else NO_IDENTIFIER for name, v in ids.items()}
    longer = {name: np.concatenate([v, np.full(more, empty[name])]) for name, v in ids.items()}
    at = known
    for s in strangers:
        for name, v in s.ids.items():
            column = np.full(known + more, "" if v.dtype.kind == "U" else NO_IDENTIFIER, dtype=v.dtype)
            column[at : at + len(s)] = v
            longer[f"{s.model} {name}"] = column
        at += len(s)
    return longer
