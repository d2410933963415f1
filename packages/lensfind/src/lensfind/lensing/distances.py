"""Distances and densities of a flat LCDM universe, by astropy: what turns masses and velocities into angles.

>>> from lensfind.lensing import Cosmology
>>> flat = Cosmology()
>>> round(flat.distance(0.5), 2), round(flat.distance_between(0.5, 2.0), 2), round(flat.distance_ratio(0.5, 2.0), 5)
(1259.08, 1097.08, 0.63539)
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lensfind.lensing.frames import ARCSEC, SPEED_OF_LIGHT
from skyloom.errors import ConfigError

__all__ = ["Cosmology", "Halo"]

_G = 4.30091727e-9  # Mpc (km/s)^2 / Msun
_MPC_KM = 3.0856775814913673e19
_DAY = 86400.0


@dataclass(frozen=True)
class Halo:
    """An NFW halo as a lens."""

    r200: float  # Mpc
    theta_s: float  # arcsec
    kappa_s: float  # rho_s r_s / Sigma_cr


@dataclass(frozen=True)
class Cosmology:
    """Flat LCDM. Redshifts are numbers or arrays; distances are angular-diameter distances in Mpc."""

    H0: float = 70.0  # km/s/Mpc
    Om0: float = 0.3

    @cached_property
    def _astropy(self) -> Any:
        from astropy.cosmology import FlatLambdaCDM

        return FlatLambdaCDM(H0=self.H0, Om0=self.Om0)

    def distance(self, z: Any) -> Any:
        return _plain(self._astropy.angular_diameter_distance(z).value)

    def distance_between(self, z_lens: Any, z_source: Any) -> Any:
        """D_ls: angular-diameter distances do not subtract."""
        if np.any(np.asarray(z_source) <= np.asarray(z_lens)) or np.any(np.asarray(z_lens) <= 0):
            raise ConfigError(f"a source lies behind its lens: 0 < z_lens < z_source, not {z_lens} and {z_source}.")
        return _plain(self._astropy.angular_diameter_distance(z_lens, z_source).value)

    def distance_ratio(self, z_lens: Any, z_source: Any) -> Any:
        """D_ls / D_s, the lensing efficiency."""
        return self.distance_between(z_lens, z_source) / self.distance(z_source)

    def critical_density(self, z_lens: Any, z_source: Any) -> Any:
        """Sigma_cr = c^2 D_s / (4 pi G D_l D_ls) in Msun/Mpc^2."""
        between = self.distance_between(z_lens, z_source)
        return SPEED_OF_LIGHT**2 / (4 * math.pi * _G) * self.distance(z_source) / (self.distance(z_lens) * between)

    def time_delay_distance(self, z_lens: Any, z_source: Any) -> Any:
        """D_dt = (1 + z_l) D_l D_s / D_ls in Mpc."""
        ratio = self.distance_ratio(z_lens, z_source)
        return (1 + np.asarray(z_lens))[()] * self.distance(z_lens) / ratio

    def days_per_arcsec2(self, z_lens: Any, z_source: Any) -> Any:
        """Delay in days for a difference of 1 arcsec^2 of Fermat potential: D_dt/c arcsec^2."""
        return self.time_delay_distance(z_lens, z_source) * _MPC_KM / SPEED_OF_LIGHT * ARCSEC**2 / _DAY

    def kpc_per_arcsec(self, z: Any) -> Any:
        return self.distance(z) * 1e3 * ARCSEC

    def point_mass_radius(self, mass: Any, z_lens: Any, z_source: Any) -> Any:
        """theta_E = sqrt(4 G M/c^2 D_ls/(D_l D_s)) in arcsec; of an extended lens, for M the mass projected within theta_E."""
        scale = 4 * _G * np.asarray(mass) / SPEED_OF_LIGHT**2
        return _plain(np.sqrt(scale * self.distance_ratio(z_lens, z_source) / self.distance(z_lens)) / ARCSEC)

    def halo(self, m200: float, concentration: float, z_lens: float, z_source: float) -> Halo:
        """The NFW halo of mass M200 (Msun, within 200 times the critical density) as a lens.

        >>> halo = Cosmology().halo(1e15, 5.0, 0.3, 2.0)
        >>> round(halo.r200, 4), round(halo.theta_s, 2), round(halo.kappa_s, 4)
        (1.8622, 83.62, 0.2544)
        """
        c = concentration
        critical = 3 * float(self._astropy.H(z_lens).value) ** 2 / (8 * math.pi * _G)  # Msun/Mpc^3
        r200 = (3 * m200 / (800 * math.pi * critical)) ** (1 / 3)
        r_s = r200 / c
        rho_s = 200 / 3 * critical * c**3 / (math.log1p(c) - c / (1 + c))
        theta_s = r_s / self.distance(z_lens) / ARCSEC
        return Halo(r200, theta_s, rho_s * r_s / self.critical_density(z_lens, z_source))

    def halo_radius(self, m200: float, concentration: float, z_lens: float, z_source: float) -> float:
        """theta_E (arcsec) of a round NFW halo: where the mean convergence is 1. It always exists, but may be tiny.

        >>> round(Cosmology().halo_radius(1e15, 6.0, 0.4, 1.2), 1)
        15.5
        """
        import torch
        from scipy.optimize import brentq

        from lensfind.lensing.nfw import nfw_mean_convergence

        halo = self.halo(m200, concentration, z_lens, z_source)

        def excess(log_theta: float) -> float:
            theta = torch.tensor(math.exp(log_theta), dtype=torch.float64)
            scales = torch.tensor([halo.kappa_s, halo.theta_s], dtype=torch.float64)
            return float(nfw_mean_convergence(theta, scales[0], scales[1])) - 1

        if excess(math.log(1e-6)) < 0:
            return 0.0
        return math.exp(brentq(excess, math.log(1e-6), math.log(20 * halo.theta_s)))


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)
