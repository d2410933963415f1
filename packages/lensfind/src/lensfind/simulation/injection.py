"""Lensed arcs painted on images of the sky that are given: real galaxies, neighbours, noise and PSF, and a lens that is known.

    from lensfind.simulation.injection import inject
    painted = inject(images, variance, seeds, survey, population)

Only the light of the arcs is added, under the PSF of each image, with the Poisson noise of the added light alone: the sky,
the read noise and their correlations are those of the image. At galaxy scale the lens is the galaxy in the middle of each
cutout; at cluster scale `inject_cluster` paints a field.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensfind.rendering.image import plane_for
from lensfind.rendering.rays import lay_rays
from lensfind.simulation.clusters import ClusterPopulation, convolved, draw_cluster, fluxes, lensed_light
from lensfind.simulation.draws import normals
from lensfind.simulation.population import BLUE, LENS, Population
from lensfind.simulation.scene import draw_scenes
from lensfind.survey import Survey
from skyloom.errors import DataError

__all__ = ["inject", "inject_cluster"]


def _photon_noise(light: Tensor, survey: Survey, seeds: Tensor) -> Tensor:
    """Noise of the added light: sqrt(N) per pixel, Gaussian: under a sky of hundreds of electrons nothing else can be seen."""
    gain = survey.electrons()[:, None, None].to(light)
    z = normals(seeds, light[0].numel(), "injection").view_as(light)
    return torch.sqrt((light * gain).clamp(min=0)) * z / gain


def _checked(images: Tensor, variance: Tensor, survey: Survey) -> None:
    if images.shape != variance.shape or images.ndim != 4 or images.shape[1] != len(survey.bands):
        raise DataError(
            f"images and variance must both be [B, {len(survey.bands)} bands, H, W] in nJy, found {list(images.shape)} and "
            f"{list(variance.shape)}."
        )
    if not bool((variance > 0).any()):
        raise DataError("the variance must be positive where the image is good (nJy^2).")


def inject(
    images: Tensor,
    variance: Tensor,
    seeds: Tensor,
    survey: Survey,
    population: Population,
    psf_fwhm: Tensor | None = None,
    theta_e: Tensor | None = None,
    axis_ratio: Tensor | None = None,
    angle: Tensor | None = None,
    oversample: int = 4,
) -> dict[str, Tensor]:
    """Arcs about the middles of cutouts [B, bands, H, W] in nJy; row i depends on `seeds[i]` and its image alone.

    `psf_fwhm` [B, bands] in arcsec is that of each image (by default the survey's median); `theta_e` [B] in arcsec,
    `axis_ratio` and `angle` [B] those of its galaxy, where they are known, and drawn from `population` where not. Pixels that
    are not finite stay so. Gives image and variance with arcs, the arcs alone, a mask of pixels where they exceed half the
    noise, and the truth: theta_E, magnification, arc_snr, seed.
    """
    _checked(images, variance, survey)
    size = images.shape[-1]
    scene = draw_scenes(seeds, torch.full_like(seeds, LENS), population, survey, size)
    scene.x, scene.y = torch.zeros_like(scene.x), torch.zeros_like(scene.y)
    for name, given in (("theta_e", theta_e), ("q", axis_ratio), ("angle", angle)):
        if given is not None:
            setattr(scene, name, given.to(scene.x))
    plane = plane_for(survey, size, images.device)
    fwhm = survey.column("psf_fwhm").to(scene.x).expand(len(seeds), -1) if psf_fwhm is None else psf_fwhm.to(scene.x)
    canvas = lay_rays(scene.lensed(torch.arange(len(seeds), device=seeds.device)), plane, oversample)
    spectra = scene.source_flux[:, :, None, None] * plane.spectrum(canvas)[:, None]
    arcs = plane.image(spectra * plane.transfer(fwhm, survey.moffat_beta))
    noisy = arcs + _photon_noise(arcs, survey, seeds)
    added = arcs.clamp(min=0) / survey.electrons()[:, None, None].to(arcs)
    return {
        "image": images + noisy,
        "variance": variance + added,
        "arcs": arcs,
        "mask": (arcs > 0.5 * variance.sqrt()).any(dim=1),
        "seed": seeds,
        "theta_E": scene.theta_e,
        "magnification": canvas.sum(dim=(-2, -1)),
        "arc_snr": torch.sqrt(torch.nansum(arcs**2 / (variance + added), dim=(1, 2, 3))),
    }


def inject_cluster(
    image: Tensor, variance: Tensor, seed: int, survey: Survey, population: ClusterPopulation | None = None, cells: int = 4
) -> dict[str, Any]:
    """Arcs of a cluster drawn from `seed`, painted on one field [bands, H, W] in nJy about its middle; as `inject` gives it."""
    _checked(image[None], variance[None], survey)
    size = image.shape[-1]
    if image.shape[-2] != size:
        raise DataError(f"a field must be square, found {list(image.shape)}.")
    cluster = draw_cluster(seed, population or ClusterPopulation())
    if 2.4 * cluster.einstein_radius > size * survey.pixel_scale:
        raise DataError(
            f"a field of {size * survey.pixel_scale:.0f} arcsec cannot hold theta_E = {cluster.einstein_radius:.0f} arcsec."
        )
    shapes, magnification = lensed_light(cluster.mass, cluster.sources, size, survey.pixel_scale, cells)
    blue = fluxes(np.asarray(cluster.sources["magnitude"]), BLUE, survey.column("wavelength"))
    arcs = convolved(torch.einsum("sb,syx->byx", blue, shapes.float()), survey)
    seeds = torch.tensor([seed])
    added = arcs.clamp(min=0) / survey.electrons()[:, None, None]
    return {
        "image": image + arcs + _photon_noise(arcs[None], survey, seeds)[0],
        "variance": variance + added,
        "arcs": arcs,
        "mask": (arcs > 0.5 * variance.sqrt()).any(dim=0),
        "theta_E": cluster.einstein_radius,
        "z_lens": cluster.z_lens,
        "z_source": torch.from_numpy(cluster.sources["z"]),
        "magnification": magnification,
        "seed": seed,
    }
