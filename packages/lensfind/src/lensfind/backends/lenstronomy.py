"""Scenes rendered by lenstronomy (Birrer et al. 2018, 2021): slower, and independent.

    from lensfind.backends.lenstronomy import render
    expected, arcs = render(scene, survey, size=64, supersampling=5)

Only what it knows is handed over: deflectors, field galaxies and lensed sources; not stars, arms, rings, tails, artefacts. Its
own approximation of b_n differs from ours, so the half-light radius is rescaled to give the same profile.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensfind.light.grid import bin_pixels
from lensfind.light.psf import psf_kernel
from lensfind.light.sersic import sersic_amplitude, sersic_b
from lensfind.simulation.population import LENS
from lensfind.simulation.scene import Galaxies, Scene
from lensfind.survey import Survey
from skyloom.errors import ConfigError

__all__ = ["ellipticity", "image_model", "mass_kwargs", "profile_kwargs", "render", "sersic_kwargs", "source_kwargs"]


def _need() -> None:
    try:
        import lenstronomy  # noqa: F401
    except ImportError:
        raise ConfigError("the lenstronomy backend needs it: pip install 'skyloom-lensfind[simulators]'.") from None


def ellipticity(q: float, angle: float) -> dict[str, float]:
    """(1 - q)/(1 + q) (cos 2 phi, sin 2 phi)."""
    size = (1 - q) / (1 + q)
    return {"e1": size * math.cos(2 * angle), "e2": size * math.sin(2 * angle)}


def sersic_kwargs(x: float, y: float, flux: float, r_e: float, n: float, q: float, angle: float) -> dict[str, float]:
    """Our Sersic profile of total `flux` in lenstronomy's words; flux per arcsec^2."""
    number = torch.tensor(n, dtype=torch.float64)
    ours, theirs = float(sersic_b(number)), 1.9992 * n - 0.3271
    radius = r_e * (theirs / ours) ** n
    amplitude = flux * math.exp(float(sersic_amplitude(torch.tensor(r_e, dtype=torch.float64), number)) - theirs)
    return {"amp": amplitude, "R_sersic": radius, "n_sersic": n, "center_x": x, "center_y": y, **ellipticity(q, angle)}


def mass_kwargs(scene: Scene, row: int) -> tuple[list[str], list[dict[str, float]]]:
    """The power law (or isothermal ellipsoid) and shear of a row."""
    at = {name: float(getattr(scene, name)[row]) for name in ("x", "y", "theta_e", "q", "angle", "gamma1", "gamma2", "slope")}
    mass = {"theta_E": at["theta_e"], "center_x": at["x"], "center_y": at["y"], **ellipticity(at["q"], at["angle"])}
    isothermal = abs(at["slope"] - 2) < 1e-6
    shear = {"gamma1": at["gamma1"], "gamma2": at["gamma2"], "ra_0": at["x"], "dec_0": at["y"]}
    return ["SIE" if isothermal else "EPL", "SHEAR"], [mass if isothermal else {**mass, "gamma": at["slope"]}, shear]


def _kernel(fwhm: float, pixel: float, beta: float | None, reach: int) -> np.ndarray:
    """An odd kernel [2 reach + 1]^2 of unit sum with its peak in the middle."""
    kernel = psf_kernel(torch.tensor([fwhm], dtype=torch.float64), 2 * reach + 1, pixel, beta)[0]
    return torch.fft.fftshift(kernel).numpy()


def image_model(
    survey: Survey, size: int, fwhm: float, lens: list[str], sources: int, galaxies: int, supersampling: int = 5,
    convolve: bool = True, adaptive: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """An `ImageModel` of one band. `convolve` on the finer grid; `adaptive` [size, size] marks the pixels to supersample."""
    _need()
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    pixel = survey.pixel_scale
    corner = -(size - 1) / 2 * pixel
    data = ImageData(
        image_data=np.zeros((size, size)), background_rms=1.0, exposure_time=1.0, transform_pix2angle=np.eye(2) * pixel,
        ra_at_xy_0=corner, dec_at_xy_0=corner,
    )  # fmt: skip
    fine = supersampling if convolve else 1
    reach = math.ceil(min(12 * fwhm / pixel, size / 2)) * fine
    psf = PSF(
        psf_type="PIXEL", kernel_point_source=_kernel(fwhm, pixel / fine, survey.moffat_beta, reach),
        point_source_supersampling_factor=fine,
    )  # fmt: skip
    numerics: dict[str, Any] = {"supersampling_factor": supersampling, "supersampling_convolution": convolve}
    if adaptive is not None:
        numerics |= {"compute_mode": "adaptive", "supersampled_indexes": adaptive}
    light = LightModel(["SERSIC_ELLIPSE"] * galaxies)
    source = LightModel(["SERSIC_ELLIPSE"] * sources) if sources else None
    return ImageModel(data, psf, LensModel(lens), source, light, kwargs_numerics=numerics)


def profile_kwargs(galaxies: list[Galaxies], row: int, band: int) -> list[dict[str, float]]:
    """Every galaxy that shines in a row, in one band."""
    found = []
    for group in galaxies:
        for k in torch.nonzero(group.row == row)[:, 0].tolist():
            at = {name: float(getattr(group, name)[k]) for name in ("x", "y", "r_e", "n", "q", "angle")}
            found.append(sersic_kwargs(flux=float(group.flux[k, band]), **at))
    return found


def source_kwargs(scene: Scene, row: int, band: int) -> dict[str, float]:
    """The source behind the lens of a row, in one band."""
    beta, phi = float(scene.offset[row] * scene.theta_e[row]), float(scene.offset_angle[row])
    x, y = float(scene.x[row]) + beta * math.cos(phi), float(scene.y[row]) + beta * math.sin(phi)
    shape = [float(getattr(scene, f"source_{name}")[row]) for name in ("radius", "index", "q", "angle")]
    return sersic_kwargs(x, y, float(scene.source_flux[row, band]), *shape)


def _summed(image: np.ndarray, supersampling: int, margin: int) -> Tensor:
    cells = bin_pixels(torch.from_numpy(image)[None], supersampling)[0].float()
    return cells[margin:-margin, margin:-margin] if margin else cells


def _finer(survey: Survey, supersampling: int) -> Survey:
    return replace(survey, pixel_scale=survey.pixel_scale / supersampling)


def render(scene: Scene, survey: Survey, size: int, supersampling: int = 5, margin: int = 12) -> tuple[Tensor, Tensor]:
    """Expected images and lensed light [B, bands, size, size] in nJy, one image and band at a time.

    lenstronomy renders and convolves on pixels `supersampling` times finer, which are then summed (its own supersampling of the
    PSF is off by 3e-3 of the peak of an exponential disc), and `margin` pixels beyond each edge, whose light the PSF brings in.
    Sources with clumps or from stamps are refused: lenstronomy would need other models for them.
    """
    lens = scene.kind == LENS
    if bool((scene.clumps[lens][..., 3] > 0).any()):
        raise ConfigError("the lenstronomy backend renders smooth sources: set population.clumpy=0.")
    galaxies = [scene.deflectors(), scene.field]
    shape = (len(scene), len(survey.bands), size, size)
    total, arcs = torch.zeros(shape), torch.zeros(shape)
    for row in range(len(scene)):
        for band, fwhm in enumerate(survey.column("psf_fwhm").tolist()):
            light = profile_kwargs(galaxies, row, band)
            names, mass = mass_kwargs(scene, row)
            here = bool(lens[row])
            width = fwhm * float(scene.seeing[row])
            wide = (size + 2 * margin) * supersampling
            model = image_model(_finer(survey, supersampling), wide, width, names, int(here), len(light), 1, convolve=False)
            source = [source_kwargs(scene, row, band)] if here else None
            image = model.image(mass, source, light, lens_light_add=True, source_add=False)
            total[row, band] = _summed(image, supersampling, margin)
            if here:
                arcs[row, band] = _summed(model.image(mass, source, light, lens_light_add=False), supersampling, margin)
    return total + arcs, arcs
