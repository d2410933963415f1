"""Learning curves: of one run from the rows of its `metrics.jsonl`, and of many runs as mean and band."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyloom.plots.style import PAGE, panels

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["Curve", "band", "by_metric", "draw_bands", "draw_learning_curves", "draw_metric", "learning_curves", "smoothed"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One metric of one split against the optimizer step; undefined values are NaN."""

    split: str  # "train" or "val"
    metric: str
    step: Array
    value: Array


def learning_curves(rows: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """The `train/...` and `val/...` columns of the rows, each with the steps at which it was written.

    >>> rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0, "val/nll": None}]
    >>> [(c.split, c.metric, c.step.tolist()) for c in learning_curves(rows)]
    [('train', 'loss', [1.0, 2.0]), ('val', 'nll', [2.0])]
    """
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            split, slash, metric = key.partition("/")
            if slash and split in ("train", "val") and "step" in row:
                number = value if isinstance(value, (int, float)) else math.nan
                points.setdefault((split, metric), []).append((float(row["step"]), float(number)))
    curves = []
    for (split, metric), pairs in points.items():
        steps, values = np.array(sorted(pairs, key=lambda pair: pair[0])).T
        curves.append(Curve(split, metric, steps, values))
    return curves


def smoothed(values: Array, window: int) -> Array:
    r"""Centred moving mean of the finite values, NaN where the window does not fit.

    $s_i = \operatorname{mean}(v_{i-h}, \dots, v_{i+h})$ with $h = \lfloor w/2 \rfloor$ for $h \le i < n - h$: a straight
    line stays itself, nothing is delayed as an exponential mean would delay it, and the ends, where fewer values would
    make it noisier, are left out.
    """
    values = np.asarray(values, dtype=float)
    half, n = window // 2, len(values)
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    mean = np.full(n, np.nan)
    at = np.arange(half, n - half)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean[at] = (total[at + half + 1] - total[at - half]) / (count[at + half + 1] - count[at - half])
    return mean


def band(curves: Sequence[Curve]) -> tuple[Array, Array, Array]:
    """Steps, mean and standard deviation over runs, at the steps where every run has a finite value.

    Where one run has stopped early the mean ends too: it never jumps because its members changed.
    With a single run the deviation is NaN.
    """
    values = [dict(zip(c.step[np.isfinite(c.value)], c.value[np.isfinite(c.value)], strict=True)) for c in curves]
    steps = np.array(sorted(set.intersection(*(set(v) for v in values)) if values else set()))
    table = np.array([[v[s] for s in steps] for v in values]).reshape(len(values), len(steps))
    mean = table.mean(axis=0) if len(values) else np.array([])
    spread = table.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(steps), np.nan)
    return steps, mean, spread


def by_metric(rows: Iterable[Mapping[str, Any]], *, first: Sequence[str] = (), limit: int = 6) -> list[list[Curve]]:
    """The curves of each metric, training and validation together, at most `limit` of them.

    In order: the loss; `first` (metrics with or without their split); the other validated ones as the task lists them;
    those of training alone. Metrics without a defined value are left out.
    """
    wanted = ["loss", *(name.partition("/")[2] or name for name in first)]
    found: dict[str, list[Curve]] = {}
    for curve in learning_curves(rows):
        if np.isfinite(curve.value).any():
            found.setdefault(curve.metric, []).append(curve)

    def rank(metric: str) -> tuple[int, bool]:
        place = wanted.index(metric) if metric in wanted else len(wanted)
        return place, all(curve.split == "train" for curve in found[metric])

    return [found[name] for name in sorted(found, key=rank)[:limit]]


def draw_metric(axis: "matplotlib.axes.Axes", curves: Sequence[Curve], best_step: int | None = None) -> None:
    """One metric, training and validation together; `best_step` marks the weights that were kept."""
    for curve in curves:
        _draw_curve(axis, curve)
    _frame(axis, curves, best_step)
    axis.set_title(curves[0].metric)


def draw_learning_curves(
    rows: Iterable[Mapping[str, Any]], *, first: Sequence[str] = (), best_step: int | None = None, limit: int = 6
) -> tuple["matplotlib.figure.Figure | None", list[list[Curve]]]:
    """A page-wide figure with a panel per metric, and what each panel holds; None when there is nothing to draw."""
    metrics = by_metric(rows, first=first, limit=limit)
    if not metrics:
        return None, []
    columns = min(len(metrics), 3 if len(metrics) > 4 else 2)
    lines = math.ceil(len(metrics) / columns)
    figure, axes = panels(lines, columns, width=PAGE, height=2.3 * lines, squeeze=False)
    for axis, curves in zip(axes.flat, metrics, strict=False):
        draw_metric(axis, curves, best_step)
    for axis in axes.flat[len(metrics) :]:
        axis.set_visible(False)
    return figure, metrics


def _draw_curve(axis: "matplotlib.axes.Axes", curve: Curve) -> None:
    colour = {"train": "C0", "val": "C1"}[curve.split]
    label = {"train": "training", "val": "validation"}[curve.split]
    if curve.split == "train" and len(curve.step) > 60:
        axis.plot(curve.step, curve.value, color=colour, alpha=0.3, linewidth=0.6)
        axis.plot(curve.step, smoothed(curve.value, len(curve.value) // 25), color=colour, label=label)
    else:
        marker = "o" if len(curve.step) <= 60 else None
        axis.plot(curve.step, curve.value, color=colour, label=label, marker=marker)


def _frame(axis: "matplotlib.axes.Axes", curves: Sequence[Curve], best_step: int | None) -> None:
    """Labels, scale and limits; a start far outside the rest is cut off and its height written down."""
    values = np.concatenate([c.value[np.isfinite(c.value)] for c in curves])
    later = np.concatenate([c.value[len(c.value) // 8 :] for c in curves])
    later = later[np.isfinite(later)]
    if values.min() > 0 and values.max() > 30 * values.min():
        axis.set_yscale("log")
    elif len(later) > 4 and np.ptp(values) > 12 * np.ptp(later) > 0:
        axis.set_ylim(later.min() - 0.1 * np.ptp(later), later.max() + 0.1 * np.ptp(later))
        worst = values[np.argmax(np.abs(values - np.median(later)))]
        axis.annotate(f"starts at {worst:.3g}", (0.03, 0.94 if worst > 0 else 0.04), xycoords="axes fraction", fontsize=6)
    if best_step is not None:
        axis.axvline(best_step, color="0.55", linewidth=0.8, linestyle=(0, (4, 3)), label="best weights")
    axis.set_xlabel("optimizer step")
    axis.xaxis.set_major_locator(_whole_steps())
    axis.legend(loc="best")


def _whole_steps() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, integer=True)


def draw_bands(
    axis: "matplotlib.axes.Axes", groups: Mapping[str, Sequence[Curve]], *, emphasise: str | None = None
) -> dict[str, tuple[Array, Array, Array]]:
    """For each labelled group of runs its mean curve, a band of one standard deviation, and every run as a thin line.

    With more groups than colours, all but `emphasise` are grey. Returns what `band` gave for each.
    """
    from matplotlib import rcParams

    colours = rcParams["axes.prop_cycle"].by_key()["color"]
    drawn = {}
    many = len(groups) > len(colours)
    for number, (label, curves) in enumerate(groups.items()):
        grey = many and label != emphasise
        colour = "0.6" if grey else colours[0 if many else number]
        for curve in curves:
            axis.plot(curve.step, curve.value, color=colour, linewidth=0.5, alpha=0.5)
        steps, mean, spread = drawn[label] = band(curves)
        if len(steps) and len(curves) > 1:
            axis.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        if len(steps):
            width = 2.0 if label == emphasise else 1.2
            axis.plot(steps, mean, color=colour, linewidth=width, label=None if grey else label)
    axis.set_xlabel("optimizer step")
    axis.xaxis.set_major_locator(_whole_steps())
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best")
    return drawn
