"""Scores at a glance: ROC curves at few false positives, reliability, risk and coverage, budgets, labelling campaigns."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes

    from skyloom.calibration.reliability import ReliabilityTable
    from skyloom.metrics.prevalence import BudgetCurve
    from skyloom.metrics.ranking import Ranking
    from skyloom.uncertainty.labelling import LabellingCurve
    from skyloom.uncertainty.selective import RiskCoverage

__all__ = ["draw_budget", "draw_labelling_curves", "draw_reliability", "draw_risk_coverage", "draw_roc"]


def draw_roc(axis: "matplotlib.axes.Axes", rankings: "Mapping[str, Ranking]") -> None:
    """TPR against FPR on a logarithmic axis, with every vertex; dots mark TPR_0 and TPR_10.

    Left of ten false positives in the smallest sample nothing is measured: that part is shaded. TPR_0, at no false positive,
    stands at the left edge.
    """
    fewest = min(r.n_negative for r in rankings.values())
    left = 0.5 / max(r.n_negative for r in rankings.values())
    for number, (label, r) in enumerate(rankings.items()):
        fpr, tpr, _ = r.roc()
        axis.plot(np.maximum(fpr, left), tpr, color=f"C{number}", drawstyle="steps-post", label=f"{label}, AUROC {r.auroc:.3f}")
        axis.plot([left, 9 / r.n_negative], [r.tpr0, r.tpr10], "o", color=f"C{number}", clip_on=False, zorder=3)
    chance = np.geomspace(left, 1, 200)
    axis.plot(chance, chance, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    _unmeasured(axis, left, 10 / fewest)
    axis.set_xscale("log")
    axis.set_xlim(left, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("false-positive rate")
    axis.set_ylabel("true-positive rate")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _unmeasured(axis: "matplotlib.axes.Axes", left: float, right: float) -> None:
    """Shade where fewer than ten false positives of the sample lie, and say so."""
    axis.axvspan(left, right, color="0.5", alpha=0.12, linewidth=0)
    axis.annotate(
        "fewer than ten false positives",
        (left, 0.94),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        rotation=90,
        ha="left",
        va="top",
        fontsize=6,
        color="0.45",
    )


def draw_reliability(
    axis: "matplotlib.axes.Axes", tables: "Mapping[str, ReliabilityTable]", counts: "matplotlib.axes.Axes | None" = None
) -> None:
    """Frequency against forecast with the interval of each bin that has rows; and rows per bin on the axis `counts`."""
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=(0, (4, 3)), label="calibrated")
    for number, (label, t) in enumerate(tables.items()):
        full = t.n > 0
        bars = np.array([t.frequency - t.frequency_low, t.frequency_high - t.frequency])[:, full].clip(min=0)
        axis.errorbar(
            t.forecast[full], t.frequency[full], bars, fmt="o-", color=f"C{number}", linewidth=0.9, elinewidth=0.9, label=label
        )
        if counts is not None:
            edges = np.append(t.low, t.high[-1])
            counts.stairs(np.maximum(t.n, 0.5), edges, color=f"C{number}", baseline=0.5)
    axis.set_xlim(-0.01, 1.01)
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("share of positives")
    axis.legend(loc="upper left")
    if counts is not None:
        counts.set_yscale("log")
        counts.set_ylim(bottom=0.5)
        counts.set_ylabel("rows in the bin")
        counts.set_xlim(axis.get_xlim())
    (counts or axis).set_xlabel("forecast probability")


def draw_risk_coverage(axis: "matplotlib.axes.Axes", curves: "Mapping[str, RiskCoverage]", loss: str = "error rate") -> None:
    """Mean loss of the accepted rows against their share, and in grey what the best order of each loss would give."""
    for number, (label, c) in enumerate(curves.items()):
        axis.plot(c.coverage, c.risk, color=f"C{number}", label=f"{label}, AURC {c.aurc:.3f}")
    best = min(curves.values(), key=lambda c: float(c.best.mean()))
    axis.plot(best.coverage, best.best, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)), label="best order")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.25 * max(float(c.risk.max()) for c in curves.values()) or 1)
    axis.set_xlabel("coverage: share of rows accepted")
    axis.set_ylabel(f"{loss} of accepted rows")
    axis.legend(loc="upper left")


def draw_budget(axis: "matplotlib.axes.Axes", curve: "BudgetCurve") -> None:
    """Completeness and purity with their intervals against candidates per square degree."""
    for number, name in enumerate(("completeness", "purity")):
        low, high = getattr(curve, f"{name}_low"), getattr(curve, f"{name}_high")
        axis.fill_between(curve.candidates, low, high, color=f"C{number}", alpha=0.18, linewidth=0)
        axis.plot(curve.candidates, getattr(curve, name), color=f"C{number}", label=name)
    few = curve.candidates[curve.false_positives < 10]
    if len(few):
        _unmeasured(axis, curve.candidates[0], few[-1])
    axis.set_xscale("log")
    axis.set_xlim(curve.candidates[0], curve.candidates[-1])
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("candidates per square degree")
    axis.set_ylabel("share")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def draw_labelling_curves(axis: "matplotlib.axes.Axes", curves: "Mapping[str, LabellingCurve]", metric: str) -> None:
    """The mean metric over seeds against the number of labels, and one standard deviation around it."""
    for number, (label, c) in enumerate(curves.items()):
        axis.plot(c.labels, c.mean, color=f"C{number}", marker="o", label=label)
        if len(c.metric) > 1:
            spread = c.metric.std(axis=0, ddof=1)
            axis.fill_between(c.labels, c.mean - spread, c.mean + spread, color=f"C{number}", alpha=0.15, linewidth=0)
    axis.set_xlabel("labelled rows")
    axis.set_ylabel(metric)
    axis.legend(loc="best")
