"""What a sweep's page shows, each drawn from its trials alone; every function returns the figure and what it plotted."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from skyloom.plots import PAGE, panels

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["best_so_far", "draw_courses", "draw_history", "draw_importance", "draw_parallel", "draw_pareto"]

Objective = Sequence[dict[str, str]]
Drawn = tuple["matplotlib.figure.Figure", dict[str, Any]]


def best_so_far(values: Sequence[float] | np.ndarray, direction: str) -> np.ndarray:
    """Best of the first k values, for every k.

    >>> best_so_far([3.0, 1.0, 2.0], "minimize").tolist()
    [3.0, 1.0, 1.0]
    """
    accumulate = np.minimum.accumulate if direction == "minimize" else np.maximum.accumulate
    return accumulate(np.asarray(values, dtype=float)) if len(values) else np.array([])


def draw_history(trials: Sequence[FrozenTrial], objective: Objective) -> Drawn:
    """Each objective against the trial's number, with the best so far; pruned trials at the last value they reported."""
    figure, axes = panels(len(objective), 1, width=PAGE, height=2.3 * len(objective), squeeze=False, sharex=True)
    plotted = {}
    for k, (axis, goal) in enumerate(zip(axes[:, 0], objective, strict=True)):
        done = [(t.number, t.values[k]) for t in trials if t.state == TrialState.COMPLETE]
        pruned = [(t.number, t.values[k]) for t in trials if t.state == TrialState.PRUNED and t.values]
        numbers, values = _columns(done)
        line = best_so_far(values, goal["direction"])
        axis.plot(numbers, values, "o", color="C0", label="finished")
        if pruned:
            axis.plot(*_columns(pruned), "o", mfc="none", color="0.55", label="pruned, at its last validation")
        axis.step(numbers, line, where="post", color="C1", label="best so far")
        failed = [t.number for t in trials if t.state == TrialState.FAIL]
        if failed:
            at = np.zeros(len(failed))
            axis.plot(failed, at, "x", color="C1", transform=axis.get_xaxis_transform(), clip_on=False, label="failed")
        axis.set_ylabel(goal["metric"])
        _scale(axis, values, goal["direction"])
        plotted[goal["metric"]] = {"number": numbers, "value": values, "best": line}
    axes[-1, 0].set_xlabel("trial")
    _whole(axes[-1, 0])
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)
    return figure, plotted


def draw_courses(trials: Sequence[FrozenTrial], objective: Objective) -> Drawn:
    """The objective of each trial against its validations: where pruned ones stopped, and what the best one looked like."""
    figure, axis = panels(width=PAGE, height=2.6)
    courses = {t.number: sorted(t.intermediate_values.items()) for t in trials if t.intermediate_values}
    sign = 1 if objective[0]["direction"] == "minimize" else -1
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    best = min(done, key=lambda t: sign * t.values[0]).number if done else None
    shown: set[str] = set()
    for trial in trials:
        if trial.number not in courses or trial.number == best:
            continue
        pruned = trial.state == TrialState.PRUNED
        label = "pruned" if pruned else "finished"
        x, y = _columns(courses[trial.number])
        mark = {"markevery": [-1], "marker": "x", "markersize": 4.5} if pruned else {"marker": "." if len(x) == 1 else None}
        axis.plot(x, y, color="0.6" if pruned else "C0", linewidth=0.8, label=None if label in shown else label, **mark)
        shown.add(label)
    if best in courses:
        axis.plot(*_columns(courses[best]), color="C1", linewidth=2, label=f"best, trial {best}", zorder=5)
    _scale(axis, np.array([v for c in courses.values() for _, v in c]), objective[0]["direction"])
    axis.set_xlabel("validation")
    axis.set_ylabel(objective[0]["metric"])
    _whole(axis)
    axis.legend(loc="best")
    return figure, {"courses": courses, "best": best}


def draw_importance(importance: dict[str, dict[str, float]]) -> Drawn:
    """For each objective, the share of its variance over the space that each value accounts for."""
    names = sorted({name for shares in importance.values() for name in shares}, key=lambda n: -_mean_share(importance, n))
    figure, axes = panels(1, len(importance), width=PAGE, height=0.9 + 0.28 * max(len(names), 2), squeeze=False, sharey=True)
    for axis, (metric, shares) in zip(axes[0], importance.items(), strict=True):
        bars = axis.barh(names, [shares.get(name, 0.0) for name in names], color="C0", height=0.6)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
        axis.set_xlim(0, 1.08)
        axis.set_xlabel(f"share of the variance of {metric}")
        axis.grid(axis="y", visible=False)
    axes[0, 0].invert_yaxis()
    return figure, importance


def draw_parallel(trials: Sequence[FrozenTrial], objective: Objective) -> Drawn:
    """One axis for each swept value and one for the objective, a line for each finished trial, paler the worse it did."""
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    names = list(dict.fromkeys(name for t in done for name in t.params))
    columns = [_coordinate(done, name) for name in names]
    values = np.array([t.values[0] for t in done])
    columns.append((objective[0]["metric"], *_numeric(values, _is_log(values))))
    sign = 1 if objective[0]["direction"] == "minimize" else -1
    order = np.argsort(np.argsort(sign * values))
    figure, axis = panels(width=PAGE, height=3.0)
    heights = np.array([column[1] for column in columns])
    for k in sorted(range(len(done)), key=lambda k: -order[k]):  # the best last, on top
        strength = 0.85 - 0.7 * order[k] / max(len(done) - 1, 1)
        line = {"color": "C1", "linewidth": 2.2} if order[k] == 0 else {"color": "C0", "linewidth": 0.9, "alpha": strength}
        axis.plot(heights[:, k], **line)
    for x, (_, _, ticks) in enumerate(columns):
        axis.axvline(x, color="0.5", linewidth=0.8, zorder=0)
        for height, text in ticks:
            axis.annotate(
                text, (x, height), xytext=(3, 0), textcoords="offset points", fontsize=6, va="center", zorder=6, bbox=_paper()
            )
    axis.set_xticks(range(len(columns)), [_folded(column[0]) for column in columns])
    axis.set_yticks([])
    axis.set_xlim(-0.1, len(columns) - 1 + 0.35)
    axis.set_ylim(-0.07, 1.07)
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(axis="x", length=0)
    return figure, {"names": [*names, objective[0]["metric"]], "heights": heights, "rank": order}


def draw_pareto(trials: Sequence[FrozenTrial], front: Sequence[FrozenTrial], objective: Objective) -> Drawn:
    """The first objective against each other one; on the front are the trials that no other beats in everything."""
    others = range(1, len(objective))
    figure, axes = panels(1, len(others), width=PAGE if len(others) > 1 else PAGE * 0.62, height=3.0, squeeze=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    on = {t.number for t in front}
    for axis, k in zip(axes[0], others, strict=True):
        rest = [(t.values[0], t.values[k]) for t in done if t.number not in on]
        best = sorted((t.values[0], t.values[k]) for t in done if t.number in on)
        axis.plot(*_columns(rest), "o", color="0.65", label="beaten by another")
        axis.plot(*_columns(best), "o", color="C1", label="on the front")
        labels = {(t.values[0], t.values[k]): str(t.number) for t in reversed(front)}  # equal ones once
        for place, text in labels.items():
            axis.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize=6)
        if _is_log(np.array([t.values[0] for t in done])):
            axis.set_xscale("log")
        if _is_log(np.array([t.values[k] for t in done])):
            axis.set_yscale("log")
        axis.set_xlabel(f"{objective[0]['metric']} ({_arrow(objective[0])})")
        axis.set_ylabel(f"{objective[k]['metric']} ({_arrow(objective[k])})")
        axis.legend(loc="best")
    return figure, {"front": sorted(on)}


# -------------------------------------------------------------------- pieces


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _scale(axis: "matplotlib.axes.Axes", values: np.ndarray, direction: str) -> None:
    """Logarithmic when the values ask for it; else one bad trial does not flatten all others."""
    values = np.asarray(values)[np.isfinite(values)]
    if _is_log(values):
        axis.set_yscale("log")
    elif len(values) > 4:
        low, high = np.quantile(values, [0.0, 0.8] if direction == "minimize" else [0.2, 1.0])
        reach = 3 * (high - low)
        if direction == "minimize" and 0 < reach < values.max() - low:
            axis.set_ylim(low - 0.04 * reach, low + reach)
        elif direction == "maximize" and 0 < reach < high - values.min():
            axis.set_ylim(high - reach, high + 0.04 * reach)


def _is_log(values: np.ndarray) -> bool:
    return len(values) > 1 and bool(values.min() > 0) and values.max() > 30 * values.min()


def _whole(axis: "matplotlib.axes.Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _mean_share(importance: dict[str, dict[str, float]], name: str) -> float:
    return float(np.mean([shares.get(name, 0.0) for shares in importance.values()]))


def _coordinate(trials: Sequence[FrozenTrial], name: str) -> tuple[str, np.ndarray, list[tuple[float, str]]]:
    """A swept value's axis: heights between 0 and 1, and ticks. A trial without the value has none there."""
    raw = [t.params.get(name) for t in trials]
    distribution = next(t.distributions[name] for t in trials if name in t.distributions)
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        place = np.linspace(0, 1, len(choices)) if len(choices) > 1 else np.array([0.5])
        ticks = [(float(h), _cut(choice)) for h, choice in zip(place, choices, strict=True)]
        return name, np.array([place[choices.index(t.params[name])] if name in t.params else math.nan for t in trials]), ticks
    values = np.array([math.nan if v is None else float(v) for v in raw])
    return name, *_numeric(values, bool(getattr(distribution, "log", False)))


def _numeric(values: np.ndarray, log: bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    spread = np.log10(values) if log else values
    low, high = np.nanmin(spread), np.nanmax(spread)
    if high == low:
        return np.where(np.isnan(values), math.nan, 0.5), [(0.5, f"{values[0]:.3g}")]
    marks = [mark for mark in _round_marks(low, high, log) if low <= mark <= high]
    if len(marks) < 2:
        marks = [low, high]
    return (spread - low) / (high - low), [((m - low) / (high - low), f"{10**m if log else m:.3g}") for m in marks]


def _round_marks(low: float, high: float, log: bool) -> list[float]:
    """Round values between the ends; of a logarithmic axis their logarithms."""
    from matplotlib.ticker import MaxNLocator

    if not log:
        return [float(m) for m in MaxNLocator(4).tick_values(low, high)]
    steps = (1.0,) if high - low > 2 else (1.0, 3.0)
    return [math.log10(step * 10.0**power) for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]


def _cut(choice: Any) -> str:
    text = "null" if choice is None else str(choice)
    return text if len(text) <= 16 else text[:15] + "…"


def _folded(name: str) -> str:
    """A dotted key on lines short enough to stand side by side."""
    return name.replace(".", ".\n", 1) if len(name) > 12 else name


def _paper() -> dict[str, Any]:
    from matplotlib import rcParams

    return {"facecolor": rcParams["axes.facecolor"], "edgecolor": "none", "pad": 0.6, "alpha": 0.75}


def _arrow(goal: dict[str, str]) -> str:
    return "less is better" if goal["direction"] == "minimize" else "more is better"
