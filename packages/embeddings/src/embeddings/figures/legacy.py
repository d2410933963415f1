"""Figures as earlier work drew them, each with its null and with words on what it does not show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.pieces import About, colour_limits, label_of, of, scatter
from embeddings.probes.legacy import null_level
from skyloom.plots import PAGE, PALETTE, panels, save

__all__ = ["axis_bars", "component_heatmap", "components_panel", "dimension_bars", "downstream"]

Predictions = Mapping[str, np.ndarray]


def axis_bars(predictions: Predictions, about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """|rho| of properties with the axes of each model's map; marks: the largest over all directions in the map."""
    return _bars(about, about["axes"], "rho", "rotation_free", "any direction", r"max $|\rho|$ with an axis of the map", path)


def dimension_bars(predictions: Predictions, about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The largest |rho| over single dimensions of each model's embedding."""
    return _bars(about, about["dimensions"], "rho", None, "", r"max $|\rho|$ over single dimensions", path)


def _bars(
    about: About, rows: Sequence[Mapping[str, Any]], key: str, mark: str | None, word: str, axis: str, path: Path
) -> dict[str, dict[str, np.ndarray]]:
    embeddings = [name for name in about["one_each"] if of(rows, embedding=name)]
    names = [e["name"] for e in about["properties"] if of(rows, property=e["name"])]
    figure, grid = panels(1, 1, width=PAGE, height=3.6, squeeze=False)
    axes = grid[0, 0]
    width, plotted = 0.75 / max(len(embeddings), 1), {}
    for k, embedding in enumerate(embeddings):
        found = {row["property"]: row for row in of(rows, embedding=embedding)}
        value, null = (np.array([found[n][which] if n in found else np.nan for n in names]) for which in (key, "null"))
        x = np.arange(len(names)) + (k - (len(embeddings) - 1) / 2) * width
        axes.bar(x, value, width, color=PALETTE[k % len(PALETTE)], label=embedding)
        axes.hlines(null, x - width / 2, x + width / 2, color="k", lw=1.0, label="level of noise" if k == 0 else None)
        plotted[embedding] = {"value": value, "null": null}
        if mark:
            free = np.array([found[n][mark] if n in found else np.nan for n in names])
            axes.plot(x, free, "v", ms=3, color="k", mfc="w", mew=0.7, ls="", label=word if k == 0 else None)
            plotted[embedding][mark] = free
    axes.set_xticks(range(len(names)), [label_of(about, n) for n in names], rotation=55, ha="right", fontsize=6.5)
    axes.set_ylabel(axis)
    top = max(float(np.nanmax([v for p in plotted.values() for one in p.values() for v in one])), 0.05)
    axes.set_ylim(0, 1.1 * top)
    axes.legend(fontsize=6.5, ncols=2)
    save(figure, path)
    return plotted


def component_heatmap(predictions: Predictions, about: About, path: Path, embedding: str) -> np.ndarray:
    """Pearson r of the principal components 1 to 10, and of the length along them, with every property;
    numbers in the cells."""
    names = [e["name"] for e in about["properties"]]
    components = predictions[f"pca.{embedding}"]
    axes_of = {f"PC{k + 1}": components[:, k] for k in range(components.shape[1])}
    axes_of["length"] = np.linalg.norm(components, axis=1)
    table = np.array([[_pearson(a, predictions[f"truth.{n}"]) for n in names] for a in axes_of.values()])
    known = min(int(np.isfinite(predictions[f"truth.{n}"]).sum()) for n in names)
    figure, grid = panels(1, 1, width=PAGE, height=3.8, squeeze=False)
    axes = grid[0, 0]
    layer = axes.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=4.8, color="w" if abs(value) > 0.6 else "k")
    axes.set_xticks(range(len(names)), [label_of(about, n) for n in names], rotation=55, ha="right", fontsize=6)
    axes.set_yticks(range(len(axes_of)), list(axes_of))
    axes.set_title(f"{embedding}: Pearson r (noise: {null_level(1, known):.2f})", fontsize=7)
    axes.grid(visible=False)
    figure.colorbar(layer, ax=axes, fraction=0.03)
    save(figure, path)
    return table


def components_panel(predictions: Predictions, about: About, path: Path, embedding: str) -> dict[str, Any]:
    """Principal components plain, by redshift and by mass; length along them, redshifts and masses as histograms."""
    components = predictions[f"pca.{embedding}"]
    xy = components[:, :2]
    placed = np.isfinite(xy).all(axis=1)
    z, mass = (predictions.get(f"truth.{n}", np.full(len(xy), np.nan)) for n in ("redshift", "log_mass"))
    figure, grid = panels(2, 3, width=PAGE, height=4.6, squeeze=False)
    grid[0, 0].scatter(*xy[placed].T, s=1.5, c=PALETTE[0], lw=0, alpha=0.4, rasterized=True)
    for axes, values, colours, label in (
        (grid[0, 1], z, "viridis", "redshift"),
        (grid[0, 2], mass, "plasma", "log stellar mass"),
    ):
        if np.isfinite(values).any():
            layer, _ = scatter(axes, xy, values, colour_limits(values, (2, 98)), colours)
            solids = figure.colorbar(layer, ax=axes, label=label, fraction=0.05).solids
            if solids is not None:
                solids.set_alpha(1.0)
    for axes in grid[0]:
        axes.set(xlabel="PC 1", ylabel="PC 2", xticks=[], yticks=[])
    length = np.linalg.norm(components[placed], axis=1)
    words = (f"length along PC 1 to {components.shape[1]}", "redshift", r"log stellar mass [$M_\odot$]")
    for axes, values, label in zip(grid[1], (length, z[np.isfinite(z)], mass[np.isfinite(mass)]), words, strict=True):
        axes.hist(values, bins=50, color="#4682B4")
        axes.set(xlabel=label, ylabel="objects")
    figure.suptitle(embedding, fontsize=8)
    save(figure, path)
    return {"length": length}


def downstream(predictions: Predictions, about: About, path: Path, embedding: str) -> dict[str, float]:
    """Held-out linear predictions against truth, for redshift and stellar mass."""
    wanted = [n for n in ("redshift", "log_mass") if f"ridge.{embedding}.{n}" in predictions]
    figure, grid = panels(1, max(len(wanted), 1), width=PAGE if len(wanted) > 1 else 4.0, height=3.3, squeeze=False)
    scores = {}
    for axes, name in zip(grid[0], wanted, strict=False):
        truth, found = predictions[f"truth.{name}"], predictions[f"ridge.{embedding}.{name}"]
        use = np.isfinite(truth) & np.isfinite(found)
        (row,) = of(about["probes"], embedding=embedding, property=name, probe="ridge")
        rmse = float(np.sqrt(((truth - found)[use] ** 2).mean()))
        low, high = np.quantile(np.concatenate([truth[use], found[use]]), [0.001, 0.999])
        axes.scatter(truth[use], found[use], s=2, lw=0, alpha=0.4, color=PALETTE[0], rasterized=True)
        axes.plot([low, high], [low, high], "--", color="k", lw=0.9)
        label = next(e["axis"] for e in about["properties"] if e["name"] == name)
        axes.set(xlabel=label, ylabel="held-out prediction", xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_title(f"$R^2$ = {row['r2']:.3f}, RMSE = {rmse:.3f}", fontsize=7)
        scores[name] = row["r2"]
    figure.suptitle(embedding, fontsize=8)
    save(figure, path)
    return scores


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    use = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[use], b[use])[0, 1]) if use.sum() > 2 and a[use].std() > 0 and b[use].std() > 0 else float("nan")
