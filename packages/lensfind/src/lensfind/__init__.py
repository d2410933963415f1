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
    from lensfind.candidates import read_cutouts, shortlist
    from lensfind.data import fresh, simulated, stored
    from lensfind.ensembles import Ensemble
    from lensfind.evaluate import draw, evaluation
    from lensfind.features import arc_colours, blue_excess
    from lensfind.lensing import (
        EPL,
        NFW,
        SIE,
        SIS,
        Composite,
        Cosmology,
        PointMass,
        PseudoJaffe,
        Shear,
        Sheet,
        critical_curves,
        effective_einstein_radius,
        einstein_radius,
        fermat_potential,
        find_images,
        shear_deflection,
        sie_convergence,
        sie_deflection,
        sie_potential,
        source_position,
        time_delays,
    )
    from lensfind.models import finder
    from lensfind.simulation import (
        KINDS,
        Cluster,
        ClusterPopulation,
        Population,
        draw_cluster,
        inject,
        inject_cluster,
        observe,
        render,
        simulate,
        simulate_cluster,
    )
    from lensfind.survey import Band, Survey
    from lensfind.training import LensFinder, TreeFinder

_HOMES = {
    "candidates": ("read_cutouts", "shortlist"),
    "data": ("fresh", "simulated", "stored"),
    "ensembles": ("Ensemble",),
    "evaluate": ("draw", "evaluation"),
    "features": ("arc_colours", "blue_excess"),
    "lensing": (
        "EPL",
        "NFW",
        "SIE",
        "SIS",
        "Composite",
        "Cosmology",
        "PointMass",
        "PseudoJaffe",
        "Shear",
        "Sheet",
        "critical_curves",
        "effective_einstein_radius",
        "einstein_radius",
        "fermat_potential",
        "find_images",
        "shear_deflection",
        "sie_convergence",
        "sie_deflection",
        "sie_potential",
        "source_position",
        "time_delays",
    ),
    "models": ("finder",),
    "simulation": (
        "KINDS",
        "Cluster",
        "ClusterPopulation",
        "Population",
        "draw_cluster",
        "inject",
        "inject_cluster",
        "observe",
        "render",
        "simulate",
        "simulate_cluster",
    ),
    "survey": ("Band", "Survey"),
    "training": ("LensFinder", "TreeFinder"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "EPL",
    "KINDS",
    "NFW",
    "SIE",
    "SIS",
    "Band",
    "Cluster",
    "ClusterPopulation",
    "Composite",
    "Cosmology",
    "Ensemble",
    "LensFinder",
    "PointMass",
    "Population",
    "PseudoJaffe",
    "Shear",
    "Sheet",
    "Survey",
    "TreeFinder",
    "arc_colours",
    "blue_excess",
    "critical_curves",
    "draw",
    "draw_cluster",
    "effective_einstein_radius",
    "einstein_radius",
    "evaluation",
    "fermat_potential",
    "find_images",
    "finder",
    "fresh",
    "inject",
    "inject_cluster",
    "observe",
    "read_cutouts",
    "render",
    "shear_deflection",
    "shortlist",
    "sie_convergence",
    "sie_deflection",
    "sie_potential",
    "simulate",
    "simulate_cluster",
    "simulated",
    "source_position",
    "stored",
    "time_delays",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
