"""A sample from files, or a synthetic stand-in for files that are not given."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embeddings.objects.catalogue import Catalogue, merged, read_catalogue
from embeddings.objects.properties import column_of, property_named
from embeddings.readers import read
from embeddings.samples.joining import join
from embeddings.samples.matching import FAIL_BELOW, WARN_BELOW
from embeddings.samples.sample import Sample
from embeddings.samples.synthetic_clusters import synthetic_clusters
from embeddings.samples.synthetic_galaxies import synthetic
from skyloom.errors import DataError, MissingFile

__all__ = ["from_files"]


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
        return synthetic_clusters(**arguments)
    return synthetic(**arguments, properties=properties)


def _is_table(path: str | Path) -> bool:
    return str(path).endswith((".csv", ".tsv", ".csv.gz", ".fits", ".fit", ".fits.gz", ".parquet", ".pq"))


def _free(table: Catalogue, used: Sequence[str]) -> list[str] | None:
    """Known properties that are not among the vector's own columns: predicting those would be copying."""
    if not used:
        return None

    def copied(name: str) -> bool:
        wanted = property_named(name)
        return column_of(wanted, table.numbers) in used or any(copied(need) for need in wanted.needs)

    return [name for name in table.properties() if not copied(name)]
