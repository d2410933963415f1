r"""Colour as a clue: lensed sources are bluer than the galaxies that lens them, and all images of one source have one colour.

Gravity bends all wavelengths alike, so that the colours $c_s$ of the images of one source differ only by noise and by dust on
their ways through the lens: $c_s = c + E_s R + \epsilon_s$ with $\epsilon_s \sim N(0, \Sigma_s)$ and differential extinction
$E_s \sim N(0, \sigma_E^2)$ along the reddening vector R. With $M_s = \Sigma_s + \sigma_E^2 R R^T$ the best common colour is
$c = (\sum M_s^{-1})^{-1} \sum M_s^{-1} c_s$, and $\chi^2 = \sum (c_s - c)^T M_s^{-1} (c_s - c)$ follows a chi-squared law of
(N - 1)(bands - 1) degrees of freedom, if it is one source. Colour gradients, microlensing and light of the lens that was not
taken away break this, so it is a soft clue: a feature, not a cut.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ARC_COLOURS", "arc_colours", "blue_excess", "colour_chi2", "reddening", "sector_fluxes"]

ARC_COLOURS = 4  # numbers per image beside the 2 (bands - 1) colours: see `arc_colours`
_MAG = 1.0857  # 2.5 / ln 10
# A_b / E(B-V) of LSST's filters, Cardelli et al. (1989) with R_V = 3.1 and a flat spectrum, against wavelength in nm.
_EXTINCTION = ((368.0, 4.757), (482.7, 3.661), (622.3, 2.701), (754.6, 2.054), (869.1, 1.590), (971.2, 1.308))


def blue_excess(images: Tensor, noise: Tensor, aperture: float) -> Tensor:
    """The bluest band less the reddest, scaled so that the central galaxy vanishes, in units of its noise: [B, 1, H, W].

    D = (F_b - a F_r) / sqrt(s_b^2 + a^2 s_r^2), with a the ratio of the two bands within `aperture` pixels of the centre
    (RINGFINDER: Gavazzi et al. 2014, A&A 566, A63). Images [B, bands, H, W] with the bands from blue to red, noise
    [bands, 1, 1] of an empty pixel. What is as red as the centre is gone, whatever its shape; where the PSF differs between the
    bands, a faint residual stays in the core.
    """
    size = images.shape[-1]
    line = torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2
    core = (line[:, None] ** 2 + line**2 <= aperture**2).to(images.dtype)
    blue, red = images[:, 0], images[:, -1]
    weight = (red * core).sum(dim=(1, 2)).clamp(min=float(torch.finfo(images.dtype).eps))
    ratio = ((blue * core).sum(dim=(1, 2)) / weight).clamp(0, 10)[:, None, None]
    return ((blue - ratio * red) / torch.sqrt(noise[0] ** 2 + ratio**2 * noise[-1] ** 2))[:, None]


def reddening(wavelengths: Tensor) -> Tensor:
    """Change of the adjacent colours per E(B-V), [bands - 1], for filters at these wavelengths (nm): differences of A_b.

    >>> [round(float(r), 2) for r in reddening(torch.tensor([482.7, 622.3, 754.6]))]
    [0.96, 0.65]
    """
    x, a = (
        torch.tensor(column, dtype=wavelengths.dtype, device=wavelengths.device) for column in zip(*_EXTINCTION, strict=True)
    )
    place = torch.searchsorted(x, wavelengths).clamp(1, len(x) - 1)
    share = ((wavelengths - x[place - 1]) / (x[place] - x[place - 1])).clamp(0, 1)
    extinction = a[place - 1] + share * (a[place] - a[place - 1])
    return extinction[:-1] - extinction[1:]


def colour_chi2(
    colours: Tensor, covariance: Tensor, present: Tensor, red: Tensor, dust: float
) -> tuple[Tensor, Tensor, Tensor]:
    """chi^2 [B], degrees of freedom [B] and the common colour [B, K] of N segments, those that are `present` [B, N].

    Colours [B, N, K] mag with covariance [B, N, K, K]; `red` [K] is the reddening vector and `dust` the standard deviation of
    the differential E(B-V), mag. With fewer than two segments chi^2 is 0, of no degree of freedom.
    """
    k = colours.shape[-1]
    total = covariance + dust**2 * red[:, None] * red
    weight = torch.linalg.inv(total) * present[..., None, None]
    filled = torch.where(present[..., None], colours, torch.zeros_like(colours))
    information = weight.sum(dim=1) + 1e-9 * torch.eye(k, device=colours.device, dtype=colours.dtype)
    common = torch.linalg.solve(information, (weight @ filled[..., None]).sum(dim=1))[..., 0]
    away = torch.where(present[..., None], filled - common[:, None], torch.zeros_like(filled))
    chi2 = (away[..., None, :] @ weight @ away[..., None])[..., 0, 0].sum(dim=1)
    freedom = (present.sum(dim=1) - 1).clamp(min=0) * k
    return torch.where(freedom > 0, chi2, torch.zeros_like(chi2)), freedom, common


def sector_fluxes(images: Tensor, noise: Tensor, inner: float, outer: float, sectors: int = 12) -> tuple[Tensor, Tensor]:
    """Fluxes and their variances [B, bands, sectors] of an annulus between `inner` and `outer` pixels, after the median over
    azimuth has been taken away at every radius: what is round about the centre is gone, arcs of less than half a circle stay.

    The variance counts the noise of empty pixels, [bands, 1, 1], alone.
    """
    bands, size = images.shape[1], images.shape[-1]
    rings, rays = max(2, round(outer - inner)), 4 * sectors
    radius = inner + (outer - inner) * (torch.arange(rings, device=images.device, dtype=images.dtype) + 0.5) / rings
    angle = 2 * torch.pi * (torch.arange(rays, device=images.device, dtype=images.dtype) + 0.5) / rays
    place = radius[:, None, None] * torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1) / (size / 2)
    seen = F.grid_sample(images, place.expand(len(images), -1, -1, -1).to(images.dtype), align_corners=False)
    rest = seen - seen.median(dim=-1, keepdim=True).values
    area = radius * (outer - inner) / rings * 2 * torch.pi / rays  # pixels per sample
    flux = (rest * area[:, None]).unflatten(-1, (sectors, -1)).sum(dim=(2, 4))
    pixels = torch.pi * (outer**2 - inner**2) / sectors
    variance = noise.reshape(1, bands, 1) ** 2 * pixels
    return flux, variance.expand_as(flux)


def arc_colours(
    images: Tensor, noise: Tensor, wavelengths: Tensor, inner: float, outer: float, dust: float = 0.1, floor: float = 0.05
) -> Tensor:
    """What colours tell of each image: [B, ARC_COLOURS + 2 (bands - 1)].

    Segments are the sectors of the annulus whose flux stands out at 3 sigma in every band. In order: ln(1 + chi^2 per degree
    of freedom), number of segments, ln(1 + flux over all segments in units of its noise), the upper tail probability of chi^2
    (Wilson and Hilferty 1931), the common adjacent colours of the segments, and by how much they are redder than the centre
    (all mag; 0 where there is no segment). `floor` is a systematic error of each colour, mag.
    """
    flux, variance = sector_fluxes(images, noise, inner, outer)
    sigma = variance.sqrt()
    present = (flux > 3 * sigma).all(dim=1)
    safe = torch.where(present[:, None], flux, torch.ones_like(flux))
    magnitude = -2.5 * torch.log10(safe)
    error = torch.where(present[:, None], (_MAG * sigma / safe) ** 2, torch.ones_like(flux))
    colours = (magnitude[:, :-1] - magnitude[:, 1:]).transpose(1, 2)
    step = torch.eye(images.shape[1], device=images.device, dtype=images.dtype).diff(dim=0).neg()
    covariance = step @ torch.diag_embed(error.transpose(1, 2)) @ step.T
    covariance = covariance + floor**2 * torch.eye(step.shape[0], device=images.device, dtype=images.dtype)
    chi2, freedom, common = colour_chi2(colours, covariance, present, reddening(wavelengths.to(images)), dust)
    number = present.sum(dim=1)
    bright = (flux.sum(dim=1) * present).sum(dim=1) / torch.sqrt((variance.sum(dim=1) * present).sum(dim=1) + 1e-12)
    per = chi2 / freedom.clamp(min=1)
    nine = 2 / (9 * freedom.clamp(min=1).to(images.dtype))
    tail = 0.5 * torch.erfc((per ** (1 / 3) - (1 - nine)) / torch.sqrt(2 * nine))
    tail = torch.where(freedom > 0, tail, torch.full_like(tail, 0.5))
    some = (number > 0)[:, None]
    centre = _centre_colours(images, inner)
    zero = torch.zeros_like(common)
    return torch.cat(
        [
            torch.stack([torch.log1p(per), number.to(images.dtype), torch.log1p(bright.clamp(min=0)), tail], dim=1),
            torch.where(some, common, zero),
            torch.where(some, common - centre, zero),
        ],
        dim=1,
    )


def _centre_colours(images: Tensor, radius: float) -> Tensor:
    size = images.shape[-1]
    line = torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2
    core = (line[:, None] ** 2 + line**2 <= radius**2).to(images.dtype)
    flux = (images * core).sum(dim=(2, 3)).clamp(min=1e-3)
    magnitude = -2.5 * torch.log10(flux)
    return magnitude[:, :-1] - magnitude[:, 1:]
