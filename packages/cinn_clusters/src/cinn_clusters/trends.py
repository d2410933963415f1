"""How posteriors follow the truth over its range: heat-maps of draws, and the most probable merger with its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinn_clusters.axes import limits, scale
from cinn_clusters.columns import TARGETS, Column
from skyloom.plots import PAGE, PALETTE, panels

__all__ = ["map_against_truth", "prior_to_posterior"]

Array = NDArray[np.float64]
Predictions = Mapping[str, np.ndarray]
DRAWS = 100  # of each object, in the heat-maps


def prior_to_posterior(p: Predictions, about: Mapping[str, Any], bins: int = 12) -> tuple[Any, dict[str, Any]]:
    """Where the draws of objects of each true bin fall: each column of the map sums to one; a diagonal would be certainty.

    Lines: median, 10th and 90th percentile of the draws of each bin, in data units.
    """
    figure, axes = panels(2, 3, width=PAGE, height=5.0)
    shares = np.zeros((len(TARGETS), bins, bins))
    lines = np.full((len(TARGETS), bins, 3), np.nan)
    for d, (axis, column) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        truth, draws = p["target"][:, d], p["samples"][:, :DRAWS, d]
        edges = _edges(truth, column, bins)
        where = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, bins - 1)
        for b in range(bins):
            mine = draws[where == b].ravel()
            if len(mine):
                shares[d, b] = np.histogram(np.clip(mine, edges[0], edges[-1]), edges)[0] / len(mine)
                lines[d, b] = np.percentile(mine, [10, 50, 90])
        image = axis.pcolormesh(edges, edges, shares[d].T, vmin=0, vmax=0.5, cmap="viridis")
        middle = np.sqrt(edges[1:] * edges[:-1]) if column.logarithmic else (edges[1:] + edges[:-1]) / 2
        ends = (edges[0], edges[-1])
        axis.plot(ends, ends, "--", color="w", linewidth=1.0)
        for k, form in ((1, "-"), (0, "--"), (2, "--")):
            axis.plot(middle, lines[d, :, k], form, color=PALETTE[1], linewidth=1.3)
        scale(axis, column, ends, both=True)
        unit = column.bracketed_unit
        axis.set(title=column.label, xlabel=f"Truth{unit}", ylabel=f"Posterior draws{unit}")
        axis.grid(False)
    figure.colorbar(image, ax=axes, label="Share of the draws of each bin of truths", shrink=0.8, extend="max")
    return figure, {"shares": shares, "lines": lines}


def map_against_truth(p: Predictions, about: Mapping[str, Any], bins: int = 6) -> tuple[Any, dict[str, Any]]:
    """The most probable merger against the truth, and its signed error below, with medians and 16th to 84th percentiles in
    bins of equal counts; every object is drawn and counted. Errors are on a symmetric logarithmic scale, linear within the
    target's own median error."""
    figure, axes = panels(2, len(TARGETS), width=PAGE * 1.45, height=4.3)
    counts, trend = np.zeros((len(TARGETS), bins), dtype=int), np.empty((len(TARGETS), bins, 4))
    for d, column in enumerate(TARGETS):
        truth, best, top, bottom = p["target"][:, d], p["map"][:, d], axes[0, d], axes[1, d]
        error = best - truth
        for b, index in enumerate(np.array_split(np.argsort(truth, kind="stable"), bins)):
            counts[d, b] = len(index)
            trend[d, b] = [np.median(truth[index]), *np.percentile(error[index], [16, 50, 84])]
        top.plot(truth, best, "o", color=PALETTE[0], markersize=1.6, alpha=0.35, mew=0)
        ends = limits(np.concatenate([truth, best]), column)
        top.plot(ends, ends, "--", color=PALETTE[1], linewidth=1.1)
        scale(top, column, ends, both=True)
        bottom.plot(truth, error, "o", color=PALETTE[0], markersize=1.6, alpha=0.35, mew=0)
        bottom.axhline(0, color=PALETTE[1], linestyle="--", linewidth=1.1)
        bottom.fill_between(trend[d, :, 0], trend[d, :, 1], trend[d, :, 3], color="0.5", alpha=0.3, linewidth=0)
        bottom.plot(trend[d, :, 0], trend[d, :, 2], color="k")
        scale(bottom, column, ends)
        _symmetric(bottom, float(np.median(np.abs(error))), error)
        unit = column.bracketed_unit
        top.set(title=column.label)
        top.tick_params(labelbottom=False)
        bottom.set(xlabel=f"Truth{unit}")
    axes[0, 0].set_ylabel("Most probable value\n[unit of the truth]")
    axes[1, 0].set_ylabel("Error of it\n[unit of the truth]")
    return figure, {"counts": counts, "trend": trend, "error": p["map"] - p["target"]}


def _edges(truth: Array, column: Column, bins: int) -> Array:
    low, high = float(truth.min()), float(truth.max())
    return np.geomspace(low, high, bins + 1) if column.logarithmic else np.linspace(low, high, bins + 1)


def _symmetric(axis: Any, linear: float, error: Array) -> None:
    """Symmetric logarithmic, with ticks at zero and at the linear part's edges and their tenfold."""
    linear = float(f"{max(linear, 1e-6):.0e}")
    top = 1.15 * max(float(np.abs(error).max()), linear)
    axis.set_yscale("symlog", linthresh=linear, linscale=1.0)
    ticks = [s * t for t in (linear, 10 * linear) if t < top for s in (-1, 1)]
    axis.set_yticks([0.0, *ticks], [f"{t:g}" for t in (0.0, *ticks)])
    axis.minorticks_off()
    axis.set_ylim(-top, top)
