"""What a referee asks to see: posteriors beside the prior, estimates beside the truth, calibration, and honest error bars.

Everything is drawn from the predictions of the test split; every object is drawn, none is clipped away. Each function returns
the figure and the arrays it plotted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinn_clusters.axes import limits, plain_log_ticks, scale
from cinn_clusters.columns import TARGETS, Column
from cinn_clusters.joint import joint_coverage, staircase
from cinn_clusters.posteriors import marginal_density
from cinn_clusters.trends import map_against_truth, prior_to_posterior
from skyloom.plots import PAGE, PALETTE, Figure, panels, save, style

__all__ = ["calibration", "coverage", "draw", "errors_against_spread", "medians_against_truth", "posteriors_against_prior"]

Array = NDArray[np.float64]
Predictions = Mapping[str, np.ndarray]
LOW68, MEDIAN, HIGH68 = 1, 2, 3  # places in the predictions' quantiles
RANK_BINS = 10
BARS = 60  # error bars drawn, at equal steps of the truth; every object has its dot


def draw(predictions: Predictions, about: Mapping[str, Any], directory: Path) -> list[Figure]:
    """Write the figures of a test split into `directory`."""
    n, mergers = len(predictions["target"]), distinct_mergers(predictions["target"])
    source = "Synthetic clusters, " if about["synthetic"] else "TNG-Cluster, "
    source += f"test split: {n} rows of {mergers} mergers in {len(np.unique(predictions['cluster_id']))} clusters."
    drawn = {
        "posteriors": (posteriors_against_prior, "Posterior and prior", _POSTERIORS),
        "medians": (medians_against_truth, "Estimate against truth", _MEDIANS),
        "ranks": (calibration, "Rank of the truth among the draws", _RANKS),
        "coverage": (coverage, "Coverage of central intervals", _COVERAGE),
        "joint": (joint_coverage, "Ranks, TARP and joint coverage", _JOINT),
        "heatmaps": (prior_to_posterior, "From prior to posterior", _HEATMAPS),
        "map": (map_against_truth, "Most probable merger and its error", _MAP),
        "staircase": (staircase, "Pairs of targets", _STAIRCASE),
        "spread": (errors_against_spread, "Error against posterior spread", _SPREAD),
    }
    figures = []
    for name, (make, title, caption) in drawn.items():
        with style():
            figure, _ = make(predictions, about)
            path = save(figure, directory / f"{name}.png")
            figure.set_layout_engine("none")  # it is laid out already
            save(figure, path.with_suffix(".pdf"))
        figures.append(Figure(path, title, f"{caption} {source}"))
    return figures


_POSTERIORS = (
    "Six rows of the test split, at equal steps of their true collision age. Grey: all mergers of the training split (the "
    "prior); blue: the posterior; gold: its mode; red: the truth. Each curve has its peak at 1."
)
_MEDIANS = (
    "Posterior median against the truth, all objects, with the central 68 percent interval of some sixty of them at equal "
    "steps of the truth; on the dashed line they agree. R² is that of the posterior mean. Where it is near zero the inputs say "
    "almost nothing, and the medians stay near the prior's."
)
_RANKS = (
    "Share of each object's draws below its truth: flat for a calibrated posterior, U-shaped for one too narrow. The band "
    "holds 99 percent of histograms of that many independent mergers, since rows of one merger are not independent."
)
_COVERAGE = (
    "Share of truths inside the central interval of each probability, per target; on the dashed line the posterior is "
    "calibrated, below it too narrow. The band holds 95 percent of what that many independent mergers would scatter by."
)
_SPREAD = (
    "Absolute error of the most probable merger against the posterior's standard deviation, all objects. Lines: 68th and 95th "
    "percentile of the error in six bins of equal counts; dashed: where they lie for a calibrated Gaussian (1 and 1.96 sd)."
)


_JOINT = (
    "Empirical distributions less the expected one: of each target's rank, of the probability of TARP's balls, and of the "
    "smallest region of highest joint density that holds the truth; one row of each cluster. The band holds 99 percent of "
    "whole curves of a calibrated posterior."
)
_HEATMAPS = (
    "Draws of the objects in each bin of truths; every column of a map sums to one. Lines: median, 10th and 90th percentile "
    "of the draws; dashed white: certainty. Where the lines are flat the inputs say nothing, and the posterior is the prior."
)
_MAP = (
    "The maximum of the joint density, in the coordinates that the flow models, against the truth; below, its error, on a "
    "scale that is linear within the median error. Line and band: median, 16th to 84th percentile in six bins of equal counts."
)
_STAIRCASE = (
    "Contours hold 39 and 86 percent of the draws of all posteriors together; red: truths, which they should follow; gold: "
    "most probable mergers, which cannot be as scattered."
)


def distinct_mergers(target: np.ndarray) -> int:
    """How many different mergers the rows hold: one is seen at several snapshots."""
    return len(np.unique(target, axis=0))


def posteriors_against_prior(p: Predictions, about: Mapping[str, Any], rows: int = 6) -> tuple[Any, dict[str, Any]]:
    """A row per object, a column per target: the densities of prior and posterior, the mode, the truth."""
    chosen = _spread_over_age(p["target"][:, 0], p["cluster_id"], rows)
    prior = np.asarray(about["prior"])
    figure, axes = panels(len(chosen), len(TARGETS), width=PAGE * 1.25, height=1.05 * len(chosen) + 0.5, squeeze=False)
    modes = np.empty((len(chosen), len(TARGETS)))
    for d, column in enumerate(TARGETS):
        low, high = float(prior[d].min()), float(prior[d].max())
        grid = np.geomspace(low, high, 300) if column.logarithmic else np.linspace(low, high, 300)
        for r, index in enumerate(chosen):
            axis, draws, truth = axes[r, d], p["samples"][index, :, d], p["target"][index, d]
            upper = float(p["now"][index]) if d == 0 else column.high
            density = _density(draws, grid, column, upper)
            modes[r, d] = grid[density.argmax()]
            axis.fill_between(grid, _density(prior[d], grid, column, column.high), color="0.85", linewidth=0)
            axis.plot(grid, density, color=PALETTE[0])
            axis.axvline(modes[r, d], color="#E69F00", linewidth=1.2)
            axis.axvline(truth, color="#D81B1B", linewidth=1.2)
            _dress(axis, column, (low, high), first=d == 0, last=r == len(chosen) - 1)
            if d == 0:
                halo, snapshot = p["halo_id"][index], p["snapshot"][index]
                axis.set_ylabel(f"snap {snapshot}\nhalo {halo}", rotation=0, ha="right", va="center", labelpad=8)
    figure.align_xlabels(axes[-1])
    keys = [("0.85", "prior", 5.0), (PALETTE[0], "posterior", 1.4), ("#E69F00", "mode", 1.4), ("#D81B1B", "truth", 1.4)]
    _legend_above(figure, keys)
    return figure, {"rows": chosen, "mode": modes}


def medians_against_truth(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Posterior medians with their 68 percent intervals against the truth, a panel per target."""
    figure, axes = panels(2, 3, width=PAGE, height=4.9)
    low, median, high = (p["quantiles"][..., k] for k in (LOW68, MEDIAN, HIGH68))
    for d, (axis, column) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        truth = p["target"][:, d]
        axis.plot(truth, median[:, d], "o", color=PALETTE[0], markersize=2.2, alpha=0.3, mew=0)
        some = np.argsort(truth, kind="stable")[:: max(1, len(truth) // BARS)]
        bars = np.stack([median[some, d] - low[some, d], high[some, d] - median[some, d]])
        axis.errorbar(truth[some], median[some, d], yerr=bars, fmt="none", ecolor="0.25", elinewidth=0.5)
        ends = limits(np.concatenate([truth, low[:, d], high[:, d]]), column)
        axis.plot(ends, ends, "--", color=PALETTE[1], linewidth=1.2, zorder=3)
        scale(axis, column, ends, both=True)
        unit = column.bracketed_unit
        axis.set(title=column.label, xlabel=f"Truth{unit}", ylabel=f"Posterior median{unit}")
        r2 = _explained(truth, p["mean"][:, d])
        axis.text(0.04, 0.93, f"R² = {r2:.2f}", transform=axis.transAxes, fontsize=7)
    return figure, {"truth": p["target"], "median": median}


def calibration(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Histograms of the rank of the truth, with the band in which a calibrated posterior would stay."""
    from scipy.stats import binom

    figure, axes = panels(2, 3, width=PAGE, height=4.0, sharey=True)
    n = distinct_mergers(p["target"])
    band = binom.ppf([0.005, 0.5, 0.995], n, 1 / RANK_BINS) / n * RANK_BINS
    edges = np.linspace(0, 1, RANK_BINS + 1)
    counts = np.stack([np.histogram(p["rank"][:, d], edges)[0] for d in range(len(TARGETS))])
    for axis, column, count in zip(axes.flat, TARGETS, counts, strict=True):
        axis.axhspan(band[0], band[2], color="0.88", linewidth=0)
        axis.axhline(1.0, color="0.3", linestyle="--", linewidth=0.9)
        axis.stairs(count / count.sum() * RANK_BINS, edges, baseline=None, color=PALETTE[0], linewidth=1.4)
        axis.set(xlim=(0, 1), ylim=(0, None), title=column.label)
    for axis in axes[1]:
        axis.set_xlabel("Share of draws below the truth")
    for axis in axes[:, 0]:
        axis.set_ylabel("Density")
    return figure, {"counts": counts, "band": band}


def coverage(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Probability of a central interval against the share of truths inside it, a line per target."""
    figure, axis = panels(width=4.2, height=4.0)
    nominal = np.linspace(0, 1, 101)
    distance = 2 * np.abs(p["rank"] - 0.5)
    inside = (distance[:, :, None] <= nominal).mean(0)  # [D, 101]
    scatter = 1.96 * np.sqrt(nominal * (1 - nominal) / distinct_mergers(p["target"]))
    axis.fill_between(nominal, nominal - scatter, nominal + scatter, color="0.88", linewidth=0)
    axis.plot([0, 1], [0, 1], "--", color="0.3", linewidth=0.9)
    for d, column in enumerate(TARGETS):
        axis.plot(nominal, inside[d], color=PALETTE[d], label=column.label)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="Probability of the interval", ylabel="Share of truths inside")
    axis.legend(loc="lower right")
    return figure, {"nominal": nominal, "inside": inside}


def errors_against_spread(p: Predictions, about: Mapping[str, Any], bins: int = 6) -> tuple[Any, dict[str, Any]]:
    """Absolute error against posterior standard deviation, with its 68th and 95th percentiles along the way."""
    figure, axes = panels(2, 3, width=PAGE, height=4.9)
    error, spread = np.abs(p["map"] - p["target"]), p["sd"]
    lines = np.empty((len(TARGETS), bins, 3))
    for d, (axis, column) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        order = np.array_split(np.argsort(spread[:, d], kind="stable"), bins)
        lines[d] = [[np.median(spread[i, d]), *np.percentile(error[i, d], [68, 95])] for i in order if len(i)]
        axis.plot(spread[:, d], error[:, d], "o", color="0.55", alpha=0.5, markersize=2.2, mew=0)
        ends = np.array([spread[:, d].min(), spread[:, d].max()])
        for factor, k, colour in ((1.0, 1, PALETTE[0]), (1.96, 2, PALETTE[1])):
            axis.plot(ends, factor * ends, "--", color=colour, linewidth=0.9)
            axis.plot(lines[d, :, 0], lines[d, :, k], "-o", color=colour, label=f"{(68, 95)[k - 1]} percent of errors")
        unit = column.bracketed_unit
        axis.set(xlabel=f"Posterior sd{unit}", ylabel=f"Absolute error{unit}", title=column.label)
        if column.logarithmic:
            axis.set(xscale="log", yscale="log")
            plain_log_ticks(axis.xaxis)
            plain_log_ticks(axis.yaxis)
    axes[0, 0].legend(loc="upper left")
    return figure, {"spread": spread, "error": error, "lines": lines}


def _spread_over_age(age: np.ndarray, clusters: np.ndarray, rows: int) -> list[int]:
    """Rows at equal steps of the sorted age, no cluster twice: a rule, not a choice of pretty ones."""
    order = np.argsort(age, kind="stable")
    chosen: list[int] = []
    for place in np.linspace(0.05, 0.95, rows) * (len(order) - 1):
        nearest = order[np.argsort(np.abs(np.arange(len(order)) - place), kind="stable")]
        taken = {int(clusters[i]) for i in chosen}
        chosen += [next((int(i) for i in nearest if int(clusters[i]) not in taken), int(nearest[0]))]
    return chosen


def _density(sample: np.ndarray, grid: Array, column: Column, high: float) -> Array:
    """The density along the axis as drawn (of log y on a logarithmic one), its peak at 1."""
    if not column.logarithmic:
        density = marginal_density(sample, grid, column.low, high)
    else:
        low = float(np.log10(column.low)) if column.low > 0 else -np.inf
        density = marginal_density(np.log10(sample), np.log10(grid), low)
    return density / density.max()


def _dress(axis: Any, column: Column, ends: Sequence[float], first: bool, last: bool) -> None:
    scale(axis, column, ends)
    axis.set(yticks=[], ylim=(0, 1.08))
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    if last:
        axis.set_xlabel(column.axis.replace(" [", "\n["))
    else:
        axis.tick_params(labelbottom=False)


def _explained(truth: np.ndarray, estimate: np.ndarray) -> float:
    return float(1 - ((truth - estimate) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def _legend_above(figure: Any, keys: Sequence[tuple[str, str, float]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=width, label=label) for colour, label, width in keys]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(keys))
