"""Where a point source is seen: the image finder.

The image plane is cut into triangles, each is carried to the source plane by the lens equation, and one that holds the source
holds an image, which Newton's method then finds to 1e-10 arcsec. Cells near a critical curve or a singular centre are divided
further, since images pair up there. Two images within the smallest cell (theta_E/640 by default) of a critical curve, whose
magnification is above a thousand, can be missed together; nothing else can.

    >>> from lensfind.lensing import SIE, find_images
    >>> images = find_images(SIE(theta_e=1.0, q=0.7), (0.05, 0.03))
    >>> [round(float(mu), 3) for mu in images.magnification], images.kind
    ([4.544, 5.924, -4.823, -2.848], ['minimum', 'minimum', 'saddle', 'saddle'])
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lensfind.lensing.arrival import fermat_potential
from lensfind.lensing.lens import Lens

__all__ = ["Images", "find_images"]

_LEVELS = 4  # times that cells near critical curves are halved
_MERGE = 1e-4  # arcsec; nearer ones are one image
_SINGULAR = 1e-3  # arcsec; what lies nearer to a singular centre is not an image


@dataclass(frozen=True)
class Images:
    """Images of one point source in order of arrival: [N] each."""

    x: Tensor  # arcsec
    y: Tensor
    magnification: Tensor  # signed: negative for saddles
    fermat: Tensor  # arcsec^2
    kind: list[str]  # minimum, saddle or maximum of the Fermat surface

    def __len__(self) -> int:
        return len(self.kind)


def _corners(cells: Tensor, h: float) -> Tensor:
    """[N, 4, 2] corners of square cells [N, 2] of side h, counter-clockwise."""
    steps = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=cells.dtype) * h
    return cells[:, None] + steps


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _candidates(corners: Tensor, mapped: Tensor, beta: Tensor) -> Tensor:
    """Centres of the triangles whose image in the source plane holds beta: [M, 2]."""
    found = []
    for triangle in ((0, 1, 2), (0, 2, 3)):
        to = mapped[:, triangle] - beta
        signs = torch.stack([_cross(to[:, k], to[:, (k + 1) % 3]) for k in range(3)], dim=-1)
        holds = (signs >= -1e-12).all(-1) | (signs <= 1e-12).all(-1)
        found.append(corners[:, triangle].mean(dim=1)[holds])
    return torch.cat(found)


def _search(lens: Lens, beta: Tensor, centre: tuple[float, float], half: float, h: float) -> Tensor:
    """Starting points for Newton's method, from the coarse grid and from its divisions near critical curves."""
    n = max(8, round(2 * half / h))
    line = torch.arange(n, dtype=torch.float64) * (2 * half / n) - half
    y, x = torch.meshgrid(line + centre[1] + 1e-3 * h, line + centre[0] + 0.7e-3 * h, indexing="ij")
    cells, h = torch.stack([x.reshape(-1), y.reshape(-1)], dim=-1), 2 * half / n
    singular = torch.tensor([[float(a), float(b)] for a, b in lens.centres()], dtype=torch.float64).reshape(-1, 2)
    starts = []
    for level in range(_LEVELS + 1):
        corners = _corners(cells, h)
        mapped = torch.stack(lens.source(corners[..., 0], corners[..., 1]), dim=-1)
        starts.append(_candidates(corners, mapped, beta))
        if level == _LEVELS:
            break
        determinant = 1 / lens.magnification(corners[..., 0], corners[..., 1])
        near = (determinant.amin(dim=1) <= 0) & (determinant.amax(dim=1) >= 0)
        middle = cells + h / 2
        if len(singular):
            near |= (torch.cdist(middle, singular) < 2 * h).any(dim=1)
        if level == 0:  # neighbours too
            near = torch.nn.functional.max_pool2d(near.reshape(1, n, n).double(), 3, stride=1, padding=1).reshape(-1) > 0
        quarters = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [0.5, 0.5]], dtype=torch.float64) * h
        cells, h = (cells[near][:, None] + quarters).reshape(-1, 2), h / 2
    return torch.cat(starts)


def _newton(lens: Lens, points: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of theta - alpha(theta) - beta from many starts at once, damped where the residual grows; and residuals."""

    def residual(p: Tensor) -> Tensor:
        return torch.stack(lens.source(p[:, 0], p[:, 1]), dim=-1) - beta

    if len(points) == 0:
        return points, points.new_zeros(0)
    r = residual(points)
    for _ in range(40):
        xx, yy, xy = lens.hessian(points[:, 0], points[:, 1])
        a, b, d = 1 - xx, -xy, 1 - yy
        determinant = a * d - b**2
        step = torch.stack([d * r[:, 0] - b * r[:, 1], a * r[:, 1] - b * r[:, 0]], dim=-1) / determinant[:, None]
        step = torch.nan_to_num(step, posinf=0.0, neginf=0.0)
        step = step / (step.norm(dim=-1, keepdim=True) / 0.2).clamp(min=1)
        factor = torch.ones(len(points), 1, dtype=points.dtype)
        for _ in range(6):
            trial = residual(points - factor * step)
            worse = trial.norm(dim=-1) > r.norm(dim=-1)
            if not worse.any():
                break
            factor[worse] *= 0.5
        points = points - factor * step
        r = residual(points)
        if float((factor * step).abs().max()) < 1e-13:
            break
    return points, r.norm(dim=-1)


def find_images(
    lens: Lens,
    beta: tuple[float, float] | Tensor,
    radius: float = 1.0,
    centre: tuple[float, float] = (0.0, 0.0),
    half: float | None = None,
) -> Images:
    """All images of a point source at `beta` (arcsec), for a lens whose parameters are numbers.

    `radius` is about its Einstein radius, which sets the grid: cells of radius/40 in a box that reaches `half` arcsec from
    `centre`, by default 2.5 radius and no less than 1.5 (|beta - centre| + radius).
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    away = float(torch.hypot(beta[0] - centre[0], beta[1] - centre[1]))
    half = half or max(2.5 * radius, 1.5 * (away + radius))
    points, residual = _newton(lens, _search(lens, beta, centre, half, radius / 40), beta)
    points = points[residual < 1e-8]
    for x, y in lens.centres():
        points = points[torch.hypot(points[:, 0] - float(x), points[:, 1] - float(y)) > _SINGULAR]
    kept: list[Tensor] = []
    for point in points:
        if all(float((point - other).norm()) > _MERGE for other in kept):
            kept.append(point)
    return _sorted(lens, torch.stack(kept) if kept else points[:0], beta)


def _sorted(lens: Lens, points: Tensor, beta: Tensor) -> Images:
    x, y = points[:, 0], points[:, 1]
    tau = fermat_potential(lens, x, y, beta[0], beta[1])
    order = torch.argsort(tau)
    x, y = x[order], y[order]
    xx, yy, _ = lens.hessian(x, y)
    mu = lens.magnification(x, y)
    kind = ["saddle" if m < 0 else "minimum" if t > 0 else "maximum" for m, t in zip(mu, 2 - xx - yy, strict=True)]
    return Images(x, y, mu, tau[order], kind)
