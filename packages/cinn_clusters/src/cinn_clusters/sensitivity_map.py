"""The heat-map of a sensitivity matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from cinn_clusters.columns import INPUTS, TARGETS
from cinn_clusters.sensitivity import Sensitivity
from skyloom.plots import PAGE, panels

__all__ = ["sensitivity_map"]

FLOOR, CEILING = 1e-3, 10.0  # growth of the error in units of the best constant's, between which the scale runs


def sensitivity_map(table: Sensitivity, title: str, synthetic: bool) -> tuple[Any, dict[str, Any]]:
    """Growth of the relative error on a logarithmic scale, with its standard error; white and hatched at or below zero.

    Nothing is dropped: a cell that does not grow shows its number too.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    label = {column.name: column.label for column in INPUTS}
    figure, axis = panels(width=PAGE, height=0.42 * len(table.groups) + 1.3)
    shown = np.where(table.delta > 0, np.maximum(table.delta, FLOOR), np.nan)
    highest = float(np.nanmax(shown, initial=FLOOR))
    top = min(max(highest, 10 * FLOOR), CEILING)
    image = axis.imshow(shown, norm=LogNorm(FLOOR, top), cmap="viridis", aspect="auto")
    for g, d in np.ndindex(*table.delta.shape):
        value, error = float(table.delta[g, d]), float(table.error[g, d])
        dark = value > 0 and np.log(max(value, FLOOR) / FLOOR) / np.log(top / FLOOR) < 0.6
        axis.text(
            d,
            g,
            _with_error(value, error),
            ha="center",
            va="center",
            fontsize=6,
            color="w" if dark else "k",
        )
        if value <= 0:
            axis.add_patch(
                Rectangle((d - 0.5, g - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.85", linewidth=0, zorder=0.5)
            )
    names = [c.label.replace(" ", "\n") for c in TARGETS]
    axis.set_xticks(range(len(TARGETS)), [f"{n}\n(error {b:.2f})" for n, b in zip(names, table.base, strict=True)])
    axis.set_yticks(range(len(table.groups)), [label.get(name, name.capitalize()) for name in table.groups])
    axis.tick_params(axis="x", labelsize=6)
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title(f"Withheld from the {title}" + (" (synthetic clusters)" if synthetic else ""))
    extend = "max" if highest > top else "neither"
    figure.colorbar(image, ax=axis, label="Growth of the error\n[error of the best constant]", pad=0.01, extend=extend)
    return figure, {"delta": table.delta, "error": table.error}


def _with_error(value: float, error: float) -> str:
    """A growth and its standard error, as many digits as fit a cell.

    >>> _with_error(-0.0001, 0.002), _with_error(181_000.0, 67_000.0)
    ('0.000 ± 0.002', '2e+05 ± 7e+04')
    """
    if abs(value) >= 1000:
        return f"{value:.0e} ± {error:.0e}"
    return f"{value:.0f} ± {error:.0f}" if abs(value) >= 10 else f"{value:z.3f} ± {error:.3f}"
