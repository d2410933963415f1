"""Maps coloured by properties and classes. Axes mean nothing; limits are shared, the missing are grey and counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.pieces import (
    CLASS_COLOURS,
    MISSING,
    OTHER,
    About,
    colour_limits,
    place_of,
    point_size,
    scatter,
    wide,
)
from skyloom.plots import PAGE, panels, save

__all__ = ["by_bins", "by_class", "by_density", "by_property", "histograms", "outliers", "rows_of_panels"]

Predictions = Mapping[str, np.ndarray]


def by_property(
    predictions: Predictions,
    about: About,
    path: Path,
    name: str,
    percentiles: tuple[float, float] = (2.0, 98.0),
    embeddings: Sequence[str] | None = None,
    kind: str = "map",
) -> dict[str, Any]:
    """A panel per embedding; returns the colour limits and the counts of (coloured, grey) points per panel.

    Limits are pooled over all objects. A property without any value is drawn as plain points.
    """
    values = predictions[f"truth.{name}"] if f"truth.{name}" in predictions else np.full(about["objects"], np.nan)
    entry = next((e for e in about["properties"] if e["name"] == name), {"axis": name, "colours": "viridis"})
    limits = colour_limits(values, percentiles) if np.isfinite(values).any() else (0.0, 1.0)
    figure, _grid, cells = rows_of_panels(about, embeddings)
    points: dict[str, tuple[int, int]] = {}
    layer = None
    for axes, embedding in cells:
        xy, first, second = place_of(predictions, about, embedding, kind)
        layer, points[embedding] = scatter(axes, xy, values, limits, entry["colours"])
        axes.set(title=embedding, xlabel=first, ylabel=second, xticks=[], yticks=[])
    if np.isfinite(values).any() and layer is not None:
        shown = [axes for axes, _ in cells]
        colour_bar = figure.colorbar(layer, ax=shown, label=entry["axis"], extend="both", fraction=0.03, aspect=30)
        colour_bar.solids.set_alpha(1.0)
    save(figure, path)
    return {"limits": limits, "points": points}


def by_class(
    predictions: Predictions,
    about: About,
    path: Path,
    kind_of_class: str = "spectral type",
    embeddings: Sequence[str] | None = None,
) -> dict[str, dict[str, int]]:
    """Colours by class, with counts in the legend; returns embedding -> class -> points."""
    labels = predictions[f"class.{kind_of_class}"]
    figure, _, cells = rows_of_panels(about, embeddings)
    plotted: dict[str, dict[str, int]] = {}
    for axes, embedding in cells:
        xy, first, second = place_of(predictions, about, embedding)
        placed = np.isfinite(xy).all(axis=1)
        size = 1.2 * point_size(int(placed.sum()))
        names, counts = np.unique(labels[placed], return_counts=True)
        plotted[embedding] = dict(zip(names.tolist(), counts.tolist(), strict=True))
        for name in names[np.argsort(-counts)]:
            mine = placed & (labels == name)
            colour = MISSING if name == "" else CLASS_COLOURS.get(name, OTHER)
            word = f"{name or 'unknown'} ({mine.sum()})"
            axes.scatter(*xy[mine].T, s=size, c=colour, lw=0, alpha=0.7, label=word, rasterized=True)
        axes.legend(fontsize=5.5, markerscale=2.0, loc="best", handletextpad=0.2)
        axes.set(title=embedding, xlabel=first, ylabel=second, xticks=[], yticks=[])
    save(figure, path)
    return plotted


def by_bins(predictions: Predictions, about: About, path: Path, embedding: str) -> dict[str, int]:
    """Redshift in the bins 0, 0.5, 1, 1.5, 2 and beyond, one colour each."""
    z = predictions["truth.redshift"]
    edges = [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, np.inf)]
    figure, _, ((axes, _),) = rows_of_panels(about, [embedding])
    xy, first, second = place_of(predictions, about, embedding)
    placed = np.isfinite(xy).all(axis=1)
    import matplotlib

    counts = {}
    for k, (low, high) in enumerate(edges):
        mine = placed & (z >= low) & (z < high)
        word = f"{low:g} ≤ z < {high:g}" if np.isfinite(high) else f"z ≥ {low:g}"
        counts[word] = int(mine.sum())
        colour = matplotlib.colormaps["viridis"](k / (len(edges) - 1))
        axes.scatter(
            *xy[mine].T,
            s=point_size(int(placed.sum())),
            color=colour,
            lw=0,
            alpha=0.7,
            label=f"{word} ({mine.sum()})",
            rasterized=True,
        )
    axes.legend(fontsize=6, markerscale=2.5)
    axes.set(title=embedding, xlabel=first, ylabel=second, xticks=[], yticks=[])
    save(figure, path)
    return counts


def by_density(predictions: Predictions, about: About, path: Path, embedding: str) -> dict[str, np.ndarray]:
    """Points coloured by a Gaussian estimate of their density in the map."""
    from scipy.stats import gaussian_kde

    xy, first, second = place_of(predictions, about, embedding)
    placed = np.flatnonzero(np.isfinite(xy).all(axis=1))
    some = placed[:: max(len(placed) // 4000, 1)]
    density = gaussian_kde(xy[some].T)(xy[placed].T)
    figure, _, ((axes, _),) = rows_of_panels(about, [embedding])
    order = np.argsort(density)
    layer = axes.scatter(
        *xy[placed][order].T, s=point_size(len(placed)), c=density[order], cmap="viridis", lw=0, rasterized=True
    )
    figure.colorbar(layer, ax=axes, label="density in the map", fraction=0.05)
    axes.set(title=embedding, xlabel=first, ylabel=second, xticks=[], yticks=[])
    save(figure, path)
    return {"density": density}


def histograms(
    predictions: Predictions, about: About, path: Path, name: str = "redshift", bins: int = 50
) -> dict[str, np.ndarray]:
    """Counts, plain and cumulative."""
    values = predictions[f"truth.{name}"]
    values = values[np.isfinite(values)]
    label = next(e["axis"] for e in about["properties"] if e["name"] == name)
    figure, grid = panels(1, 2, width=PAGE, height=2.4, squeeze=False)
    counts, _, _ = grid[0, 0].hist(values, bins=bins, color="#4682B4")
    grid[0, 1].hist(values, bins=bins, cumulative=True, color="#4682B4")
    for axes, word in zip(grid[0], ("objects", "objects, cumulative"), strict=True):
        axes.set(xlabel=label, ylabel=word)
    save(figure, path)
    return {"counts": counts}


def outliers(predictions: Predictions, about: About, path: Path, method: str, share: float = 0.01) -> dict[str, np.ndarray]:
    """Every map with the highest `share` of a score: of its own embedding, and of the model's others."""
    figure, _, cells = rows_of_panels(about, None)
    plotted = {}
    for axes, embedding in cells:
        xy, first, second = place_of(predictions, about, embedding)
        placed = np.isfinite(xy).all(axis=1)
        axes.scatter(*xy[placed].T, s=0.6 * point_size(int(placed.sum())), c=MISSING, lw=0, alpha=0.4, rasterized=True)
        model = embedding.partition("/")[0]
        others = [n for n in about["embeddings"] if n.partition("/")[0] == model and n != embedding]
        for name, colour, mark, word in [*((o, "#E69F00", "+", "other") for o in others), (embedding, "#0072B2", "x", "own")]:
            score = predictions.get(f"outlier.{method}.{name}")
            if score is None:
                continue
            high = np.flatnonzero(placed & (score > 1 - share))
            label = f"own ({len(high)})" if word == "own" else "other modality" if name == others[0] else None
            axes.scatter(*xy[high].T, s=9, c=colour, marker=mark, lw=0.7, label=label)
            plotted[f"{embedding} {name}"] = high
        axes.legend(fontsize=5.5, loc="best")
        axes.set(title=embedding, xlabel=first, ylabel=second, xticks=[], yticks=[])
    save(figure, path)
    return plotted


def rows_of_panels(about: About, embeddings: Sequence[str] | None) -> tuple[Any, Any, list[tuple[Any, str]]]:
    """A panel for each of the embeddings: side by side, or (all of them) a row per model."""
    if embeddings is not None:
        grids = [list(embeddings)]
    else:
        models = list(dict.fromkeys(name.partition("/")[0] for name in about["embeddings"]))
        grids = [[name for name in about["embeddings"] if name.partition("/")[0] == model] for model in models]
    columns = max(len(row) for row in grids)
    height = 3.4 if columns == 1 else 2.7 if columns == 2 else 2.3
    figure, grid = panels(len(grids), columns, width=wide(columns), height=height * len(grids), squeeze=False)
    cells = []
    for line, row in zip(grid, grids, strict=True):
        for k, axes in enumerate(line):
            if k < len(row):
                cells.append((axes, row[k]))
            else:
                axes.set_axis_off()
    return figure, grid, cells
