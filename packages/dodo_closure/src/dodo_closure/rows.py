"""From four-fluxes as they come to the rows of a prepared table: what is refused and why, and what Box3D says of the rest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodo_closure.box3d import Adaptive, Integrator, Variant, asymptotic_state
from dodo_closure.discs import Discs
from dodo_closure.fluxes import conservation_error, density, flux, flux_factor, four_flux, length, total_density
from dodo_closure.invariants import invariants27
from dodo_closure.quadrature import CrossingAware, Lebedev, Product
from dodo_closure.readers import Piece
from skyloom.errors import ConfigError, nearest

__all__ = ["GROWTH_UNIT", "REASONS", "RULES", "Settings", "cleaned", "reasons", "table"]

GROWTH_UNIT = 1.925515875e-22  # sqrt(2) G_F / hbar in cm^3/s: times N in 1/cm^3, the unit of rates in 1/s
REASONS = (
    "",
    "not finite",
    "no neutrinos",
    "negative density",
    "flux factor above one",
    "flux factor above max_flux_factor",
    "growth rate not positive",
    "flavor sums or net flavor numbers not conserved",
    "not settled",
)
RULES: dict[str, Integrator | None] = {
    "exact": None,
    "fast": Adaptive(16, Discs()),
    "crossing_aware": CrossingAware(32, 16, 32),
    "aligned_product": Product(32, 64),
    "lebedev29": Lebedev(29),
}


@dataclass(frozen=True)
class Settings:
    """How rows are judged and what is computed of them.

    Args:
        quadrature: exact, fast, crossing_aware, aligned_product or lebedev29
        variant: of Box3D in `F_box`: box or pairwise
        average_heavies: let mu and tau of the final state change alike, by the mean of their changes
        max_flux_factor: rows with a steeper beam are refused
        smooth: compute the smooth variant too
    """

    quadrature: str = "exact"
    variant: Variant = "box"
    average_heavies: bool = True
    max_flux_factor: float = 0.9
    smooth: bool = True

    def __post_init__(self) -> None:
        if self.quadrature not in RULES:
            raise ConfigError(f"quadrature={self.quadrature} is unknown.{nearest(self.quadrature, RULES)}")


def cleaned(F: Tensor) -> Tensor:
    """Densities that round-off made negative (to -1e-10 of N) become empty species; |flux| up to 1e-6 above n becomes n."""
    n, size = density(F), length(flux(F))
    total = total_density(F)[:, None, None]
    F = torch.where(((n < 0) & (n >= -1e-10 * total))[..., None], torch.zeros_like(F), F)
    steep = (size > n) & (size <= n * (1 + 1e-6))
    shorter = torch.where(steep, n / size.clamp(min=1e-300), torch.ones_like(n))
    return four_flux(density(F), flux(F) * shorter[..., None])


def reasons(
    F: Tensor, piece: Piece | None = None, max_flux_factor: float = 1.0, settled: np.ndarray | None = None
) -> np.ndarray:
    """[N] index into `REASONS`: why a row of [N, 2, 3, 4] cannot be used, 0 where it can; the first that applies."""
    total = total_density(F)
    n, size = density(F), length(flux(F))
    factor = torch.where(n > 0, flux_factor(F), torch.zeros_like(n)).amax(dim=(1, 2))
    none = torch.zeros(len(F), dtype=torch.bool)
    growth, broken, unsettled = none, none, none
    if piece is not None and piece.growth is not None:
        growth = ~(torch.as_tensor(piece.growth) > 0)
    if piece is not None and piece.final is not None:
        trace, lepton = conservation_error(F, torch.as_tensor(piece.final))
        broken = ~(torch.maximum(trace, lepton) < 1e-2)
    if settled is not None:
        unsettled = ~torch.as_tensor(settled)
    slack = 1e-9 * total.clamp(min=0)[:, None, None]
    tests = [
        ~torch.isfinite(F).flatten(1).all(dim=1),
        ~(total > 0),
        (n < -slack).flatten(1).any(dim=1),
        (size > n + slack).flatten(1).any(dim=1),
        factor > max_flux_factor + 1e-12,
        growth,
        broken,
        unsettled,
    ]
    reason = torch.zeros(len(F), dtype=torch.long)
    for number in range(len(tests), 0, -1):
        reason = torch.where(tests[number - 1], torch.full_like(reason, number), reason)
    return reason.numpy()


def table(piece: Piece, settled: np.ndarray | None, settings: Settings) -> tuple[dict[str, Any], np.ndarray]:
    """Columns of the rows that can be used, and the reason of every row (0: used)."""
    initial = cleaned(torch.as_tensor(piece.initial))
    final = None if piece.final is None else torch.as_tensor(piece.final)
    if final is not None and settings.average_heavies:
        change = final - initial
        heavy = change[:, :, 1:].mean(dim=2, keepdim=True).expand(-1, -1, 2, -1)
        final = initial + torch.cat([change[:, :, :1], heavy], dim=2)
    reason = reasons(initial, Piece(piece.initial, None if final is None else final.numpy(), piece.growth), 1.0, settled)
    steep = reasons(initial, None, settings.max_flux_factor)
    reason = np.where((reason == 0) & (steep > 0), steep, reason)
    good = np.flatnonzero(reason == 0)
    F, total = initial[good], total_density(initial[good])
    rule = RULES[settings.quadrature]
    box, found = asymptotic_state(F, rule, variant=settings.variant)
    truth = torch.full_like(F, torch.nan) if final is None else final[good]
    residual = (truth - box) / total[:, None, None, None]
    columns: dict[str, Any] = {
        "F_init": F.reshape(-1, 6, 4),
        "F_true": truth.reshape(-1, 6, 4),
        "F_box": box.reshape(-1, 6, 4),
        "ntot": total,
        "invariants": invariants27(F),
        "residual": residual.reshape(-1, 24),
        "box_diag": torch.stack(
            [
                *_sides(F, found),
                found.survival,
                found.growth,
                found.unstable.double(),
                torch.where(density(F) > 0, flux_factor(F), torch.zeros_like(density(F))).amax(dim=(1, 2)),
            ],
            dim=1,
        ),
        "growth_rate": torch.full_like(total, torch.nan) if piece.growth is None else torch.as_tensor(piece.growth)[good],
        "stable": ~found.unstable if piece.stable is None else torch.as_tensor(piece.stable)[good],
    }
    if settings.smooth:
        columns["F_smooth"] = asymptotic_state(F, rule, variant="smooth")[0].reshape(-1, 6, 4)
    arrays = {name: value.numpy() for name, value in columns.items()}
    return {**arrays, "dirname": [piece.names[k] for k in good]}, reason


def _sides(F: Tensor, found: Any) -> tuple[Tensor, Tensor]:
    """I_+ and I_- in units of N."""
    n = density(F) / total_density(F)[:, None, None]
    net = (n[:, 0, 0] - n[:, 1, 0]) - (n[:, 0, 1:].mean(dim=1) - n[:, 1, 1:].mean(dim=1))
    plus = torch.where(net >= 0, found.larger, found.smaller)
    return plus, torch.where(net >= 0, found.smaller, found.larger)
