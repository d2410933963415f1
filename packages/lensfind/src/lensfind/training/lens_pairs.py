"""Self-supervision by what physics keeps: two pictures of one lens, with other sources behind it, should be alike."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from lensfind.simulation.population import Population
from lensfind.simulation.scene import Scene, draw_scenes
from lensfind.simulation.simulator import observe, render
from lensfind.survey import Survey
from lensfind.training.selfsupervised import SimSiam, views
from lensfind.training.task import LensFinder
from skyloom.data import Batch
from skyloom.errors import ConfigError

__all__ = ["LensPairs", "another_source"]

_SOURCE = (
    "source_radius", "source_index", "source_q", "source_angle", "offset", "offset_angle", "source_flux", "clumps", "stamp",
)  # fmt: skip
_OTHER = 0x5DEECE66D  # flips bits of a seed: another scene, the same one each time


def another_source(scene: Scene, other: Scene) -> Scene:
    """The galaxies and the mass of `scene`, with the source of `other` behind them."""
    assert {field.name for field in fields(Scene)} >= set(_SOURCE)
    return replace(scene, **{name: getattr(other, name) for name in _SOURCE})


class LensPairs(SimSiam):
    """SimSiam whose second view of a simulated cutout is another observation of the same lens with another source, of other
    shape, colour, brightness and place (LenSiam: Chang et al. 2023). Non-lenses get other noise.

    What the two share, the lens, is what features come to hold. Real images have no second source: simulations only.
    """

    def __init__(self, finder: LensFinder, about: dict[str, Any], dimensions: int = 128, hidden: int = 64):
        super().__init__(finder, dimensions, hidden)
        if "population" not in about or not about.get("synthetic"):
            raise ConfigError("pairs of one lens with two sources are simulated: data=lensfind/simulated, or another method.")
        self.survey, self.population = Survey.from_json(about["survey"]), Population(**about["population"])
        self.oversample = int(about.get("oversample", 4))

    def second(self, batch: Batch) -> Tensor:
        """The other picture of every row of the batch, [B, bands, size, size] nJy."""
        seeds, kinds = batch["seed"].long(), batch["kind"].long()
        others = seeds ^ _OTHER
        size = self.finder.size
        scene, other = (draw_scenes(s, kinds, self.population, self.survey, size) for s in (seeds, others))
        expected, _, _ = render(another_source(scene, other), self.survey, size, self.oversample, self.population)
        return observe(expected, self.survey, others)[0].to(batch["image"].dtype)

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            second = self.second(batch)
        noise = self.finder.noise
        return views(batch["image"], noise), views(second, noise)
