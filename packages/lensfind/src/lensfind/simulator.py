"""Survey images of lenses and of what is mistaken for them: ray tracing, light, PSF and noise, batched in torch.

>>> from lensfind.population import Population
>>> from lensfind.simulator import simulate
>>> from lensfind.survey import Band, Survey
>>> band = Band(wavelength=755, psf_fwhm=0.7, zero_point=27.8, sky=20.5, exposure=5520, exposures=184)
>>> survey = Survey("demo", 0.2, 1.0, 8.8, 3.0, 0.1, {"i": band})
>>> rows = simulate(seeds=[1, 2, 3], kinds=["lens", "ring", "spiral"], survey=survey, population=Population(), size=40)
>>> rows["image"].shape, [bool(s) for s in rows["arc_snr"].isnan()]
(torch.Size([3, 1, 40, 40]), [False, True, True])
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lensfind.lensing import source_position
from lensfind.light import bin_pixels, convolve, gaussian_ring, pixel_grid, psf_kernel, sersic, spiral_arms
from lensfind.population import KINDS, LENS, Population, Scene, draw_scenes
from lensfind.survey import Survey
from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import derive

__all__ = ["observe", "render", "simulate"]


def _column(value: Tensor) -> Tensor:
    return value[:, None, None]


def _galaxy(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """The foreground galaxy for unit flux: [B, H, W], flux per cell."""
    c = _column
    one = torch.ones_like(scene.x)
    parts = (c(one), c(scene.lens_radius), c(scene.lens_index), c(scene.q), c(scene.angle))
    return sersic(x - c(scene.x), y - c(scene.y), *parts, cell=cell) * cell**2


def _source(scene: Scene, x: Tensor, y: Tensor, offset: Tensor, cell: float) -> Tensor:
    """The source for unit flux at coordinates of the source plane about the galaxy: [B, H, W]."""
    c = _column
    sx = x - c(offset * torch.cos(scene.offset_angle))
    sy = y - c(offset * torch.sin(scene.offset_angle))
    one = torch.ones_like(scene.x)
    parts = (c(one), c(scene.source_radius), c(scene.source_index), c(scene.source_q), c(scene.source_angle))
    return sersic(sx, sy, *parts, cell=cell) * cell**2


def _lensed(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """I(theta) = S(theta - alpha(theta)): surface brightness is conserved."""
    c = _column
    mass = (c(scene.theta_e), c(scene.q), c(scene.angle), c(scene.gamma1), c(scene.gamma2))
    bx, by = source_position(x - c(scene.x), y - c(scene.y), *mass)
    return _source(scene, bx, by, scene.offset * scene.theta_e, cell)


def _boost(scene: Scene) -> Tensor:
    """A factor with the distribution of the total magnification 2 theta_E/beta of lenses, so that brightness tells nothing."""
    return 2 / (0.8 * torch.sqrt(scene.spare[:, 0].clamp(0.04)))


def _companions(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """One to three galaxies at the radii and with the flux of lensed images, placed and turned at random."""
    c, u = _column, scene.spare
    count = 1 + torch.floor(u[:, 1] * 3)
    total = torch.zeros_like(x + c(scene.x))
    one = torch.ones_like(scene.x)
    for k in range(3):
        v = u[:, 2 + 5 * k : 7 + 5 * k]
        share = torch.where(count > k, (0.4 + v[:, 0]) / (0.9 * count), 0 * one)
        radius, phi = scene.theta_e * (0.6 + 1.2 * v[:, 1]), 2 * math.pi * v[:, 2]
        px, py = x - c(scene.x + radius * torch.cos(phi)), y - c(scene.y + radius * torch.sin(phi))
        shape = (c(scene.source_radius), c(scene.source_index), c(0.3 + 0.7 * v[:, 3]), c(math.pi * v[:, 4]))
        total = total + c(share) * sersic(px, py, c(one), *shape, cell=cell) * cell**2
    return c(_boost(scene)) * total


def _merger(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """A second early type of the colour of the first, a tenth to nine tenths as bright, 1 to 2.5 theta_E away."""
    c, u = _column, scene.spare
    radius, phi = scene.theta_e * (1 + 1.5 * u[:, 1]), 2 * math.pi * u[:, 2]
    px, py = x - c(scene.x + radius * torch.cos(phi)), y - c(scene.y + radius * torch.sin(phi))
    shape = (c(0.3 + 0.7 * u[:, 3]), c(2 + 2 * u[:, 4]), c(0.5 + 0.5 * u[:, 5]), c(math.pi * u[:, 6]))
    return sersic(px, py, c(0.1 + 0.8 * u[:, 7]), *shape, cell=cell) * cell**2


def _unit(shape: Tensor) -> Tensor:
    return shape / shape.sum(dim=(-2, -1), keepdim=True)


def _spiral(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """Blue arms about the galaxy as a bulge."""
    c, u = _column, scene.spare
    pitch = c(math.radians(12) + math.radians(18) * u[:, 1])
    shape = spiral_arms(
        x - c(scene.x), y - c(scene.y), c(scene.theta_e * (0.5 + 0.3 * u[:, 2])), pitch, c(0.4 + 0.6 * u[:, 3]),
        c(scene.angle), c(2 * math.pi * u[:, 4]),
    )  # fmt: skip
    return c(1.5 * _boost(scene)) * _unit(shape)


def _ring(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """A whole blue ring with the radius of an Einstein ring, somewhat lopsided, as Hoag's object and collisional rings are."""
    c, u = _column, scene.spare
    width = c(0.1 + 0.2 * u[:, 1])
    shape = gaussian_ring(
        x - c(scene.x), y - c(scene.y), c(scene.theta_e), width, c(0.6 + 0.4 * u[:, 2]), c(2 * math.pi * u[:, 3]),
        c(0.5 * u[:, 4]),
    )  # fmt: skip
    return c(_boost(scene)) * _unit(shape)


def _projected(scene: Scene, x: Tensor, y: Tensor, cell: float) -> Tensor:
    """The source itself, not lensed, seen 2 to 3 theta_E from the galaxy (nearer the edge than that it would be cut off)."""
    reach = float(x.max()) * 0.9
    offset = torch.minimum(scene.theta_e * (2 + scene.spare[:, 1]), torch.full_like(scene.x, reach))
    return _source(scene, x - _column(scene.x), y - _column(scene.y), offset, cell)


_EXTRAS = {"companions": _companions, "merger": _merger, "spiral": _spiral, "ring": _ring, "projected": _projected}


def _psf_sampling(survey: Survey) -> int:
    """Cells per pixel on which the PSF is applied: at least three across its width."""
    return max(1, math.ceil(3 * survey.pixel_scale / float(survey.column("psf_fwhm").min())))


def render(scene: Scene, survey: Survey, size: int, oversample: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Expected images without sky, the lensed source alone, both [B, bands, size, size] in nJy, and its magnification [B].

    Light is summed over `oversample`^2 rays per pixel. The deflection is the same in all bands.
    """
    sampling = _psf_sampling(survey)
    rays = sampling * math.ceil(oversample / sampling)
    cell = survey.pixel_scale / rays
    x, y = pixel_grid(size, survey.pixel_scale, rays)

    def pixels(shape: Tensor, flux: Tensor) -> Tensor:
        return bin_pixels(shape, rays // sampling)[:, None] * flux[:, :, None, None]

    total = pixels(_galaxy(scene, x, y, cell), scene.lens_flux)
    arcs = torch.zeros_like(total)
    magnification = torch.full_like(scene.x, math.nan)
    lens = torch.nonzero(scene.kind == LENS).flatten()
    if len(lens):
        some = scene.rows(lens)
        light = _lensed(some, x, y, cell)
        arcs[lens] = pixels(light, some.source_flux)
        magnification[lens] = light.sum(dim=(-2, -1))
    for name, extra in _EXTRAS.items():
        rows = torch.nonzero(scene.kind == KINDS.index(name)).flatten()
        if len(rows):
            some = scene.rows(rows)
            flux = some.lens_flux if name == "merger" else some.source_flux
            total[rows] += pixels(extra(some, x, y, cell), flux)
    fwhm = survey.column("psf_fwhm") * scene.seeing[:, None]
    kernel = psf_kernel(fwhm, 2 * size * sampling, survey.pixel_scale / sampling, survey.moffat_beta)
    arcs = bin_pixels(convolve(arcs, kernel), sampling)
    return bin_pixels(convolve(total, kernel), sampling) + arcs, arcs, magnification


def observe(expected: Tensor, survey: Survey, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """An observation [B, bands, H, W] in nJy with the sky subtracted, and the variance that it was drawn with.

    electrons = Poisson(object + sky) + N(0, read noise); the noise of row i depends on `seeds[i]` alone.
    """
    per_nanojansky = survey.electrons()[:, None, None]
    sky = survey.sky_electrons()[:, None, None]
    read = survey.read_variance()[:, None, None]
    mean = (expected * per_nanojansky + sky).clamp(min=0)
    generator = torch.Generator()
    counts = torch.empty_like(mean)
    for row, seed in enumerate(seeds.tolist()):
        generator.manual_seed(derive(seed, "noise"))
        noise = torch.randn(mean[row].shape, generator=generator)
        counts[row] = torch.poisson(mean[row], generator=generator) + torch.sqrt(read) * noise
    return (counts - sky) / per_nanojansky, (mean + read) / per_nanojansky**2


def simulate(
    seeds: Sequence[int] | Tensor,
    kinds: Sequence[str] | Tensor,
    survey: Survey,
    population: Population,
    size: int,
    oversample: int = 4,
) -> dict[str, Tensor]:
    """Synthetic cutouts and what they hold; row i is the same whatever stands beside it.

    Columns: image and variance [B, bands, size, size] in nJy and nJy^2; kind (index into KINDS), seed; and, NaN where there is
    no lens, theta_E (arcsec), magnification (total), arc_snr: the signal-to-noise of the lensed light over all bands by a
    matched filter, sqrt(sum arc^2 / variance).
    """
    seeds = torch.as_tensor(seeds, dtype=torch.int64)
    if not isinstance(kinds, Tensor):
        unknown = [name for name in kinds if name not in KINDS]
        if unknown:
            raise ConfigError(f"there is no kind of scene {unknown[0]!r}.{nearest(unknown[0], KINDS)}")
        kinds = torch.tensor([KINDS.index(name) for name in kinds])
    reach = (1 + population.source_offset) * population.einstein_radius[1]  # of the outer image
    if size * survey.pixel_scale / 2 < reach:
        raise ConfigError(
            f"a cutout of {size} pixels of {survey.pixel_scale} arcsec cannot hold arcs of Einstein radius up to "
            f"{population.einstein_radius[1]} arcsec: take size >= {math.ceil(2 * reach / survey.pixel_scale)}."
        )
    scene = draw_scenes(seeds, kinds, population, survey)
    expected, arcs, magnification = render(scene, survey, size, oversample)
    image, variance = observe(expected, survey, seeds)
    snr = torch.sqrt((arcs**2 / variance).sum(dim=(1, 2, 3)))
    nan = torch.full_like(snr, math.nan)
    is_lens = kinds == LENS
    return {
        "image": image,
        "variance": variance,
        "kind": kinds,
        "seed": seeds,
        "theta_E": torch.where(is_lens, scene.theta_e, nan),
        "magnification": magnification,
        "arc_snr": torch.where(is_lens, snr, nan),
    }
