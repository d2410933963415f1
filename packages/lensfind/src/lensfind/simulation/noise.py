"""What the detector adds: photons counted one by one, and read noise."""

import torch
from torch import Tensor

from lensfind.simulation.draws import normals
from lensfind.survey import Survey
from skyloom.run.seeds import derive

__all__ = ["observe"]

_MANY = 1000.0  # electrons, above which kurtosis and skewness squared change nothing that could be seen
_FEW = 50.0  # electrons (sky and squared read noise) of an empty pixel, below which photons are counted one by one


def observe(expected: Tensor, survey: Survey, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """An observation [B, bands, H, W] in nJy with the sky subtracted, and the variance that it was drawn with.

    electrons = Poisson(object + sky) + N(0, read noise); the noise of row i depends on `seeds[i]` alone. Where an empty pixel
    already holds many electrons, their sum is drawn at once from its mean, variance, skewness and kurtosis by the expansion of
    Cornish and Fisher (1937), which is right to the third order in 1/sqrt(electrons) and the same on every device.
    """
    sky, read, per_nanojansky = survey.noise_terms(expected.device)
    mean = torch.addcmul(sky, expected, per_nanojansky).clamp_(min=0)
    variance = mean + read
    empty = float((survey.sky_electrons() + survey.read_variance()).min())
    if empty < _FEW:
        electrons = _counted(mean, read, seeds)
    else:
        z = normals(seeds, mean[0].numel(), "noise").view_as(mean)
        electrons = _summed(mean, variance, z, third=empty < _MANY)
    return (electrons - sky) / per_nanojansky, variance / per_nanojansky**2


def _summed(mean: Tensor, variance: Tensor, z: Tensor, third: bool) -> Tensor:
    """Poisson and Gaussian electrons together. All cumulants beyond the variance are those of the Poisson part, its mean."""
    sigma = torch.sqrt(variance)
    sixth = mean / (6 * variance)  # skewness times sigma, over six
    z2 = z * z
    electrons = torch.addcmul(mean, sigma, z).add_(sixth * (z2 - 1))
    if third:
        skewness = mean / (variance * sigma)
        electrons += sigma * z * ((z2 - 3) * (skewness / (24 * sigma)) - (2 * z2 - 5) * (skewness * skewness / 36))
    return electrons


def _counted(mean: Tensor, read: Tensor, seeds: Tensor) -> Tensor:
    """One generator per row, on the processor: slow, and exact for dark skies and short exposures."""
    counts = torch.empty(mean.shape)
    level, deviation = mean.cpu(), torch.sqrt(read).cpu()
    generator = torch.Generator()
    for row, seed in enumerate(seeds.tolist()):
        generator.manual_seed(derive(seed, "noise"))
        noise = torch.randn(level[row].shape, generator=generator)
        counts[row] = torch.poisson(level[row], generator=generator) + deviation * noise
    return counts.to(mean.device)
