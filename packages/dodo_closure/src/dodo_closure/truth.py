r"""A synthetic final state to learn from, of tier T1: analytic, cheap, and NO evidence about physics.

Two things that four-fluxes do not tell are drawn at random or chosen: the angular distributions deviate from maximum entropy,

    f_a(n) (1 + q_a(n)),   q_a = sum_k [u_k P_2(n . v_k) + w_k P_3(n . v_k)] + alpha + beta . n,

with alpha and beta such that density and flux stay what they were, and they are then mixed by the smooth variant of Box3D. So
the final state is no function of the four-fluxes alone, Box3D errs by its jump, and the smooth variant without q is close to
the best that any closure can do: a floor, not a rival. Quantum-kinetic simulations (T2, T3) are what a physics claim needs.
"""

import torch
from torch import Tensor

from dodo_closure.box3d import STEEPEST, convert, crossing_frames
from dodo_closure.conserve import limit
from dodo_closure.fluxes import heavy_average, total_density
from dodo_closure.minerbo import Minerbo, minerbo
from dodo_closure.quadrature import CrossingAware, Lebedev, Rule
from skyloom.run.seeds import torch_generator

__all__ = ["Perturbed", "perturbed_distributions", "perturbed_final_state"]

_TERMS = 4  # directions v_k of each degree


class Perturbed:
    """Minerbo intensities of (e, ebar, x, xbar), times 1 + q; call with directions [B, K, 3]."""

    def __init__(self, closure: Minerbo, centres: Tensor, weights: Tensor, linear: Tensor):
        self.closure, self.centres, self.weights, self.linear = closure, centres, weights, linear

    def shape(self, directions: Tensor) -> Tensor:
        """q without its linear part: [B, 4, K]."""
        return _harmonics(directions, self.centres, self.weights)

    def __call__(self, directions: Tensor) -> Tensor:
        ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
        q = self.shape(directions) + self.linear @ ones.transpose(1, 2)
        return self.closure(directions) * (1 + q)


def _harmonics(directions: Tensor, centres: Tensor, weights: Tensor) -> Tensor:
    """sum_k u_k P_2(n . v_k) + w_k P_3(n . v_k) for centres [B, 4, 2, T, 3] and weights [B, 4, 2, T]: [B, 4, K]."""
    # as polynomials in n: the tensors sum_k u_k v_k v_k and sum_k w_k v_k v_k v_k are made once per row
    second = torch.einsum("bst,bsti,bstj->bsij", weights[:, :, 0], centres[:, :, 0], centres[:, :, 0])
    third = torch.einsum("bst,bsti,bstj,bstl->bsijl", weights[:, :, 1], *[centres[:, :, 1]] * 3)
    pairs = torch.einsum("bki,bkj->bkij", directions, directions).flatten(2)
    p2 = 1.5 * second.flatten(2) @ pairs.transpose(1, 2) - 0.5 * weights[:, :, 0].sum(-1, keepdim=True)
    cubic = torch.einsum("bsim,bkm,bki->bsk", third.flatten(3), pairs, directions)
    vector = torch.einsum("bst,bsti->bsi", weights[:, :, 1], centres[:, :, 1])
    return p2 + 2.5 * cubic - 1.5 * vector @ directions.transpose(1, 2)


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
    closure = minerbo(moments, STEEPEST)
    directions, w = Lebedev(47)(closure, torch.eye(3, dtype=dtype).expand(rows, 3, 3))
    linear = _moment_keeping(closure(directions) * w[:, None], _harmonics(directions, centres, weights), directions)
    ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
    q = _harmonics(directions, centres, weights) + linear @ ones.transpose(1, 2)
    shrink = (0.8 / q.abs().amax(dim=2).clamp(min=1e-12)).clamp(max=1.0)
    return Perturbed(closure, centres, weights * shrink[..., None, None], linear * shrink[..., None])


def _moment_keeping(measure: Tensor, q: Tensor, directions: Tensor) -> Tensor:
    """(beta, alpha) [B, 4, 4] with int f (q + alpha + beta . n) (n, 1) dOmega = 0, for f dOmega = `measure` [B, 4, K]."""
    ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
    measure = measure / measure.sum(dim=2, keepdim=True).clamp(min=1e-300)
    gram = torch.einsum("bsk,bki,bkj->bsij", measure, ones, ones)
    gram = gram + torch.eye(4, dtype=gram.dtype) * (gram.abs().amax(dim=(-2, -1), keepdim=True) == 0)
    target = torch.einsum("bsk,bsk,bki->bsi", measure, q, ones)
    return -torch.linalg.solve(gram, target)


def perturbed_final_state(
    F: Tensor, amplitude: float, seed: int, rule: Rule | None = None, chunk: int = 64
) -> Tensor:
    """Synthetic (T1) final four-fluxes [B, 2, 3, 4] of initial ones with nu_mu = nu_tau, in their unit."""
    generator = torch_generator(seed, "dodo_closure", "perturbed angles")
    total = total_density(F)[:, None, None, None]
    parts = []
    for part in (F / total).split(chunk):
        moments = heavy_average(part)
        angles = perturbed_distributions(moments, amplitude, generator)
        frame = crossing_frames(moments, angles.closure)
        electron = convert(angles, moments, frame, rule or CrossingAware(), smooth=True).change[:, :, None]
        parts.append(limit(part, part + torch.cat([electron, -electron / 2, -electron / 2], dim=-2)))
    return torch.cat(parts) * total
