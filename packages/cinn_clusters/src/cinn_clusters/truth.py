"""The true posterior of the synthetic catalogue: what a perfect flow would say of each cluster.

The recipe of `cinn_clusters.synthetic` gives the density of a merger `y = (T, v, M, m, q, d)` seen at a snapshot of age t,
given the scalars x of the cluster, in closed form but for two integrals, over the mass `l` and the growth `a` of the cluster:

    p(y | x) = p(T | t) p(M | T, M500) p(m | M) p(q | m, M) p(v | T, M, q) p(d | M, q) p(S | M500, q, t - T) / p(S | M500, t)

    p(T | t) ~ exp(T / 1.75 Gyr)                     the last event of a Poisson process
    p(M | T, M500) = <N(log M; l - a z / ln 10 - 0.02, 0.10)>    over p(l, a | M500), by quadrature
    p(S | M500, t)                                   S the subhalo's mass, which a recent merger lowers; by Monte Carlo

The black hole, the stars and the gas follow M500 alone and tell nothing more. The catalogue caps q at 1; at the cap the density
is that of a `q` spread uniformly over `[1, ceiling)`, as the flow's is (see `MergerPosterior`). Natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri
from scipy.stats import norm

from cinn_clusters.columns import INPUT_NAMES
from cinn_clusters.cosmology import AGE_TODAY, expansion
from cinn_clusters.synthetic import CATALOGUE_MASS, FIRST_MERGER, LAST_MERGER, SETTLING, SUBCLUSTER_CUT, merger_redshift

__all__ = ["log_joint", "log_posterior", "posterior_draws"]

Array = NDArray[np.float64]
LN10 = float(np.log(10))
GAP = 1.75  # Gyr, mean time between mergers
STEEPNESS = -0.6  # 1 + index of the power law of subclusters
LIGHTEST, HEAVIEST, FOLDING = np.log10(2.0), np.log10(18.0), 0.31  # of log10 M500 today, and its exponential
GROWTHS, MASSES = 31, 25  # nodes of the quadrature
SPREAD_M500, SPREAD_MAIN, SPREAD_RATIO, SPREAD_SUBHALO = 0.015, 0.10, 0.06, 0.03  # dex
SPREAD_VELOCITY, SPREAD_PERICENTRE, HEAD_ON = 0.095, 0.29, 0.005


def log_posterior(context: Array, target: Array, ceiling: float, draws: int = 4000, seed: int = 0) -> Array:
    """`ln p(y | x)` `[N]` of targets `[N, 6]` given inputs `[N, 7]`, both in the catalogue's units.

    Arguments:
        ceiling: Where the mass ratios at the cap of 1 are taken to end.
        draws: Of the normalisation p(S | M500, t); its error is about `0.5 / sqrt(draws)`.
    """
    return log_joint(context, target, ceiling) - _log_evidence(_Seen.of(context), draws, np.random.default_rng(seed))


def log_joint(context: Array, target: Array, ceiling: float) -> Array:
    """`ln p(y | x) + ln p(S | M500, t)` `[N]`: the posterior up to a constant of each cluster, without any chance in it."""
    seen, y = _Seen.of(context), np.asarray(target, dtype=np.float64)
    time, velocity, main, sub, ratio, pericentre = y.T
    log_main, log_ratio = np.log10(main), np.log10(1.8 * sub / main)
    z = merger_redshift(time)
    out = _log_time(time, seen.now)
    out += _log_main(log_main, z, seen) - np.log(main * LN10)
    most = np.maximum(0.6 * main, 0.13)
    norm_sub = (SUBCLUSTER_CUT**STEEPNESS - most**STEEPNESS) / -STEEPNESS
    low_edge = SUBCLUSTER_CUT * (1 - 1e-6)  # single precision
    out += np.where((sub >= low_edge) & (sub <= most * (1 + 1e-6)), (STEEPNESS - 1) * np.log(sub) - np.log(norm_sub), -np.inf)
    below = norm.logpdf(np.log10(ratio), log_ratio, SPREAD_RATIO) - np.log(ratio * LN10)
    capped = norm.logsf(0.0, log_ratio, SPREAD_RATIO) - np.log(ceiling - 1)
    out += np.where(ratio < 1, below, capped)
    q = np.minimum(ratio, 1.0)
    out += norm.logpdf(velocity, _velocity(log_main, z, q), SPREAD_VELOCITY)
    expected = _pericentre(log_main, q)
    grazing = norm.logpdf(pericentre, expected, SPREAD_PERICENTRE) + np.log1p(-HEAD_ON)
    out += np.logaddexp(grazing, norm.logpdf(pericentre, expected - 1.2, SPREAD_PERICENTRE) + np.log(HEAD_ON))
    return out + _log_subhalo(seen.subhalo, seen.m500, q, seen.now - time)


def posterior_draws(context: Array, n: int, seed: int = 0, proposals: int = 4000) -> Array:
    """Draws `[N, n, 6]` of the true posterior: of `proposals` mergers that know of M500 and t, those that fit the subhalo."""
    rng, seen = np.random.default_rng(seed), _Seen.of(context)
    out = np.empty((len(seen.now), n, 6))
    for i in range(len(seen.now)):
        one = seen.row(i)
        mergers = _propose(one, proposals, rng)
        weight = _log_subhalo(one.subhalo, one.m500, mergers[:, 4], one.now - mergers[:, 0])
        weight = np.exp(weight - logsumexp(weight))
        out[i] = mergers[rng.choice(proposals, n, p=weight)]
    return out


@dataclass(frozen=True)
class _Seen:
    """What the inputs tell: age of the snapshot [Gyr] and its redshift, M500 and the subhalo's mass [1e14 Msun]."""

    now: Array
    redshift: Array
    m500: Array
    subhalo: Array

    @classmethod
    def of(cls, context: Array) -> _Seen:
        x = {name: np.asarray(context, dtype=np.float64)[:, k] for k, name in enumerate(INPUT_NAMES)}
        now = AGE_TODAY - x["lookback_time_Gyr"]
        return cls(now, merger_redshift(now), x["Group_M_Crit500"] / CATALOGUE_MASS, x["bcg_SubhaloMass"] / CATALOGUE_MASS)

    def row(self, i: int) -> _Seen:
        return _Seen(*(values[i : i + 1] for values in (self.now, self.redshift, self.m500, self.subhalo)))


def _log_time(time: Array, now: Array) -> Array:
    last = np.minimum(now - SETTLING, LAST_MERGER)
    span = np.log(-np.expm1((FIRST_MERGER - last) / GAP))
    return np.where((time >= FIRST_MERGER - 1e-5) & (time <= last + 1e-5), (time - last) / GAP - np.log(GAP) - span, -np.inf)


def _growth_nodes() -> tuple[Array, Array]:
    """`alpha = max(N(0.75, 0.30), 0.15)`: one node at the floor, the others of equal probability above it."""
    floor = float(norm.cdf(0.15, 0.75, 0.30))
    u = floor + (1 - floor) * (np.arange(GROWTHS) + 0.5) / GROWTHS
    return np.append(0.75 + 0.30 * ndtri(u), 0.15), np.append(np.full(GROWTHS, (1 - floor) / GROWTHS), floor)


def _history(seen: _Seen) -> tuple[Array, Array, Array]:
    """Nodes of (mass today `[N, K]`, growth `[K]`) and their log weights `[N, K]` given M500 at the snapshot."""
    growth, share = _growth_nodes()
    offset = 4.5 * SPREAD_M500 * np.linspace(-1, 1, MASSES)
    centre = np.log10(seen.m500)[:, None] + growth * seen.redshift[:, None] / LN10  # [N, G]
    mass = centre[..., None] + offset
    fits = norm.logpdf(offset, 0.0, SPREAD_M500) + np.log(offset[1] - offset[0])
    free = np.where((mass >= LIGHTEST) & (mass < HEAVIEST), (LIGHTEST - mass) / FOLDING - np.log(FOLDING), -np.inf) + fits
    # the heaviest: all that the exponential would put beyond
    at_cap = norm.logpdf(centre, HEAVIEST, SPREAD_M500) + (LIGHTEST - HEAVIEST) / FOLDING
    nodes = np.concatenate([mass, np.full((*centre.shape, 1), HEAVIEST)], 2)
    weight = np.concatenate([free, at_cap[..., None]], 2) + np.log(share)[:, None]
    rows, each = len(nodes), nodes.shape[2]
    weight = weight.reshape(rows, -1)
    weight = weight - logsumexp(weight, axis=1, keepdims=True)
    return nodes.reshape(rows, -1), np.repeat(growth, each), weight


def _log_main(log_main: Array, z: Array, seen: _Seen) -> Array:
    out = np.empty(len(log_main))
    for rows in np.array_split(np.arange(len(out)), max(1, len(out) // 500)):
        part = _Seen(*(v[rows] for v in (seen.now, seen.redshift, seen.m500, seen.subhalo)))
        mass, growth, weight = _history(part)
        expected = mass - growth * z[rows, None] / LN10 - 0.02
        out[rows] = logsumexp(weight + norm.logpdf(log_main[rows, None], expected, SPREAD_MAIN), axis=1)
    return out


def _velocity(log_main: Array, z: Array, q: Array) -> Array:
    return 3.262 + 0.38 * (log_main - 0.45) + 0.33 * np.log10(expansion(z) / 1.25) + 0.15 * np.log10((1 + q) / 1.2)


def _pericentre(log_main: Array, q: Array) -> Array:
    return 2.42 + 0.45 * (log_main - 0.45) - 0.10 * np.log10(q / 0.15)


def _log_subhalo(subhalo: Array, m500: Array, q: Array, since: Array) -> Array:
    """Density of log10 of the subhalo's mass: a merger in progress keeps a part of the mass from it."""
    expected = np.log10(1.35 * m500 * (1 - 0.45 * q * np.exp(-since / 1.2)))
    return norm.logpdf(np.log10(subhalo), expected, SPREAD_SUBHALO)


def _propose(one: _Seen, n: int, rng: np.random.Generator) -> Array:
    """Mergers `[n, 6]` of one cluster of known M500 and age, whatever its subhalo."""
    last = min(float(one.now[0]) - SETTLING, LAST_MERGER)
    time = last + GAP * np.log1p(-rng.random(n) * -np.expm1((FIRST_MERGER - last) / GAP))
    mass, growth, weight = _history(one)
    node = rng.choice(len(growth), n, p=np.exp(weight[0]))
    z = merger_redshift(time)
    log_main = mass[0, node] - growth[node] * z / LN10 - 0.02 + rng.normal(0, SPREAD_MAIN, n)
    main = 10**log_main
    most, cut = np.maximum(0.6 * main, 0.13) ** STEEPNESS, SUBCLUSTER_CUT**STEEPNESS
    sub = (cut + rng.random(n) * (most - cut)) ** (1 / STEEPNESS)
    q = np.minimum(1.0, 1.8 * sub / main * 10 ** rng.normal(0, SPREAD_RATIO, n))
    velocity = _velocity(log_main, z, q) + rng.normal(0, SPREAD_VELOCITY, n)
    pericentre = _pericentre(log_main, q) + rng.normal(0, SPREAD_PERICENTRE, n) - 1.2 * (rng.random(n) < HEAD_ON)
    return np.stack([time, velocity, main, sub, q, pericentre], 1)


def _log_evidence(seen: _Seen, draws: int, rng: np.random.Generator) -> Array:
    out = np.empty(len(seen.now))
    for i in range(len(out)):
        one = seen.row(i)
        mergers = _propose(one, draws, rng)
        out[i] = logsumexp(_log_subhalo(one.subhalo, one.m500, mergers[:, 4], one.now - mergers[:, 0])) - np.log(draws)
    return out
