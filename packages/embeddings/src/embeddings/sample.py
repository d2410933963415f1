"""One list of objects with their properties, sky groups and the embeddings of one or several models: what is analysed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.catalogue import Catalogue, merged, read_catalogue
from embeddings.folds import sky_cells
from embeddings.identifiers import NO_IDENTIFIER
from embeddings.matching import FAIL_BELOW, WARN_BELOW, match
from embeddings.readers import read
from embeddings.sets import EmbeddingSet
from skyloom.errors import DataError, MissingFile, nearest

__all__ = ["Embedding", "Known", "Sample", "from_files", "join", "synthetic"]


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
    classes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Kind of class (`spectral type`, `star formation`) -> [N] text, "" where unknown."""
    join_report: Sequence[Mapping[str, Any]] = ()
    degraded: Sequence[str] = ()
    """Why less than was asked for can be said: models whose objects are in no catalogue, models without a common object."""
    known: "Known" = field(default_factory=lambda: Known())
    """What can be said in closed form, where the sample is synthetic."""
    columns: Sequence[str] = ()
    """Catalogue columns that make up the vector, where it is one of plain measurements."""
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.groups)

    def pairs(self) -> Iterator[tuple[Embedding, Embedding]]:
        """Embeddings of different models that are of the same modality, or all of them where no modality is shared."""
        for first, second in combinations(self.models, 2):
            every = [(a, b) for a in self.of(first) for b in self.of(second)]
            yield from [(a, b) for a, b in every if a.modality == b.modality] or every

    def within(self) -> Iterator[tuple[Embedding, Embedding]]:
        """Pairs of modalities of one model."""
        for model in self.models:
            yield from combinations(self.of(model), 2)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(e.model for e in self.embeddings))

    def of(self, model: str) -> list[Embedding]:
        return [e for e in self.embeddings if e.model == model]

    def one_each(self) -> list[Embedding]:
        """The fullest embedding of each model: the fused one, or the only one, or the first."""
        return [next((e for e in own if e.modality in ("fused", "embedding")), own[0]) for own in map(self.of, self.models)]

    def named(self, name: str) -> Embedding:
        for e in self.embeddings:
            if e.name == name:
                return e
        raise DataError(f"there is no embedding {name!r}.{nearest(name, [e.name for e in self.embeddings])}")


@dataclass(frozen=True)
class Known:
    """Closed forms, all for an infinite sample and the best linear prediction."""

    r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Embedding -> property -> R2."""
    partial_r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same given the signal-to-noise ratio."""
    joint_r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`first ~ second` -> property -> R2 of both embeddings together."""
    cka: Mapping[str, float] = field(default_factory=dict)
    """`first ~ second` -> linear CKA."""


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


def synthetic(
    objects: int = 12_000,
    dimension: int = 768,
    cell: float = 0.5,
    seed: int = 0,
    models: Sequence[str] = ("alpha", "beta"),
    properties: Sequence[str] | None = None,
) -> Sample:
    """The synthetic sample of `embeddings.synthetic`, joined as files would be, with everything that is known of it.

    >>> sample = synthetic(objects=400, dimension=48)
    >>> [e.name for e in sample.embeddings][:2], round(sample.known.r2["alpha/spectrum"]["log_mass"], 2)
    (['alpha/image', 'alpha/spectrum'], 0.86)
    """
    from embeddings.synthetic import GAINS, catalogue_and_embeddings, population_cka, population_r2

    catalogue, sets = catalogue_and_embeddings(objects, dimension, seed, models)
    sample = join(sets, catalogue, properties, cell)
    gains = {e.name: GAINS[e.model][e.modality] for e in sample.embeddings}
    pairs = [(a.name, b.name) for a, b in (*sample.pairs(), *sample.within())]
    known = Known(
        {name: population_r2(g) for name, g in gains.items()},
        {name: population_r2(g, ("snr",)) for name, g in gains.items()},
        {f"{a} ~ {b}": population_r2(np.hypot(gains[a], gains[b])) for a, b in pairs},
        {f"{a} ~ {b}": population_cka(gains[a], gains[b], dimension) for a, b in pairs},
    )
    return replace(sample, known=known)


def from_files(
    embeddings: str | Sequence[str] | Mapping[str, str] | None = None,
    catalog: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    properties: Sequence[str] | None = None,
    id_columns: Sequence[str] | None = None,
    cell: float = 0.5,
    warn_below: float = WARN_BELOW,
    fail_below: float = FAIL_BELOW,
    allow_no_match: bool = False,
    group: str | None = None,
    stand_in: Mapping[str, Any] | None = None,
) -> Sample:
    """A sample from files.

    Arguments:
        embeddings: A path, several, or model -> path; formats as in `embeddings.readers.read`.
        catalog: FITS, CSV or Parquet, or several tables of the same objects; by default the embeddings' own table.
        columns: Of embeddings that are a plain table: the columns that make up the vector.
        properties: Names or columns to probe; all known ones where None. Columns that are in the vector are left out.
        id_columns: Identifiers, where their names are unusual.
        cell: Side of the sky cells whose objects are kept together [deg].
        warn_below, fail_below, allow_no_match, group: As in `join`.
        stand_in: Arguments of `synthetic`, or `{clusters: true, ...}`: what takes the place of files that are not given,
            where its `objects` is not 0.
    """
    paths = _named_paths(embeddings)
    if stand_in and stand_in.get("objects") and not any(path for _, path in paths):
        return _stand_in(dict(stand_in), properties)
    _refuse_gaps(paths, catalog)
    sets = []
    for model, path in paths:
        choice = {"columns": columns, "id_columns": id_columns} if _is_table(path) else {}
        sets.append(read(path, model, **choice))
    sources = [catalog] if isinstance(catalog, str) else list(catalog) if catalog is not None else [paths[0][1]]
    plain = [source for source in sources if not _is_table(source)]
    if plain:
        raise DataError(f"{plain[0]} holds no properties to probe: name a catalogue (.fits, .csv, .parquet) with catalog=.")
    table = merged([read_catalogue(source, id_columns) for source in sources])
    wanted = properties if properties is not None else _free(table, columns or ())
    sample = join(sets, table, wanted, cell, warn_below, fail_below, allow_no_match, group)
    if not sample.properties:
        raise DataError(f"{sources[0]}: no known property among its columns; name columns to probe in properties=[...].")
    return sample


def _named_paths(embeddings: str | Sequence[str] | Mapping[str, str] | None) -> list[tuple[str | None, str]]:
    if embeddings is None or isinstance(embeddings, str):
        return [(None, embeddings or "")]
    return list(embeddings.items()) if isinstance(embeddings, Mapping) else [(None, path) for path in embeddings]


def _refuse_gaps(paths: Sequence[tuple[str | None, str]], catalog: str | Sequence[str] | None) -> None:
    """Every file that is wanted and not there, in one message."""
    gaps = [
        f"data.embeddings{'.' + model if model else ''}=<path> ({'not given' if not path else 'no such file: ' + path})"
        for model, path in paths
        if not path or not Path(path).exists()
    ]
    sources = [catalog] if isinstance(catalog, str) else list(catalog or ())
    gaps += [f"data.catalog=<path> (no such file: {source})" for source in sources if not Path(source).exists()]
    if not sources and any(path and not _is_table(path) for _, path in paths):
        gaps.append("data.catalog=<path> (not given)")
    if gaps:
        raise MissingFile(
            "files are missing: " + "; ".join(gaps) + ". Formats: .pt, folder of .npy, .npz, .safetensors, .hdf5, .parquet, "
            ".csv, .fits; `scale=smoke` without files runs on a synthetic stand-in."
        )


def _stand_in(arguments: dict[str, Any], properties: Sequence[str] | None) -> Sample:
    if arguments.pop("clusters", False):
        from embeddings.synthetic_clusters import synthetic_clusters

        return synthetic_clusters(**arguments)
    return synthetic(**arguments, properties=properties)


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
