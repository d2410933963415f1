r"""What is minimized: a weighted square error, or the five terms of an earlier network, put right.

Four-fluxes are in units of the row's own N; the density is read by name, never by index.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dodo_closure.fluxes import density, flux
from skyloom.errors import ConfigError

__all__ = ["LOSSES", "expected_error_loss", "source_composite", "weighted_l2"]

Loss = Callable[..., dict[str, Tensor]]


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of [M, B, ...] with weights [M, B]."""
    return (value.flatten(2).mean(dim=2) * weight).sum() / weight.sum().clamp(min=1e-12)


def weighted_l2(
    F: Tensor, truth: Tensor, weight: Tensor, scale: float, l1: float = 1.0, unphysical: float = 1.0
) -> dict[str, Tensor]:
    r"""<(F - F_true)^2> / D + l1 <|F - F_true|> / sqrt(D) + unphysical <max(-n, 0)^2 + max(|F| - n, 0)^2> / D.

    sqrt(D) = `scale`, the rms of F_true - F_Box3D, so that Box3D itself scores 1 in the first term. F is [M, B, 2, 3, 4].
    """
    error = (F - truth) / scale
    n, size = density(F), torch.sqrt((flux(F) ** 2).sum(dim=-1) + 1e-24)
    hinge = (torch.relu(-n) ** 2 + torch.relu(size - n) ** 2) / scale**2
    terms = {"squared": _mean(error**2, weight), "absolute": _mean(error.abs(), weight), "unphysical": _mean(hinge, weight)}
    return {"loss": terms["squared"] + l1 * terms["absolute"] + unphysical * terms["unphysical"], **terms}


def source_composite(
    F: Tensor,
    truth: Tensor,
    weight: Tensor,
    scale: float,
    w_density: float = 1.0,
    w_magnitude: float = 1.0,
    w_direction: float = 1.0,
    w_unphysical: float = 25.0,
    w_residual_l1: float = 0.2,
    floor: float = 0.1,
) -> dict[str, Tensor]:
    """Density, flux magnitude and direction, unphysical flux factors, residual L1. `floor` (of N) keeps rare species in check.

    Magnitude and direction are weighted by |F_true|, without which species with no flux contribute noise; a negative density
    is unphysical too.
    """
    eps = 1e-8
    n, m = density(F), density(truth)
    size, aim = (torch.sqrt((flux(G) ** 2).sum(dim=-1) + eps**2) for G in (F, truth))
    share = aim / (aim + floor)
    cosine = (flux(F) * flux(truth)).sum(dim=-1) / (size * aim)
    steep = torch.relu(size / (n.clamp(min=0) + eps) - 1).clamp(max=10) * (size > 1e-6)
    terms = {
        "density": _mean((n - m) ** 2 / (m.abs().clamp(min=floor) ** 2 + eps), weight),
        "magnitude": _mean(share * (size - aim) ** 2 / (aim.clamp(min=floor) ** 2 + eps), weight),
        "direction": _mean(share * (1 - cosine.clamp(-1, 1)) * (aim > 1e-6), weight),
        "unphysical": _mean(steep + torch.relu(-n), weight),
        "residual_l1": _mean((F - truth).abs(), weight),
    }
    weights = (w_density, w_magnitude, w_direction, w_unphysical, w_residual_l1)
    total = sum(w * term for w, term in zip(weights, terms.values(), strict=True))
    assert isinstance(total, Tensor)
    return {"loss": total, **terms}


LOSSES: dict[str, Loss] = {"weighted_l2": weighted_l2, "source_composite": source_composite}


def expected_error_loss(bar: Tensor, error: Tensor, weight: Tensor, scale: float, level: float = 0.68) -> Tensor:
    """Pinball loss of ln |error| at `level`: at its minimum, |error| < bar in that share of rows (Koenker and Bassett 1978)."""
    floor = 0.01 * scale
    above = torch.log(error.abs() + floor) - torch.log(bar + floor)
    return _mean(torch.maximum(level * above, (level - 1) * above), weight)


def loss_named(name: str) -> Loss:
    if name not in LOSSES:
        raise ConfigError(f"loss={name} is none of {', '.join(LOSSES)}.")
    return LOSSES[name]
