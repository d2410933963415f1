"""Figures of what the tables of a finder say: calibration, purity, confusion, and what is mistaken for a lens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.calibration.merit import sigmoid
from skyloom.metrics import Ranking
from skyloom.plots import PAGE, Figure, panels, save, style

__all__ = ["confusion", "draw_tables", "purity_curve", "reliability"]

Arrays = dict[str, np.ndarray]


def draw_tables(written: Mapping[str, Any], predictions: Arrays, about: Mapping[str, Any], directory: Path) -> list[Figure]:
    """Figures of what `lensfind.evaluate.tables.tables` has written, and of the predictions behind it."""
    point, prevalence = written["threshold"], written["survey"]["prevalence"]
    fpr = point["chosen_for_fpr"]
    word = "synthetic " if about["synthetic"] else ""
    made: list[Figure] = []

    def keep(name: str, canvas: Any, title: str, caption: str) -> None:
        made.append(Figure(save(canvas, directory / f"{name}.png"), title, caption))

    with style():
        if "calibrated" in predictions:
            canvas, axes = panels(1, 2, width=PAGE, height=2.9)
            reliability(axes[0], predictions)
            purity_curve(axes[1], predictions, prevalence)
            keep("calibration", canvas, "Calibration, and what a survey gets", "Left: share of lenses against the stated "
                 f"probability on the unlabeled {word}test sample, before and after calibration on the validation split, in "
                 "bins of equal numbers, with 95% Wilson intervals; the bottom line stands for bins without a lens. Right: "
                 f"purity against completeness where one object in {1 / prevalence:,.0f} is a lens, with its 95% "
                 "interval.")  # fmt: skip
        canvas, axis = panels(1, 1)
        confusion(axis, point["confusion"])
        keep("confusion", canvas, "What is said of lenses and others", f"Unlabeled {word}test cutouts by what they are and "
             f"what is said of them above and below the threshold chosen on validation for a false-positive rate of {fpr:.0%}; "
             "shares are of each row.")  # fmt: skip
        if written["failures"]:
            canvas, axis = panels(1, 1)
            _bars(axis, written["failures"], fpr)
            keep("failures", canvas, "What is mistaken for a lens", f"Share of each kind of {word}non-lens above the "
                 f"threshold chosen on validation for a false-positive rate of {fpr:.0%} (dotted), with 95% Wilson "
                 "intervals.")  # fmt: skip
    return made


def reliability(axis: Any, predictions: Arrays, bins: int = 12) -> dict[str, Arrays]:
    """Observed share of lenses against the stated probability; both axes logarithmic, as lenses are rare."""
    from skyloom.metrics import wilson

    unlabeled = predictions["labelled"] == 0
    lens = predictions["lens"][unlabeled] > 0
    floor = 0.3 / len(lens)
    drawn = {}
    for name, label, marker in (("logit", "as learned", "s"), ("calibrated", "calibrated", "o")):
        p = sigmoid(predictions[name][unlabeled])
        order = np.array_split(np.argsort(p, kind="stable"), bins - 4)
        order = [*order[:-1], *np.array_split(order[-1], 5)]  # finer where the lenses are
        centre = np.array([p[part].mean() for part in order])
        count = np.array([lens[part].sum() for part in order])
        n = np.array([len(part) for part in order])
        low, high = wilson(count, n)
        share = np.maximum(count / n, floor)
        spread = [np.maximum(share - np.maximum(low, floor), 0), np.maximum(high - share, 0)]
        axis.errorbar(np.maximum(centre, floor), share, spread, fmt=marker, ms=3.5, lw=0.9, label=label)
        drawn[name] = {"p": centre, "share": share}
    line = np.array([floor, 1.0])
    axis.plot(line, line, color="0.5", lw=0.8, ls="--")
    axis.set(xscale="log", yscale="log", xlim=(floor, 1.2), ylim=(floor * 0.8, 1.3))
    axis.set(xlabel="stated probability", ylabel="share of lenses")
    axis.legend(loc="upper left")
    return drawn


def purity_curve(axis: Any, predictions: Arrays, prevalence: float) -> Arrays:
    from skyloom.metrics.prevalence import budget_curve

    unlabeled = predictions["labelled"] == 0
    ranking = Ranking(predictions["logit"][unlabeled], predictions["lens"][unlabeled] > 0)
    curve = budget_curve(ranking, 1.0, prevalence, np.random.default_rng(0))
    axis.fill_between(curve.completeness, curve.purity_low, curve.purity_high, alpha=0.25, lw=0)
    axis.plot(curve.completeness, curve.purity)
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="completeness", ylabel=f"purity at a prevalence of {prevalence:g}")
    return {"completeness": curve.completeness, "purity": curve.purity}


def _bars(axis: Any, rows: list[dict[str, Any]], fpr: float) -> None:
    names = [f"{row['kind'].replace('_', '-')} ({row['above']}/{row['n']})" for row in rows]
    value = np.array([row["rate"]["value"] for row in rows])
    low, high = (np.array([row["rate"][side] for row in rows]) for side in ("low", "high"))
    place = np.arange(len(rows))
    axis.barh(place, value, height=0.6)
    axis.errorbar(value, place, xerr=np.maximum([value - low, high - value], 0), fmt="none", color="0.2", lw=0.9)
    axis.axvline(fpr, color="0.4", lw=0.8, ls=":")
    axis.set_yticks(place, names)
    axis.invert_yaxis()
    axis.set(xlabel="share above the threshold", xlim=(0, None))
    axis.locator_params(axis="x", nbins=5)


def confusion(axis: Any, counts: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """Counts by truth (rows) and by what is said (columns), with the share of each row; gives these shares."""
    table = np.array([[counts[truth][said] for said in ("lens", "no lens")] for truth in ("lens", "no lens")])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for row, column in np.ndindex(2, 2):
        words = f"{table[row, column]:,}\n{share[row, column]:.1%}"
        axis.text(column, row, words, ha="center", va="center", color="white" if share[row, column] > 0.7 else "black")
    axis.set_xticks((0, 1), ("lens", "no lens"))
    axis.set_yticks((0, 1), ("lens", "no lens"))
    axis.set(xlabel="said", ylabel="truth")
    axis.grid(False)
    return share
