r"""Quantum kinetics of the fast flavor instability: discrete ordinates in a periodic box along one axis, many boxes at once.

In the fast limit all that matters of a state is G(n) = (f_e - f_ebar) - (f_x - f_xbar), and neutrinos and antineutrinos of one
direction share one survival probability P(n). Two flavors, with polarization vectors S_d(z, t) of direction d and weight w_d:

    (\partial_t + n_{d,z} \partial_z) S_d = H_d \times S_d,   H_d = \sum_{d'} w_{d'} G_{d'} (1 - n_d \cdot n_{d'}) S_{d'},

P = (1 + S_z) / 2. Three flavors whose heavy two start alike reduce exactly to the density matrix rho_d of what began as
electron flavor (S_d -> rho_d, H x S -> -i [H, rho]), as all else is a multiple of the identity; P = rho_ee.

Time and length are in units of 1 / gamma, gamma = sqrt(I_< I_>) in 1 / (sqrt(2) G_F N / hbar), c = 1: a box of 8 and a time of
60 suit every state. One step turns S by H at its midpoint, then advects exactly (Fourier phases), with a filter at the highest
wave numbers for what has cascaded below the grid; the wave number zero, and with it the net flavor number, is not touched.

Sigl and Raffelt 1993, Nucl. Phys. B 406, 423; Richers et al. 2022, Phys. Rev. D 106, 043011 (codes compared).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Box", "Survival", "evolve", "steps_needed", "survival"]


@dataclass(frozen=True)
class Box:
    """A periodic box and how it is resolved; lengths and times in 1 / gamma.

    Args:
        cells: along the axis
        length: of the box
        duration: of a run; survival is averaged over its second half
        turn: largest angle by which one step may turn a polarization, in radians
        noise: standard deviation of the transverse polarization at the start
    """

    cells: int = 128
    length: float = 8.0
    duration: float = 60.0
    turn: float = 0.5
    noise: float = 1e-2


class Survival(NamedTuple):
    """Averages over the box and the second half of the run."""

    flavors: Tensor
    """[B, D, F]: what began as electron flavor is found as e, x (two flavors) or e, mu, tau."""
    drift: Tensor
    """[B, D]: survival in the last quarter less that in the one before: what an average over time leaves open."""
    growing: Tensor
    """[B]: coherence is still growing at the end: the run was too short, and its average means nothing."""


Local = Callable[[Tensor, Tensor, Tensor, float, Tensor], None]


def _cross(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a x b of [3, ...], without temporaries."""
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        torch.mul(a[j], b[k], out=out[i]).addcmul_(a[k], b[j], value=-1)
    return out


def _turn_polarization(S: Tensor, gather: Tensor, spread: Tensor, dt: float, scratch: Tensor) -> None:
    """One local step of S [3, B, D, Z] in place: H from the midpoint, then a rotation that keeps |S| exactly (Boris 1970)."""
    half, turned, other = scratch
    spread = spread * (dt / 2)
    moments = gather @ S
    _cross(torch.matmul(spread, moments, out=half), S, turned)
    torch.matmul(spread, moments.add_(gather @ turned), out=half)
    _cross(half, S, turned).add_(S)
    _cross(half, turned, other)
    norm = torch.mul(half[0], half[0], out=turned[0]).addcmul_(half[1], half[1]).addcmul_(half[2], half[2])
    S.addcmul_(other, norm.add_(1).reciprocal_().mul_(2))


def _commutator(H: Tensor, R: Tensor, out: Tensor) -> Tensor:
    """-i [H, R] of Hermitian 3 x 3 matrices [9, ...]: ee, mumu, tautau, then real and imaginary parts of emu, etau, mutau."""
    h1, h2, h3, ax, ay, bx, by, cx, cy = H
    r1, r2, r3, ux, uy, vx, vy, wx, wy = R
    free = out[3:9]  # not yet written
    first = torch.mul(ay, ux, out=free[0]).addcmul_(ax, uy, value=-1).mul_(2)  # 2 Im(H_12 R_12*), likewise 13 and 23
    second = torch.mul(by, vx, out=free[1]).addcmul_(bx, vy, value=-1).mul_(2)
    third = torch.mul(cy, wx, out=free[2]).addcmul_(cx, wy, value=-1).mul_(2)
    torch.add(first, second, out=out[0])
    torch.sub(third, first, out=out[1])
    torch.add(second, third, out=out[2]).neg_()
    h12, h13, h23, r12, r13, r23 = h1 - h2, h1 - h3, h2 - h3, r1 - r2, r1 - r3, r2 - r3
    # -i X has real part Im X and imaginary part -Re X; X_12 = (H_11 - H_22) R_12 - (R_11 - R_22) H_12 + H_13 R_23* - R_13 H_23*
    re, im = out[4], out[3]
    torch.mul(h12, ux, out=re).addcmul_(r12, ax, value=-1).addcmul_(bx, wx).addcmul_(by, wy)
    re.addcmul_(vx, cx, value=-1).addcmul_(vy, cy, value=-1).neg_()
    torch.mul(h12, uy, out=im).addcmul_(r12, ay, value=-1).addcmul_(by, wx).addcmul_(bx, wy, value=-1)
    im.addcmul_(vy, cx, value=-1).addcmul_(vx, cy)
    re, im = out[6], out[5]  # X_13 = (H_11 - H_33) R_13 - (R_11 - R_33) H_13 + H_12 R_23 - R_12 H_23
    torch.mul(h13, vx, out=re).addcmul_(r13, bx, value=-1).addcmul_(ax, wx).addcmul_(ay, wy, value=-1)
    re.addcmul_(ux, cx, value=-1).addcmul_(uy, cy).neg_()
    torch.mul(h13, vy, out=im).addcmul_(r13, by, value=-1).addcmul_(ax, wy).addcmul_(ay, wx)
    im.addcmul_(ux, cy, value=-1).addcmul_(uy, cx, value=-1)
    re, im = out[8], out[7]  # X_23 = (H_22 - H_33) R_23 - (R_22 - R_33) H_23 + H_12* R_13 - R_12* H_13
    torch.mul(h23, wx, out=re).addcmul_(r23, cx, value=-1).addcmul_(ax, vx).addcmul_(ay, vy)
    re.addcmul_(ux, bx, value=-1).addcmul_(uy, by, value=-1).neg_()
    torch.mul(h23, wy, out=im).addcmul_(r23, cy, value=-1).addcmul_(ax, vy).addcmul_(ay, vx, value=-1)
    im.addcmul_(ux, by, value=-1).addcmul_(uy, bx)
    return out


def _turn_matrix(R: Tensor, gather: Tensor, spread: Tensor, dt: float, scratch: Tensor) -> None:
    """One local step of rho [9, B, D, Z] in place: exp(-i H dt) rho exp(i H dt) to fourth order, H from the midpoint."""
    H, term, other = scratch
    moments = gather @ R
    _commutator(torch.matmul(spread, moments, out=H), R, term)
    torch.matmul(spread, moments.add_(gather @ term.mul_(dt / 2)), out=H)
    term.copy_(R)
    for order in (1, 2, 3, 4):
        R.add_(_commutator(H, term, other).mul_(dt / order))
        term, other = other, term


def evolve(
    state: Tensor, strength: Tensor, directions: Tensor, length: float, dt: float, steps: int, filtered: bool = True
) -> Iterator[Tensor]:
    """Yields `state` after each step: [3, B, D, Z] polarizations or [9, B, D, Z] density matrices, changed in place.

    Args:
        strength: w_d G_d [B, D], in the unit of 1/time
        directions: unit vectors [D, 3]; the box lies along z
        length: of the box
        filtered: damp the highest wave numbers, by exp(-36 (k / k_max)^12) a step
    """
    cells = state.shape[-1]
    ones = torch.cat([torch.ones_like(directions[:, :1]), directions], dim=1).to(state)  # (1, n)
    gather = strength.to(state)[:, None] * ones.T
    spread = ones * ones.new_tensor([1.0, -1.0, -1.0, -1.0])
    wave = 2 * math.pi / length * torch.arange(cells // 2 + 1, dtype=torch.float64, device=state.device)
    damping = torch.exp(-36 * (wave / wave[-1]) ** 12) if filtered else torch.ones_like(wave)
    phase = (damping * torch.exp(-1j * wave * directions[:, 2:].to(wave) * dt)).to(torch.complex(state[:1], state[:1]).dtype)
    local: Local = _turn_polarization if len(state) == 3 else _turn_matrix
    scratch = state.new_empty(3, *state.shape)
    waves = torch.fft.rfft(state)
    for _ in range(steps):
        local(state, gather, spread, dt, scratch)
        torch.fft.irfft(torch.fft.rfft(state, out=waves).mul_(phase), n=cells, out=state)
        yield state


def _perturbed(flavors: int, shape: tuple[int, int, int], noise: float, seeds: Sequence[int], device: torch.device) -> Tensor:
    """Electron flavor with random transverse parts: S [3, B, D, Z], or rho = psi psi^+ [9, B, D, Z]."""
    own = [torch.randn(2 * (flavors - 1), *shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    draws = noise * torch.stack(own, dim=1).to(device)
    if flavors == 2:
        return torch.cat([draws, torch.sqrt((1 - (draws**2).sum(dim=0, keepdim=True)).clamp(min=0))])
    norm = 1 / (1 + (draws**2).sum(dim=0) / 4)  # an amplitude of noise / 2 turns the polarization by noise
    a, b, c, d = draws / 2  # psi = (1, a + ib, c + id)
    rho = [torch.ones_like(a), a * a + b * b, c * c + d * d, a, -b, c, -d, a * c + b * d, b * c - a * d]
    return torch.stack(rho) * norm


def steps_needed(strength: Tensor, directions: Tensor, box: Box) -> Tensor:
    """[B]: steps, 64 times a power of 2^(1/4), with which no step turns a polarization by more than `box.turn`."""
    fastest = (strength.abs() @ (1 - directions @ directions.T)).amax(dim=1)  # no |H| exceeds it
    power = torch.ceil(4 * torch.log2((box.duration * fastest / box.turn / 64).clamp(min=1.0)))
    return 4 * torch.round(16 * 2 ** (power / 4)).long()


def survival(
    strength: Tensor, directions: Tensor, seeds: Sequence[int], steps: int, box: Box | None = None, flavors: int = 2
) -> Survival:
    """Flavor of what began as electron flavor, per direction, for states with w_d G_d / gamma = `strength` [B, D].

    Each row has a seed of its own for its first perturbation; all take `steps` steps.
    """
    box = box or Box()
    state = _perturbed(flavors, (*strength.shape, box.cells), box.noise, seeds, strength.device)
    places = [2] if flavors == 2 else [0, 1, 2]
    quarters = torch.zeros(2, len(places), *strength.shape, dtype=torch.float64, device=strength.device)
    coherence = torch.zeros(2, len(strength), dtype=torch.float64, device=strength.device)
    off = slice(0, 2) if flavors == 2 else slice(3, 9)
    quarter = steps // 4
    for step, now in enumerate(evolve(state, strength, directions, box.length, box.duration / steps, steps)):
        if step >= 2 * quarter:
            part = int(step >= 3 * quarter)
            quarters[part] += now[places].mean(dim=-1) / quarter
            if step % 8 == 0:
                coherence[part] += (now[off] ** 2).sum(dim=0).mean(dim=(-2, -1)) / (quarter / 8)
    if flavors == 2:
        electron = (1 + quarters[:, 0]) / 2
        quarters = torch.stack([electron, 1 - electron], dim=1)
    found = quarters.mean(dim=0).movedim(0, -1)
    return Survival(found, quarters[1, 0] - quarters[0, 0], coherence[1] > 1.5 * coherence[0] + 1e-3)
