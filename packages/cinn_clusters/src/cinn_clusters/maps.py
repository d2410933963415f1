"""X-ray-like maps of the synthetic clusters: what a picture may show of a merger, and from which side it is seen.

Gas of the main halo is a beta model of beta = 2/3 with a bright core; the subcluster passes it, flies out, and sinks back,

    S(r) ~ (1 + r^2 / r_c^2)^(-3/2),      s(t) = v t / R500 exp(-t / 1 Gyr),

with a shock ahead of it, a core that sloshes, and a halo that is long for as long as it is disturbed. Each row of the catalogue
is seen from three random sides. Counts are Poisson, over a background. Nothing here is a simulation of gas: it has the features
by which pictures tell of mergers, and the reasons why they do not (projection, noise, shapes that mean nothing).

Lengths are in R500, so that a map's scale repeats nothing that the scalars say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cinn_clusters.columns import KEY, TARGET_NAMES
from cinn_clusters.cosmology import AGE_TODAY, HUBBLE, redshift_at_age
from cinn_clusters.data import CARRY, from_tables
from cinn_clusters.synthetic import merger_catalogue
from skyloom.data import Columns, Data, fingerprint
from skyloom.run.seeds import numpy_generator

__all__ = ["PROJECTIONS", "map_names", "synthetic", "xray_maps"]

PROJECTIONS = 3
EDGE = 1.0  # half of a map's side [R500]
COUNTS, SCATTER = 3000.0, 0.3  # of a map's cluster, median and lognormal scatter
BACKGROUND = 1.0  # counts per pixel
GYR = 1.0227e-3  # a km/s in Mpc per Gyr
FLIGHT, STIRRED, SHOCKED, SLOSHING = 1.0, 1.5, 0.8, 2.0  # Gyr, after which each fades
ROWS_AT_ONCE = 2000

Array = NDArray[np.float64]


def synthetic(n_clusters: int = 352, seed: int = 0, fractions: Sequence[float] = (0.8, 0.1, 0.1), size: int = 32) -> Data:
    """The rows and splits of `cinn_clusters.data.synthetic`, with `maps` `[N, 3, size, size]` of counts."""
    observables, unobservables = merger_catalogue(n_clusters, seed)
    data = from_tables(observables, unobservables, seed=seed, fractions=fractions, tau_floor=0.0, synthetic=True)
    maps = torch.from_numpy(xray_maps(observables, unobservables, size, seed))
    place = pd.MultiIndex.from_frame(observables[list(KEY)])

    def seen(rows: Columns) -> Columns:
        index = place.get_indexer(pd.MultiIndex.from_arrays([rows["halo_id"].numpy(), rows["snapshot"].numpy()]))
        return Columns({**rows.columns, "maps": maps[torch.as_tensor(index)]})

    train, val, test = (seen(rows) for rows in (data.train, data.val, data.test))
    level = np.log1p(train["maps"].numpy())
    about = {
        "synthetic": True,
        "size": size,
        "pixel": {"value": 2 * EDGE / size, "unit": "R500"},
        "log_counts": {"mean": float(level.mean()), "sd": float(level.std())},
        "fingerprint": fingerprint({"maps": train["maps"], "target": train["target"]}),
        **{name: data.about[name] for name in ("rows", "split")},
    }
    return replace(data, train=train, val=val, test=test, about=about, carry=(*CARRY, "context"))


def map_names(halo: Sequence[int], snapshot: Sequence[int], projection: int) -> list[str]:
    """As the images of TNG-Cluster are named, for one side.

    >>> map_names([7], [99], 1)
    ['snap_099_halo_7_proj_1.jpg']
    """
    return [f"snap_{s:03d}_halo_{h}_proj_{projection}.jpg" for h, s in zip(halo, snapshot, strict=True)]


def xray_maps(observables: pd.DataFrame, unobservables: pd.DataFrame, size: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """Counts `[N, 3, size, size]` of rows of the catalogue, seen from three sides each."""
    rng = numpy_generator(seed, "synthetic X-ray maps")
    lookback = observables["lookback_time_Gyr"].to_numpy()
    time, velocity, ratio, pericentre = (unobservables[TARGET_NAMES[d]].to_numpy() for d in (0, 1, 4, 5))
    since = AGE_TODAY - lookback - time
    scale_factor = 1 / (1 + redshift_at_age(AGE_TODAY - lookback))
    radius = observables["Group_R_Crit500"].to_numpy() * scale_factor / HUBBLE  # kpc
    merged = np.isfinite(since)
    since, ratio = np.where(merged, since, 99.0), np.where(merged, ratio, 1e-9)
    travelled = np.where(merged, 10**velocity, 0.0) * GYR * since / (radius / 1e3)
    passed = np.where(merged, 10**pericentre / radius, 0.0)
    merger = np.stack([since, ratio, travelled, passed], 1)
    out = np.empty((len(merger), PROJECTIONS, size, size), dtype=np.float32)
    for low in range(0, len(merger), ROWS_AT_ONCE):
        for side in range(PROJECTIONS):
            part = merger[low : low + ROWS_AT_ONCE]
            bright = brightness(part, _orientations(len(part), rng), _shapes(len(part), rng), size)
            exposure = COUNTS * np.exp(SCATTER * rng.normal(size=len(part)))
            expected = bright / bright.sum((1, 2), keepdims=True) * exposure[:, None, None] + BACKGROUND
            out[low : low + ROWS_AT_ONCE, side] = rng.poisson(expected)
    return out


def brightness(merger: Array, rotation: Array, shape: Array, size: int) -> NDArray[np.float32]:
    """Surface brightness `[N, size, size]` in any unit.

    Arguments:
        merger: Time since [Gyr], mass ratio, `v t / R500`, and the distance of the passage [R500], `[N, 4]`.
        rotation: The first two rows of a rotation `[N, 2, 3]`: where the axis of the merger (first column) and the direction of
            closest approach (second) are on the sky.
        shape: Axis ratio and position angle [rad] of the halo, which mean nothing, `[N, 2]`.
    """
    since, ratio, travelled, passed = (column.astype(np.float32)[:, None, None] for column in merger.T)
    on_sky = rotation.astype(np.float32)[..., None, None]
    axis, aside = on_sky[:, :, 0], on_sky[:, :, 1]  # [N, 2, 1, 1] each
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * 2 * EDGE
    sky = np.stack(np.broadcast_arrays(line[None, None, :], line[None, :, None]), 1)  # [1, 2, size, size]
    stirred = np.minimum(1, 2 * ratio) * np.exp(-since / STIRRED)
    slosh = 0.15 * ratio * np.exp(-since / SLOSHING) * np.cos(2 * np.pi * since / 1.5)
    core = sky - slosh[:, None] * aside
    r = _elliptical(core, shape, stirred, axis)
    main = _beta(r, 0.15 * (1 + 0.8 * stirred)) + 1.5 * (1 - stirred) * _beta(r, 0.05 + 0 * r)
    flown = travelled * np.exp(-since / FLIGHT)
    place = flown[:, None] * axis + passed[:, None] * aside
    sub = ratio * np.exp(-since / STIRRED) * _beta(np.hypot(*np.moveaxis(sky - place, 1, 0)), 0.1 * ratio ** (1 / 3) + 0.02)
    distance = np.hypot(*np.moveaxis(sky, 1, 0)) + 1e-6
    ahead = np.clip((sky * axis).sum(1) / distance, 0, 1) ** 4
    edge = 1 / (1 + np.exp(np.clip((distance - flown - 0.1) / 0.04, -30, 30)))
    return (main * (1 + 1.5 * ratio * np.exp(-since / SHOCKED) * ahead * edge) + sub).astype(np.float32)


def _beta(r: NDArray[np.float32], core: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(1 + (r / core)^2)^(-3/2)`: the beta model of beta = 2/3."""
    x = 1 + (r / core) ** 2
    return 1 / (x * np.sqrt(x))


def _elliptical(
    sky: NDArray[np.float32], shape: Array, stirred: NDArray[np.float32], axis: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Elliptical radius: of a shape that means nothing, and longer along the merger while the halo is disturbed."""
    q, angle = (column.astype(np.float32)[:, None, None] for column in shape.T)
    x, y = sky[:, 0], sky[:, 1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    along = (sky * axis).sum(1) * (1 - 1 / (1 + 0.5 * stirred))
    return np.sqrt(np.maximum(q * u * u + v * v / q - along**2, 0))


def _orientations(n: int, rng: np.random.Generator) -> Array:
    """The first two rows of `n` random rotations `[n, 2, 3]`."""
    return np.linalg.qr(rng.normal(size=(n, 3, 3)))[0][:, :2]


def _shapes(n: int, rng: np.random.Generator) -> Array:
    return np.stack([rng.uniform(0.75, 1.0, n), rng.uniform(0, np.pi, n)], 1)
