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
from skyloom.plots.style import COLUMN, PAGE, PALETTE, Figure, panels, save, style

__all__ = [
    "COLUMN",
    "PAGE",
    "PALETTE",
    "Curve",
    "Figure",
    "band",
    "by_metric",
    "draw_bands",
    "draw_learning_curves",
    "draw_metric",
    "learning_curves",
    "panels",
    "save",
    "smoothed",
    "style",
]
