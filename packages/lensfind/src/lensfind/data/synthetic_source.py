"""Synthetic scenes as a source of cutouts, as a converter's files are one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lensfind.data.converters import Found, Source
from lensfind.data.splits import SPLITS
from lensfind.data.synthetic import compose, enough
from lensfind.simulation.population import KINDS, LENS, Population
from lensfind.simulation.simulator import RECIPE, simulate
from lensfind.survey import Survey
from skyloom.errors import ConfigError

__all__ = ["Batched", "simulated_source"]


@dataclass
class Batched(Source):
    """A source that reads many objects at once."""

    read_many: Any = None


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

    return Batched(table, about, lambda k: read_many(np.array([k]))[0], read_many=read_many)
