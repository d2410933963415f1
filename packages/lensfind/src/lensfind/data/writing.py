"""A data set written part by part, in parallel, from any source of cutouts; a call that finds parts goes on with the others.

A part is a file of cutouts and, written after it, the rows that it holds.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensfind.data.converters import Found, Source, open_source
from lensfind.data.manifest import completed
from lensfind.data.storage import ENDINGS, write_part
from lensfind.data.synthetic_source import Batched, simulated_source
from lensfind.simulation.population import Population
from lensfind.survey import Survey
from skyloom.errors import ConfigError, DataError
from skyloom.run.files import read_json, write_json, write_whole

__all__ = ["Recipe", "Writer", "claim", "collected", "written"]

STATED = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """All that a data set depends on, so that a worker process can open the same source."""

    source: str
    input: str | None
    options: dict[str, Any]
    simulation: dict[str, Any] | None
    storage: str
    rows_per_part: int
    variance: bool

    def open(self) -> Source:
        if self.simulation is None:
            return open_source(self.source, self.input, **self.options)
        s = dict(self.simulation)
        survey, population = Survey.from_json(s.pop("survey")), Population(**s.pop("population"))
        return simulated_source(survey, population=population, **s)

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.__dict__, sort_keys=True))


@dataclass
class Writer:
    """Writes parts of a source into a directory."""

    recipe: Recipe
    source: Source
    directory: Path

    def part(self, number: int) -> tuple[Path, Path]:
        path = self.directory / f"cutouts-{number:05d}{ENDINGS[self.recipe.storage]}"
        return path, path.with_suffix(".rows.json")

    def parts(self) -> int:
        return -(-len(self.source.table) // self.recipe.rows_per_part)

    def write(self, number: int) -> int:
        """Read and write one part; gives how many rows it was made from."""
        per = self.recipe.rows_per_part
        rows = np.arange(number * per, min((number + 1) * per, len(self.source.table)))
        path, record = self.part(number)
        found, skipped = self._read(rows)
        table = pd.DataFrame()
        if found:
            table = self._table(found)
            images = np.stack([item.image for _, item in found])
            variances = [item.variance for _, item in found if item.variance is not None]
            variance = np.stack(variances) if self.recipe.variance and len(variances) == len(found) else None
            table = write_part(path, images, table, self.source.about, variance)
        with write_whole(record) as temporary:
            kept = json.loads(table.to_json(orient="records", double_precision=15)) if found else []
            temporary.write_text(json.dumps({"rows": kept, "skipped": skipped, "of": len(rows)}))
        return len(rows)

    def _read(self, rows: np.ndarray) -> tuple[list[tuple[int, Found]], list[str]]:
        if isinstance(self.source, Batched):
            chunks = [rows[k : k + 64] for k in range(0, len(rows), 64)]
            return [
                (int(row), item) for chunk in chunks for row, item in zip(chunk, self.source.read_many(chunk), strict=True)
            ], []
        found, skipped = [], []
        shape = (len(self.source.about["bands"]), self.source.about["size"], self.source.about["size"])
        for row in rows.tolist():
            try:
                item = self.source.read(row)
                if item.image.shape != shape:
                    raise DataError(f"the image is {list(item.image.shape)}, the data set {list(shape)}.")
                if not np.isfinite(item.image).any():
                    raise DataError("no pixel of the image is usable.")
                found.append((row, item))
            except (OSError, ValueError, KeyError, TypeError) as error:
                skipped.append(f"{self.source.table['object_id'].iloc[row]}: {error}")
        return found, skipped

    def _table(self, found: list[tuple[int, Found]]) -> pd.DataFrame:
        table = self.source.table.iloc[[row for row, _ in found]].reset_index(drop=True).copy()
        for name in {name for _, item in found for name in item.row}:
            table[name] = [item.row.get(name) for _, item in found]
        table["quality"] = [float(np.isfinite(item.image).mean()) for _, item in found]
        if "bands" not in table:
            table["bands"] = ",".join(self.source.about["bands"])
        return table


_worker: list[Writer] = []


def _open_worker(recipe: Recipe, directory: Path) -> None:
    import torch

    torch.set_num_threads(1)
    _worker[:] = [Writer(recipe, recipe.open(), directory)]


def _write_in_worker(number: int) -> int:
    return _worker[0].write(number)


def written(writer: Writer, missing: list[int], processes: int) -> Iterator[int]:
    """Rows of each part as it is done, in this process or in several."""
    if processes <= 1 or len(missing) <= 1:
        yield from map(writer.write, missing)
        return
    context = multiprocessing.get_context("spawn")
    arguments = (writer.recipe, writer.directory)
    with ProcessPoolExecutor(min(processes, len(missing)), context, _open_worker, arguments) as pool:
        waiting = {pool.submit(_write_in_worker, number) for number in missing}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def claim(directory: Path, recipe: Recipe) -> None:
    """The directory is for this recipe alone: an unfinished one goes on, another one is left as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    stated = directory / STATED
    if stated.is_file():
        if read_json(stated) != recipe.to_json():
            raise ConfigError(
                f"{directory} holds a data set of another recipe ({stated}): name another output=, or remove that directory."
            )
        return
    if any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty and no data set: name another output=.")
    write_json(stated, recipe.to_json())


def collected(writer: Writer, bad_limit: float) -> tuple[pd.DataFrame, list[str]]:
    tables, skipped = [], []
    for number in range(writer.parts()):
        record = read_json(writer.part(number)[1])
        skipped += record["skipped"]
        if record["rows"]:
            tables.append(completed(pd.DataFrame(record["rows"])))
    total = len(writer.source.table)
    if len(skipped) > bad_limit * total:
        raise DataError(
            f"{len(skipped)} of {total} objects could not be read, more than bad_limit={bad_limit:g} allows. The first:\n"
            + "\n".join(skipped[:5])
        )
    return pd.concat(tables, ignore_index=True), skipped
