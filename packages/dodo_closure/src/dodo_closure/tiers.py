"""Synthetic rows in blocks, each a function of (family, tier, seed, block) alone, so that many can be made at once.

t0   final = initial: for trying files only
t1   the smooth variant of Box3D on perturbed angular distributions (`dodo_closure.truth`): cheap, no evidence about physics
t2   quantum kinetics of two flavors, mapped to three (`dodo_closure.reference`)
t3   quantum kinetics of three flavors
box  Box3D itself: for inputs at scale (the residual is zero)
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dodo_closure.box3d import asymptotic_state
from dodo_closure.fluxes import density, flux_factor
from dodo_closure.quadrature import CrossingAware
from dodo_closure.readers import Piece
from dodo_closure.reference import kinetic_final_state
from dodo_closure.states import FAMILIES, draw_states
from dodo_closure.truth import perturbed_final_state
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.run.seeds import derive

__all__ = ["TIERS", "Synthetic", "unstable_states"]

TIERS = ("t0", "t1", "t2", "t3", "box")
SLOWEST = 0.0105  # of N: kinetics are not run for weaker instabilities
RULE = CrossingAware(32, 16, 32)


def unstable_states(family: str, rows: int, seed: int, least_ratio: float, least_growth: float = 0.0) -> tuple[Tensor, int]:
    """`rows` states of a family in 1/cm^3 with I_< / I_> and sqrt(I_< I_>) / N above the limits, and how many were drawn."""
    found, drawn, kept = [], 0, 0
    while kept < rows:
        F = draw_states(family, max(int(1.3 * (rows - kept)), 16), derive(seed, "draw", drawn))
        seen = asymptotic_state(F, RULE)[1]
        good = (seen.smaller > least_ratio * seen.larger) & (seen.growth > least_growth)
        found.append(F[good])
        drawn, kept = drawn + len(F), kept + int(good.sum())
        if drawn > 100 * rows + 1000:
            raise DataError(f"hardly any state of {family!r} has I_< / I_> > {least_ratio}: lower least_ratio.")
    return torch.cat(found)[:rows], drawn


@dataclass(frozen=True)
class Synthetic:
    """Rows `block` of a family: initial states and their final states of a tier.

    Args:
        family: of `dodo_closure.states`
        tier: see above
        seed: of everything
        least_ratio: smallest I_< / I_> of a row
        block_rows: states of one block
        amplitude: of t1: rms deviation of the angular distributions from maximum entropy
    """

    family: str
    tier: str
    seed: int
    least_ratio: float = 0.03
    block_rows: int = 20
    amplitude: float = 0.05

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise ConfigError(f"tier={self.tier} is none of {', '.join(TIERS)}.")
        if self.family not in FAMILIES:
            raise ConfigError(f"there is no family of states {self.family!r}.{nearest(self.family, FAMILIES)}")

    def read(self, block: int) -> tuple[Piece, np.ndarray]:
        """A block, and which of its rows have settled (all but a few of t2 and t3)."""
        slowest = SLOWEST if self.tier in ("t2", "t3") else 0.0
        if self.tier in ("t0", "box"):
            F = draw_states(self.family, self.block_rows, derive(self.seed, "block", block))
        else:
            F, _ = unstable_states(self.family, self.block_rows, derive(self.seed, "block", block), self.least_ratio, slowest)
        seed, settled = derive(self.seed, self.family, self.tier, block), torch.ones(len(F), dtype=torch.bool)
        if self.tier == "t0":
            final = F
        elif self.tier == "box":
            final = asymptotic_state(F)[0]
        elif self.tier == "t1":
            final = perturbed_final_state(F, self.amplitude, seed, RULE)
        else:
            found = kinetic_final_state(F, seed, 2 if self.tier == "t2" else 3, rule=RULE)
            final, settled = found.final, found.settled
        names = [f"synthetic/{self.tier}/{self.family}/{self.seed}/{block}"] * len(F)
        return Piece(F.numpy(), final.numpy(), names=names), settled.numpy()


def worst_flux_factor(F: Tensor) -> Tensor:
    """[B] of [B, 2, 3, 4]."""
    return torch.where(density(F) > 0, flux_factor(F), torch.zeros_like(density(F))).amax(dim=(1, 2))
