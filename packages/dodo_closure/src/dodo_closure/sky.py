"""A state on the sphere: where its lepton number crosses, before and after."""

from pathlib import Path
from typing import Any

import numpy as np

from skyloom.plots import PAGE, panels, save, style

__all__ = ["sky_maps"]


def _excess(F: np.ndarray, frame: Any, directions: np.ndarray) -> np.ndarray:
    """G per steradian of one state [2, 3, 4] along directions [K, 3] of a frame, from maximum-entropy distributions."""
    import torch

    from dodo_closure.fluxes import heavy_average
    from dodo_closure.minerbo import maximum_entropy

    closure = maximum_entropy(heavy_average(torch.tensor(np.array(F, dtype=float))[None]), 0.98)
    value = closure.along(torch.as_tensor(directions)[None] @ frame.transpose(1, 2))[0].numpy()
    return (value[0] - value[1]) - (value[2] - value[3])


def sky_maps(p: dict[str, np.ndarray], path: Path, row: int | None = None) -> int:
    """Mollweide maps of G of one test state, before, Box3D, predicted, true; returns the row: that of median Box3D error."""
    import torch

    from dodo_closure.conversion import crossing_frames
    from dodo_closure.fluxes import heavy_average
    from dodo_closure.minerbo import maximum_entropy

    error = np.abs(p["box"] - p["final"]).mean(axis=(1, 2, 3))
    row = int(np.argsort(error)[len(error) // 2]) if row is None else row
    moments = heavy_average(torch.tensor(np.array(p["initial"][row], dtype=float))[None])
    frame = crossing_frames(moments, maximum_entropy(moments, 0.98))
    longitude, latitude = np.meshgrid(np.linspace(-np.pi, np.pi, 121), np.linspace(-np.pi / 2, np.pi / 2, 61))
    grid = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1)
    titles = {"initial": "before", "box": "Box3D", "predicted": "Box3D + learned residual", "final": "truth"}
    maps = {column: _excess(p[column][row], frame, grid.reshape(-1, 3)).reshape(longitude.shape) for column in titles}
    top = max(np.abs(value).max() for value in maps.values())
    with style():
        figure, axes = panels(2, 2, width=PAGE, height=4.3, subplot_kw={"projection": "mollweide"})
        for axis, (column, title) in zip(axes.ravel(), titles.items(), strict=True):
            drawn = axis.pcolormesh(
                longitude, latitude, maps[column], cmap="RdBu_r", vmin=-top, vmax=top, shading="gouraud", rasterized=True
            )
            if maps[column].min() < 0 < maps[column].max():
                axis.contour(longitude, latitude, maps[column], [0.0], colors="black", linewidths=1.0)
            axis.set_title(title)
            axis.set_xticklabels([])
            axis.set_yticklabels([])
            axis.grid(alpha=0.4)
        figure.colorbar(drawn, ax=axes, shrink=0.7, label="G / N  [1/sr]")
        save(figure, path)
    return row
