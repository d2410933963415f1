"""Lenses as objects: parameters and a centre over the pure functions of their neighbours, all with the same methods.

    >>> import torch
    >>> from lensfind.lensing import SIE, Composite, Shear
    >>> lens = Composite([SIE(theta_e=1.0, q=0.7), Shear(0.05, 0.0)])
    >>> x, y = torch.tensor([0.7, -1.0], dtype=torch.float64), torch.tensor([0.5, 0.2], dtype=torch.float64)
    >>> [round(float(beta), 4) for beta in lens.source(x, y)[0]]
    [-0.0615, -0.0411]

Parameters are numbers or tensors [B]; coordinates are tensors [B, ...] (or any shape, for a lens whose parameters are numbers),
in arcsec about the centre of the cutout. Everything is differentiable in coordinates and in parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lensfind.lensing import isothermal, nfw, power_law, pseudo_jaffe, simple
from lensfind.lensing.frames import Hessian, broadcast

__all__ = [
    "EPL",
    "NFW",
    "SIE",
    "SIS",
    "Composite",
    "Crowd",
    "Lens",
    "PointMass",
    "PseudoJaffe",
    "Shear",
    "Sheet",
    "source_position",
]

Number = float | Tensor


class Lens:
    """A mass in one plane. psi in arcsec^2, alpha = grad psi in arcsec, Laplacian psi = 2 kappa."""

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def potential(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def hessian(self, x: Tensor, y: Tensor) -> Hessian:
        """(psi_xx, psi_yy, psi_xy)."""
        raise NotImplementedError

    def centres(self) -> list[tuple[Number, Number]]:
        """Where the deflection may be singular."""
        return []

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        """kappa = (psi_xx + psi_yy)/2: surface density over the critical one."""
        xx, yy, _ = self.hessian(x, y)
        return (xx + yy) / 2

    def shear(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """gamma_1 = (psi_xx - psi_yy)/2, gamma_2 = psi_xy."""
        xx, yy, xy = self.hessian(x, y)
        return (xx - yy) / 2, xy

    def source(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The lens equation beta = theta - alpha(theta)."""
        ax, ay = self.deflection(x, y)
        return x - ax, y - ay

    def eigenvalues(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Tangential 1 - kappa - |gamma| and radial 1 - kappa + |gamma| of the Jacobian; critical curves are where one is 0."""
        xx, yy, xy = self.hessian(x, y)
        kappa, gamma = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
        return 1 - kappa - gamma, 1 - kappa + gamma

    def magnification(self, x: Tensor, y: Tensor) -> Tensor:
        """mu = 1/det A; its sign is the parity of an image."""
        xx, yy, xy = self.hessian(x, y)
        return 1 / ((1 - xx) * (1 - yy) - xy**2)


@dataclass(frozen=True)
class _Centred(Lens):
    """A lens with a centre; fields are its parameters, in the order that the pure functions take them, then x and y."""

    def _call(self, function: str, x: Tensor, y: Tensor) -> object:
        module, prefix = self._home  # type: ignore[attr-defined]
        values = [broadcast(torch.as_tensor(getattr(self, f.name), dtype=x.dtype, device=x.device), x) for f in fields(self)]
        return getattr(module, f"{prefix}_{function}")(x - values[-2], y - values[-1], *values[:-2])

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._call("deflection", x, y)  # type: ignore[return-value]

    def potential(self, x: Tensor, y: Tensor) -> Tensor:
        return self._call("potential", x, y)  # type: ignore[return-value]

    def hessian(self, x: Tensor, y: Tensor) -> Hessian:
        return self._call("hessian", x, y)  # type: ignore[return-value]

    def centres(self) -> list[tuple[Number, Number]]:
        return [(self.x, self.y)]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SIE(_Centred):
    """Isothermal ellipsoid; with a `core` it is not singular, and theta_e is that of the singular one."""

    theta_e: Number  # arcsec
    q: Number = 1.0  # axis ratio, 0 to 1
    angle: Number = 0.0  # radians
    core: Number = 0.0  # arcsec
    x: Number = 0.0  # arcsec
    y: Number = 0.0
    _home = (isothermal, "sie")


def SIS(theta_e: Number, x: Number = 0.0, y: Number = 0.0) -> SIE:
    """Isothermal sphere: kappa = theta_E/(2r), |alpha| = theta_E."""
    return SIE(theta_e, x=x, y=y)


@dataclass(frozen=True)
class EPL(_Centred):
    """Elliptical power law; slope 2 is isothermal."""

    theta_e: Number  # arcsec
    q: Number = 1.0
    angle: Number = 0.0
    slope: Number = 2.0  # of the three-dimensional density
    x: Number = 0.0
    y: Number = 0.0
    _home = (power_law, "epl")


@dataclass(frozen=True)
class NFW(_Centred):
    """Navarro, Frenk and White's halo; the axis ratio is that of the potential."""

    kappa_s: Number  # rho_s r_s / Sigma_cr
    theta_s: Number  # arcsec
    q: Number = 1.0
    angle: Number = 0.0
    x: Number = 0.0
    y: Number = 0.0
    _home = (nfw, "nfw")


@dataclass(frozen=True)
class PseudoJaffe(_Centred):
    """dPIE: isothermal between `core` and `cut`; theta_0 is that of the isothermal sphere of its velocity dispersion."""

    theta_0: Number  # arcsec
    q: Number = 1.0
    angle: Number = 0.0
    core: Number = 0.01  # arcsec
    cut: Number = 10.0  # arcsec
    x: Number = 0.0
    y: Number = 0.0
    _home = (pseudo_jaffe, "dpie")


@dataclass(frozen=True)
class PointMass(_Centred):
    theta_e: Number  # arcsec
    x: Number = 0.0
    y: Number = 0.0
    _home = (simple, "point")


@dataclass(frozen=True)
class Shear(_Centred):
    """External shear about (x, y)."""

    gamma1: Number
    gamma2: Number
    x: Number = 0.0
    y: Number = 0.0
    _home = (simple, "shear")

    def centres(self) -> list[tuple[Number, Number]]:
        return []


@dataclass(frozen=True)
class Sheet(_Centred):
    """External convergence about (x, y)."""

    kappa: Number
    x: Number = 0.0
    y: Number = 0.0
    _home = (simple, "sheet")

    def centres(self) -> list[tuple[Number, Number]]:
        return []


class Composite(Lens):
    """Several masses in one plane: potentials, deflections and Hessians add."""

    def __init__(self, parts: Sequence[Lens]):
        self.parts = list(parts)

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        parts = [part.deflection(x, y) for part in self.parts]
        return sum((p[0] for p in parts), torch.zeros_like(x)), sum((p[1] for p in parts), torch.zeros_like(x))

    def potential(self, x: Tensor, y: Tensor) -> Tensor:
        return sum((part.potential(x, y) for part in self.parts), torch.zeros_like(x))

    def hessian(self, x: Tensor, y: Tensor) -> Hessian:
        parts = [part.hessian(x, y) for part in self.parts]
        xx, yy, xy = (sum((p[k] for p in parts), torch.zeros_like(x)) for k in range(3))
        return xx, yy, xy

    def centres(self) -> list[tuple[Number, Number]]:
        return [centre for part in self.parts for centre in part.centres()]


class Crowd(Lens):
    """Many lenses of one kind in one plane, such as the members of a cluster: one whose parameters are tensors [M].

    The same as a `Composite` of M lenses, evaluated at once.
    """

    def __init__(self, lens: _Centred):
        self.lens = lens
        self.count = max(value.numel() for f in fields(lens) if isinstance(value := getattr(lens, f.name), Tensor))

    def _each(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.expand(self.count, *x.shape), y.expand(self.count, *y.shape)

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ax, ay = self.lens.deflection(*self._each(x, y))
        return ax.sum(dim=0), ay.sum(dim=0)

    def potential(self, x: Tensor, y: Tensor) -> Tensor:
        return self.lens.potential(*self._each(x, y)).sum(dim=0)

    def hessian(self, x: Tensor, y: Tensor) -> Hessian:
        xx, yy, xy = self.lens.hessian(*self._each(x, y))
        return xx.sum(dim=0), yy.sum(dim=0), xy.sum(dim=0)

    def centres(self) -> list[tuple[Number, Number]]:
        x, y = (torch.as_tensor(v).expand(self.count).tolist() for v in self.lens.centres()[0])
        return list(zip(x, y, strict=True))


def source_position(
    x: Tensor, y: Tensor, theta_e: Tensor, q: Tensor, angle: Tensor, gamma1: Tensor, gamma2: Tensor
) -> tuple[Tensor, Tensor]:
    """The lens equation beta = theta - alpha(theta) of an SIE with external shear, both about the origin."""
    ax, ay = isothermal.sie_deflection(x, y, theta_e, q, angle)
    sx, sy = simple.shear_deflection(x, y, gamma1, gamma2)
    return x - ax - sx, y - ay - sy
