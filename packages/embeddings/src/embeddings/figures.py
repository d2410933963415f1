"""Figures, from what a run has saved: held-out predictions, projections and the tables in their metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.plots import PAGE, PALETTE, Figure, panels, save, style

__all__ = ["colour_limits", "differences", "draw", "probes", "projections", "similarities"]

MISSING = "#b8b8b8"
MODALITY_COLOURS = {"image": PALETTE[0], "spectrum": PALETTE[1], "fused": PALETTE[2]}
MODALITY_MARKS = {"image": "o", "spectrum": "s", "fused": "D"}

About = Mapping[str, Any]


def draw(
    predictions: Mapping[str, np.ndarray],
    about: About,
    directory: Path,
    maps: int | Sequence[str] | None = None,
    percentiles: tuple[float, float] = (2.0, 98.0),
) -> list[Figure]:
    """All figures of a run. `maps`: properties that colour projections, by name, or so many of them, or all where None."""
    every = [entry["name"] for entry in about["properties"]]
    mapped = every if maps is None else every[:maps] if isinstance(maps, int) else list(maps)
    synthetic = " Synthetic data." if about["synthetic"] else ""
    known = " Open marks: the best possible linear prediction, in closed form." if _has_known(about) else ""
    drawn = [
        Figure(
            directory / "probes.png",
            "What is encoded",
            "Coefficient of determination of held-out linear (filled) and nearest-neighbour (crosses) predictions of each "
            f"property, over {about['objects']} objects in {about['cells']} sky cells, with 95% intervals from resampling "
            f"cells. Grey band: the most that shuffled properties reach.{known}{synthetic}",
        )
    ]
    probes(about, drawn[0].path)
    if about["differences"]:
        path = directory / "model_differences.png"
        differences(about, path)
        text = (
            "Difference of the linear probes' coefficients of determination on the objects that both models have, with paired "
            f"95% intervals. Right of zero the first model knows more.{known}{synthetic}"
        )
        drawn.append(Figure(path, "Which model knows it better", text))
    if about["similarities"]:
        path = directory / "model_similarity.png"
        similarities(about, path)
        text = (
            "Likeness of two models' embeddings of the same objects by measures that do not depend on axes. Grey: mean and two "
            "standard deviations where the objects of one are shuffled."
            f"{' Open circles: closed form.' if known else ''}{synthetic}"
        )
        drawn.append(Figure(path, "How alike the models are", text))
    for entry in about["properties"]:
        if entry["name"] in mapped:
            path = directory / f"pca_{entry['name']}.png"
            projections(predictions, about, entry, path, percentiles)
            text = (
                "First two principal components of each embedding (share of variance on the axes). Colours share one scale, "
                f"from percentile {percentiles[0]:g} to {percentiles[1]:g}. Grey: no value. Axes of different "
                f"panels are unrelated; how well a property is encoded is read from the probes.{synthetic}"
            )
            drawn.append(Figure(path, f"Projection by {entry['name'].replace('_', ' ')}", text))
    return drawn


def probes(about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """R2 per property, a panel per model; returns embedding -> arrays in the order of the properties."""
    names = [entry["name"] for entry in about["properties"]]
    models = list(dict.fromkeys(name.partition("/")[0] for name in about["embeddings"]))
    plotted: dict[str, dict[str, np.ndarray]] = {}
    with style():
        figure, grid = panels(1, len(models), height=0.34 * len(names) + 1.1, **_side_by_side())
        for axes, model in zip(grid[0], models, strict=True):
            own = [name for name in about["embeddings"] if name.partition("/")[0] == model]
            for place, name in enumerate(own):
                shift = 0.5 - (place + 0.5) / len(own)
                plotted[name] = _draw_probe(axes, about, name, names, 0.7 * shift, PALETTE[place % len(PALETTE)])
            _draw_null(axes, about, model)
            axes.set(xlabel="held-out $R^2$", title=model, xlim=(min(-0.04, *(_lowest(p) for p in plotted.values())), 1.0))
        _property_axis(grid[0], about)
        _legend(figure, grid[0], about)
        _finish(figure, about, path)
    return plotted


def _draw_probe(axes: Any, about: About, name: str, names: list[str], shift: float, colour: str) -> dict[str, np.ndarray]:
    modality = name.partition("/")[2]
    colour, mark = MODALITY_COLOURS.get(modality, colour), MODALITY_MARKS.get(modality, "o")
    ridge, knn = (_of(about["probes"], embedding=name, probe=kind) for kind in ("ridge", "knn"))
    by_name = {row["property"]: row for row in ridge}
    r2, low, high, known = (np.array([by_name[n][k] for n in names]) for k in ("r2", "r2_low", "r2_high", "known_r2"))
    nearest = np.array([{row["property"]: row["r2"] for row in knn}.get(n, np.nan) for n in names])
    y = np.arange(len(names))[::-1] + shift
    axes.errorbar(r2, y, xerr=_bars(r2, low, high), fmt=mark, ms=3.2, color=colour, elinewidth=1.0, label=modality, zorder=3)
    axes.plot(nearest, y, "x", ms=3.6, mew=0.9, color=colour, alpha=0.75, zorder=2)
    axes.plot(known, y, mark, ms=6.5, mfc="none", mec=colour, mew=0.8, zorder=4)
    return {"r2": r2, "low": low, "high": high, "known": known, "knn": nearest, "y": y}


def _draw_null(axes: Any, about: About, model: str) -> None:
    null = max((abs(row["null_r2"]) for row in _of(about["probes"], model=model, probe="ridge")), default=0.0)
    axes.axvspan(-null, null, color="0.6", lw=0, alpha=0.5, zorder=1)
    axes.axvline(0.0, color="0.5", lw=0.8, zorder=1)


def differences(about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """R2 of one model minus R2 of another, a panel per pair of embeddings; returns pair -> arrays."""
    names = [entry["name"] for entry in about["properties"]]
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in about["differences"]))
    plotted = {}
    with style():
        figure, grid = panels(1, len(pairs), height=0.26 * len(names) + 1.0, **_side_by_side())
        for axes, (first, second) in zip(grid[0], pairs, strict=True):
            rows = {row["property"]: row for row in _of(about["differences"], first=first, second=second)}
            value, low, high, known = (np.array([rows[n][k] for n in names]) for k in ("difference", "low", "high", "known"))
            y = np.arange(len(names))[::-1]
            axes.axvline(0.0, color="0.5", lw=0.8)
            axes.errorbar(value, y, xerr=_bars(value, low, high), fmt="o", ms=3.2, elinewidth=1.0, color=PALETTE[0], zorder=3)
            axes.plot(known, y, "o", ms=6.5, mfc="none", mec=PALETTE[0], mew=0.8, zorder=4)
            axes.set(xlabel="difference of $R^2$", title=f"{first} − {second}")
            plotted[f"{first} ~ {second}"] = {"difference": value, "low": low, "high": high, "known": known}
        _property_axis(grid[0], about)
        _finish(figure, about, path)
    return plotted


def similarities(about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """CKA and neighbour overlap beside their nulls, a panel per measure; returns measure -> arrays over pairs."""
    titles = {"cka_unbiased": "linear CKA (unbiased)", "overlap": "shared nearest neighbours"}
    pairs = list(dict.fromkeys(row["pair"] for row in about["similarities"]))
    plotted = {}
    with style():
        figure, grid = panels(1, len(titles), height=0.34 * len(pairs) + 1.1, width=PAGE, sharey=True, squeeze=False)
        for axes, (measure, title) in zip(grid[0], titles.items(), strict=True):
            rows = {row["pair"]: row for row in _of(about["similarities"], measure=measure)}
            value, null, sd, known = (np.array([rows[p][k] for p in pairs]) for k in ("value", "null_mean", "null_sd", "known"))
            y = np.arange(len(pairs))[::-1]
            axes.errorbar(null, y, xerr=2 * sd, fmt="|", color="0.5", ms=8, mew=1.4, elinewidth=1.4, label="objects shuffled")
            axes.plot(value, y, "o", ms=4.5, color=PALETTE[0], zorder=3, label="same objects")
            if np.isfinite(known).any():
                axes.plot(known, y, "o", ms=8, mfc="none", mec=PALETTE[0], mew=0.9, zorder=4, label="closed form")
            axes.set(xlabel=title, xlim=(-0.03, 1.03) if measure != "overlap" else (-0.03 * value.max(), 1.1 * value.max()))
            plotted[measure] = {"value": value, "null": null, "known": known}
        grid[0, 0].set_yticks(np.arange(len(pairs))[::-1], pairs)
        grid[0, 0].set_ylim(-0.6, len(pairs) - 0.4)
        for axes in grid[0]:
            axes.tick_params(axis="y", length=0)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        _finish(figure, about, path)
    return plotted


def projections(
    predictions: Mapping[str, np.ndarray], about: About, entry: Mapping[str, str], path: Path, percentiles: tuple[float, float]
) -> dict[str, Any]:
    """Principal components coloured by a property, a row per model; returns colour limits and counts of points per panel."""
    values = predictions[f"truth.{entry['name']}"]
    low, high = colour_limits(values, percentiles)
    models = list(dict.fromkeys(name.partition("/")[0] for name in about["embeddings"]))
    modalities = list(dict.fromkeys(name.partition("/")[2] for name in about["embeddings"]))
    points: dict[str, tuple[int, int]] = {}
    with style():
        figure, grid = panels(
            len(models), len(modalities), width=PAGE if len(modalities) > 1 else 4.0,
            height=len(models) * (2.3 if len(modalities) > 1 else 3.2), squeeze=False,
        )  # fmt: skip
        shown = None
        for axes, (model, modality) in zip(grid.flat, [(a, b) for a in models for b in modalities], strict=True):
            name = f"{model}/{modality}"
            if name not in about["embeddings"]:
                axes.set_axis_off()
                continue
            shown, points[name] = _scatter(axes, predictions[f"pca.{name}"], values, (low, high), entry["colours"])
            share = about["explained"][name]
            axes.set(title=name, xlabel=f"PC 1 ({share[0]:.0%})", ylabel=f"PC 2 ({share[1]:.0%})")
            axes.set(xticks=[], yticks=[])
        assert shown is not None  # there is at least one embedding
        figure.colorbar(shown, ax=grid, label=entry["axis"], extend="both", fraction=0.03, aspect=40)
        _finish(figure, about, path)
    return {"limits": (low, high), "points": points}


def _scatter(
    axes: Any, xy: np.ndarray, values: np.ndarray, limits: tuple[float, float], colours: str
) -> tuple[Any, tuple[int, int]]:
    """Grey points under coloured ones; returns the coloured layer and how many there are of each (coloured, grey)."""
    placed = np.isfinite(xy).all(axis=1)
    known = placed & np.isfinite(values)
    grey = placed & ~known
    size = float(np.clip(20000 / max(placed.sum(), 1), 0.6, 8.0))
    label = f"no value: {grey.sum()}"
    axes.scatter(*xy[grey].T, s=size, c=MISSING, lw=0, alpha=0.5, rasterized=True, label=label)
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))  # so that no value lies on top by the order of rows
    layer = axes.scatter(
        *xy[order].T, s=size, c=values[order], cmap=colours, vmin=limits[0], vmax=limits[1], lw=0, alpha=0.8, rasterized=True
    )
    if grey.any():
        axes.text(0.98, 0.02, label, transform=axes.transAxes, ha="right", va="bottom", fontsize=6, color="0.4")
    return layer, (int(known.sum()), int(grey.sum()))


def colour_limits(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of the known values.

    >>> colour_limits(np.array([np.nan, *range(101)]), (2, 98))
    (2.0, 98.0)
    """
    low, high = np.nanpercentile(values, percentiles)
    return float(low), float(high)


# ----------------------------------------------------------------------------------------------------------------- pieces


def _of(rows: Sequence[Mapping[str, Any]], **wanted: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _has_known(about: About) -> bool:
    return any(np.isfinite(row["known_r2"]) for row in about["probes"])


def _bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.maximum([value - low, high - value], 0.0))


def _lowest(arrays: Mapping[str, np.ndarray]) -> float:
    return float(np.nanmin(np.concatenate([arrays["low"], arrays["knn"], arrays["r2"]]))) - 0.02


def _side_by_side() -> dict[str, Any]:
    return {"width": PAGE, "sharey": True, "sharex": True, "squeeze": False}


def _property_axis(row: Sequence[Any], about: About) -> None:
    labels = [entry["axis"].partition(" [")[0] for entry in about["properties"]]
    row[0].set_yticks(np.arange(len(labels))[::-1], labels)
    row[0].set_ylim(-0.6, len(labels) - 0.4)
    for axes in row:
        axes.tick_params(axis="y", length=0)


def _legend(figure: Any, row: Sequence[Any], about: About) -> None:
    """Modalities by colour, and what the marks are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    plain: dict[str, Any] = {"color": "0.4", "ls": ""}
    found["nearest neighbours"] = Line2D([], [], marker="x", ms=3.6, mew=0.9, **plain)
    if _has_known(about):
        found["best linear, closed form"] = Line2D([], [], marker="o", ms=6.5, mfc="none", mew=0.8, **plain)
    found["shuffled properties"] = Patch(color="0.6", alpha=0.5, lw=0)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found), columnspacing=1.2)


def _finish(figure: Any, about: About, path: Path) -> None:
    if about["synthetic"]:
        figure.suptitle("synthetic data", x=0.995, ha="right", fontsize=6, color="0.4")
    save(figure, path)
