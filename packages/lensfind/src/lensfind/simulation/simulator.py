"""Survey images of lenses and of what is mistaken for them: ray tracing, light, PSF and noise, batched in torch.

>>> from lensfind.simulation.population import Population
>>> from lensfind.simulation.simulator import simulate
>>> from lensfind.survey import Band, Survey
>>> band = Band(wavelength=755, psf_fwhm=0.7, zero_point=27.8, sky=20.5, exposure=5520, exposures=184)
>>> survey = Survey("demo", 0.2, 1.0, 8.8, 3.0, 0.1, {"i": band})
>>> rows = simulate(seeds=[1, 2, 3], kinds=["lens", "ring", "spiral"], survey=survey, population=Population(), size=40)
>>> rows["image"].shape, [bool(s) for s in rows["arc_snr"].isnan()]
(torch.Size([3, 1, 40, 40]), [False, True, True])
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lensfind.rendering.image import plane_for, render_scene
from lensfind.simulation.artefacts import add_artefacts
from lensfind.simulation.confusers import extra_galaxies, extra_shapes
from lensfind.simulation.noise import observe
from lensfind.simulation.population import KINDS, LENS, Population
from lensfind.simulation.scene import Scene, draw_scenes
from lensfind.survey import Survey
from skyloom.errors import ConfigError, nearest

__all__ = ["RECIPE", "draw_scenes", "observe", "render", "simulate"]

RECIPE = 6  # raise it when the same arguments give other images: by more than the thousandth of the peak that rendering errs

_BATCH = {"cpu": 32}  # cutouts at a time: what fits a processor's cache; other devices take more
_BATCH_ELSEWHERE = 4096


def render(
    scene: Scene, survey: Survey, size: int, oversample: int = 4, population: Population | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Expected images without sky, the lensed source alone, both [B, bands, size, size] in nJy, and its magnification [B].

    `oversample` rays on a side of a cell where the source is bright; see `lensfind.rendering`. The deflection is the same in
    all bands.
    """
    population = population or Population()
    plane = plane_for(survey, size, scene.x.device)
    lens = torch.nonzero(scene.kind == LENS)[:, 0]
    galaxies = [scene.deflectors(), scene.field, *extra_galaxies(scene, population, size * survey.pixel_scale / 2)]
    stamps = _stamps(population, scene.x.device)
    if stamps is not None:
        scene.source_radius = torch.full_like(scene.source_radius, population.stamp_size / 2)
        scene.source_q = torch.ones_like(scene.source_q)
    return render_scene(scene, survey, plane, lens, galaxies, extra_shapes(scene, population), oversample, stamps)


def _stamps(population: Population, device: torch.device) -> Tensor | None:
    return None if population.stamps is None else _read_stamps(population.stamps).to(device)


@lru_cache(maxsize=4)
def _read_stamps(path: str) -> Tensor:
    """[K, N, N] images of sources, each of unit sum."""
    import numpy as np

    if path.endswith(".npy"):
        stamps = np.load(path, allow_pickle=False)
    else:
        from astropy.io import fits

        stamps = fits.getdata(path)
    stamps = np.asarray(stamps, dtype=np.float64)
    if stamps.ndim != 3 or stamps.shape[1] != stamps.shape[2]:
        raise ConfigError(f"{path}: stamps must be [K, N, N] square images, found {list(stamps.shape)}.")
    total = stamps.sum(axis=(1, 2), keepdims=True)
    if not np.isfinite(stamps).all() or (total <= 0).any():
        raise ConfigError(f"{path}: stamps must be finite and hold light.")
    return torch.from_numpy(stamps / total).float()


def _indices(kinds: Sequence[str] | Tensor) -> Tensor:
    if isinstance(kinds, Tensor):
        return kinds
    unknown = [name for name in kinds if name not in KINDS]
    if unknown:
        raise ConfigError(f"there is no kind of scene {unknown[0]!r}.{nearest(unknown[0], KINDS)}")
    return torch.tensor([KINDS.index(name) for name in kinds])


def simulate(
    seeds: Sequence[int] | Tensor,
    kinds: Sequence[str] | Tensor,
    survey: Survey,
    population: Population,
    size: int,
    oversample: int = 4,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """Synthetic cutouts and what they hold, on `device` (by default that of the seeds).

    Row i depends on its seed and kind alone: whatever stands beside it, and on whatever device, it is the same to 1e-5.

    Columns: image and variance [B, bands, size, size] in nJy and nJy^2; kind (index into KINDS), seed; the numbers of the scene
    (`theta_E`, `q`, `gamma1`, ...), of which those of the lens and the source are NaN where there is no lens; magnification
    (total); arc_snr, the signal-to-noise of the lensed light over all bands by a matched filter, sqrt(sum arc^2 / variance);
    flux_ratio, lensed light over all light that was expected in the cutout, over all bands;
    artefact (index into ARTEFACTS, -1 for none).
    """
    seeds = torch.as_tensor(seeds, dtype=torch.int64)
    seeds = seeds if device is None else seeds.to(device)
    kinds = _indices(kinds).to(seeds.device)
    reach = (1 + population.source_offset) * population.einstein_radius[1]  # of the outer image
    if size * survey.pixel_scale / 2 < reach:
        raise ConfigError(
            f"a cutout of {size} pixels of {survey.pixel_scale} arcsec cannot hold arcs of Einstein radius up to "
            f"{population.einstein_radius[1]} arcsec: take size >= {math.ceil(2 * reach / survey.pixel_scale)}."
        )
    step = _BATCH.get(seeds.device.type, _BATCH_ELSEWHERE)
    parts = [
        _simulate(some, of, survey, population, size, oversample)
        for some, of in zip(seeds.split(step), kinds.split(step), strict=True)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]


def _simulate(
    seeds: Tensor, kinds: Tensor, survey: Survey, population: Population, size: int, oversample: int
) -> dict[str, Tensor]:
    scene = draw_scenes(seeds, kinds, population, survey, size)
    expected, arcs, magnification = render(scene, survey, size, oversample, population)
    image, variance = observe(expected, survey, seeds)
    snr = torch.sqrt((arcs**2 / variance).sum(dim=(1, 2, 3)))
    artefact = add_artefacts(image, variance, seeds, kinds, survey, population)
    nan = torch.full_like(snr, math.nan)
    lens = kinds == LENS
    of_lens = {
        "theta_E": scene.theta_e, "gamma1": scene.gamma1, "gamma2": scene.gamma2, "slope": scene.slope,
        "source_offset": scene.offset, "arc_snr": snr,
        "flux_ratio": arcs.sum(dim=(1, 2, 3)) / expected.sum(dim=(1, 2, 3)),
    }  # fmt: skip
    return {
        "image": image,
        "variance": variance,
        "kind": kinds,
        "seed": seeds,
        **{name: torch.where(lens, values, nan) for name, values in of_lens.items()},
        "magnification": magnification,
        "q": scene.q,
        "lens_radius": scene.lens_radius,
        "seeing": scene.seeing,
        "artefact": artefact,
    }
