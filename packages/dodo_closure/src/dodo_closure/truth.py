r"""A synthetic final state to learn from, of tier T1: analytic, cheap, and NO evidence about physics.

Two things that four-fluxes do not tell are drawn at random or chosen: the angular distributions deviate from maximum entropy,

    f_a(n) (1 + q_a(n)),   q_a = sum_k [u_k P_2(n . v_k) + w_k P_3(n . v_k)] + alpha + beta . n,

with alpha and beta such that density and flux stay what they were, and they are then mixed by the smooth variant of Box3D. So
the final state is no function of the four-fluxes alone, Box3D errs by its jump, and the smooth variant without q is close to
the best that any closure can do: a floor, not a rival. Quantum-kinetic simulations (T2, T3) are what a physics claim needs.
"""

import torch
from torch import Tensor

from dodo_closure.box3d import STEEPEST
from dodo_closure.conserve import limit
from dodo_closure.conversion import convert, crossing_frames
from dodo_closure.fluxes import heavy_average, total_density
from dodo_closure.minerbo import Minerbo, maximum_entropy
from dodo_closure.quadrature import CrossingAware, Lebedev, Rule
from skyloom.run.seeds import torch_generator

__all__ = ["Perturbed", "perturbed_distributions", "perturbed_final_state"]

_TERMS = 4  # directions v_k of each degree


class Perturbed:
    """Minerbo intensities of (e, ebar, x, xbar), times 1 + q.

    `high` [B, 4, 4, 9] are the coefficients of n_i n_j (n_l, 1) in q, `low` [B, 4, 4] those of (n, 1).
    """

    def __init__(self, closure: Minerbo, high: Tensor, low: Tensor):
        self.closure, self.high, self.low = closure, high, low

    def along(self, directions: Tensor) -> Tensor:
        return self.closure.along(directions) * (1 + self.deviation(directions))

    def deviation(self, directions: Tensor) -> Tensor:
        """q [B, 4, K]."""
        pairs = torch.einsum("bki,bkj->bijk", directions, directions).flatten(1, 2)
        ones = _with_one(directions).transpose(1, 2)
        high = (self.high.flatten(1, 2) @ pairs).unflatten(1, (4, 4))
        return ((high + self.low[..., None]) * ones[:, None]).sum(dim=2)


def _with_one(directions: Tensor) -> Tensor:
    return torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)


def _harmonics(centres: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The polynomial sum_k u_k P_2(n . v_k) + w_k P_3(n . v_k) of centres [B, 4, 2, T, 3] and weights [B, 4, 2, T]."""
    (v2, v3), (u, w) = centres.unbind(dim=2), weights.unbind(dim=2)
    third = 2.5 * torch.einsum("bst,bsti,bstj,bstl->bslij", w, v3, v3, v3).flatten(3)
    second = 1.5 * torch.einsum("bst,bsti,bstj->bsij", u, v2, v2).flatten(2)
    low = torch.cat([-1.5 * torch.einsum("bst,bsti->bsi", w, v3), -0.5 * u.sum(dim=-1, keepdim=True)], dim=-1)
    return torch.cat([third, second[:, :, None]], dim=2), low


def perturbed_distributions(moments: Tensor, amplitude: float, generator: torch.Generator) -> Perturbed:
    """For four-fluxes [B, 4, 4] with N = 1: positive distributions with the same moments; `amplitude` is the rms of q.

    The two heavy species share v, u and w, so that they stay alike where they were. Statistically isotropic.
    """
    rows, dtype = len(moments), torch.float64
    centres = torch.randn(rows, 4, 2, _TERMS, 3, generator=generator, dtype=dtype)
    weights = torch.randn(rows, 4, 2, _TERMS, generator=generator, dtype=dtype)
    centres[:, 3], weights[:, 3] = centres[:, 2], weights[:, 2]
    centres = centres / torch.linalg.vector_norm(centres, dim=-1, keepdim=True)
    # <P_l^2> = 1/(2l+1); each degree carries half of the variance
    rms = (torch.tensor([1 / 5, 1 / 7], dtype=dtype) * 2 * _TERMS).sqrt()
    weights = amplitude * weights / rms[:, None]
    closure = maximum_entropy(moments, STEEPEST)
    directions, w = Lebedev(47)(closure.along, torch.eye(3, dtype=dtype).expand(rows, 3, 3))
    perturbed = Perturbed(closure, *_harmonics(centres, weights))
    q = perturbed.deviation(directions)
    keeping = _moment_keeping(closure.along(directions) * w[:, None], q, directions)
    q = q + keeping @ _with_one(directions).transpose(1, 2)
    shrink = (0.8 / q.abs().amax(dim=2).clamp(min=1e-12)).clamp(max=1.0)[..., None]
    return Perturbed(closure, perturbed.high * shrink[..., None], (perturbed.low + keeping) * shrink)


def _moment_keeping(measure: Tensor, q: Tensor, directions: Tensor) -> Tensor:
    """(beta, alpha) [B, 4, 4] with int f (q + alpha + beta . n) (n, 1) dOmega = 0, for f dOmega = `measure` [B, 4, K]."""
    ones = _with_one(directions)
    measure = measure / measure.sum(dim=2, keepdim=True).clamp(min=1e-300)
    gram = torch.einsum("bsk,bkp->bsp", measure, torch.einsum("bki,bkj->bkij", ones, ones).flatten(2)).unflatten(2, (4, 4))
    gram = gram + torch.eye(4, dtype=gram.dtype) * (gram.abs().amax(dim=(-2, -1), keepdim=True) == 0)
    target = (measure * q) @ ones
    return -torch.linalg.solve(gram, target)


def perturbed_final_state(F: Tensor, amplitude: float, seed: int, rule: Rule | None = None, chunk: int = 64) -> Tensor:
    """Synthetic (T1) final four-fluxes [B, 2, 3, 4] of initial ones with nu_mu = nu_tau, in their unit."""
    generator = torch_generator(seed, "dodo_closure", "perturbed angles")
    total = total_density(F)[:, None, None, None]
    parts = []
    for part in (F / total).split(chunk):
        moments = heavy_average(part)
        angles = perturbed_distributions(moments, amplitude, generator)
        frame = crossing_frames(moments, angles.closure)
        electron = convert(angles.along, moments, frame, rule or CrossingAware(), smooth=True).change[:, :, None]
        parts.append(limit(part, part + torch.cat([electron, -electron / 2, -electron / 2], dim=-2)))
    return torch.cat(parts) * total
