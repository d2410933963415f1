"""Figures of an encoder of X-ray maps: what it was shown, and how mergers lie in what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinn_clusters.columns import LOOKBACK
from cinn_clusters.cosmology import AGE_TODAY
from skyloom.plots import PAGE, Figure, panels, save, style

__all__ = ["draw", "embedding_plane", "examples"]

Predictions = Mapping[str, NDArray[Any]]
RATIO = 4  # place of the mass ratio among the targets
SHOWN = 12


def draw(predictions: Predictions, about: Mapping[str, Any], directory: Path) -> list[Figure]:
    """Write the figures of a test split into `directory`."""
    rows = f"Synthetic X-ray-like maps, test split of {len(predictions['target'])} rows."
    drawn = {"maps": (examples, "Maps and their mergers", _MAPS), "plane": (embedding_plane, "The embedding's plane", _PLANE)}
    figures = []
    for name, (make, title, caption) in drawn.items():
        with style():
            figure, _ = make(predictions, about)
            figures.append(Figure(save(figure, directory / f"{name}.png"), title, f"{caption} {rows}"))
    return figures


_MAPS = (
    "Counts on a logarithmic scale, each map twice R500 wide, in order of the time since the last merger; mass ratios above "
    "0.2, where there are enough."
)
_PLANE = (
    "First two principal components of the embeddings, coloured by the time since the merger and by its mass ratio; the "
    "encoder saw neither."
)


def examples(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A dozen maps from the freshest merger to the oldest."""
    since = _since(p)
    grave = np.flatnonzero(p["target"][:, RATIO] > 0.2)
    among = grave if len(grave) >= SHOWN else np.arange(len(since))
    rows = among[np.argsort(since[among])][np.linspace(0, len(among) - 1, SHOWN).round().astype(int)]
    figure, axes = panels(2, SHOWN // 2, width=PAGE, height=2.9)
    for axis, row in zip(axes.flat, rows, strict=True):
        axis.imshow(np.log1p(p["map"][row]), cmap="magma", origin="lower")
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{since[row]:.2f} Gyr, ratio {p['target'][row, RATIO]:.2f}", fontsize=7)
    return figure, {"rows": rows, "since": since[rows]}


def embedding_plane(p: Predictions, about: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The first two principal components, in two colours."""
    x = torch.as_tensor(p["embedding"]).double()
    u, s, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    plane = (u[:, :2] * s[:2]).numpy()
    share = (s[:2] ** 2 / (s**2).sum()).tolist()
    figure, axes = panels(1, 2, width=PAGE, height=2.9, sharey=True)
    colours = {"Time since the merger [Gyr]": (_since(p), "viridis_r"), "Mass ratio": (p["target"][:, RATIO], "cividis")}
    for axis, (label, (values, colormap)) in zip(axes, colours.items(), strict=True):
        dots = axis.scatter(*plane.T, c=np.maximum(values, 0.02), cmap=colormap, norm="log", s=4, linewidths=0)
        bar = figure.colorbar(dots, ax=axis, label=label, ticks=[0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10], format="%g")
        bar.minorticks_off()
        axis.set_xlabel(f"First component ({share[0]:.0%} of variance)")
    axes[0].set_ylabel(f"Second component ({share[1]:.0%})")
    return figure, {"plane": plane, "share": share}


def _since(p: Predictions) -> NDArray[Any]:
    return AGE_TODAY - p["context"][:, LOOKBACK] - p["target"][:, 0]
