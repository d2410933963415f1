"""Surface brightness of galaxies, as pure functions of tensors, and what a telescope makes of it.

Angles in arcsec, fluxes in whatever unit the total is given in; shapes as in `lensfind.lensing`.
"""

from lensfind.light.grid import bin_pixels, convolve, pixel_grid
from lensfind.light.psf import psf_kernel, psf_transform
from lensfind.light.sersic import sersic, sersic_amplitude, sersic_b, sersic_transform
from lensfind.light.shapes import gaussian_ring, spiral_arms

__all__ = [
    "bin_pixels",
    "convolve",
    "gaussian_ring",
    "pixel_grid",
    "psf_kernel",
    "psf_transform",
    "sersic",
    "sersic_amplitude",
    "sersic_b",
    "sersic_transform",
    "spiral_arms",
]
