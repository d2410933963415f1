"""Figures of the joint posterior: its coverage by two tests, and every pair of targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cinn_clusters.axes import limits, plain_log_ticks, scale
from cinn_clusters.columns import TARGETS
from cinn_clusters.scores import independent_rows
from skyloom.calibration import ecdf_band
from skyloom.plots import PAGE, PALETTE, panels

__all__ = ["joint_coverage", "staircase"]

Predictions = Mapping[str, np.ndarray]
MOST_DRAWS = 20_000


def joint_coverage(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Empirical distributions less the diagonal: of each target's rank, of TARP's and of the highest-density region's
    probability; within the band for a calibrated posterior. One row of each cluster, so that rows are independent."""
    rows = independent_rows(p["cluster_id"])
    points, low, high = ecdf_band(len(rows), 0.99)
    figure, axes = panels(1, 3, width=PAGE, height=2.9, sharey=True)
    curves: dict[str, np.ndarray] = {}
    ranks, tarp, region = axes
    for d, column in enumerate(TARGETS):
        curves[column.symbol] = _below(p["rank"][rows, d], points) - points
        ranks.plot(points, curves[column.symbol], color=PALETTE[d], label=column.label, linewidth=1.1)
    for axis, name in ((tarp, "tarp"), (region, "credibility")):
        curves[name] = _below(p[name][rows], points) - points
        axis.plot(points, curves[name], color=PALETTE[0])
    for axis in axes:
        axis.fill_between(points, low - points, high - points, color="0.88", linewidth=0)
        axis.axhline(0, color="0.3", linestyle="--", linewidth=0.9)
        axis.set(xlim=(0, 1))
    ranks.set(title="Ranks of each target (SBC)", xlabel="Rank among the draws", ylabel="Share below, less expected")
    tarp.set(title="Balls around random points (TARP)", xlabel="Probability of the ball")
    region.set(title="Highest density of the joint", xlabel="Probability of the region")
    figure.legend(*ranks.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure, {"points": points, "low": low, "high": high, **curves}


def staircase(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Every pair of targets: contours of all posteriors together that hold 39 and 86 percent of the draws, the truths, and the
    most probable mergers. Both follow the population's correlations if the posteriors keep them."""
    n = len(TARGETS) - 1
    figure, axes = panels(n, n, width=PAGE * 1.25, height=PAGE * 1.2)
    draws = p["samples"].reshape(-1, len(TARGETS))
    draws = draws[np.random.default_rng(0).permutation(len(draws))[:MOST_DRAWS]]
    labels = {}
    for row in range(n):
        for place in range(n):
            axis = axes[row, place]
            if place > row:
                axis.remove()
                continue
            y, x = row + 1, place
            _contours(axis, draws[:, x], draws[:, y], TARGETS[x].logarithmic, TARGETS[y].logarithmic)
            axis.plot(p["target"][:, x], p["target"][:, y], "o", color="#D81B1B", markersize=1.3, alpha=0.5, mew=0, zorder=3)
            axis.plot(p["map"][:, x], p["map"][:, y], "s", color="#E69F00", markersize=1.2, alpha=0.4, mew=0, zorder=2)
            scale(axis, TARGETS[x], limits(p["target"][:, x], TARGETS[x]))
            if TARGETS[y].logarithmic:
                axis.set_yscale("log")
                plain_log_ticks(axis.yaxis)
            axis.set_ylim(*limits(p["target"][:, y], TARGETS[y]))
            axis.set_xlabel(TARGETS[x].axis.replace(" [", "\n["))
            axis.set_ylabel(TARGETS[y].axis.replace(" [", "\n["))
            labels[(row, place)] = (TARGETS[x].name, TARGETS[y].name)
            axis.label_outer()
    _legend(figure)
    return figure, {"labels": labels}


def _below(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def _contours(axis: Any, x: np.ndarray, y: np.ndarray, log_x: bool, log_y: bool, bins: int = 40) -> None:
    """Filled regions of highest density that hold 86 and 39 percent (two and one sigma of a Gaussian in two dimensions)."""
    from scipy.ndimage import gaussian_filter

    def edges(v: np.ndarray, log: bool) -> np.ndarray:
        low, high = np.percentile(v, [0.2, 99.8])
        return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)

    ex, ey = edges(x, log_x), edges(y, log_y)
    density = gaussian_filter(np.histogram2d(x, y, [ex, ey])[0], 1.0)
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = [float(ordered[np.searchsorted(held, share)]) for share in (0.86, 0.39)]
    centre = [np.sqrt(e[1:] * e[:-1]) if log else (e[1:] + e[:-1]) / 2 for e, log in ((ex, log_x), (ey, log_y))]
    axis.contourf(*centre, density.T, [*levels, float(ordered[0]) * 1.01], colors=["#BBD6EA", "#6FA9D2"], zorder=1)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color="#6FA9D2", label="draws, 39 percent"),
        Patch(color="#BBD6EA", label="draws, 86 percent"),
        Line2D([], [], marker="o", linestyle="none", color="#D81B1B", label="truths"),
        Line2D([], [], marker="s", linestyle="none", color="#E69F00", label="most probable mergers"),
    ]
    figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.98, 0.98))
