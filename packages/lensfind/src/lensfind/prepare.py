"""Write a data set to disk: synthetic scenes, or what a converter reads. Part by part, in parallel, resumable.

make prepare pkg=lensfind survey=lsst n=20000
make prepare pkg=lensfind data=bologna1 input=<folder>
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.data.known_lenses import mark_known, read_lenscat
from lensfind.data.leakage import leakage
from lensfind.data.manifest import known, problems
from lensfind.data.splits import SPLITS, assign_splits
from lensfind.data.storage import ABOUT, ENDINGS, Store, finish_store
from lensfind.data.writing import Recipe, Writer, claim, collected, written
from lensfind.simulation.population import Population
from lensfind.survey import Survey
from skyloom.errors import ConfigError, DataError
from skyloom.run.files import read_json
from skyloom.training.progress import Bar, said

__all__ = ["prepare"]


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
    recipe = Recipe(source, where, own, simulation, storage, rows_per_part, variance)
    name = f"prepared-{survey.name}" if source == "simulated" and survey is not None else source
    directory = Path(output) if output else Path(cache_dir) / "lensfind" / name
    opened = recipe.open()
    wrong = problems(opened.table.assign(filepath=[str(row) for row in range(len(opened.table))]))
    if wrong:
        raise DataError(f"{source}: the table has {len(wrong)} mistakes:\n" + "\n".join(wrong[:10]))
    for note in opened.notes:
        said(f"{source}: {note}.")
    claim(directory, recipe)
    writer = Writer(recipe, opened, directory)
    if not (directory / ABOUT).is_file():
        done = [number for number in range(writer.parts()) if writer.part(number)[1].is_file()]
        missing = sorted(set(range(writer.parts())) - set(done))
        begun = sum(read_json(writer.part(number)[1])["of"] for number in done)
        with Bar(f"preparing {directory.name}", len(opened.table), begun) as bar:
            for rows in written(writer, missing, _processes(processes)):
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


def _finish(writer: Writer, bad_limit: float, known_lenses: Any, radius: float, seed: int) -> None:
    directory = writer.directory
    table, skipped = collected(writer, bad_limit)
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
