"""Clusters as lenses: a halo, a brightest galaxy, red members and their mass, and arcs of galaxies far behind.

Fields of 90 to 200 arcsec with Einstein radii of 10 to 50 arcsec. The mass is one plane: an elliptical NFW halo, a dPIE for the
brightest galaxy and one for each member (sigma ~ L^1/4, cut ~ L^1/2: Jullo et al. 2007, arXiv:0706.0048), external shear. A
source at redshift z sees it scaled by D_ls/D_s. A cluster is kept when its Einstein radius lies in the asked range.

    >>> from lensfind.simulation.clusters import ClusterPopulation, draw_cluster
    >>> cluster = draw_cluster(3, ClusterPopulation())
    >>> 10 <= cluster.einstein_radius <= 50
    True
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensfind.lensing import NFW, Composite, Cosmology, Crowd, Lens, PseudoJaffe, Shear, critical_curves, enclosed_area
from lensfind.light.grid import bin_pixels, convolve, pixel_grid
from lensfind.light.psf import psf_kernel
from lensfind.light.sersic import sersic
from lensfind.rendering.image import plane_for
from lensfind.simulation.noise import observe
from lensfind.simulation.population import BLUE, RED, colour_magnitudes
from lensfind.survey import Survey, nanojansky
from skyloom.errors import ConfigError, DataError
from skyloom.run.seeds import numpy_generator

__all__ = [
    "Cluster",
    "ClusterPopulation",
    "convolved",
    "draw_cluster",
    "fluxes",
    "lensed_light",
    "member_light",
    "simulate_cluster",
]

_TRIES = 60
_GRID = 80  # points on a side where critical curves are sought
_ICL = 1  # row of the light between galaxies among the members; the brightest is row 0
_BESIDE = 12.0  # arcsec within which a member beside the field shines into it


@dataclass(frozen=True)
class ClusterPopulation:
    """Ranges are uniform unless a comment says otherwise."""

    einstein_radius: tuple[float, float] = (
        10.0,
        50.0,
    )  # arcsec, for a source at `z_reference`; what lies outside is drawn again
    m200: tuple[float, float] = (5e14, 2.5e15)  # Msun, dN/dM ~ M^-3
    concentration: float = 6.0  # at 1e15 Msun: lensing clusters are seen along their long axis; falls as M^-0.1
    concentration_scatter: float = 0.16  # dex
    z_lens: tuple[float, float] = (0.2, 0.7)
    z_source: tuple[float, float] = (1.0, 3.0)
    z_reference: float = 2.0
    potential_axis_ratio: tuple[float, float] = (0.8, 1.0)
    shear: tuple[float, float] = (0.0, 0.05)
    members: tuple[int, int] = (15, 40)  # beside the brightest
    core_radius: float = 60.0  # arcsec, within which half of the members lie
    bcg_magnitude: tuple[float, float] = (17.0, 18.5)  # i
    icl: tuple[float, float] = (0.1, 0.3)  # share of the cluster's light, in an envelope of 20 to 60 arcsec
    sources: int = 12  # lensed galaxies; the first is behind the caustic
    source_magnitude: tuple[float, float] = (23.0, 26.0)  # i
    source_radius: tuple[float, float] = (0.1, 0.4)  # arcsec


@dataclass(frozen=True)
class Cluster:
    """One cluster: its mass for a source at the reference redshift, and columns of its members and sources."""

    seed: int
    z_lens: float
    m200: float
    concentration: float
    einstein_radius: float  # arcsec, for a source at the reference redshift
    caustic_area: float  # arcsec^2
    mass: Lens
    reference: float  # D_ls/D_s of the reference redshift
    members: dict[str, np.ndarray] = field(
        repr=False
    )  # x, y, r_e, n, q, angle, magnitude; the first is the brightest, the second ICL
    sources: dict[str, np.ndarray] = field(repr=False)  # efficiency: D_ls/D_s over `reference`


def draw_cluster(seed: int, population: ClusterPopulation, cosmology: Cosmology | None = None) -> Cluster:
    """A cluster whose Einstein radius lies in the asked range; every number comes from `seed`."""
    flat, p = cosmology or Cosmology(), population
    rng = numpy_generator(seed, "cluster")
    low, high = p.einstein_radius
    for _ in range(_TRIES):
        z_lens = rng.uniform(*p.z_lens)
        m200 = float((p.m200[0] ** -2 + rng.random() * (p.m200[1] ** -2 - p.m200[0] ** -2)) ** -0.5)
        c = p.concentration * (m200 / 1e15) ** -0.1 * 10 ** (p.concentration_scatter * rng.normal())
        halo = flat.halo(m200, c, z_lens, p.z_reference)
        members = _members(rng, p)
        mass = _mass(rng, p, halo.kappa_s, halo.theta_s, members, flat.distance_ratio(z_lens, p.z_reference))
        guess = flat.halo_radius(m200, c, z_lens, p.z_reference)
        if not 0.5 * low < guess < 1.1 * high:
            continue
        curves = critical_curves(mass, radius=max(1.2 * guess, 8.0), n=_GRID)
        radius = max((math.sqrt(enclosed_area(loop) / math.pi) for loop in curves.tangential), default=0.0)
        if low <= radius <= high:
            break
    else:
        raise DataError(f"no Einstein radius in {[low, high]} arcsec among {_TRIES} clusters: widen m200 or the range.")
    largest = max(curves.tangential_caustics, key=lambda loop: float(np.ptp(loop[:, 0]) * np.ptp(loop[:, 1])))
    reference = flat.distance_ratio(z_lens, p.z_reference)
    area = 0.5 * abs(float(np.sum(largest[:, 0] * np.roll(largest[:, 1], -1) - largest[:, 1] * np.roll(largest[:, 0], -1))))
    sources = _sources(rng, p, flat, z_lens, reference, largest, radius)
    return Cluster(seed, z_lens, m200, float(c), radius, area, mass, reference, members, sources)


def _members(rng: np.random.Generator, p: ClusterPopulation) -> dict[str, np.ndarray]:
    """The brightest galaxy, the light between galaxies, and red members to four magnitudes below, thinning outwards."""
    count = int(rng.integers(p.members[0], p.members[1] + 1))
    bcg = rng.uniform(*p.bcg_magnitude)
    magnitude = bcg + 1.0 + 3.5 * rng.beta(2.0, 1.2, count)
    u = rng.random(count)
    r, phi = p.core_radius * np.sqrt((1 + 3.0) ** u - 1) / 1.3, rng.uniform(0, 2 * math.pi, count)
    total = 10 ** (-0.4 * bcg) + (10 ** (-0.4 * magnitude)).sum()
    icl = -2.5 * math.log10(total * rng.uniform(*p.icl))
    size = 0.9 * 10 ** (-0.12 * (magnitude - 20))

    def column(first: float, second: float, rest: np.ndarray) -> np.ndarray:
        return np.concatenate([[first, second], rest])

    angle, q = rng.uniform(0, math.pi), rng.uniform(0.6, 0.9)
    return {
        "x": column(0.0, 0.0, r * np.cos(phi)), "y": column(0.0, 0.0, r * np.sin(phi)),
        "r_e": column(rng.uniform(2.0, 5.0), rng.uniform(20.0, 60.0), size),
        "n": column(4.0, 1.0, rng.uniform(2.5, 4.5, count)),
        "q": column(q, q, rng.uniform(0.4, 1.0, count)), "angle": column(angle, angle, rng.uniform(0, math.pi, count)),
        "magnitude": column(bcg, icl, magnitude),
    }  # fmt: skip


def _mass(
    rng: np.random.Generator, p: ClusterPopulation, kappa_s: float, theta_s: float, members: dict[str, np.ndarray], ratio: float
) -> Composite:
    """Halo, brightest galaxy and members by Faber-Jackson: theta_0 ~ sigma^2 ~ L^1/2, 1.6 arcsec at D_ls/D_s = 1 and i = 18."""
    m = members
    angle = float(m["angle"][0])
    parts: list[Lens] = [NFW(kappa_s, theta_s, float(rng.uniform(*p.potential_axis_ratio)), angle)]
    keep = np.arange(len(m["x"])) != _ICL  # the light between galaxies follows the halo
    column = {name: torch.from_numpy(m[name][keep]) for name in ("x", "y", "q", "angle", "magnitude")}
    root = 10 ** (-0.2 * (column["magnitude"] - 18.0))  # sqrt of the luminosity
    parts.append(
        Crowd(PseudoJaffe(1.6 * ratio * root, column["q"], column["angle"], 0.02, 8.0 * root, column["x"], column["y"]))
    )
    g, phi = rng.uniform(*p.shear), rng.uniform(0, 2 * math.pi)
    return Composite([*parts, Shear(float(g * math.cos(phi)), float(g * math.sin(phi)))])


def _sources(
    rng: np.random.Generator, p: ClusterPopulation, flat: Cosmology, z_lens: float, reference: float, caustic: np.ndarray,
    radius: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Galaxies behind: the first within the caustic, the others anywhere within 1.5 Einstein radii."""
    count = p.sources
    z = np.maximum(rng.uniform(*p.z_source, count), z_lens + 0.3)
    efficiency = np.asarray(flat.distance_ratio(z_lens, z)) / reference
    r, phi = 1.5 * radius * np.sqrt(rng.random(count)), rng.uniform(0, 2 * math.pi, count)
    x, y = r * np.cos(phi), r * np.sin(phi)
    inside = caustic[int(rng.integers(len(caustic)))] * math.sqrt(rng.random()) * efficiency[0]
    x[0], y[0] = inside
    bright, faint = p.source_magnitude
    return {
        "x": x, "y": y, "z": z, "efficiency": efficiency, "r_e": rng.uniform(*p.source_radius, count),
        "n": rng.uniform(0.7, 2.0, count), "q": rng.uniform(0.4, 1.0, count), "angle": rng.uniform(0, math.pi, count),
        "magnitude": bright + (faint - bright) * np.sqrt(rng.random(count)),
    }  # fmt: skip


def lensed_light(
    mass: Lens, sources: dict[str, np.ndarray], size: int, pixel: float, cells: int = 4, rows: int = 256
) -> tuple[Tensor, Tensor]:
    """Images of sources of unit flux behind one mass: [S, size, size] flux per pixel, and their magnifications [S].

    Deflections, the costly part, are computed once on `cells`^2 rays per pixel and scaled by each source's efficiency
    D_ls/D_s; `rows` of rays at a time bound the memory.
    """
    count = size * cells
    cell = pixel / cells
    line = (torch.arange(count, dtype=torch.float32) - (count - 1) / 2) * cell
    parts = []
    step = max(cells, rows // cells * cells)
    for start in range(0, count, step):
        y, x = torch.meshgrid(line[start : start + step], line, indexing="ij")
        ax, ay = mass.deflection(x, y)
        images = []
        for k in range(len(sources["x"])):
            bx, by = x - sources["efficiency"][k] * ax, y - sources["efficiency"][k] * ay
            shape = [torch.tensor(float(sources[name][k]), dtype=line.dtype) for name in ("r_e", "n", "q", "angle")]
            one = torch.ones((), dtype=line.dtype)
            light = sersic(bx - sources["x"][k], by - sources["y"][k], one, shape[0], shape[1], shape[2], shape[3], cell)
            images.append(bin_pixels(light[None], cells)[0] * cell**2)
        parts.append(torch.stack(images))
    image = torch.cat(parts, dim=1)
    return image, image.sum(dim=(-2, -1))


def simulate_cluster(
    seed: int, survey: Survey, population: ClusterPopulation | None = None, side: float = 120.0, cells: int = 4
) -> dict[str, Any]:
    """A field of `side` arcsec about a cluster: image, variance, lensed light alone and an arc mask [bands, size, size] in nJy.

    Beside them the truth: theta_E, z_lens, m200, concentration, caustic_area, and per source its redshift and
    magnification; arc_snr is the signal-to-noise of all lensed light by a matched filter. The mask
    marks pixels where the lensed light is above half the noise in any band.
    """
    p = population or ClusterPopulation()
    if side < 3 * p.einstein_radius[0]:
        raise ConfigError(f"a field of {side} arcsec is smaller than three Einstein radii of {p.einstein_radius[0]} arcsec.")
    p = replace(p, einstein_radius=(p.einstein_radius[0], min(p.einstein_radius[1], side / 3)))
    cluster = draw_cluster(seed, p)
    size = round(side / survey.pixel_scale)
    shapes, magnification = lensed_light(cluster.mass, cluster.sources, size, survey.pixel_scale, cells)
    wavelengths = survey.column("wavelength")
    blue = fluxes(cluster.sources["magnitude"], BLUE, wavelengths)
    arcs = convolved(torch.einsum("sb,syx->byx", blue, shapes.float()), survey)
    image = arcs + member_light(cluster, survey, size)
    observed, variance = observe(image[None], survey, torch.tensor([seed]))
    noise = survey.sky_sigma()[:, None, None]
    snr = torch.sqrt((arcs**2 / variance[0]).sum())
    return {
        "image": observed[0], "variance": variance[0], "arcs": arcs, "mask": (arcs > 0.5 * noise).any(dim=0), "seed": seed,
        "theta_E": cluster.einstein_radius, "z_lens": cluster.z_lens, "m200": cluster.m200,
        "concentration": cluster.concentration, "caustic_area": cluster.caustic_area,
        "z_source": torch.from_numpy(cluster.sources["z"]), "magnification": magnification,
        "arc_snr": float(snr),
    }  # fmt: skip


def fluxes(magnitudes: np.ndarray, colour: tuple[float, ...], wavelengths: Tensor) -> Tensor:
    """[M, bands] in nJy, of galaxies of i magnitudes [M] and one colour."""
    i = torch.from_numpy(magnitudes)
    return nanojansky(colour_magnitudes(i, colour, torch.zeros_like(i), wavelengths)).float()


def member_light(cluster: Cluster, survey: Survey, size: int) -> Tensor:
    """Galaxies of the cluster and the light between them: [bands, size, size].

    Members are summed in the Fourier plane, where what lies far outside would come back over the opposite edge: those that
    shine into the field are taken, and the plane is wider by their light on either side. The light between galaxies is as wide
    as the field and smooth, and is taken at the pixels' centres.
    """
    m, half = cluster.members, size * survey.pixel_scale / 2
    plane = plane_for(survey, size, wings=2 * _BESIDE)
    flux = fluxes(m["magnitude"], RED, survey.column("wavelength"))
    side = plane.padded * plane.sampling
    total = torch.zeros(len(survey.bands), side, side // 2 + 1, dtype=torch.complex64)
    columns = {name: torch.from_numpy(m[name]).float() for name in ("x", "y", "r_e", "n", "q", "angle")}
    seen = np.maximum(np.abs(m["x"]), np.abs(m["y"])) < half + _BESIDE
    for k in np.flatnonzero(seen & (np.arange(len(seen)) != _ICL)):
        one = {name: values[k : k + 1] for name, values in columns.items()}
        total += flux[k][:, None, None] * plane.sersic(**one)[0]
    galaxies = plane.image(total * plane.transfer(survey.column("psf_fwhm"), survey.moffat_beta))
    x, y = pixel_grid(size, survey.pixel_scale, 1)
    r_e, n, q, angle = (columns[name][_ICL] for name in ("r_e", "n", "q", "angle"))
    between = sersic(x, y, torch.ones(()), r_e, n, q, angle, survey.pixel_scale) * survey.pixel_scale**2
    return galaxies + flux[_ICL][:, None, None] * between


def convolved(light: Tensor, survey: Survey) -> Tensor:
    """Light [bands, size, size] per pixel under the PSF of each band."""
    size = light.shape[-1]
    kernel = psf_kernel(survey.column("psf_fwhm"), size + min(size, 128), survey.pixel_scale, survey.moffat_beta)
    return convolve(light, kernel)
