"""One list of objects with their properties, sky groups and the embeddings of one or several models: what is analysed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.catalogue import Catalogue, read_catalogue
from embeddings.folds import sky_cells
from embeddings.matching import FAIL_BELOW, WARN_BELOW, match
from embeddings.readers import read
from embeddings.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["Embedding", "Sample", "from_files", "join", "synthetic"]


@dataclass(frozen=True)
class Embedding:
    """One modality of one model, and where the sample's objects are in it."""

    model: str
    modality: str
    vectors: np.ndarray
    """[n, D] in the file's own order; may be a memory map."""
    row: np.ndarray
    """[N] row of each object of the sample, -1 where it has no vector."""
    standardise: bool = False
    """Whether the dimensions are quantities with units of their own."""

    @property
    def name(self) -> str:
        return f"{self.model}/{self.modality}"

    @property
    def present(self) -> np.ndarray:
        return self.row >= 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.row), self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, objects: np.ndarray) -> np.ndarray:
        """[len(objects), D]: the vectors of these objects of the sample, all of which must have one."""
        return np.asarray(self.vectors[self.row[objects]])


@dataclass(frozen=True)
class Sample:
    """N objects in the order of the catalogue's identifiers; the order of rows in the files is forgotten."""

    ids: Mapping[str, np.ndarray]
    properties: Mapping[str, np.ndarray]
    """Property -> [N] float64, NaN where unknown."""
    groups: np.ndarray
    """[N]: objects of one group stand in the same fold and are resampled together."""
    embeddings: Sequence[Embedding]
    text: Mapping[str, np.ndarray] = field(default_factory=dict)
    join_report: Sequence[Mapping[str, Any]] = ()
    known_r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Embedding -> property -> R2 in closed form, where the sample is synthetic."""
    known_cka: Mapping[str, float] = field(default_factory=dict)
    """`first ~ second` -> linear CKA in closed form."""
    columns: Sequence[str] = ()
    """Catalogue columns that make up the vector, where it is one of plain measurements."""
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.groups)

    def pairs(self) -> Iterator[tuple[Embedding, Embedding]]:
        """Embeddings of different models that are of the same modality, or all of them where no modality is shared."""
        every = [(a, b) for k, a in enumerate(self.embeddings) for b in self.embeddings[k + 1 :] if a.model != b.model]
        same = [(a, b) for a, b in every if a.modality == b.modality]
        yield from same or every


def join(
    sets: Sequence[EmbeddingSet],
    catalogue: Catalogue,
    properties: Iterable[str] | None = None,
    cell: float = 0.5,
    warn_below: float = WARN_BELOW,
    fail_below: float = FAIL_BELOW,
    allow_no_match: bool = False,
) -> Sample:
    """The catalogue's objects that have a vector of at least one model.

    Arguments:
        properties: Names to probe; all known ones that the catalogue has where None.
        cell: Side of the sky cells whose objects are kept together [deg]; without positions every object is its own group.
        warn_below, fail_below: Shares of a set's objects found in the catalogue.
        allow_no_match: Go on without a set of which none is found.
    """
    models = [s.model for s in sets]
    if len(set(models)) < len(models):
        raise DataError(f"two sets are both called {max(models, key=models.count)!r}: give them different names.")
    catalogue = catalogue.in_order()
    matches = [match(s, catalogue.ids, warn_below, fail_below, allow_no_match) for s in sets]
    kept = np.flatnonzero(np.any([m.row >= 0 for m in matches], axis=0))
    if not len(kept):
        raise DataError("no object of the catalogue has an embedding.")
    embeddings = []
    for s, m in zip(sets, matches, strict=True):
        for modality in s.modalities:
            row = m.row[kept]
            row = np.where((row >= 0) & s.present[modality][row], row, -1)
            embeddings.append(Embedding(s.model, modality, s[modality], row, modality in s.columns))
    table = {name: values[kept] for name, values in catalogue.properties(properties).items()}
    position = catalogue.position()
    groups = np.arange(len(kept)) if position is None else sky_cells(position[0][kept], position[1][kept], cell)
    return Sample(
        {name: v[kept] for name, v in catalogue.ids.items()},
        table,
        groups,
        embeddings,
        {name: v[kept] for name, v in catalogue.text.items()},
        [m.report for m in matches],
        columns=[name for s in sets for names in s.columns.values() for name in names],
        synthetic=catalogue.synthetic or any(s.synthetic for s in sets),
    )


def synthetic(objects: int = 12_000, dimension: int = 768, cell: float = 0.5, seed: int = 0) -> Sample:
    """The synthetic sample of `embeddings.synthetic`, joined as files would be, with everything that is known of it.

    >>> sample = synthetic(objects=400, dimension=48)
    >>> [e.name for e in sample.embeddings][:2], round(sample.known_r2["alpha/spectrum"]["log_mass"], 2)
    (['alpha/image', 'alpha/spectrum'], 0.86)
    """
    from dataclasses import replace

    from embeddings.synthetic import GAINS, catalogue_and_embeddings, population_cka, population_r2

    catalogue, sets = catalogue_and_embeddings(objects, dimension, seed)
    sample = join(sets, catalogue, cell=cell)
    r2 = {f"{model}/{modality}": population_r2(gains) for model, by in GAINS.items() for modality, gains in by.items()}
    cka = {
        f"{a.name} ~ {b.name}": population_cka(GAINS[a.model][a.modality], GAINS[b.model][b.modality], dimension)
        for a, b in sample.pairs()
    }
    return replace(sample, known_r2=r2, known_cka=cka)


def from_files(
    embeddings: str | Sequence[str] | Mapping[str, str],
    catalogue: str | None = None,
    columns: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    id_columns: Sequence[str] | None = None,
    cell: float = 0.5,
    warn_below: float = WARN_BELOW,
    fail_below: float = FAIL_BELOW,
    allow_no_match: bool = False,
) -> Sample:
    """A sample from files.

    Arguments:
        embeddings: A path, several, or model -> path; formats as in `embeddings.readers.read`.
        catalogue: FITS, CSV or Parquet; by default the embeddings' own table.
        columns: Of embeddings that are a plain table: the columns that make up the vector.
        properties: Names or columns to probe; all known ones where None. Columns that are in the vector are left out.
        id_columns: Identifiers, where their names are unusual.
        cell: Side of the sky cells whose objects are kept together [deg].
        warn_below, fail_below, allow_no_match: As in `join`.
    """
    if isinstance(embeddings, str):
        paths: list[tuple[str | None, str]] = [(None, embeddings)]
    else:
        paths = list(embeddings.items()) if isinstance(embeddings, Mapping) else [(None, path) for path in embeddings]
    sets = []
    for model, path in paths:
        choice = {"columns": columns, "id_columns": id_columns} if _is_table(path) else {}
        sets.append(read(path, model, **choice))
    source = catalogue if catalogue is not None else paths[0][1]
    if not _is_table(source):
        raise DataError(f"{source} holds no properties to probe: name a catalogue (.fits, .csv, .parquet) with catalogue=.")
    table = read_catalogue(source, id_columns)
    sample = join(
        sets,
        table,
        properties if properties is not None else _free(table, columns or ()),
        cell,
        warn_below,
        fail_below,
        allow_no_match,
    )
    if not sample.properties:
        raise DataError(f"{source}: no known property among its columns; name columns to probe in properties=[...].")
    return sample


def _is_table(path: str | Path) -> bool:
    return str(path).endswith((".csv", ".tsv", ".csv.gz", ".fits", ".fit", ".fits.gz", ".parquet", ".pq"))


def _free(table: Catalogue, used: Sequence[str]) -> list[str] | None:
    """Known properties that are not among the vector's own columns: predicting those would be copying."""
    if not used:
        return None
    from embeddings.properties import column_of, property_named

    def copied(name: str) -> bool:
        wanted = property_named(name)
        return column_of(wanted, table.numbers) in used or any(copied(need) for need in wanted.needs)

    return [name for name in table.properties() if not copied(name)]
