"""Gravitational lensing in one plane: pure functions of tensors, lenses as objects, curves, images, delays, distances.

Angles in arcsec, batch first, any dtype and device, differentiable. Each file is one subject: `isothermal`, `power_law`,
`nfw`, `pseudo_jaffe` and `simple` hold the functions, `lens` the objects over them, `curves` critical curves and caustics,
`images` the image finder, `arrival` time delays, `distances` the cosmology.
"""

from lensfind.lensing.arrival import fermat_potential, time_delays
from lensfind.lensing.curves import Curves, critical_curves, effective_einstein_radius, enclosed_area
from lensfind.lensing.distances import Cosmology, Halo
from lensfind.lensing.frames import ARCSEC, SPEED_OF_LIGHT, broadcast, rotate
from lensfind.lensing.images import Images, find_images
from lensfind.lensing.isothermal import (
    einstein_radius,
    sie_convergence,
    sie_deflection,
    sie_hessian,
    sie_potential,
    sis_images,
    velocity_dispersion,
)
from lensfind.lensing.lens import (
    EPL,
    NFW,
    SIE,
    SIS,
    Composite,
    Crowd,
    Lens,
    PointMass,
    PseudoJaffe,
    Shear,
    Sheet,
    source_position,
)
from lensfind.lensing.nfw import nfw_convergence, nfw_deflection, nfw_hessian, nfw_mean_convergence, nfw_potential
from lensfind.lensing.power_law import epl_convergence, epl_deflection, epl_hessian, epl_potential
from lensfind.lensing.pseudo_jaffe import dpie_convergence, dpie_deflection, dpie_hessian, dpie_potential
from lensfind.lensing.simple import (
    point_deflection,
    point_hessian,
    point_images,
    point_potential,
    shear_deflection,
    shear_hessian,
    shear_potential,
    sheet_deflection,
    sheet_hessian,
    sheet_potential,
)

__all__ = [
    "ARCSEC",
    "EPL",
    "NFW",
    "SIE",
    "SIS",
    "SPEED_OF_LIGHT",
    "Composite",
    "Cosmology",
    "Crowd",
    "Curves",
    "Halo",
    "Images",
    "Lens",
    "PointMass",
    "PseudoJaffe",
    "Shear",
    "Sheet",
    "broadcast",
    "critical_curves",
    "dpie_convergence",
    "dpie_deflection",
    "dpie_hessian",
    "dpie_potential",
    "effective_einstein_radius",
    "einstein_radius",
    "enclosed_area",
    "epl_convergence",
    "epl_deflection",
    "epl_hessian",
    "epl_potential",
    "fermat_potential",
    "find_images",
    "nfw_convergence",
    "nfw_deflection",
    "nfw_hessian",
    "nfw_mean_convergence",
    "nfw_potential",
    "point_deflection",
    "point_hessian",
    "point_images",
    "point_potential",
    "rotate",
    "shear_deflection",
    "shear_hessian",
    "shear_potential",
    "sheet_deflection",
    "sheet_hessian",
    "sheet_potential",
    "sie_convergence",
    "sie_deflection",
    "sie_hessian",
    "sie_potential",
    "sis_images",
    "source_position",
    "time_delays",
    "velocity_dispersion",
]
