"""What the figures have in common: colours, and scatter plots with grey for the missing."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from skyloom.plots import PAGE, PALETTE, style

__all__ = [
    "CLASS_COLOURS",
    "MISSING",
    "MODALITY_COLOURS",
    "MODALITY_MARKS",
    "OTHER",
    "About",
    "bars",
    "canvas",
    "colour_limits",
    "label_of",
    "of",
    "place_of",
    "point_size",
    "property_axis",
    "scatter",
    "shown_pairs",
    "wide",
]  # fmt: skip

About = Mapping[str, Any]

MISSING = "#c4c4c4"
MODALITY_COLOURS = {"image": PALETTE[0], "spectrum": PALETTE[1], "fused": PALETTE[2]}
MODALITY_MARKS = {"image": "o", "spectrum": "s", "fused": "D"}
CLASS_COLOURS = {
    "GALAXY": "#1f77b4", "QSO": "#ff7f0e", "STAR": "#2ca02c", "star-forming": PALETTE[0], "passive": PALETTE[1],
}  # fmt: skip
OTHER = "#d62728"


@contextlib.contextmanager
def canvas(dpi: int = 160) -> Iterator[None]:
    """The style of the house, at the resolution that was asked for."""
    import matplotlib

    with style(), matplotlib.rc_context({"savefig.dpi": dpi}):
        yield


def of(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def label_of(about: About, name: str) -> str:
    """The property's label without its unit."""
    return next((e["axis"].partition(" [")[0] for e in about["properties"] if e["name"] == name), name)


def bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.maximum([value - low, high - value], 0.0))


def property_axis(row: Sequence[Any], about: About, names: Sequence[str]) -> None:
    """Properties down the left side of a row of panels."""
    row[0].set_yticks(np.arange(len(names))[::-1], [label_of(about, name) for name in names])
    row[0].set_ylim(-0.6, len(names) - 0.4)
    for axes in row:
        axes.tick_params(axis="y", length=0)


def shown_pairs(about: About, rows: Sequence[Mapping[str, Any]], most: int = 4) -> list[tuple[str, str]]:
    """Pairs of embeddings that fit side by side: all, or those of each model's fullest embedding."""
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    if len(pairs) > most:
        fullest = [pair for pair in pairs if set(pair) <= set(about["one_each"])]
        pairs = (fullest or pairs)[:most]
    return pairs


def place_of(predictions: Mapping[str, np.ndarray], about: About, name: str, kind: str = "map") -> tuple[np.ndarray, str, str]:
    """Coordinates [N, 2] of an embedding's map and its axes: the map if there is one, else principal components."""
    if f"{kind}.{name}" in predictions:
        method = next((m["method"] for m in about["maps"] if m["embedding"] == name and m["column"] == f"{kind}.{name}"), "map")
        word = {"umap": "UMAP", "tsne": "t-SNE", "pacmap": "PaCMAP", "pca": "PC"}.get(method, method)
        return predictions[f"{kind}.{name}"], f"{word} 1", f"{word} 2"
    share = about["explained"][name]
    second = share[1] if len(share) > 1 else 0.0
    return predictions[f"pca.{name}"][:, :2], f"PC 1 ({share[0]:.0%})", f"PC 2 ({second:.0%})"


def colour_limits(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of the known values.

    >>> colour_limits(np.array([np.nan, *range(101)]), (2, 98))
    (2.0, 98.0)
    """
    low, high = np.nanpercentile(values, percentiles)
    return float(low), float(high)


def scatter(
    axes: Any, xy: np.ndarray, values: np.ndarray, limits: tuple[float, float], colours: str
) -> tuple[Any, tuple[int, int]]:
    """Grey points under coloured ones; returns the coloured layer and how many there are of each (coloured, grey)."""
    placed = np.isfinite(xy).all(axis=1)
    known = placed & np.isfinite(values)
    grey = placed & ~known
    size = point_size(int(placed.sum()))
    axes.scatter(*xy[grey].T, s=0.6 * size, c=MISSING, lw=0, alpha=0.3, rasterized=True)
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))  # so that no value lies on top by the order of rows
    layer = axes.scatter(
        *xy[order].T, s=size, c=values[order], cmap=colours, vmin=limits[0], vmax=limits[1], lw=0, alpha=0.6, rasterized=True
    )
    if grey.any():
        text = f"no value: {grey.sum()}"
        axes.text(0.98, 0.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=6, color="0.4")
    return layer, (int(known.sum()), int(grey.sum()))


def point_size(points: int) -> float:
    """8 square points for a few thousand, less where they would cover each other."""
    return float(np.clip(20000 / max(points, 1), 0.6, 8.0))


def wide(columns: int) -> float:
    return PAGE if columns > 1 else 4.0
