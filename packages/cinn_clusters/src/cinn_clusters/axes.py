"""Axes of the targets: logarithmic where the column is, with plain numbers for ticks, and limits that hold every value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cinn_clusters.columns import Column

__all__ = ["limits", "plain_log_ticks", "scale"]


def scale(axis: Any, column: Column, ends: Sequence[float], both: bool = False) -> None:
    """The column's scale and limits on the horizontal axis, or on both."""
    if column.logarithmic:
        axis.set_xscale("log")
        plain_log_ticks(axis.xaxis)
        if both:
            axis.set_yscale("log")
            plain_log_ticks(axis.yaxis)
    axis.set_xlim(*ends)
    if both:
        axis.set_ylim(*ends)


def plain_log_ticks(axis: Any) -> None:
    """0.3, 1, 3 rather than powers of ten: the ranges span one or two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def limits(values: np.ndarray, column: Column) -> tuple[float, float]:
    """A little wider than the values."""
    if column.logarithmic:
        return float(values.min() / 1.1), float(values.max() * 1.1)
    margin = 0.04 * float(np.ptp(values))
    return float(values.min()) - margin, float(values.max()) + margin
