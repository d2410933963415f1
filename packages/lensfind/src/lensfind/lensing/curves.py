"""Critical curves, caustics and the Einstein radius of any lens, found on a grid and refined to rounding.

>>> from lensfind.lensing import SIE, effective_einstein_radius
>>> round(effective_einstein_radius(SIE(theta_e=1.2, q=0.6, angle=0.3)), 4)
1.2
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lensfind.lensing.lens import Lens
from skyloom.errors import DataError

__all__ = ["Curves", "critical_curves", "effective_einstein_radius", "enclosed_area"]

_SMALLEST = 0.01  # arcsec; a lens whose critical curve is smaller counts as subcritical


@dataclass(frozen=True)
class Curves:
    """Closed loops [N, 2] in arcsec, (x, y) per row; `caustic` is the same loop carried to the source plane."""

    tangential: list[np.ndarray]
    radial: list[np.ndarray]
    tangential_caustics: list[np.ndarray]
    radial_caustics: list[np.ndarray]


def enclosed_area(loop: np.ndarray) -> float:
    """Area within a closed smooth loop [N, 2]: the shoelace formula on a periodic cubic spline through the vertices."""
    from scipy.interpolate import CubicSpline

    closed = np.concatenate([loop, loop[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    distinct = np.concatenate([[True], np.diff(length) > 0])
    spline = CubicSpline(length[distinct], np.concatenate([closed[distinct][:-1], closed[:1]]), bc_type="periodic")
    loop = spline(np.linspace(0, length[-1], 8 * len(closed), endpoint=False))
    x, y = loop[:, 0] - loop[0, 0], loop[:, 1] - loop[0, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _eigenvalue(lens: Lens, points: Tensor, which: int) -> Tensor:
    return lens.eigenvalues(points[..., 0], points[..., 1])[which]


def _refine(lens: Lens, loop: np.ndarray, which: int, step: float) -> np.ndarray:
    """Moves vertices along the gradient of the eigenvalue onto its zero, by Newton steps no longer than a cell."""
    points = torch.from_numpy(loop.copy())
    h = 1e-5 * step
    for _ in range(6):
        value = _eigenvalue(lens, points, which)
        shifts = torch.tensor([[h, 0.0], [0.0, h]], dtype=points.dtype)
        gradient = torch.stack(
            [(_eigenvalue(lens, points + s, which) - _eigenvalue(lens, points - s, which)) / (2 * h) for s in shifts], dim=-1
        )
        move = -value[:, None] * gradient / (gradient**2).sum(-1, keepdim=True).clamp(min=1e-300)
        length = move.norm(dim=-1, keepdim=True)
        points = points + move * (step / length.clamp(min=step))
    return points.numpy()


def _loops(lens: Lens, which: int, centre: tuple[float, float], half: float, n: int) -> tuple[list[np.ndarray], bool]:
    """Zero contours of an eigenvalue in a box, and whether the region within them touches its border."""
    from contourpy import contour_generator

    line = (np.arange(n) - (n - 1) / 2) * (2 * half / n)
    x, y = np.meshgrid(line + centre[0], line + centre[1])
    value = _eigenvalue(lens, torch.from_numpy(np.stack([x, y], axis=-1)), which).numpy()
    value = np.clip(np.nan_to_num(value, nan=-1e3, posinf=1e3, neginf=-1e3), -1e3, 1e3)
    border = np.concatenate([value[0], value[-1], value[:, 0], value[:, -1]])
    kept, leaves = [], bool((border < 0).any())
    for contour in contour_generator(x, y, value).lines(0.0):
        vertices = np.asarray(contour, dtype=np.float64)
        if len(vertices) > 3 and np.allclose(vertices[0], vertices[-1]) and np.ptp(vertices, axis=0).max() > 0.4 * half / n:
            loop = _refine(lens, vertices[:-1], which, 2 * half / n)
            if enclosed_area(loop) > math.pi * max(_SMALLEST**2, (0.2 * half / n) ** 2):
                kept.append(loop)
    return kept, leaves


def critical_curves(lens: Lens, radius: float = 2.0, centre: tuple[float, float] = (0.0, 0.0), n: int = 256) -> Curves:
    """Critical curves and caustics; `radius` (arcsec) is a first guess of the Einstein radius, and the box is 3 times wider.

    A curve that leaves the box doubles it, four times at most. Curves smaller than 0.01 arcsec or a tenth of a cell are not
    seen. A singular isothermal lens has no radial critical curve; what bounds its second image is the cut, beta = -alpha.
    """
    half = 3 * radius
    for _ in range(5):
        tangential, leaves = _loops(lens, 0, centre, half, n)
        if not leaves:
            radial, _ = _loops(lens, 1, centre, half, n)
            break
        half *= 2
    else:
        raise DataError(f"the critical curve leaves a box of {half:g} arcsec about {centre}: is the lens bounded?")

    def caustic(loop: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(loop)
        return torch.stack(lens.source(points[:, 0], points[:, 1]), dim=-1).numpy()

    return Curves(tangential, radial, [caustic(c) for c in tangential], [caustic(c) for c in radial])


def effective_einstein_radius(
    lens: Lens, radius: float = 2.0, centre: tuple[float, float] = (0.0, 0.0), n: int = 256
) -> float | None:
    """sqrt(A/pi) for the area A within the tangential critical curve about `centre`; None for a subcritical lens."""
    loops = critical_curves(lens, radius, centre, n).tangential
    around = [loop for loop in loops if _winds(loop, centre)]
    if not loops:
        return None
    return math.sqrt(max(enclosed_area(loop) for loop in around or loops) / math.pi)


def _winds(loop: np.ndarray, point: tuple[float, float]) -> bool:
    angle = np.unwrap(np.arctan2(loop[:, 1] - point[1], loop[:, 0] - point[0]))
    turn = angle[-1] - angle[0]
    return abs(turn) > math.pi
