"""A data set on disk, opened for training: what `make prepare` wrote, or a user's own manifest."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from lensfind.data.augment import Augment, wide_enough
from lensfind.data.bands import with_wavelengths
from lensfind.data.files import Files
from lensfind.data.manifest import known
from lensfind.data.provenance import allow
from lensfind.data.splits import SPLITS, assign_splits
from lensfind.data.statistics import statistics
from lensfind.data.storage import Store
from lensfind.simulation.population import KINDS
from skyloom.data import Batch, Data, fingerprint
from skyloom.errors import ConfigError, DataError, MissingFile, nearest
from skyloom.run.seeds import numpy_generator
from skyloom.training.progress import said

__all__ = ["Cutouts", "stored"]

CARRIED_NUMBERS = (
    "theta_E", "arc_snr", "flux_ratio", "magnification", "seeing", "psf_fwhm", "depth", "snr", "magnitude", "z_spec", "z_phot",
)  # fmt: skip
"""Carried beside the predictions where any row has them. Networks do not see them: redshifts are known of lenses above all."""


class Cutouts:
    """Rows of a store, by the batch: some bands, cut to `size` about the centre.

    image [B, bands, size, size] float32, a pixel that is not finite as 0 (the sky) and 0 in `mask`, which is there if any pixel
    of the data set is not usable; and, for turning, `wide` and `wide_mask` with the whole cutout.
    """

    def __init__(
        self, store: Store | Files, rows: np.ndarray, columns: Mapping[str, torch.Tensor], planes: Sequence[int], size: int,
        masked: bool, wide: bool = False,
    ):  # fmt: skip
        self.store, self.rows, self.planes, self.size, self.masked, self.wide = store, rows, list(planes), size, masked, wide
        self.columns = dict(columns)
        self._every = self.planes == list(range(store.shape[0]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> torch.Tensor:
        """A column, or all images: for looking at small splits."""
        if name == "image":
            return self.__getitems__(np.arange(len(self)))["image"]
        return self.columns[name]

    def raw(self, rows: np.ndarray) -> torch.Tensor:
        """Images with NaN where a pixel is not usable, as wide as they are stored."""
        images = torch.from_numpy(self.store.read(self.rows[rows], check=False))
        return images if self._every else images[:, self.planes]

    def __getitems__(self, rows: np.ndarray) -> Batch:
        rows = np.asarray(rows)
        whole = self.raw(rows)
        index = torch.as_tensor(rows)
        batch: Batch = {name: values[index] for name, values in self.columns.items()}
        usable = torch.isfinite(whole) if self.masked else None
        filled = whole if usable is None else torch.where(usable, whole, 0.0)
        batch["image"] = _centre(filled, self.size)
        if usable is not None:
            batch["mask"] = _centre(usable, self.size).to(torch.uint8)
        if self.wide:
            batch["wide"] = filled
            if usable is not None:
                batch["wide_mask"] = usable.to(torch.uint8)
        return batch


def _centre(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` pixels; the side that is left over must be even, so that the centre stays where it is."""
    edge = (images.shape[-1] - size) // 2
    return images if edge == 0 else images[..., edge : edge + size, edge : edge + size].contiguous()


def _opened(path: str | Path, source: str | None, bands: Sequence[str] | None, survey: Any) -> Store | Files:
    path = Path(path)
    if path.is_file():
        return Files(path, bands, survey)
    if not path.exists():
        words = (
            f"make prepare pkg=lensfind data={source} input=<where its files are>" if source else "make prepare pkg=lensfind"
        )
        raise MissingFile(f"there is no data set {path}. Make it with: {words}")
    return Store(path)


def _planes(have: Sequence[str], want: Sequence[str] | None) -> list[int]:
    for band in want or ():
        if band not in have:
            raise ConfigError(f"the data set has no band {band!r}.{nearest(band, have)}")
    return [list(have).index(band) for band in want or have]


def _labelled(table: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """[N] which lenses are labelled: as the manifest says, else all where some rows are unlabeled, else a share by name."""
    lens = (table["label"] == 1).to_numpy()
    if "labelled" in table:
        return lens & table["labelled"].astype(bool).to_numpy()
    if (table["label"] == -1).any():
        return lens
    draw = [int.from_bytes(hashlib.sha256(f"{seed}|labelled|{name}".encode()).digest()[:6], "big") / 2**48
            for name in table["object_id"]]  # fmt: skip
    return lens & (np.array(draw) < share)


def _columns(table: pd.DataFrame, labelled: np.ndarray, kinds: Sequence[str], seeing: float) -> dict[str, torch.Tensor]:
    """Labels and truths of rows; `seeing` is carried relative to that of the survey, as in simulated data."""
    columns = {
        "labelled": torch.from_numpy(labelled.astype(np.uint8)),
        "label": torch.from_numpy(table["label"].to_numpy(dtype=np.int8)),
        "row": torch.from_numpy(table.index.to_numpy(dtype=np.int64).copy()),
    }
    if (table["label"] != -1).all():
        columns["lens"] = torch.from_numpy((table["label"] == 1).to_numpy(dtype=np.uint8))
    for name in CARRIED_NUMBERS:
        if name in table and table[name].notna().any():
            values = torch.from_numpy(table[name].to_numpy(dtype=np.float32, na_value=np.nan).copy())
            columns[name] = values / seeing if name == "seeing" else values
    if known(table["kind"]).all():
        columns["kind"] = torch.tensor([kinds.index(name) for name in table["kind"]], dtype=torch.uint8)
    if table["seed"].notna().all():
        columns["seed"] = torch.from_numpy(table["seed"].to_numpy(dtype=np.int64).copy())
    columns["group"] = torch.from_numpy(pd.factorize(table["sky_group_id"])[0].astype(np.int64))
    return columns


def _intact(store: Store | Files, limit: float) -> np.ndarray:
    """[N] rows whose bytes are those that were written; the others are reported and left out."""
    bad = store.corrupt()
    if len(bad) > limit * len(store):
        raise DataError(
            f"{len(bad)} of {len(store)} records of {store.directory} are corrupt, more than corrupt_limit={limit:g} allows: "
            f"rows {', '.join(map(str, bad[:10]))}{', …' if len(bad) > 10 else ''} of the manifest. Write the data set again."
        )
    for row in bad:
        said(f"left out a corrupt record: row {row} ({store.table['object_id'].iloc[row]!r}) of {store.directory}")
    intact = np.ones(len(store), dtype=bool)
    intact[bad] = False
    return intact


def _no_image_on_two_sides(store: Store | Files, table: pd.DataFrame, intact: np.ndarray) -> None:
    """An image that trains and validates, under whatever names, is an error. Equal checksums are compared pixel by pixel."""
    twice = table[intact & table["checksum"].duplicated(keep=False).to_numpy()]
    for _, rows in twice.groupby("checksum"):
        first = int(rows.index[0])
        for row, split in zip(rows.index[1:], rows["split"].iloc[1:], strict=True):
            if split == rows["split"].iloc[0]:
                continue
            one, other = store.read(np.array([first, int(row)]))
            if np.array_equal(one, other, equal_nan=True):
                names = table["object_id"].iloc[[first, row]].tolist()
                raise DataError(
                    f"rows {first} and {row} ({names[0]!r}, {names[1]!r}) are one image, in {rows['split'].iloc[0]} and in "
                    f"{split}: give both one group_id, or leave one out."
                )


def _prior(table: pd.DataFrame, labelled: np.ndarray, class_prior: float | None) -> float:
    """The share of lenses among the unlabeled: given, or counted where the truth is known."""
    if class_prior is not None:
        if not 0 < class_prior < 1:
            raise ConfigError(f"class_prior lies in (0, 1), not at {class_prior}.")
        return class_prior
    rest = table["label"].to_numpy()[~labelled]
    if (rest == -1).any():
        raise ConfigError(
            "the share of lenses among the unlabeled rows is not known: set data.class_prior (1e-3 for massive galaxies), "
            "or estimate it with skyloom.pu."
        )
    return float(min(max((rest == 1).mean(), 1 / (len(rest) + 1)), 1 - 1 / (len(rest) + 1)))


def _fingerprint(table: pd.DataFrame, labelled: np.ndarray, choice: list[int]) -> str:
    """Of pixels (by their checksums), labels, splits, and what is made of them."""
    parts = {name: table[name].to_numpy(dtype=np.int64) for name in ("checksum", "label")}
    return fingerprint(
        {**parts, "labelled": labelled, "split": table["split"].to_numpy(dtype="S5"), "choice": np.array(choice)}
    )


def stored(
    path: str | Path,
    learning: Literal["pu", "supervised", "pretrain"] = "pu",
    source: str | None = None,
    bands: Sequence[str] | None = None,
    size: int | None = None,
    class_prior: float | None = None,
    labelled_lenses: float = 0.5,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    split_seed: int = 42,
    corrupt_limit: float = 0.01,
    augment: Mapping[str, Any] | None = None,
    survey: Any = None,
    wavelengths: Mapping[str, float] | None = None,
) -> Data:
    """The data set in the directory `path`, or in a manifest (CSV or Parquet) that names a FITS, npy or npz file per cutout.

    `learning` says what labels must carry: "supervised" refuses unlabeled rows, "pu" takes them; both refuse a single class.
    Rows that have no split get one by group. `labelled_lenses` is the share of lenses that are labelled where all labels are
    known; the others stand among the unlabeled, as on the sky. `size` cuts to the middle; `bands` picks and orders;
    `wavelengths` (nm) are for filters whose names do not tell. Truths are carried: lens (where known of all rows), theta_E,
    arc_snr, flux_ratio, kind, seeing over its median, …; `row` is the row of the manifest.
    """
    store = _opened(path, source, bands, survey)
    planes = _planes(store.about["bands"], bands)
    table = store.table
    if not known(table["split"]).all() or not known(table["sky_group_id"]).all():
        table = assign_splits(table, tuple(fractions), split_seed)  # type: ignore[arg-type]
    intact = _intact(store, corrupt_limit)
    _no_image_on_two_sides(store, table, intact)
    labelled = _labelled(table, labelled_lenses, split_seed)
    size = size or store.shape[-1]
    if size > store.shape[-1] or (store.shape[-1] - size) % 2:
        raise ConfigError(f"size={size}: cutouts are {store.shape[-1]} pixels; take fewer, by an even number.")
    training = intact & (table["split"] == "train").to_numpy()
    if not training.any():
        raise DataError(f"{store.directory}: no row is in the training split.")
    for warning in allow(table["label_source"][training].tolist(), table["label"][training].tolist(), learning):
        said(f"warning: {warning}.")
    sample = numpy_generator(split_seed, "statistics").permutation(np.flatnonzero(training))[:4096]
    reference = torch.from_numpy(store.read(np.sort(sample)))[:, planes]
    about = _about(store, table, planes, wavelengths) | {
        "class_prior": _prior(table[training], labelled[training], class_prior or store.about.get("class_prior")),
        "size": size,
        "statistics": statistics(_centre(reference, size), [store.about["bands"][k] for k in planes]),
        "fingerprint": _fingerprint(table, labelled, [*planes, size]),
    }
    transform = Augment.of(augment, about)
    if transform.wide and store.shape[-1] < wide_enough(size):
        raise ConfigError(
            f"augment.rotate: cutouts are {store.shape[-1]} pixels, and turning needs {wide_enough(size)} for a network that "
            f"sees {size}: set data.size={2 * (int((store.shape[-1] - 4) / math.sqrt(2)) // 2)}, or prepare wider ones."
        )
    sides = _sides(store, table, labelled, intact, planes, about, transform.wide)
    shared = [name for name in sides["train"].columns if all(name in side.columns for side in sides.values())]
    grouped = table["sky_group_id"].nunique() < len(table)
    return Data(
        sides["train"], sides["val"], sides["test"], about=about, carry=tuple(shared), group="group" if grouped else None,
        augment=transform,
    )  # fmt: skip


def _about(
    store: Store | Files, table: pd.DataFrame, planes: Sequence[int], wavelengths: Mapping[str, float] | None
) -> dict[str, Any]:
    """What the store says of itself, for the bands that were chosen."""
    chosen = [store.about["bands"][k] for k in planes]
    stated = dict(store.about["survey"])
    stated["bands"] = with_wavelengths(chosen, stated.get("bands", {}), wavelengths)
    passed_on = ("population", "oversample", "simulator", "license", "source")
    return {
        **{key: store.about[key] for key in passed_on if key in store.about},
        "synthetic": bool(store.about["synthetic"]),
        "setting": "two-sample",
        "survey": stated,
        "bands": chosen,
        "unit": store.about["unit"],
        "kinds": [*KINDS, *sorted({*table["kind"][known(table["kind"])]} - {*KINDS})],
        "masked": bool(store.about.get("masked", True)) and ("quality" not in table or not (table["quality"] == 1).all()),
    }


def _sides(
    store: Store | Files, table: pd.DataFrame, labelled: np.ndarray, intact: np.ndarray, planes: Sequence[int],
    about: Mapping[str, Any], wide: bool,
) -> dict[str, Cutouts]:  # fmt: skip
    """The cutouts of each split; those of training whole, where they will be turned."""
    seeing = float(table["seeing"][intact & (table["split"] == "train").to_numpy()].median())
    sides = {}
    for name in SPLITS:
        rows = np.flatnonzero(intact & (table["split"] == name).to_numpy())
        if len(rows) == 0:
            raise DataError(f"{store.directory}: no row is in the {name} split.")
        columns = _columns(table.iloc[rows], labelled[rows], about["kinds"], seeing)
        sides[name] = Cutouts(store, rows, columns, planes, about["size"], about["masked"], wide and name == "train")
    return sides
