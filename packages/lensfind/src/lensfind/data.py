"""Data sets for lens finding: cutouts, what is labelled, and, where it is known, the truth."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from lensfind.population import KINDS, LENS, Population, draw_kinds, row_seeds
from lensfind.simulator import simulate
from lensfind.survey import Survey
from skyloom.data import Batch, Columns, Data, SampleDraws, fingerprint
from skyloom.errors import ConfigError
from skyloom.run.files import write_whole

__all__ = ["CARRIED", "dihedral", "simulated"]

CARRIED = ("labelled", "lens", "kind", "theta_E", "arc_snr", "magnification", "seed")
_BATCH = 64  # cutouts simulated at a time: what fits the processor's cache
_RECIPE = 1  # raise it when the same arguments would give other images, so that old caches are not read


def dihedral(batch: Batch, draws: SampleDraws) -> Batch:
    """One of the eight symmetries of the square for each image: quarter turns and a flip. Every pixel keeps its flux."""
    images = batch["image"]
    which = (draws.uniform(1)[:, 0] * 8).long()
    turned = torch.empty_like(images)
    for symmetry in range(8):
        rows = which == symmetry
        some = torch.rot90(images[rows], symmetry % 4, dims=(-2, -1))
        turned[rows] = some.flip(-1) if symmetry >= 4 else some
    return {**batch, "image": turned}


def _split(
    seed: int, name: str, labelled: int, unlabeled: int, prior: float, survey: Survey, population: Population, size: int,
    oversample: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Columns of one split: first the labelled lenses, then a sample of the sky in which lenses have the share `prior`."""
    seeds = torch.cat([row_seeds(seed, name, "labelled", labelled), row_seeds(seed, name, "unlabeled", unlabeled)])
    kinds = torch.cat([torch.full((labelled,), LENS), draw_kinds(seed, name, "unlabeled", unlabeled, prior, population)])
    parts = []
    for start in range(0, len(seeds), _BATCH):
        rows = slice(start, start + _BATCH)
        part = simulate(seeds[rows], kinds[rows], survey, population, size, oversample)
        del part["variance"]
        parts.append(part)
    columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    columns["labelled"] = (torch.arange(len(seeds)) < labelled).to(torch.uint8)
    columns["lens"] = (kinds == LENS).to(torch.uint8)
    columns["kind"] = kinds.to(torch.uint8)
    return columns


def _cached(path: Path, recipe: Mapping[str, Any], make: Any) -> dict[str, dict[str, Tensor]]:
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


def _statistics(images: Tensor) -> dict[str, list[float]]:
    """Per band: the noise of an empty pixel (nJy), and mean and deviation of arcsinh(flux / noise).

    The noise is 1.4826 times the median absolute difference of neighbours along the frame, over sqrt 2: galaxies hardly change
    from one pixel to the next out there.
    """
    images = images[:4096]
    edge = torch.cat([images[..., 0, :], images[..., -1, :]], dim=0).diff(dim=-1)
    noise = 1.4826 / 2**0.5 * edge.transpose(0, 1).flatten(1).abs().median(dim=1).values
    stretched = torch.asinh(images / noise[:, None, None])
    return {
        "noise": noise.tolist(),
        "mean": stretched.mean(dim=(0, 2, 3)).tolist(),
        "deviation": stretched.std(dim=(0, 2, 3)).tolist(),
    }


def simulated(
    survey: Survey,
    n_train: int,
    n_val: int,
    n_test: int,
    size: int,
    seed: int,
    cache_dir: str | Path,
    class_prior: float = 0.1,
    labelled_share: float = 0.2,
    population: Population | None = None,
    oversample: int = 4,
) -> Data:
    """Synthetic positive-unlabeled data in the two-sample (case-control) setting.

    In each split a share `labelled_share` of the rows are labelled lenses, drawn at random from all lenses of the population;
    the rest is an unlabeled sample of the sky, in which a row is a lens with probability `class_prior`. `n_...` count rows of
    both kinds, `size` pixels on a side, `oversample` light rays per pixel side.

    Batches hold image [B, bands, size, size] in nJy, `labelled` (1 labelled lens, 0 unlabeled) and the truth `lens` (1 or 0),
    which learning from positives and unlabeled never reads. The images are kept in an HDF5 file under `cache_dir`.
    """
    population = population or Population()
    if not 0 < class_prior < 1 or not 0 < labelled_share < 1:
        raise ConfigError(f"class_prior and labelled_share lie in (0, 1), not at {class_prior} and {labelled_share}.")
    recipe = {
        "recipe": _RECIPE, "survey": survey.to_json(), "population": population.to_json(), "rows": [n_train, n_val, n_test],
        "size": size, "seed": seed, "class_prior": class_prior, "labelled_share": labelled_share, "oversample": oversample,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]

    def make() -> dict[str, dict[str, Tensor]]:
        made = {}
        for name, rows in (("train", n_train), ("val", n_val), ("test", n_test)):
            labelled = max(1, round(rows * labelled_share))
            made[name] = _split(seed, name, labelled, rows - labelled, class_prior, survey, population, size, oversample)
        return made

    splits = _cached(Path(cache_dir) / "lensfind" / f"simulated-{survey.name}-{digest}.h5", recipe, make)
    about = {
        "synthetic": True,
        "setting": "two-sample",
        "class_prior": class_prior,
        "survey": survey.to_json(),
        "bands": list(survey.bands),
        "size": size,
        "unit": "nJy",
        "kinds": list(KINDS),
        "population": population.to_json(),
        "oversample": oversample,
        "statistics": _statistics(splits["train"]["image"]),
        "fingerprint": fingerprint({f"{name}/{key}": v for name, split in splits.items() for key, v in split.items()}),
    }
    train, val, test = (Columns(splits[name]) for name in ("train", "val", "test"))
    return Data(train, val, test, about=about, carry=CARRIED, augment=dihedral)
