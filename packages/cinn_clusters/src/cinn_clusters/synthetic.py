"""A synthetic stand-in for the TNG-Cluster merger catalogue, which cannot be shipped.

Each of `n_clusters` clusters grows as `M500(z) = 10^l0 exp(-alpha z)`, merges at exponentially spaced times, and is seen at
eight snapshots. What a snapshot records is the last merger that has finished; so one merger appears in several rows, and
rows of one cluster must never stand on two sides of a split. The constants are calibrated to the published distributions
of TNG-Cluster (mean and spread of each target, how well the inputs predict it); nothing here is a simulation of anything.

Masses are in 1e14 Msun inside, and leave in the units of the TNG group catalogue (1e10 Msun/h).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cinn_clusters.cosmology import AGE_TODAY, HUBBLE, SNAPSHOTS, age, expansion, r500_from_m500
from skyloom.run.seeds import numpy_generator

__all__ = ["SENTINEL", "merger_catalogue", "merger_redshift"]

SENTINEL = -1.0  # how the catalogue writes "unknown" for the main halo's mass
FIRST_MERGER, LAST_MERGER = 4.9, 13.8  # ages between which mergers are recorded [Gyr]
SETTLING = 0.15  # a merger is recorded by snapshots at least this much later [Gyr]
SUBCLUSTER_CUT = 0.1  # smallest recorded subcluster [1e14 Msun]
REALISATION = 23  # 352 clusters scatter by 5 percent in mean mass; with this one, seed 0 is a typical draw (see the tests)
CATALOGUE_MASS = HUBBLE * 1e4  # 1e14 Msun in units of 1e10 Msun/h


@dataclass(frozen=True)
class _Cluster:
    log_mass: float  # log10 M500 today [1e14 Msun]
    growth: float  # alpha of exp(-alpha z)
    times: NDArray[np.float64]  # ages of its mergers, ascending [Gyr]
    log_velocity: NDArray[np.float64]  # log10 km/s
    main: NDArray[np.float64]  # M500 of the main halo at each merger [1e14 Msun]
    sub: NDArray[np.float64]  # [1e14 Msun]
    ratio: NDArray[np.float64]
    log_pericentre: NDArray[np.float64]  # log10 kpc


def merger_catalogue(n_clusters: int = 352, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Observables and unobservables of `n_clusters` synthetic clusters at eight snapshots each.

    Returns two tables with the columns of the TNG-Cluster files, both keyed by (HaloID, Snapshot). HaloID is an index of its
    snapshot, not the name of a cluster: the same number at another snapshot is another cluster, which `cluster_id` tells.
    """
    rng = numpy_generator(seed, "synthetic merger catalogue", REALISATION)
    observables, unobservables = [], []
    for cluster_id in range(n_clusters):
        cluster = _grow(rng)
        for snapshot, redshift in SNAPSHOTS.items():
            key = {"Snapshot": snapshot, "cluster_id": cluster_id}
            merger = _last_merger(cluster, float(age(redshift)))
            observables.append(key | _observe(rng, cluster, redshift, merger))
            if merger["last_M_Crit500_coll"] > 0 and rng.random() < 0.07:
                merger["last_M_Crit500_coll"] = SENTINEL
            unobservables.append(key | merger)
    halo = _halo_numbers(rng, n_clusters)
    tables = [pd.DataFrame(rows) for rows in (observables, unobservables)]
    for table in tables:
        table.insert(0, "HaloID", halo)
    return tables[0], tables[1]


def _grow(rng: np.random.Generator) -> _Cluster:
    log_mass = min(np.log10(2.0) + rng.exponential(0.31), np.log10(18.0))
    growth = max(rng.normal(0.75, 0.30), 0.15)
    times, time = [], 4.6
    while (time := time + rng.exponential(1.75)) < LAST_MERGER:
        times.append(time)
    return _mergers(rng, log_mass, growth, np.array([t for t in times if t > FIRST_MERGER]))


def _mergers(rng: np.random.Generator, log_mass: float, growth: float, times: NDArray[np.float64]) -> _Cluster:
    n = len(times)
    z = merger_redshift(times)
    log_main = log_mass - growth * z / np.log(10) + rng.normal(0, 0.10, n) - 0.02
    main = 10**log_main
    sub = _power_law(rng, n, -1.6, SUBCLUSTER_CUT, np.maximum(0.6 * main, 0.13))
    ratio = np.minimum(1.0, 1.8 * sub / main * 10 ** rng.normal(0, 0.06, n))
    log_velocity = (
        3.262
        + 0.38 * (log_main - 0.45)
        + 0.33 * np.log10(expansion(z) / 1.25)
        + 0.15 * np.log10((1 + ratio) / 1.2)
        + rng.normal(0, 0.095, n)
    )
    log_pericentre = 2.42 + 0.45 * (log_main - 0.45) - 0.10 * np.log10(ratio / 0.15) + rng.normal(0, 0.29, n)
    log_pericentre -= 1.2 * (rng.random(n) < 0.005)  # the rare head-on collision
    return _Cluster(log_mass, growth, times, log_velocity, main, sub, ratio, log_pericentre)


def _last_merger(cluster: _Cluster, now: float) -> dict[str, float]:
    """The targets at age `now` [Gyr]; NaN before the first merger."""
    settled = int(np.searchsorted(cluster.times, now - SETTLING)) - 1

    def at(values: NDArray[np.float64]) -> float:
        return float(values[settled]) if settled >= 0 else np.nan

    return {
        "last_T_coll": at(cluster.times),
        "last_V_coll": at(cluster.log_velocity),
        "last_M_Crit500_coll": at(cluster.main),
        "last_Subcluster_mass": at(cluster.sub),
        "last_Mass_ratio": at(cluster.ratio),
        "last_d_peri": at(cluster.log_pericentre),
    }


def _observe(rng: np.random.Generator, cluster: _Cluster, redshift: float, merger: dict[str, float]) -> dict[str, float]:
    """What the group catalogue says of the cluster at one snapshot."""
    m500 = 10 ** (cluster.log_mass + rng.normal(0, 0.015)) * np.exp(-cluster.growth * redshift)
    now = float(age(redshift))
    since, ratio = now - merger["last_T_coll"], merger["last_Mass_ratio"]
    disturbed = 0.0 if np.isnan(since) else 0.45 * ratio * np.exp(-since / 1.2)
    masses = {
        "bcg_SubhaloBHMass": 8e-5 * (m500 / 3) ** 0.6 * 10 ** rng.normal(0, 0.22),
        "bcg_SubhaloMass": 1.35 * m500 * 10 ** rng.normal(0, 0.03) * (1 - disturbed),
        "bcg_StellarMass": 0.012 * (m500 / 3) ** 0.45 * 10 ** rng.normal(0, 0.12),
        "Group_M_Crit500": m500,
        "GroupGasMass": 0.115 * m500 * (m500 / 3) ** 0.12 * 10 ** rng.normal(0, 0.035),
    }
    row = {name: float(mass) * CATALOGUE_MASS for name, mass in masses.items()}
    row["Group_R_Crit500"] = float(r500_from_m500(m500 * 1e14, redshift))
    row["lookback_time_Gyr"] = AGE_TODAY - now
    return row


def merger_redshift(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Redshift at an age [Gyr], interpolated between the snapshots and linear before the first of them."""
    snapshot_ages = age(list(SNAPSHOTS.values()))
    first = snapshot_ages[0]
    inside = np.interp(times, snapshot_ages, list(SNAPSHOTS.values()))
    return np.where(times < first, 1 + 0.33 * (first - times), inside)


def _power_law(rng: np.random.Generator, n: int, index: float, low: float, high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draws of `dN/dm ~ m^index` on `[low, high]`, by inverting the cumulative distribution."""
    k = index + 1
    return (low**k + rng.random(n) * (high**k - low**k)) ** (1 / k)


def _halo_numbers(rng: np.random.Generator, n_clusters: int) -> NDArray[np.int64]:
    """For rows ordered by cluster, then snapshot: a permutation of the clusters at each snapshot."""
    return np.stack([rng.permutation(n_clusters) for _ in SNAPSHOTS], axis=1).reshape(-1)
