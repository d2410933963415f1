"""The cosmology of the TNG simulations: flat, matter and a cosmological constant.

    t(z) = 2 / (3 H0 sqrt(OL)) asinh( sqrt(OL / Om) (1 + z)^(-3/2) )          [Gyr]
    E(z) = H(z) / H0 = sqrt(Om (1 + z)^3 + OL)

Parameters: Planck 2015 (arXiv 1502.01589) as used by Nelson et al. 2019 (arXiv 1812.05609).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["AGE_TODAY", "HUBBLE", "SNAPSHOTS", "age", "expansion", "m500_from_r500", "r500_from_m500", "redshift_at_age"]

HUBBLE = 0.6774  # H0 in 100 km/s/Mpc
OMEGA_MATTER = 0.3089
OMEGA_LAMBDA = 0.6911
HUBBLE_TIME = 977.8131 / (100 * HUBBLE)  # 1/H0 [Gyr]
CRITICAL_DENSITY = 277.5 * HUBBLE**2  # today [Msun / kpc^3]

SNAPSHOTS = {50: 1.0, 59: 0.7, 67: 0.5, 72: 0.4, 78: 0.3, 84: 0.2, 91: 0.1, 99: 0.0}
"""Redshift of each snapshot of TNG-Cluster that is used here."""


def age(redshift: ArrayLike) -> NDArray[np.float64]:
    """Age of the Universe [Gyr] at a redshift.

    >>> age([0.0, 1.0]).round(3).tolist()
    [13.803, 5.867]
    """
    z = np.asarray(redshift, dtype=np.float64)
    shape = np.sqrt(OMEGA_LAMBDA / OMEGA_MATTER) * (1 + z) ** -1.5
    return 2 / (3 * np.sqrt(OMEGA_LAMBDA)) * HUBBLE_TIME * np.arcsinh(shape)


def redshift_at_age(time: ArrayLike) -> NDArray[np.float64]:
    """Redshift at which the Universe has an age `time` [Gyr]; the inverse of `age`."""
    shape = np.sinh(1.5 * np.sqrt(OMEGA_LAMBDA) * np.asarray(time, dtype=np.float64) / HUBBLE_TIME)
    return (np.sqrt(OMEGA_LAMBDA / OMEGA_MATTER) / shape) ** (2 / 3) - 1


def expansion(redshift: ArrayLike) -> NDArray[np.float64]:
    """`E(z) = H(z) / H0`.

    >>> expansion([0.0, 0.5, 1.0]).round(3).tolist()
    [1.0, 1.317, 1.778]
    """
    z = np.asarray(redshift, dtype=np.float64)
    return np.sqrt(OMEGA_MATTER * (1 + z) ** 3 + OMEGA_LAMBDA)


def r500_from_m500(mass: ArrayLike, redshift: ArrayLike) -> NDArray[np.float64]:
    """R500c [comoving kpc/h] of a mass M500c [Msun]: `M = (4 pi / 3) 500 rho_c(z) R^3` with a proper radius R.

    >>> r500_from_m500([5e14, 3e14, 1.5e14], [0.0, 0.5, 1.0]).round().tolist()
    [835.0, 880.0, 762.0]
    """
    z = np.asarray(redshift, dtype=np.float64)
    density = 4 * np.pi / 3 * 500 * CRITICAL_DENSITY * expansion(z) ** 2
    return np.cbrt(np.asarray(mass, dtype=np.float64) / density) * (1 + z) * HUBBLE


def m500_from_r500(radius: ArrayLike, redshift: ArrayLike) -> NDArray[np.float64]:
    """M500c [Msun] of a radius R500c [comoving kpc/h]; the inverse of `r500_from_m500`."""
    return (np.asarray(radius, dtype=np.float64) / r500_from_m500(1.0, redshift)) ** 3


AGE_TODAY = float(age(0.0))
"""Age of the Universe today [Gyr]."""
