"""Numbers that say what an eye would: how bright, how blue, how round, and whether there is an arc about the centre.

All are of a cutout alone, and none of where it stands or what survey it is from: positions of patches and pixel scales, which
say nothing or too much, are not among them. Lengths are in arcsec, colours in magnitudes, fluxes in units of their noise.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from lensfind.features.colours import arc_colours, blue_excess, sector_fluxes
from lensfind.models.ridges import structure_evidence

__all__ = ["arc_shape", "circle_fit", "features"]

_APERTURES = (0.6, 1.2, 2.0, 3.0)  # arcsec, radii
_ANNULI = ((0.6, 1.2), (1.2, 2.0), (2.0, 3.0))  # arcsec
_SHAPE = ("arc_area", "arc_length", "arc_width", "arc_radius", "arc_distance", "arc_concentric", "arc_tangential", "arc_peak")


def features(images: Tensor, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Named columns [B] of images [B, bands, H, W] in the survey's flux unit; NaN where there is nothing to measure."""
    bands = list(about["bands"])
    pixel = float(about["survey"]["pixel_scale"])
    noise = torch.tensor(about["statistics"]["noise"], dtype=images.dtype)[:, None, None]
    wavelengths = torch.tensor([float(b["wavelength"]) for b in about["survey"]["bands"].values()], dtype=images.dtype)
    found = _photometry(images, noise, bands, pixel)
    found |= _symmetry(images, noise, pixel)
    excess = blue_excess(images, noise, 0.6 / pixel)[:, 0] if len(bands) > 1 else (images / noise)[:, 0]
    found |= _excess(excess, pixel)
    limit = images.shape[-1] * pixel / 2
    inner, outer = 0.5, min(2.6, limit - pixel)
    flux, variance = sector_fluxes(images, noise, inner / pixel, outer / pixel)
    stands_out = (flux.sum(dim=1) / variance.sum(dim=1).sqrt()).sort(dim=1, descending=True).values
    found |= {f"sector_{k}": stands_out[:, k] for k in (0, 1, 2, 5)}
    if len(bands) > 1:
        named = ["chi2", "segments", "brightness", "tail"]
        pairs = [f"{a}-{b}" for a, b in itertools.pairwise(bands)]
        named += [f"arc {p}" for p in pairs] + [f"arc-centre {p}" for p in pairs]
        columns = arc_colours(images, noise, wavelengths, inner / pixel, outer / pixel)
        found |= {f"colour_{name}": columns[:, k] for k, name in enumerate(named)}
    shapes = np.array([arc_shape(image, pixel) for image in excess.numpy()])
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in found.items()}
    return arrays | {name: shapes[:, k].astype(np.float32) for k, name in enumerate(_SHAPE)}


def _radius(images: Tensor, pixel: float) -> Tensor:
    line = (torch.arange(images.shape[-1], dtype=images.dtype) - (images.shape[-1] - 1) / 2) * pixel
    return torch.hypot(line[:, None], line[None])


def _photometry(images: Tensor, noise: Tensor, bands: list[str], pixel: float) -> dict[str, Tensor]:
    """Brightness, concentration and colours in apertures; magnitudes as arcsinh (Lupton et al. 1999), defined for any flux."""
    radius = _radius(images, pixel)
    found: dict[str, Tensor] = {}
    soft = {}
    for r in _APERTURES:
        inside = (radius < r).to(images.dtype)
        sigma = noise[:, 0, 0] * inside.sum().sqrt()
        flux = (images * inside).sum(dim=(2, 3))
        soft[r] = -1.0857 * torch.asinh(flux / (2 * sigma)) - 1.0857 * torch.log(2 * sigma)
        found[f"snr_{r}"] = torch.log1p((flux / sigma).clamp(min=0)).mean(dim=1)
        found |= {f"{a}-{b}_{r}": soft[r][:, k] - soft[r][:, k + 1] for k, (a, b) in enumerate(itertools.pairwise(bands))}
    for small, large in itertools.pairwise(_APERTURES):
        found[f"concentration_{small}"] = (soft[small] - soft[large]).mean(dim=1)
    return found


def _symmetry(images: Tensor, noise: Tensor, pixel: float) -> dict[str, Tensor]:
    """What half a turn does not bring back, in units of the noise, in annuli."""
    radius = _radius(images, pixel)
    rest = ((images - torch.rot90(images, 2, (-2, -1))) / noise / 2**0.5).mean(dim=1) * images.shape[1] ** 0.5
    found = {}
    for low, high in _ANNULI:
        inside = ((radius >= low) & (radius < high)).to(images.dtype)
        found[f"asymmetry_{low}"] = torch.log1p((rest**2 * inside).sum(dim=(1, 2)) / inside.sum().clamp(min=1))
    return found


def _excess(excess: Tensor, pixel: float) -> dict[str, Tensor]:
    """The blue excess map: strength, and how tangential it is, in annuli."""
    radius = _radius(excess, pixel)
    tangential, radial, energy = structure_evidence(excess, 1.0, 1.7)
    found = {}
    for low, high in _ANNULI:
        inside = (radius >= low) & (radius < high)
        part = excess[:, inside]
        weight = energy[:, inside] / (energy[:, inside].sum(dim=1, keepdim=True) + 1e-9)
        found[f"excess_mean_{low}"] = part.mean(dim=1)
        found[f"excess_peak_{low}"] = torch.asinh(part.amax(dim=1))
        found[f"excess_spread_{low}"] = torch.log1p(part.std(dim=1))
        found[f"tangential_{low}"] = (weight * tangential[:, inside]).sum(dim=1)
        found[f"radial_{low}"] = (weight * radial[:, inside]).sum(dim=1)
    return found


def circle_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, steps: int = 20) -> tuple[float, float, float]:
    """Centre and radius of the circle of least squared distance (geometric fit), by Gauss-Newton from Kasa's algebraic one.

    The algebraic fit alone makes short arcs far too strongly curved. The radius is bounded to 1e4 times the size of the arc: a
    straight line has none.
    """
    total = weight.sum()
    mx, my = (weight * x).sum() / total, (weight * y).sum() / total
    u, v = x - mx, y - my
    spread = float(np.sqrt((weight * (u**2 + v**2)).sum() / total)) + 1e-12
    root = np.sqrt(weight)[:, None]
    if np.linalg.svd(root * np.stack([u, v], axis=1), compute_uv=False)[-1] < 1e-6 * spread * np.sqrt(total):
        return float("nan"), float("nan"), 1e4 * spread  # on one line
    a = np.stack([2 * u, 2 * v, np.ones_like(u)], axis=1)
    solution, *_ = np.linalg.lstsq(root * a, root[:, 0] * (u**2 + v**2), rcond=None)
    cx, cy = solution[0], solution[1]
    radius = math.sqrt(max(solution[2] + cx**2 + cy**2, 1e-12))
    for _ in range(steps):
        dx, dy = u - cx, v - cy
        distance = np.hypot(dx, dy) + 1e-12
        jacobian = np.stack([-dx / distance, -dy / distance, -np.ones_like(u)], axis=1)
        step, *_ = np.linalg.lstsq(root * jacobian, root[:, 0] * (distance - radius), rcond=None)
        limit = min(1.0, 0.5 * (radius + spread) / (np.abs(step).max() + 1e-12))
        cx, cy, radius = cx - limit * step[0], cy - limit * step[1], radius - limit * step[2]
        if not np.isfinite(radius) or abs(radius) > 1e4 * spread:
            return float("nan"), float("nan"), 1e4 * spread
        if np.abs(step).max() < 1e-8 * spread:
            break
    return float(cx + mx), float(cy + my), float(abs(radius))


def arc_shape(excess: np.ndarray, pixel: float, threshold: float = 2.0, least: int = 6) -> np.ndarray:
    """Shape of the brightest connected piece of a map [H, W] in units of its noise: the numbers named in `_SHAPE`.

    Area (arcsec^2), length along its circle and mean width (arcsec), radius of its circle, distance of the piece from the
    middle of the frame, of the circle's centre from it (over the radius), alignment tau = -cos 2(phi - theta) of its long axis
    phi with the direction theta of the piece (1 tangential, -1 radial), and its peak. NaN where no piece of `least` pixels
    stands out.
    """
    smooth = ndimage.gaussian_filter(excess, 0.8)
    labels, number = ndimage.label(smooth > threshold, structure=np.ones((3, 3)))
    nothing = np.full(len(_SHAPE), np.nan)
    if number == 0:
        return nothing
    sums = ndimage.sum_labels(smooth, labels, np.arange(1, number + 1))
    y, x = np.nonzero(labels == 1 + int(np.argmax(sums)))
    if len(x) < least:
        return nothing
    middle = (excess.shape[0] - 1) / 2
    weight = smooth[y, x].astype(float)
    px, py = (x - middle) * pixel, (y - middle) * pixel
    mx, my = np.average(px, weights=weight), np.average(py, weights=weight)
    cx, cy, radius = circle_fit(px, py, weight)
    area = len(x) * pixel**2
    length = _along(px, py, cx, cy, radius)
    cxx, cyy = np.average((px - mx) ** 2, weights=weight), np.average((py - my) ** 2, weights=weight)
    cxy = np.average((px - mx) * (py - my), weights=weight)
    major, direction = 0.5 * math.atan2(2 * cxy, cxx - cyy), math.atan2(my, mx)
    concentric = math.hypot(cx, cy) / radius if math.isfinite(cx) else np.nan
    tau = -math.cos(2 * (major - direction))
    values = (area, length, area / length, min(radius, 10.0), math.hypot(mx, my), concentric, tau, math.asinh(weight.max()))
    return np.array(values)


def _along(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> float:
    """Extent along the circle: the largest gap in angle is where the arc is not."""
    if not math.isfinite(cx):
        return float(max(np.ptp(x), np.ptp(y)))
    angle = np.sort(np.arctan2(y - cy, x - cx))
    gaps = np.diff(np.append(angle, angle[0] + 2 * np.pi))
    return float(max(radius * (2 * np.pi - gaps.max()), 1e-3))
