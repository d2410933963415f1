"""Write a data set to disk: synthetic scenes, or what a converter reads. Part by part, in parallel, resumable.

    make prepare pkg=lensfind survey=lsst n=20000
    make prepare pkg=lensfind data=bologna1 input=<folder>

A part is a file of cutouts and, written after it, the rows that it holds; a call that finds them goes on with what is missing.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lensfind.data.converters import Found, Source, open_source
from lensfind.data.known_lenses import mark_known, read_lenscat
from lensfind.data.leakage import leakage
from lensfind.data.manifest import completed, known, problems
from lensfind.data.splits import SPLITS, assign_splits
from lensfind.data.storage import ABOUT, ENDINGS, Store, finish_store, write_part
from lensfind.simulation.population import Population
from lensfind.survey import Survey
from skyloom.errors import ConfigError, DataError
from skyloom.run.files import read_json, write_json, write_whole
from skyloom.training.progress import Bar, said

__all__ = ["prepare", "simulated_source"]

RECIPE = "recipe.json"


def simulated_source(
    survey: Survey,
    n: int,
    population: Population | None = None,
    size: int | None = None,
    seed: int = 0,
    class_prior: float = 0.1,
    labelled_share: float = 0.2,
    oversample: int = 4,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Source:
    """`n` synthetic scenes as a source: the rows that `lensfind.simulated` would draw for splits of these sizes."""
    import torch

    from lensfind.data.synthetic import compose, enough
    from lensfind.simulation.population import KINDS, LENS
    from lensfind.simulation.simulator import RECIPE, simulate

    population = population or Population()
    size = size or enough(survey, population)
    counts = [round(n * share) for share in fractions[1:]]
    sizes = dict(zip(SPLITS, [n - sum(counts), *counts], strict=True))
    if min(sizes.values()) < 2:
        raise ConfigError(f"n={n} cutouts are too few for three splits: take at least 20.")
    drawn = {split: compose(seed, split, rows, labelled_share, class_prior, population) for split, rows in sizes.items()}
    kinds = torch.cat([part.kinds for part in drawn.values()]).numpy()
    seeds = torch.cat([part.seeds for part in drawn.values()])
    splits = np.repeat(list(drawn), [len(part) for part in drawn.values()])
    names = [f"sim-{survey.name}-{split}-{row:06d}" for split, part in drawn.items() for row in range(len(part))]
    table = pd.DataFrame({"object_id": names, "label": (kinds == LENS).astype(int), "split": splits, "sky_group_id": names})
    table["label_source"], table["label_confidence"] = "sim:lensfind", 1.0
    table["kind"], table["seed"] = np.array(KINDS)[kinds], seeds.numpy()
    table["labelled"] = torch.cat([part.labelled for part in drawn.values()]).numpy()
    table["survey"], table["pixel_scale"], table["bands"] = survey.name, survey.pixel_scale, ",".join(survey.bands)
    table["zero_point"] = 31.4
    about = {
        "bands": list(survey.bands), "size": size, "unit": "nJy", "synthetic": True, "survey": survey.to_json(),
        "population": population.to_json(), "oversample": oversample, "simulator": RECIPE, "license": "simulated",
        "masked": False, "class_prior": class_prior,
    }  # fmt: skip

    width = float(survey.column("psf_fwhm").mean())

    def read_many(rows: np.ndarray) -> list[Found]:
        columns = simulate(seeds[rows], torch.from_numpy(kinds[rows]), survey, population, size, oversample)
        arrays = {name: values.numpy() for name, values in columns.items() if name not in ("kind", "seed")}
        image, variance = arrays.pop("image"), arrays.pop("variance")
        for ours, name in (("q", "axis_ratio"), ("lens_radius", "half_light_radius")):
            if ours in arrays:
                arrays[name] = arrays.pop(ours)
        if "seeing" in arrays:  # the simulator's is a factor on the survey's, the manifest's is in arcsec
            arrays["psf_fwhm"] = arrays["seeing"] = arrays["seeing"] * width
        return [
            Found(image[k], variance[k], {name: values[k].item() for name, values in arrays.items() if values.ndim == 1})
            for k in range(len(rows))
        ]

    return _Batched(table, about, lambda k: read_many(np.array([k]))[0], read_many=read_many)


@dataclass
class _Batched(Source):
    """A source that reads many objects at once."""

    read_many: Any = None


@dataclass(frozen=True)
class _Recipe:
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
class _Writer:
    """Writes parts of a source into a directory."""

    recipe: _Recipe
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
        if isinstance(self.source, _Batched):
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


_worker: list[_Writer] = []


def _open_worker(recipe: _Recipe, directory: Path) -> None:
    import torch

    torch.set_num_threads(1)
    _worker[:] = [_Writer(recipe, recipe.open(), directory)]


def _write_in_worker(number: int) -> int:
    return _worker[0].write(number)


def _written(writer: _Writer, missing: list[int], processes: int) -> Iterator[int]:
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


def _claim(directory: Path, recipe: _Recipe) -> None:
    """The directory is for this recipe alone: an unfinished one goes on, another one is left as it is."""
    directory.mkdir(parents=True, exist_ok=True)
    stated = directory / RECIPE
    if stated.is_file():
        if read_json(stated) != recipe.to_json():
            raise ConfigError(
                f"{directory} holds a data set of another recipe ({stated}): name another output=, or remove that directory."
            )
        return
    if any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty and no data set: name another output=.")
    write_json(stated, recipe.to_json())


def _collected(writer: _Writer, bad_limit: float) -> tuple[pd.DataFrame, list[str]]:
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


def prepare(
    source: str = "simulated",
    survey: Survey | None = None,
    n: int = 20000,
    input: str | Path | None = None,
    output: str | Path | None = None,
    population: Population | None = None,
    size: int | None = None,
    seed: int = 0,
    class_prior: float | None = None,
    labelled_share: float = 0.2,
    oversample: int = 4,
    storage: str = "hdf5",
    variance: bool = False,
    rows_per_part: int = 1000,
    processes: int | None = None,
    known_lenses: str | Path | None = None,
    match_radius: float = 5.0,
    bad_limit: float = 0.01,
    cache_dir: str | Path = "cache",
    **options: Any,
) -> dict[str, Any]:
    """Write a data set and say what is in it.

    `source` is "simulated" (n scenes of the survey) or a converter of `lensfind.data.converters`, which reads `input`; further
    `options` that are not None are its own. `storage` is hdf5 or webdataset. `known_lenses` is lenscat or the path of its
    catalog.csv: every row within `match_radius` arcsec of a known lens is listed in known_lenses.csv, and an unlabeled one on a
    confident lens becomes a lens. More than a share `bad_limit` of unreadable objects is an error.
    """
    if storage not in ENDINGS:
        raise ConfigError(f"storage={storage!r}: it is {' or '.join(ENDINGS)}.")
    own = {name: value for name, value in options.items() if value is not None}
    simulation = None
    if source == "simulated":
        simulation = _simulation(survey, population, own) | {
            "n": n, "size": size, "seed": seed, "class_prior": 0.1 if class_prior is None else class_prior,
            "labelled_share": labelled_share, "oversample": oversample,
        }  # fmt: skip
    elif size is not None:
        own["size"] = size
    where = None if input is None else str(Path(input).resolve())
    recipe = _Recipe(source, where, own, simulation, storage, rows_per_part, variance)
    name = f"prepared-{survey.name}" if source == "simulated" and survey is not None else source
    directory = Path(output) if output else Path(cache_dir) / "lensfind" / name
    opened = recipe.open()
    wrong = problems(opened.table.assign(filepath=[str(row) for row in range(len(opened.table))]))
    if wrong:
        raise DataError(f"{source}: the table has {len(wrong)} mistakes:\n" + "\n".join(wrong[:10]))
    for note in opened.notes:
        said(f"{source}: {note}.")
    _claim(directory, recipe)
    writer = _Writer(recipe, opened, directory)
    if not (directory / ABOUT).is_file():
        done = [number for number in range(writer.parts()) if writer.part(number)[1].is_file()]
        missing = sorted(set(range(writer.parts())) - set(done))
        begun = sum(read_json(writer.part(number)[1])["of"] for number in done)
        with Bar(f"preparing {directory.name}", len(opened.table), begun) as bar:
            for rows in _written(writer, missing, _processes(processes)):
                bar.advance(rows)
        _finish(writer, bad_limit, known_lenses, match_radius, seed)
    else:
        said(f"{directory} is complete already.")
    return _summary(Store(directory), source)


def _processes(processes: int | None) -> int:
    return len(os.sched_getaffinity(0)) if processes is None else processes


def _simulation(survey: Survey | None, population: Population | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Survey and population as plain numbers."""
    if survey is None:
        raise ConfigError("say of which survey: make prepare pkg=lensfind survey=lsst n=20000")
    if options:
        raise ConfigError(f"{', '.join(options)}: synthetic data have no such option.")
    stated = {"survey": survey.to_json(), "population": (population or Population()).to_json()}
    return json.loads(json.dumps(stated))


def _finish(writer: _Writer, bad_limit: float, known_lenses: Any, radius: float, seed: int) -> None:
    directory = writer.directory
    table, skipped = _collected(writer, bad_limit)
    about = {**writer.source.about, "source": writer.recipe.source, "storage": writer.recipe.storage}
    if known_lenses is not None:
        table, listed = mark_known(table, read_lenscat(known_lenses), radius, promote=True)
        listed.to_csv(directory / "known_lenses.csv", index=False)
        about["known_lenses"] = {"hits": len(listed), "radius_arcsec": radius}
    if not known(table["split"]).all() or not known(table["sky_group_id"]).all():
        table = assign_splits(table, seed=seed)
    about["masked"] = bool((table["quality"] < 1).any())
    about["skipped"] = skipped
    about["recipe"] = hashlib.sha256(json.dumps(writer.recipe.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    finish_store(directory, table, about)
    for number in range(writer.parts()):
        writer.part(number)[1].unlink(missing_ok=True)


def _summary(store: Store, source: str) -> dict[str, Any]:
    table = store.table
    count = table["label"].value_counts()
    said_splits = ", ".join(f"{split} {int((table['split'] == split).sum())}" for split in SPLITS)
    found: dict[str, Any] = {
        "data set": store.directory,
        "cutouts": f"{len(table)} of {store.shape[0]} bands ({', '.join(store.about['bands'])}), {store.shape[-1]} pixels, "
        f"{store.about['unit']}{', synthetic' if store.about['synthetic'] else ''}",
        "labels": f"{count.get(1, 0)} lenses, {count.get(0, 0)} non-lenses, {count.get(-1, 0)} unlabeled",
        "splits": said_splits,
    }
    if store.about.get("skipped"):
        found["could not be read"] = f"{len(store.about['skipped'])} objects, listed in {ABOUT}"
    if "known_lenses" in store.about:
        hit = store.about["known_lenses"]
        found["known lenses"] = f"{hit['hits']} hits within {hit['radius_arcsec']:g} arcsec, listed in known_lenses.csv"
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:4000])
    label = table["label"].iloc[rows]
    if min((label == 1).sum(), (label != 1).sum()) >= 100:  # fewer tell nothing
        checked = leakage(table.iloc[rows], store.read(rows))
        found["leakage"] = f"AUROC {checked.auroc:.3f} +- {checked.error:.3f} from metadata, noise and PSF alone" + (
            f", above {checked.limit:g}: THE LABELS LEAK, through {next(iter(checked.features))}" if checked.leaks else ""
        )
    config = "prepared" if source == "simulated" else source
    found["train on it"] = f"make train pkg=lensfind data={config} data.path={store.directory}"
    return found
