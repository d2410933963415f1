"""The manifest: one row per cutout, saying what it is, where it is, and what is known of it.

A pandas table with the columns of `SCHEMA` (version 2), in Parquet; CSV is read too. What is not known is missing (NaN, empty
text), never a plausible number. Further columns are kept: parameters of a simulation, measurements of a survey.

    >>> import pandas as pd
    >>> row = {"object_id": "a", "filepath": "a.fits", "label": 2, "label_source": "sim:bologna", "label_confidence": 1.0}
    >>> problems(pd.DataFrame([row]))
    ["row 0 ('a'), column label: 2 is not one of 1 (lens), 0 (no lens), -1 (unlabeled)"]
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lensfind.data.provenance import SOURCES, usage_problems
from skyloom.errors import DataError, MissingFile, nearest
from skyloom.run.files import write_whole

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "SURVEYS",
    "completed",
    "known",
    "problems",
    "read_manifest",
    "validate",
    "write_manifest",
]

SCHEMA_VERSION = "2.0"
SURVEYS = ("lsst", "hsc", "des", "kids", "euclid", "hst", "jwst", "legacy", "sdss", "unknown")
"""A survey may be narrowed after an underscore: hst_acs, euclid_vis."""


@dataclass(frozen=True)
class Column:
    kind: Literal["text", "integer", "number", "flag"]
    about: str
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # whether `low` itself is excluded
    required: bool = False


_TEXT: Literal["text"] = "text"
_NUMBER: Literal["number"] = "number"
_INTEGER: Literal["integer"] = "integer"
_FLAG: Literal["flag"] = "flag"
_FLAGS = ("true", "false", "0", "1", "0.0", "1.0")

SCHEMA: dict[str, Column] = {
    "object_id": Column(_TEXT, "name of the object; unique within a manifest", required=True),
    "filepath": Column(_TEXT, "file of the cutout, relative to the manifest", required=True),
    "member": Column(_INTEGER, "row (HDF5) or byte offset (tar) in that file", 0),
    "checksum": Column(_INTEGER, "CRC-32 of the image's bytes", 0, 2**32 - 1),
    "label": Column(_INTEGER, "1 lens, 0 no lens, -1 unlabeled", required=True),
    "label_source": Column(_TEXT, "one of lensfind.data.provenance.SOURCES", required=True),
    "label_confidence": Column(_NUMBER, "of the label", 0, 1, required=True),
    "group_id": Column(_TEXT, "what must not be split: cluster, exemplar, simulation seed"),
    "sky_group_id": Column(_TEXT, "objects within 5 arcsec of one another"),
    "split": Column(_TEXT, "train, val or test"),
    "survey": Column(_TEXT, f"one of {', '.join(SURVEYS)}"),
    "instrument": Column(_TEXT, "as the header calls it"),
    "bands": Column(_TEXT, "present in the cutout, 'g,r,i'"),
    "wcs": Column(_TEXT, "FITS header cards, one a line"),
    "ra": Column(_NUMBER, "degrees", 0, 360),
    "dec": Column(_NUMBER, "degrees", -90, 90),
    "pixel_scale": Column(_NUMBER, "arcsec per pixel", 0, 2, open_low=True),
    "seeing": Column(_NUMBER, "arcsec", 0, 5, open_low=True),
    "psf_fwhm": Column(_NUMBER, "arcsec, of the image as it is", 0, 5, open_low=True),
    "depth": Column(_NUMBER, "5 sigma point source, AB mag", 10, 35),
    "zero_point": Column(_NUMBER, "AB mag of one unit of the image", 0, 60),
    "exposure": Column(_NUMBER, "seconds", 0),
    "z_phot": Column(_NUMBER, "photometric redshift", 0, 10),
    "z_spec": Column(_NUMBER, "spectroscopic redshift", 0, 10),
    "z_err": Column(_NUMBER, "error of the redshift", 0),
    "magnitude": Column(_NUMBER, "AB mag in magnitude_band", 5, 35),
    "magnitude_band": Column(_TEXT, "band of magnitude"),
    "snr": Column(_NUMBER, "of the object", 0),
    "sersic_index": Column(_NUMBER, "", 0.3, 10),
    "half_light_radius": Column(_NUMBER, "arcsec", 0, open_low=True),
    "axis_ratio": Column(_NUMBER, "b/a", 0, 1, open_low=True),
    "position_angle": Column(_NUMBER, "degrees, from the x axis counter-clockwise", -180, 360),
    "variance_map_available": Column(_FLAG, "whether a variance map is stored"),
    "variance_map_path": Column(_TEXT, "its file"),
    "psf_matched": Column(_FLAG, "whether the PSF was matched"),
    "target_psf_fwhm": Column(_NUMBER, "arcsec, of a matched PSF", 0, 5, open_low=True),
    "psf_residual": Column(_NUMBER, "arcsec, |achieved - target|", 0),
    "quality": Column(_NUMBER, "share of usable pixels", 0, 1),
    "license": Column(_TEXT, "of the image"),
    "retrieved": Column(_TEXT, "date, YYYY-MM-DD"),
    "theta_E": Column(_NUMBER, "Einstein radius, arcsec", 0, open_low=True),
    "arc_snr": Column(_NUMBER, "matched-filter signal-to-noise of the lensed light", 0),
    "flux_ratio": Column(_NUMBER, "lensed light over all light", 0, 1),
    "magnification": Column(_NUMBER, "total", 0),
    "kind": Column(_TEXT, "category: lens, spiral, ring, …"),
    "seed": Column(_INTEGER, "of the simulated scene"),
    "schema_version": Column(_TEXT, f"'{SCHEMA_VERSION}'"),
}


def _named(table: pd.DataFrame, row: int | np.integer) -> str:
    name = table["object_id"].iloc[row] if "object_id" in table else None
    return f"row {row}" + (f" ({name!r})" if isinstance(name, str) and name else "")


def known(values: Any) -> np.ndarray:
    """[N] whether a value is there: the mask that goes with NaN and empty text."""
    series = pd.Series(values)
    return (series.notna() & (series.astype(object).astype(str).str.strip() != "")).to_numpy(dtype=bool)


def _range(spec: Column) -> str:
    low = "" if math.isinf(spec.low) else f"{'above' if spec.open_low else 'at least'} {spec.low:g}"
    high = "" if math.isinf(spec.high) else f"at most {spec.high:g}"
    return " and ".join(part for part in (low, high) if part)


def _column_problems(table: pd.DataFrame, name: str, spec: Column) -> list[str]:
    values, there = table[name], known(table[name])
    found = []

    def say(row: int, text: str) -> None:
        found.append(f"{_named(table, row)}, column {name}: {text}")

    if spec.required:
        for row in np.flatnonzero(~there):
            say(int(row), "is missing, and every row needs it")
    if spec.kind == "text":
        return found
    if spec.kind == "flag":
        for row in np.flatnonzero(there & ~values.astype(str).str.lower().isin(_FLAGS).to_numpy()):
            say(int(row), f"{values.iloc[int(row)]!r} is neither true nor false")
        return found
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    finite = np.isfinite(numbers)
    for row in np.flatnonzero(there & ~finite):
        say(int(row), f"{values.iloc[int(row)]!r} is not a number")
    there = there & finite
    if name == "label":
        for row in np.flatnonzero(there & ~np.isin(numbers, (-1, 0, 1))):
            say(int(row), f"{numbers[row]:g} is not one of 1 (lens), 0 (no lens), -1 (unlabeled)")
        return found
    if spec.kind == "integer":
        for row in np.flatnonzero(there & (numbers != np.round(numbers))):
            say(int(row), f"{numbers[row]:g} is not a whole number")
    outside = (numbers < spec.low) | (numbers > spec.high) | (spec.open_low & (numbers == spec.low))
    for row in np.flatnonzero(there & outside):
        hint = "; what is not known is left empty, not -1" if numbers[row] == -1 else ""
        say(int(row), f"{numbers[row]:g} is out of range ({_range(spec)}; {spec.about}){hint}")
    return found


def _cross_problems(table: pd.DataFrame) -> list[str]:
    """Rules that tie columns together."""
    found = []

    def column(name: str) -> pd.Series:
        return table[name] if name in table else pd.Series([np.nan] * len(table), dtype=object)

    def check(name: str, fine: Callable[[str], bool], say: Callable[[str], str]) -> None:
        values, there = column(name).astype(object), known(column(name))
        bad = {value for value in pd.unique(values[there]) if not fine(str(value))}
        for row in np.flatnonzero(there & values.isin(bad).to_numpy()) if bad else ():
            found.append(f"{_named(table, row)}, column {name}: {say(str(values.iloc[row]))}")

    check("label_source", SOURCES.__contains__, lambda v: f"no such source {v!r}.{nearest(v, SOURCES)}")
    check("survey", lambda v: v.partition("_")[0] in SURVEYS, lambda v: f"no such survey {v!r}.{nearest(v, SURVEYS)}")
    check("split", ("train", "val", "test").__contains__, lambda v: f"{v!r} is not train, val or test")
    check("schema_version", SCHEMA_VERSION.__eq__, lambda v: f"{v!r}; this is {SCHEMA_VERSION!r}")
    flags = {name: column(name).map(_flag).to_numpy(dtype=bool) for name in ("variance_map_available", "psf_matched")}
    for row in np.flatnonzero(flags["variance_map_available"] & ~known(column("variance_map_path"))):
        found.append(f"{_named(table, row)}: variance_map_available is set, but variance_map_path is empty")
    width, target = (pd.to_numeric(column(name), errors="coerce") for name in ("psf_fwhm", "target_psf_fwhm"))
    for row in np.flatnonzero(flags["psf_matched"]):
        if not target.iloc[row] > 0:
            found.append(f"{_named(table, row)}: psf_matched is set, but target_psf_fwhm is missing")
        elif width.iloc[row] < 0.98 * target.iloc[row]:
            found.append(
                f"{_named(table, row)}: psf_matched is set, but psf_fwhm {width.iloc[row]:g} is not yet the target "
                f"{target.iloc[row]:g} arcsec"
            )
    for row in np.flatnonzero(known(column("magnitude")) & ~known(column("magnitude_band"))):
        found.append(f"{_named(table, row)}: magnitude is given without magnitude_band")
    for name in ("object_id", "filepath"):
        if name in table:
            key = table[name].astype(str)
            if name == "filepath" and "member" in table:
                key = key + "#" + table["member"].astype(object).where(table["member"].notna(), "").astype(str)
            for row in np.flatnonzero(key.duplicated().to_numpy() & known(table[name])):
                found.append(f"{_named(table, row)}, column {name}: {table[name].iloc[row]!r} stands in an earlier row already")
    return found


def _flag(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "1.0")


def problems(table: pd.DataFrame) -> list[str]:
    """A message for each thing that is wrong; none if the table is a manifest."""
    missing = [name for name, spec in SCHEMA.items() if spec.required and name not in table]
    if missing:
        return [f"there is no column {name!r}.{nearest(name, table.columns)}" for name in missing]
    found = []
    for name in table.columns:
        if name in SCHEMA:
            found += _column_problems(table, name, SCHEMA[name])
        elif close := difflib.get_close_matches(str(name), SCHEMA, n=1, cutoff=0.85):
            found.append(f"column {name!r} is not known; did you mean {close[0]!r}?")
    found += _cross_problems(table)
    label, confidence = (pd.to_numeric(table[name], errors="coerce") for name in ("label", "label_confidence"))
    found += usage_problems(table["label_source"].astype(str).tolist(), label.tolist(), confidence.tolist())[0]
    return found


def completed(table: pd.DataFrame) -> pd.DataFrame:
    """Every column of the schema, in its type and order, missing values as NaN or empty text; then the further columns."""
    columns: dict[str, Any] = {}
    for name, spec in SCHEMA.items():
        values = table[name] if name in table else pd.Series([None] * len(table), index=table.index)
        if spec.kind == "text":
            columns[name] = values.where(values.notna(), "").astype(str)
        elif spec.kind == "flag":
            columns[name] = values.map(_flag).astype(bool)
        elif spec.kind == "integer" and known(values).all() and len(table):
            columns[name] = pd.Series([int(value) for value in values], index=table.index, dtype="int64")
        elif spec.kind == "integer":
            columns[name] = pd.Series([int(v) if k else pd.NA for v, k in zip(values, known(values), strict=True)],
                                      index=table.index, dtype="Int64")  # fmt: skip
        else:
            columns[name] = pd.to_numeric(values, errors="coerce").astype("float64")
    columns["schema_version"] = pd.Series([SCHEMA_VERSION] * len(table), index=table.index)
    further = {name: table[name] for name in table.columns if name not in SCHEMA}
    return pd.DataFrame({**columns, **further}).reset_index(drop=True)


def validate(table: pd.DataFrame, where: str = "the manifest", show: int = 10) -> pd.DataFrame:
    """The completed table, or an error with a message for each bad row (the first `show` of them)."""
    found = problems(table)
    if found:
        more = f"\n… and {len(found) - show} more" if len(found) > show else ""
        raise DataError(f"{where} has {len(found)} mistakes:\n" + "\n".join(found[:show]) + more)
    return completed(table)


def read_manifest(path: str | Path, check_files: bool = False) -> pd.DataFrame:
    """A validated manifest from Parquet or CSV. With `check_files`, every file must be there."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no manifest {path}.")
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    elif path.suffix in (".parquet", ".pq"):
        table = pd.read_parquet(path)
    else:
        raise DataError(f"{path}: a manifest is .parquet or .csv.")
    table = validate(table, str(path))
    if check_files:
        absent = [name for name in table["filepath"].unique() if not (path.parent / name).is_file()]
        if absent:
            raise MissingFile(f"{path}: {len(absent)} files are not there, the first of them {', '.join(absent[:10])}.")
    return table


def write_manifest(path: str | Path, table: pd.DataFrame) -> None:
    """Write Parquet or CSV, validated, whole or not at all."""
    path = Path(path)
    table = validate(table, str(path))
    with write_whole(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False, float_format="%.17g")
        else:
            table.to_parquet(temporary, index=False)


def constant(table: pd.DataFrame, name: str) -> Any:
    """The one value of a column, or None where rows differ or lack it."""
    values: Sequence[Any] = pd.unique(table[name][known(table[name])]) if name in table else []
    return values[0] if len(values) == 1 else None
