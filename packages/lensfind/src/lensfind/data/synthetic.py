"""Synthetic data sets: drawn once and kept, or every training batch drawn anew."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from lensfind.data.augment import Augment
from lensfind.data.statistics import statistics
from lensfind.simulation.population import KINDS, LENS, Population, draw_kinds, row_seeds
from lensfind.simulation.simulator import RECIPE, simulate
from lensfind.survey import Survey
from skyloom.data import Batch, Columns, Data, SampleDraws, fingerprint
from skyloom.errors import ConfigError
from skyloom.run.files import write_whole

__all__ = ["CARRIED", "Composition", "compose", "enough", "fresh", "images_of", "simulated"]

CARRIED = ("labelled", "lens", "kind", "theta_E", "arc_snr", "magnification", "seed")
_BATCH = 64  # cutouts simulated at a time: what fits the processor's cache
_REFERENCE = 512  # cutouts from which the statistics of an endless training split are taken


@dataclass(frozen=True)
class Composition:
    """Seeds, kinds and labels of the rows of a split: first the labelled lenses, then an unlabeled sample of the sky."""

    seeds: Tensor
    kinds: Tensor
    labelled: Tensor

    def __len__(self) -> int:
        return len(self.seeds)


def compose(seed: int, split: str, rows: int, labelled_share: float, class_prior: float, population: Population) -> Composition:
    """Rows of one split; a row keeps its seed whatever their number."""
    labelled = max(1, round(rows * labelled_share))
    unlabeled = rows - labelled
    seeds = torch.cat([row_seeds(seed, split, "labelled", labelled), row_seeds(seed, split, "unlabeled", unlabeled)])
    drawn = draw_kinds(seed, split, "unlabeled", unlabeled, class_prior, population)
    kinds = torch.cat([torch.full((labelled,), LENS), drawn])
    return Composition(seeds, kinds, torch.arange(rows) < labelled)


def enough(survey: Survey, population: Population, step: int = 8) -> int:
    """Pixels on a side that hold the outer images of the widest lens and one more, rounded up to a multiple of `step`."""
    reach = (1 + population.source_offset) * population.einstein_radius[1]
    return step * math.ceil((2 * reach / survey.pixel_scale + 1) / step)


def images_of(
    composition: Composition, survey: Survey, population: Population, size: int, oversample: int
) -> dict[str, Tensor]:
    """Columns of these rows: what the simulator gives, less the variance, and their labels."""
    parts = []
    for start in range(0, len(composition), _BATCH):
        rows = slice(start, start + _BATCH)
        part = simulate(composition.seeds[rows], composition.kinds[rows], survey, population, size, oversample)
        parts.append({name: values for name, values in part.items() if name != "variance"})
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    columns["labelled"] = composition.labelled.to(torch.uint8)
    columns["lens"] = (composition.kinds == LENS).to(torch.uint8)
    columns["kind"] = composition.kinds.to(torch.uint8)
    return columns


def _cached(
    path: Path, recipe: Mapping[str, Any], make: Callable[[], dict[str, dict[str, Tensor]]]
) -> dict[str, dict[str, Tensor]]:
    """The splits in the HDF5 file `path`, made and written whole if it is not there."""
    if not path.exists():
        splits = make()
        with write_whole(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["recipe"] = json.dumps(recipe, sort_keys=True)
            file.attrs["note"] = "synthetic images, nJy"
            for name, columns in splits.items():
                for key, values in columns.items():
                    file.create_dataset(f"{name}/{key}", data=values.numpy())
        return splits
    with h5py.File(path) as file:
        return {name: {key: torch.from_numpy(values[...]) for key, values in group.items()} for name, group in file.items()}


@dataclass(frozen=True)
class _Recipe:
    """All that the images depend on."""

    survey: Survey
    population: Population
    size: int
    seed: int
    class_prior: float
    labelled_share: float
    oversample: int

    def __post_init__(self) -> None:
        if not 0 < self.class_prior < 1 or not 0 < self.labelled_share < 1:
            raise ConfigError(
                f"class_prior and labelled_share lie in (0, 1), not at {self.class_prior} and {self.labelled_share}."
            )

    def splits(self, rows: dict[str, int], cache_dir: str | Path) -> dict[str, dict[str, Tensor]]:
        recipe = {
            "recipe": RECIPE, "survey": self.survey.to_json(), "population": self.population.to_json(), "rows": rows,
            "size": self.size, "seed": self.seed, "class_prior": self.class_prior, "labelled_share": self.labelled_share,
            "oversample": self.oversample,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]

        def make() -> dict[str, dict[str, Tensor]]:
            made = {}
            for name, count in rows.items():
                drawn = compose(self.seed, name, count, self.labelled_share, self.class_prior, self.population)
                made[name] = images_of(drawn, self.survey, self.population, self.size, self.oversample)
            return made

        return _cached(Path(cache_dir) / "lensfind" / f"simulated-{self.survey.name}-{digest}.h5", recipe, make)

    def about(self, reference: Tensor, print_of: str) -> dict[str, Any]:
        return {
            "synthetic": True,
            "setting": "two-sample",
            "class_prior": self.class_prior,
            "survey": self.survey.to_json(),
            "bands": list(self.survey.bands),
            "size": self.size,
            "unit": "nJy",
            "kinds": list(KINDS),
            "population": self.population.to_json(),
            "oversample": self.oversample,
            "simulator": RECIPE,
            "statistics": statistics(reference, list(self.survey.bands)),
            "fingerprint": print_of,
        }


def _carried(columns: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Everything but images, the customary ones first."""
    return CARRIED + tuple(sorted(name for name in columns if name not in (*CARRIED, "image")))


def simulated(
    survey: Survey,
    n_train: int,
    n_val: int,
    n_test: int,
    size: int | None,
    seed: int,
    cache_dir: str | Path,
    class_prior: float = 0.1,
    labelled_share: float = 0.2,
    population: Population | None = None,
    oversample: int = 4,
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """Synthetic positive-unlabeled data in the two-sample (case-control) setting.

    In each split a share `labelled_share` of the rows are labelled lenses, drawn at random from all lenses of the population;
    the rest is an unlabeled sample of the sky, in which a row is a lens with probability `class_prior`. `n_...` count rows of
    both kinds, `size` pixels on a side (None: what holds the widest lens), `oversample` light rays per pixel side.

    Batches hold image [B, bands, size, size] in nJy, `labelled` (1 labelled lens, 0 unlabeled) and the truth `lens` (1 or 0),
    which learning from positives and unlabeled never reads. The images are kept in an HDF5 file under `cache_dir`.
    `augment` names transforms of `lensfind.data.Augment`; by default the dihedral group.
    """
    population = population or Population()
    recipe = _Recipe(survey, population, size or enough(survey, population), seed, class_prior, labelled_share, oversample)
    splits = recipe.splits({"train": n_train, "val": n_val, "test": n_test}, cache_dir)
    everything = {f"{name}/{key}": values for name, split in splits.items() for key, values in split.items()}
    about = recipe.about(splits["train"]["image"], fingerprint(everything))
    train, val, test = (Columns(splits[name]) for name in ("train", "val", "test"))
    return Data(train, val, test, about=about, carry=_carried(splits["train"]), augment=Augment.of(augment, about))


class _Unseen:
    """The rows of an epoch of fresh scenes: labels now, images when the loop has put them on its device."""

    def __init__(self, rows: int, labelled: int, shape: tuple[int, int, int]):
        self.rows, self.labelled, self.shape = rows, labelled, shape

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, rows: np.ndarray) -> Batch:
        index = torch.as_tensor(rows)
        blank = torch.zeros(()).expand(len(index), *self.shape)  # one number in memory: `Fresh` puts the images here
        return {"image": blank, "labelled": (index < self.labelled).to(torch.uint8)}


@dataclass(frozen=True)
class Fresh:
    """Draws a batch anew on the device where it is trained on: a scene is a pure function of (seed, epoch, sample)."""

    recipe: _Recipe
    then: Augment

    def __call__(self, batch: Batch, draws: SampleDraws) -> Batch:
        labelled = batch["labelled"].bool()
        seeds, kinds = self.scenes(labelled, draws)
        r = self.recipe
        scenes = simulate(seeds, kinds, r.survey, r.population, r.size, r.oversample)
        drawn = {name: values.to(labelled.device) for name, values in scenes.items() if name != "variance"}
        drawn |= {"labelled": batch["labelled"], "lens": (kinds == LENS).to(torch.uint8), "kind": kinds.to(torch.uint8)}
        return self.then(drawn, draws)

    def scenes(self, labelled: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """63-bit seeds and kinds [B]."""
        bits = (draws.uniform(3) * 2**24).long()
        seeds = (bits[:, 0] << 39) | (bits[:, 1] << 15) | (bits[:, 2] >> 9)
        u = draws.uniform(2)
        names = list(self.recipe.population.negatives)
        shares = torch.tensor([self.recipe.population.negatives[name] for name in names], device=u.device).cumsum(0)
        which = torch.searchsorted(shares / shares[-1], u[:, 1].contiguous(), right=True).clamp(max=len(names) - 1)
        negative = torch.tensor([KINDS.index(name) for name in names], device=u.device)[which]
        lens = labelled | (u[:, 0] < self.recipe.class_prior)
        return seeds, torch.where(lens, LENS, negative)


def fresh(
    survey: Survey,
    n_train: int,
    n_val: int,
    n_test: int,
    size: int | None,
    seed: int,
    cache_dir: str | Path,
    class_prior: float = 0.1,
    labelled_share: float = 0.2,
    population: Population | None = None,
    oversample: int = 4,
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """As `simulated`, but no training cutout is ever seen twice: an epoch is `n_train` scenes drawn for it, on the device.

    Sample i of an epoch is the same whatever the batch size, the number of workers or processes, or a restart. Validation and
    test splits are drawn once and are those of `simulated` with the same arguments. `debug=overfit` needs `simulated`: it
    must see the same cutouts again.
    """
    population = population or Population()
    recipe = _Recipe(survey, population, size or enough(survey, population), seed, class_prior, labelled_share, oversample)
    splits = recipe.splits({"reference": min(_REFERENCE, n_train), "val": n_val, "test": n_test}, cache_dir)
    everything = {f"{name}/{key}": values for name, split in splits.items() for key, values in split.items()}
    about = recipe.about(splits["reference"]["image"], fingerprint(everything)) | {"fresh": True}
    train = _Unseen(n_train, max(1, round(n_train * labelled_share)), (len(survey.bands), recipe.size, recipe.size))
    transform = Fresh(recipe, Augment.of(augment, about))
    val, test = Columns(splits["val"]), Columns(splits["test"])
    return Data(train, val, test, about=about, carry=_carried(splits["val"]), augment=transform)
