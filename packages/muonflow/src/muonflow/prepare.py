"""`make prepare pkg=muonflow`: synthetic showers, or tables of earlier productions, as Parquet shards in a folder."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from muonflow import showers
from muonflow.events import Events
from muonflow.layouts import read_layout
from muonflow.tables import write_events
from skyloom.errors import ConfigError

__all__ = ["prepare", "write_shards"]

Named = tuple[Events, list[str] | None]


def prepare(
    output: str | None = None,
    n_showers: int = 1_000_000,
    depths: int = 2,
    index: float = 2.6,
    keep_empty: float = 0.01,
    lateral: str = "elbert",
    seed: int = 0,
    input: str | None = None,
    layout: str | None = None,
    rows_per_file: int = 200_000,
    cache_dir: str = "cache",
) -> dict[str, Any]:
    """Write a folder of Parquet files for `data=muonflow/stream`; memory does not grow with the number of showers.

    Args:
        output: the folder; null: under `cache_dir`, named for what it holds
        n_showers, depths, index, keep_empty, lateral, seed: of synthetic showers (see `muonflow.showers.stream`)
        input: a file of another layout, or a folder of them, to convert instead
        layout: hdf5, parquet_v1, parquet_v2 or jsonl; null: told from the file
        rows_per_file: events of one file
    """
    if rows_per_file < 1:
        raise ConfigError(f"rows_per_file={rows_per_file} must be at least 1.")
    if input is None:
        folder = Path(output or Path(cache_dir) / f"muonflow-{lateral}-{index:g}-{n_showers}-{depths}-{keep_empty:g}-{seed}")
        _must_be_new(folder)
        parts: Iterator[Named] = (
            (events, None) for events in showers.stream(n_showers, depths, index, keep_empty, seed, lateral)
        )
        settings = {"n_showers": n_showers, "depths": depths, "index": index, "keep_empty": keep_empty, "seed": seed}
        about = {"synthetic": True, "oracle": lateral, "generator": "muonflow.showers", **settings}
        return {"folder": str(folder), **write_shards(folder, parts, about, rows_per_file)}
    source = Path(input)
    folder = Path(output or Path(cache_dir) / f"muonflow-{source.stem}")
    _must_be_new(folder)
    files = sorted(p for p in source.iterdir() if p.is_file() and not p.name.startswith(".")) if source.is_dir() else [source]
    report: Counter[str] = Counter()
    converted = chain.from_iterable(_of_file(file, report, layout, len(files) > 1) for file in files)
    about = {"synthetic": False, "oracle": None, "converted_from": source.name}
    written = write_shards(folder, converted, about, rows_per_file)
    return {"folder": str(folder), **written, **{name: n for name, n in report.items() if n}}


def write_shards(folder: Path, parts: Iterable[Named], about: dict[str, Any], rows_per_file: int) -> dict[str, int]:
    """Files `part-00000.parquet`, … of at least `rows_per_file` events each (the last may hold fewer); each appears whole."""
    sums = Counter[str]()

    def counted() -> Iterator[Named]:
        for events, names in parts:
            if len(events):
                sums["events"] += len(events)
                sums["without muons"] += int((events.count == 0).sum())
                sums["muons"] += int(events.count.sum())
                yield events, names

    stream = counted()
    piece, number = next(stream, None), 0
    while piece is not None:
        batch: list[Named] = []
        while piece is not None and sum(len(events) for events, _ in batch) < rows_per_file:
            batch.append(piece)
            piece = next(stream, None)
        write_events(folder / f"part-{number:05d}.parquet", batch, about)
        number += 1
    return {"files": number, **sums}


def _of_file(path: Path, report: Counter[str], layout: str | None, several: bool) -> Iterator[Named]:
    for number, (events, showers_of) in enumerate(read_layout(path, report, layout)):
        prefix = f"{path.stem}:" if several else ""
        yield events, [f"{prefix}{shower}/{number}.{row}" for row, shower in enumerate(showers_of)]


def _must_be_new(folder: Path) -> None:
    if ":/" in str(folder):
        raise ConfigError(f"output={folder}: a folder on this machine is wanted.")
    if folder.is_file():
        raise ConfigError(f"output={folder} is a file; a folder is wanted.")
    if folder.is_dir() and any(folder.glob("*.parquet")):
        raise ConfigError(f"{folder} already holds Parquet files: give output=<another folder>, or remove it.")
