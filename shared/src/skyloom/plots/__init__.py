"""Figures that several packages draw, in one style. Importable without torch, and without choosing a backend.

>>> from skyloom.plots import panels, style
>>> with style():
...     figure, axes = panels()
...     _ = axes.plot([0, 1], [0, 1])
>>> figure.dpi
160.0
"""

from skyloom.plots.curves import (
    Curve,
    band,
    by_metric,
    draw_bands,
    draw_learning_curves,
    draw_metric,
    learning_curves,
    smoothed,
)
from skyloom.plots.scores import draw_budget, draw_labelling_curves, draw_reliability, draw_risk_coverage, draw_roc
from skyloom.plots.style import COLUMN, PAGE, PALETTE, Figure, labelled, panels, save, style

__all__ = [
    "COLUMN",
    "PAGE",
    "PALETTE",
    "Curve",
    "Figure",
    "band",
    "by_metric",
    "draw_bands",
    "draw_budget",
    "draw_labelling_curves",
    "draw_learning_curves",
    "draw_metric",
    "draw_reliability",
    "draw_risk_coverage",
    "draw_roc",
    "labelled",
    "learning_curves",
    "panels",
    "save",
    "smoothed",
    "style",
]
