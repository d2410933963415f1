"""Strong gravitational lenses in survey images, by positive-unlabeled learning, calibrated.

    >>> import lensfind
    >>> g = lensfind.Band(wavelength=486, psf_fwhm=0.86, zero_point=28.26, sky=22.26, exposure=2400, exposures=80)
    >>> i = lensfind.Band(wavelength=756, psf_fwhm=0.79, zero_point=27.78, sky=20.48, exposure=5520, exposures=184)
    >>> survey = lensfind.Survey("demo", pixel_scale=0.2, gain=1, read_noise=8.8, moffat_beta=3, seeing_scatter=0.1,
    ...     bands={"g": g, "i": i})
    >>> rows = lensfind.simulate(seeds=[1, 2], kinds=["lens", "ring"], survey=survey, population=lensfind.Population(), size=40)
    >>> rows["image"].shape
    torch.Size([2, 2, 40, 40])

Importing the package costs nothing: every name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.colours import blue_excess
    from lensfind.data import simulated
    from lensfind.figures import draw
    from lensfind.lensing import (
        einstein_radius,
        shear_deflection,
        sie_convergence,
        sie_deflection,
        sie_potential,
        source_position,
    )
    from lensfind.population import KINDS, Population
    from lensfind.predict import read_cutouts
    from lensfind.simulator import observe, render, simulate
    from lensfind.survey import Band, Survey
    from lensfind.task import LensFinder

_HOMES = {
    "colours": ("blue_excess",),
    "data": ("simulated",),
    "figures": ("draw",),
    "lensing": ("einstein_radius", "shear_deflection", "sie_convergence", "sie_deflection", "sie_potential", "source_position"),
    "population": ("KINDS", "Population"),
    "predict": ("read_cutouts",),
    "simulator": ("observe", "render", "simulate"),
    "survey": ("Band", "Survey"),
    "task": ("LensFinder",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "KINDS",
    "Band",
    "LensFinder",
    "Population",
    "Survey",
    "blue_excess",
    "draw",
    "einstein_radius",
    "observe",
    "read_cutouts",
    "render",
    "shear_deflection",
    "sie_convergence",
    "sie_deflection",
    "sie_potential",
    "simulate",
    "simulated",
    "source_position",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
