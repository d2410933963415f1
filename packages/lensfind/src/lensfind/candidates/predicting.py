"""Scores for any number of cutouts: in shards, with bounded memory, and taken up again where they were stopped."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensfind.calibration.calibrating import conformal_sets
from lensfind.calibration.merit import sigmoid
from lensfind.candidates.sky import match
from lensfind.candidates.sources import Source, open_source, read_cutouts
from skyloom.data import Batch
from skyloom.errors import DataError, MissingFile
from skyloom.pu import prior_shift
from skyloom.run.files import read_json, write_json, write_whole
from skyloom.training.progress import said

__all__ = ["predict", "read_cutouts"]

Apply = Callable[[Any], dict[str, np.ndarray]]
_SETS = np.array(["neither", "lens", "no lens", "lens or no lens"])
_BESIDE = ("dropout_variance", "aleatoric_variance", "view_spread", "log_theta_E")


class _Rows:
    """The cutouts of a shard as a data set: what is unusable is a blank image, and is scored for nothing."""

    def __init__(self, images: np.ndarray, beside: dict[str, np.ndarray]):
        self.images, self.beside = images, beside

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: np.ndarray) -> Batch:
        beside = {name: torch.from_numpy(values[rows]).float() for name, values in self.beside.items()}
        return {"image": torch.from_numpy(self.images[rows]), **beside}


def predict(
    task: Any,
    about: dict[str, Any],
    input: Path,
    output: Path,
    apply: Apply,
    survey: str | None = None,
    other_survey: bool = False,
    prior: float | None = None,
    known: str | None = None,
    match_radius: float = 2.0,
    tiles: Mapping[str, Sequence[str]] | None = None,
    bad_pixels: float = 0.0,
    shard: int = 4096,
) -> dict[str, Any]:
    """Write a Parquet table with a row per cutout of `input` (see `lensfind.candidates.sources`).

    Columns: id; ra and dec where known; logit, as learned, at the class prior of the training; score = sigmoid(logit), which
    ranks; probability, calibrated, at the `prior` that lenses have among these cutouts (null: that of the training); conformal,
    the prediction set; what else the network knows of its uncertainty; flags; and the known lens within `match_radius` arcsec.

    Args:
        survey: of an input that does not say
        other_survey: allow one that the model was not trained for
        prior: share of lenses among these cutouts, which moves probabilities and never the ranking
        known: table (.csv, .parquet) of name, ra, dec (degrees) of known lenses
        tiles: {band: [FITS files]} for an input of positions
        bad_pixels: largest share of pixels without data that is filled with sky; a cutout with more gets no score
        shard: cutouts held in memory at a time; a finished shard is kept if the work is stopped
    """
    found = open_source(input, about["bands"], int(about["size"]), tiles, survey)
    _check(found, about, survey, other_survey)
    if not len(found):
        raise DataError(f"{input}: there are no images in it.")
    prior = float(about["class_prior"]) if prior is None else prior
    lenses = _known(known)
    names = {"survey": about["survey"]["name"], "prior": prior, "input": str(input), "rows": len(found), "shard": shard}
    folder = _folder(Path(output), {**names, "known": known, "bad_pixels": bad_pixels, "weights": _digest(task)})
    totals = {"cutouts": len(found), "not finite": 0, "unreadable": 0, "above even odds": 0}
    parts = [np.arange(start, min(start + shard, len(found))) for start in range(0, len(found), shard)]
    for number, rows in enumerate(parts):
        path = folder / f"part-{number:06d}.parquet"
        if not path.exists():
            table = _scored(found, rows, about, apply, task, prior, bad_pixels)
            _write(path, _with_known(table, lenses, match_radius))
            if len(parts) > 1:
                said(f"scored {rows[-1] + 1:,} of {len(found):,}")
    _join(
        folder,
        Path(output),
        len(parts),
        {
            **names,
            "trained_on": "synthetic images" if about["synthetic"] else "images",
            "tiles": json.dumps({band: list(files) for band, files in (tiles or {}).items()}),
        },
        totals,
    )
    shutil.rmtree(folder)
    return totals


def _check(found: Source, about: dict[str, Any], survey: str | None, other_survey: bool) -> None:
    """Refuse what the model was not trained for."""
    trained, bands, size = about["survey"]["name"], about["bands"], about["size"]
    named = survey or found.survey
    if named is None:
        raise DataError(
            f"{found.path} does not say which survey it is of, and this model knows {trained!r} only: give the file the "
            "attribute `survey` (a header card SURVEY in FITS), or pass survey=."
        )
    if named.lower() != trained.lower() and not other_survey:
        raise DataError(
            f"{found.path} is of survey {named!r}, this model was trained for {trained!r}: pixels, PSF and depth differ, "
            f"and its scores would mean nothing. Train with survey={named.lower()}, or pass other_survey=true."
        )
    if found.bands is not None and found.bands != list(bands):
        raise DataError(f"{found.path} has bands {found.bands}, this model takes {list(bands)}, in this order.")
    if found.shape[1] != len(bands) or min(found.shape[2:]) < size:
        raise DataError(
            f"{found.path}: images are {list(found.shape[1:])} (bands, rows, columns), this model takes "
            f"{[len(bands), size, size]}: cut them out at {size} pixels of {about['survey']['pixel_scale']} arcsec."
        )


def _scored(
    found: Source, rows: np.ndarray, about: Mapping[str, Any], apply: Apply, task: Any, prior: float, bad_pixels: float
) -> dict[str, np.ndarray]:
    images, unreadable = _images(found, rows, int(about["size"]))
    lacking = ~np.isfinite(images)
    share = lacking.mean(axis=(1, 2, 3))
    images[lacking] = 0.0
    conditions = [name for name in getattr(task, "conditions", {}) if name in found.more]
    out = apply(_Rows(images, {name: found.more[name][rows] for name in conditions}))
    logit = np.asarray(out["logit"], dtype=np.float64)
    unusable = unreadable | (share > bad_pixels) | ~np.isfinite(logit)
    calibrated = np.asarray(out.get("calibrated", logit), dtype=np.float64)
    shift = prior_shift(prior, float(getattr(task, "prior", about["class_prior"])))
    table: dict[str, np.ndarray] = {"id": found.ids[rows]}
    table |= {name: values[rows] for name, values in found.more.items()}
    numbers = {"logit": logit, "score": sigmoid(logit), "probability": sigmoid(calibrated + shift)}
    numbers |= {name: np.asarray(out[name], dtype=np.float64) for name in _BESIDE if name in out}
    table |= {name: np.where(unusable, np.nan, values) for name, values in numbers.items()}
    if task is not None and hasattr(task, "conformal"):
        sets = _SETS[conformal_sets(logit, *(float(t) for t in task.conformal))]
        table["conformal"] = np.where(unusable, "", sets)
    flags = [
        ",".join(name for name, is_so in (("unreadable", u), ("missing pixels", s > 0 and not n), ("no score", n)) if is_so)
        for u, s, n in zip(unreadable, share, unusable, strict=True)
    ]
    table["flags"] = np.array(flags)
    return table


def _images(found: Source, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of these rows cut to `size` about the centre, NaN where a row cannot be read, and which those are."""
    unreadable = np.zeros(len(rows), dtype=bool)
    try:
        images = np.array(found.read(rows), dtype=np.float32)
    except DataError:  # one of them: find it
        blank = np.full(found.shape[1:], np.nan, dtype=np.float32)
        singles = []
        for k, row in enumerate(rows):
            try:
                singles.append(found.read(np.array([row]))[0])
            except DataError:
                unreadable[k] = True
                singles.append(blank)
        images = np.stack(singles).astype(np.float32)
    up, left = ((side - size) // 2 for side in images.shape[2:])
    return np.ascontiguousarray(images[:, :, up : up + size, left : left + size]), unreadable


# ---------------------------------------------------------------- known lenses, shards


def _known(path: str | None) -> Any:
    import pandas as pd

    if path is None:
        return None
    if not Path(path).is_file():
        raise MissingFile(f"the list of known lenses {path} does not exist.")
    table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
    missing = [name for name in ("name", "ra", "dec") if name not in table]
    if missing:
        raise DataError(
            f"{path}: a list of known lenses has the columns name, ra and dec (degrees); missing: {', '.join(missing)}."
        )
    return table


def _with_known(table: dict[str, np.ndarray], lenses: Any, radius: float) -> dict[str, np.ndarray]:
    if lenses is None:
        return table
    if "ra" not in table:
        raise DataError("known lenses can only be matched to cutouts whose ra and dec are known.")
    index, away = match(table["ra"], table["dec"], lenses["ra"].to_numpy(float), lenses["dec"].to_numpy(float), radius)
    names = lenses["name"].astype(str).to_numpy()
    return {**table, "known_lens": np.where(index >= 0, names[index], ""), "known_separation": away}


def _digest(task: Any) -> str:
    """Of the weights: shards of another model are not taken up."""
    if task is None or not hasattr(task, "state_dict"):
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(task.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _folder(output: Path, recipe: dict[str, Any]) -> Path:
    """Where the shards of this very work lie; what was left by another is cleared away."""
    folder = output.with_name(f".{output.name}.parts")
    note = folder / "recipe.json"
    if folder.exists() and (not note.exists() or read_json(note) != json.loads(json.dumps(recipe))):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, recipe)
    return folder


def _write(path: Path, table: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with write_whole(path) as temporary:
        pq.write_table(pa.table(dict(table)), temporary)


def _join(folder: Path, output: Path, parts: int, notes: Mapping[str, Any], totals: dict[str, Any]) -> None:
    """One file from the shards, a shard at a time."""
    import pyarrow.parquet as pq

    writer = None
    with write_whole(output) as temporary:
        for number in range(parts):
            table = pq.read_table(folder / f"part-{number:06d}.parquet")
            flags = table["flags"].to_pylist()
            totals["unreadable"] += sum("unreadable" in flag for flag in flags)
            totals["not finite"] += sum("no score" in flag and "unreadable" not in flag for flag in flags)
            totals["above even odds"] += int((table["probability"].to_numpy() > 0.5).sum())
            schema = table.schema.with_metadata({name: str(value) for name, value in notes.items()})
            writer = writer or pq.ParquetWriter(temporary, schema)
            writer.write_table(table.cast(schema))
        assert writer is not None
        writer.close()
