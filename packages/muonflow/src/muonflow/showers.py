"""A synthetic stand-in for air-shower simulation whose exact density is known.

Primaries follow a power law in energy with five masses; muons follow Elbert's mean yield with gamma-distributed fluctuations
from shower to shower, lose energy in the ice, and stand from the axis at transverse momentum times height over energy.
Nothing here is data, and everything made from it must say that it is synthetic; what it is good for is that the best
possible likelihood of a model is known exactly.

One shower may be seen at several depths: its muons are then the same ones, of which fewer arrive deeper. At each depth
alone the distribution is that of a shower seen once, since thinning a Poisson process leaves a Poisson process.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from muonflow import physics
from muonflow.counts import log_negative_binomial
from muonflow.events import Events
from skyloom.errors import ConfigError
from skyloom.run.seeds import torch_generator

__all__ = [
    "COMPOSITION",
    "LATERAL",
    "TRANSVERSE_MOMENTUM",
    "Arrival",
    "arrival",
    "dispersion",
    "energy_survival",
    "log_density",
    "log_probability_of_count",
    "radius_scale",
    "simulate",
    "stream",
    "surface_energies",
]

COMPOSITION = {1: 10.0, 4: 5.0, 14: 3.0, 27: 2.0, 56: 1.0}  # relative numbers at equal energy per nucleon
ENERGY_PER_NUCLEON_MIN, ENERGY_MAX = 600.0, 1.0e8  # GeV
COS_MIN = 0.1
DEPTHS = torch.linspace(*physics.DEPTH_RANGE, 100, dtype=torch.float64)  # km
TRANSVERSE_MOMENTUM = 0.22  # GeV, half of the mean
SLOPE = 1 + physics.YIELD_INDEX  # N(>E) falls as E^-1.757
CHUNK = 100_000  # showers made at once
HEAVY_DOF, HEAVY_SCALE = 3.0, 0.3  # of ln r in the heavy-tailed variant
SMALLEST = 1.0e-3  # GeV and m: energies and distances are not resolved below


class Arrival(NamedTuple):
    """What a primary means at its depth, each [N] in float64."""

    energy: Tensor  # E0, GeV
    mass: Tensor  # A
    column: Tensor  # slant depth X, km w.e.
    threshold: Tensor  # surface energy needed, GeV
    mean: Tensor  # expected number of muons
    height: Tensor  # of production along the shower, m


def arrival(condition: Tensor) -> Arrival:
    """From conditions [N, 4] (GeV, rad, A, m)."""
    energy, zenith, mass, depth = condition.double().unbind(-1)
    cosine = torch.cos(zenith)
    column = physics.slant_depth(depth / 1000, cosine)
    threshold = physics.threshold_energy(column)
    mean = physics.elbert_mean(energy, mass, threshold, cosine)
    return Arrival(energy, mass, column, threshold, mean, physics.production_height(cosine))


def dispersion(mass_number: Tensor) -> Tensor:
    """Shape k of the gamma-distributed yield of a shower, of mean 1 and variance 1/k = 0.35 / A + 0.02."""
    return 1 / (0.35 / mass_number + 0.02)


def radius_scale(surface: Tensor, height: Tensor) -> Tensor:
    """Scale s of the distance from the axis, m: r ~ Gamma(2, s), s = p0 H / E_surface, mean 2 s."""
    return TRANSVERSE_MOMENTUM * height / surface


def energy_survival(energy: Tensor, condition: Tensor) -> Tensor:
    """P(a muon at depth exceeds `energy` GeV | condition): N(>E_surface) / N(>E_threshold)."""
    here = arrival(condition)
    surface = physics.surface_energy(energy.double(), here.column)
    return torch.exp(_log_survival(surface, here)).clamp(max=1.0)


def log_density(muons: Tensor, condition: Tensor, lateral: str = "elbert") -> Tensor:
    """Exact ln p(E, r | condition) per GeV and m, for muons [M, 2] and their own conditions [M, 4], in float64:

    ln[N(>E_s) / N(>E_thr)] + ln[1.757 / E_s + 5.25 (A / E0) / (1 - A E_s / E0)] + b X + ln r - 2 ln s - r / s.
    """
    here = arrival(condition)
    energy, radius = muons[:, 0].double(), muons[:, 1].double()
    surface = physics.surface_energy(energy, here.column)
    nucleon = here.energy / here.mass
    inside = (energy > 0) & (radius > 0) & (surface < nucleon)
    surface = torch.where(inside, surface, here.threshold)
    radius = torch.where(inside, radius, 1.0)
    rate = torch.log(SLOPE / surface + physics.YIELD_CUTOFF / (nucleon - surface))
    scale = radius_scale(surface, here.height)
    value = _log_survival(surface, here) + rate + physics.LOSS_RATE * here.column + LATERAL[lateral](radius, scale)
    return torch.where(inside, value, -torch.inf)


def _log_gamma_radius(radius: Tensor, scale: Tensor) -> Tensor:
    """ln p(r) of Gamma(2, s)."""
    return torch.log(radius) - 2 * torch.log(scale) - radius / scale


def _log_heavy_radius(radius: Tensor, scale: Tensor) -> Tensor:
    """ln p(r) where ln(r / 2 s) is Student-t of HEAVY_DOF degrees of freedom times HEAVY_SCALE."""
    t = torch.log(radius / (2 * scale)) / HEAVY_SCALE
    v = HEAVY_DOF
    constant = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(v * math.pi) - math.log(HEAVY_SCALE)
    return constant - (v + 1) / 2 * torch.log1p(t.square() / v) - torch.log(radius)


LATERAL = {"elbert": _log_gamma_radius, "heavy": _log_heavy_radius}
"""Lateral distributions by name: that of the stand-in, and one of which ln r has power-law tails (a test of tails)."""


def _radius(scale: Tensor, lateral: str, generator: torch.Generator) -> Tensor:
    if lateral == "elbert":
        return scale * torch._standard_gamma(torch.full_like(scale, 2.0), generator=generator)
    normal = torch.randn(scale.shape, generator=generator, dtype=scale.dtype)
    half = torch.full_like(scale, HEAVY_DOF / 2)
    t = normal * torch.rsqrt(torch._standard_gamma(half, generator=generator) / half)
    return 2 * scale * torch.exp((HEAVY_SCALE * t).clamp(-60, 60))


def log_probability_of_count(count: Tensor, condition: Tensor) -> Tensor:
    """Exact ln P(N | condition), broadcasting `count` [..., N] against conditions [N, 4]: negative binomial."""
    here = arrival(condition)
    some = here.mean > 0
    mean = torch.where(some, here.mean, 1.0)
    value = log_negative_binomial(count.double(), mean.log(), dispersion(here.mass).log())
    return torch.where(some, value, torch.where(count == 0, 0.0, -torch.inf))


def simulate(
    n_showers: int, depths: int = 1, index: float = 2.6, keep_empty: float = 1.0, seed: int = 0, lateral: str = "elbert"
) -> Events:
    """Synthetic events: `n_showers` primaries, each at `depths` vertical depths, energies from E^-index.

    Most primaries send no muon so deep. Of the events without muons a share max(keep_empty, min(mu, 1)) is kept by chance,
    with mu the expected number of muons: few where nothing is expected, all where their absence says something. Events carry
    the columns `shower` and `kept`, that share; with it the probabilities in nature follow from those in the table.

    `lateral` is "elbert", or "heavy": ln r of power-law tails.
    """
    return Events.join(list(stream(n_showers, depths, index, keep_empty, seed, lateral)))


def stream(
    n_showers: int, depths: int = 1, index: float = 2.6, keep_empty: float = 1.0, seed: int = 0, lateral: str = "elbert"
) -> Iterator[Events]:
    """The same events in pieces of at most 100,000 showers, each made when it is asked for."""
    if n_showers < 1 or depths < 1:
        raise ConfigError(f"n_showers={n_showers} and depths={depths} must be at least 1.")
    if not 0 < keep_empty <= 1:
        raise ConfigError(f"keep_empty={keep_empty} is a share of the empty events: it must lie in (0, 1].")
    if lateral not in LATERAL:
        raise ConfigError(f"lateral={lateral!r} is none of {', '.join(LATERAL)}.")
    for first in range(0, n_showers, CHUNK):
        generator = torch_generator(seed, "muonflow", "showers", first)
        yield _showers(min(CHUNK, n_showers - first), first, depths, index, keep_empty, generator, lateral)


def _showers(
    n: int, first: int, depths: int, index: float, keep_empty: float, generator: torch.Generator, lateral: str
) -> Events:
    condition = _primaries(n, depths, index, generator).reshape(n * depths, 4)
    here = arrival(condition)
    shallow = Arrival(*(value.reshape(n, depths)[:, 0] for value in here))
    shape = dispersion(shallow.mass)
    fluctuation = torch._standard_gamma(shape, generator=generator) / shape
    count = torch.poisson(shallow.mean * fluctuation, generator=generator).to(torch.int64)
    owner = torch.repeat_interleave(torch.arange(n), count)
    mine = Arrival(*(value[owner] for value in shallow))
    surface = surface_energies(mine, torch.rand(len(owner), generator=generator, dtype=torch.float64))
    scale = radius_scale(surface, mine.height)
    radius = _radius(scale, lateral, generator)
    # [M, depths]: which muons of a shower arrive at which of its depths; then one row per arrival, event by event
    arrives = surface[:, None] >= here.threshold.reshape(n, depths)[owner]
    muon, depth = torch.nonzero(arrives, as_tuple=True)
    event, order = torch.sort(owner[muon] * depths + depth, stable=True)
    muon = muon[order]
    energy = physics.depth_energy(surface[muon], here.column[event])
    muons = torch.stack([energy, radius[muon]], 1).clamp(min=SMALLEST if lateral == "elbert" else 1e-30).float()
    shower = first + torch.arange(n).repeat_interleave(depths)
    kept = here.mean.clamp(keep_empty, 1.0).float()
    columns = {"shower": shower, "kept": kept}
    events = Events(condition.float(), torch.bincount(event, minlength=n * depths), muons, columns)
    return events.where((events.count > 0) | (torch.rand(n * depths, generator=generator) < kept))


def _primaries(n: int, depths: int, index: float, generator: torch.Generator) -> Tensor:
    """Conditions [n, depths, 4]; the depths of a shower ascend."""
    masses = torch.tensor(list(COMPOSITION), dtype=torch.float64)
    weights = torch.tensor(list(COMPOSITION.values()), dtype=torch.float64)
    mass = masses[torch.multinomial(weights, n, replacement=True, generator=generator)]
    u = torch.rand(2, n, generator=generator, dtype=torch.float64)
    energy = _power_law(u[0], ENERGY_PER_NUCLEON_MIN * mass, ENERGY_MAX, index)
    zenith = torch.arccos(COS_MIN + (1 - COS_MIN) * u[1])
    depth = DEPTHS[torch.randint(len(DEPTHS), (n, depths), generator=generator)].sort(1).values * 1000
    per_shower = torch.stack([energy, zenith, mass], 1)[:, None].expand(n, depths, 3)
    return torch.cat([per_shower, depth[..., None]], -1)


def _power_law(u: Tensor, low: Tensor, high: float, index: float) -> Tensor:
    """E^-index on [low, high] by inverting its distribution function."""
    if abs(index - 1) < 1e-9:
        return low * torch.exp(u * torch.log(high / low))
    p = 1 - index
    return low * (1 + u * ((high / low) ** p - 1)) ** (1 / p)


def _log_survival(surface: Tensor, here: Arrival) -> Tensor:
    """ln[N(>E_s) / N(>E_thr)]; -inf at or above E0 / A."""
    nucleon = here.energy / here.mass
    left = torch.log1p(-(surface / nucleon).clamp(max=1.0)) - torch.log1p(-(here.threshold / nucleon).clamp(max=1 - 1e-15))
    return -SLOPE * torch.log(surface / here.threshold) + physics.YIELD_CUTOFF * left


def surface_energies(here: Arrival, u: Tensor) -> Tensor:
    """Surface energies with N(>E) / N(>E_thr) = u, by bisection in ln E between the threshold and E0 / A."""
    low, high = here.threshold.log(), (here.energy / here.mass).log()
    target = torch.log(u)
    for _ in range(52):
        middle = 0.5 * (low + high)
        above = _log_survival(middle.exp(), here) > target
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return torch.exp(0.5 * (low + high)).clamp(min=here.threshold)
