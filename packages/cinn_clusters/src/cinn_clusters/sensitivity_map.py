"""The heat-map of a sensitivity matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from cinn_clusters.columns import INPUTS, TARGETS
from cinn_clusters.sensitivity import Sensitivity
from skyloom.plots import PAGE, panels

__all__ = ["sensitivity_map"]

FLOOR = 1e-3  # growth of the error in units of the best constant's, below which the scale stops


def sensitivity_map(table: Sensitivity, title: str, synthetic: bool) -> tuple[Any, dict[str, Any]]:
    """Growth of the relative error on a logarithmic scale, with its standard error; white and hatched at or below zero.

    Nothing is dropped: a cell that does not grow shows its number too.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    label = {column.name: column.label for column in INPUTS}
    figure, axis = panels(width=PAGE, height=0.42 * len(table.groups) + 1.3)
    shown = np.where(table.delta > 0, np.maximum(table.delta, FLOOR), np.nan)
    top = max(float(np.nanmax(shown, initial=FLOOR)), 10 * FLOOR)
    image = axis.imshow(shown, norm=LogNorm(FLOOR, top), cmap="viridis", aspect="auto")
    for g, d in np.ndindex(*table.delta.shape):
        value, error = float(table.delta[g, d]), float(table.error[g, d])
        dark = value > 0 and np.log(max(value, FLOOR) / FLOOR) / np.log(top / FLOOR) < 0.6
        axis.text(
            d,
            g,
            f"{value:.3f} ± {error:.3f}" if abs(value) < 10 else f"{value:.0f} ± {error:.0f}",
            ha="center",
            va="center",
            fontsize=6,
            color="w" if dark else "k",
        )
        if value <= 0:
            axis.add_patch(
                Rectangle((d - 0.5, g - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.85", linewidth=0, zorder=0.5)
            )
    axis.set_xticks(range(len(TARGETS)), [f"{c.label}\n(error {b:.2f})" for c, b in zip(TARGETS, table.base, strict=True)])
    axis.set_yticks(range(len(table.groups)), [label.get(name, name.capitalize()) for name in table.groups])
    axis.tick_params(axis="x", labelsize=6)
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title(f"Withheld from the {title}" + (" (synthetic clusters)" if synthetic else ""))
    figure.colorbar(image, ax=axis, label="Growth of the error\n[error of the best constant]", pad=0.01)
    return figure, {"delta": table.delta, "error": table.error}
