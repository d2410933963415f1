"""How models and modalities compare: differences of what they know, likeness beside its null, gains of both together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.pieces import About, bars, of, property_axis, shown_pairs
from skyloom.plots import PAGE, PALETTE, panels, save

__all__ = ["cosine_histograms", "cosine_with_redshift", "differences", "joint", "retrieval", "same_neighbours", "similarities"]

MEASURES = {
    "cka_unbiased": "linear CKA\n(unbiased)", "svcca": "SVCCA", "procrustes": "best rotation\n(Procrustes)",
    "rsa": "ranks of\ndistances", "overlap": "shared\nneighbours", "mutual_knn": "mutual\nneighbours",
}  # fmt: skip


def differences(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """R2 of one model minus R2 of another, a panel per pair of embeddings; returns pair -> arrays."""
    return _per_pair(
        about, about["differences"], ("difference", "low", "high", "known"), "difference of $R^2$", "{} − {}", path
    )


def joint(
    predictions: Mapping[str, np.ndarray], about: About, path: Path, kind: str = "models"
) -> dict[str, dict[str, np.ndarray]]:
    """R2 of two embeddings side by side minus R2 of the better one, a panel per pair."""
    keys = ("gain", "gain_low", "gain_high", "known_gain")
    rows = of(about["joint"], kind=kind)
    return _per_pair(about, rows, keys, "gain in $R^2$ over the better", "{}\nwith {}", path)


def _per_pair(
    about: About, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], axis: str, title: str, path: Path
) -> dict[str, dict[str, np.ndarray]]:
    pairs = shown_pairs(about, rows)
    there = {row["property"] for row in rows}
    names = [entry["name"] for entry in about["properties"] if entry["name"] in there]
    figure, grid = panels(1, len(pairs), height=0.2 * len(names) + 1.1, width=PAGE, sharey=True, sharex=True, squeeze=False)
    plotted = {}
    for axes, (first, second) in zip(grid[0], pairs, strict=True):
        by_name = {row["property"]: row for row in of(rows, first=first, second=second)}
        value, low, high, known = (np.array([by_name[n][k] if n in by_name else np.nan for n in names]) for k in keys)
        y = np.arange(len(names))[::-1]
        axes.axvline(0.0, color="0.5", lw=0.8)
        axes.errorbar(value, y, xerr=bars(value, low, high), fmt="o", ms=3.2, elinewidth=1.0, color=PALETTE[0], zorder=3)
        axes.plot(known, y, "o", ms=6.5, mfc="none", mec=PALETTE[0], mew=0.8, zorder=4)
        axes.set_xlabel(axis)
        axes.set_title(title.format(first, second), fontsize=7)
        plotted[f"{first} ~ {second}"] = dict(zip(("value", "low", "high", "known"), (value, low, high, known), strict=True))
    property_axis(grid[0], about, names)
    save(figure, path)
    return plotted


def similarities(
    predictions: Mapping[str, np.ndarray], about: About, path: Path, kind: str = "models"
) -> dict[str, dict[str, np.ndarray]]:
    """Every measure beside its null, a panel per measure; returns measure -> arrays over pairs."""
    every = of(about["similarities"], kind=kind)
    pairs = list(dict.fromkeys(row["pair"] for row in every))
    figure, grid = panels(1, len(MEASURES), height=0.3 * len(pairs) + 1.3, width=PAGE, sharey=True, squeeze=False)
    plotted = {}
    for axes, (measure, title) in zip(grid[0], MEASURES.items(), strict=True):
        rows = {row["pair"]: row for row in of(every, measure=measure)}
        value, null, sd, known = (np.array([rows[p][k] for p in pairs]) for k in ("value", "null_mean", "null_sd", "known"))
        y = np.arange(len(pairs))[::-1]
        axes.errorbar(null, y, xerr=2 * sd, fmt="|", color="0.5", ms=8, mew=1.4, elinewidth=1.4, label="objects shuffled")
        axes.plot(value, y, "o", ms=4.0, color=PALETTE[0], zorder=3, label="same objects")
        if np.isfinite(known).any():
            axes.plot(known, y, "o", ms=7, mfc="none", mec=PALETTE[0], mew=0.9, zorder=4, label="closed form")
        top = 1.15 * max(float(np.nanmax([*value, *(null + 2 * sd), *known[np.isfinite(known)]])), 0.01)
        axes.set_xlim(-0.06 * min(top, 1.0), min(top, 1.03))
        axes.set_title(title, fontsize=7)
        axes.locator_params(axis="x", nbins=3)
        plotted[measure] = {"value": value, "null": null, "known": known}
    grid[0, 0].set_yticks(np.arange(len(pairs))[::-1], [p.replace(" ~ ", "\n") for p in pairs], fontsize=6)
    grid[0, 0].set_ylim(-0.6, len(pairs) - 0.4)
    for axes in grid[0]:
        axes.tick_params(axis="y", length=0)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    save(figure, path)
    return plotted


def retrieval(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, np.ndarray]:
    """Recall at 1, 10 and 100 from one modality to another, a panel each, with chance; returns `way k` -> values by route."""
    rows = about["retrieval"]
    at = [int(key.partition("_")[2]) for key in rows[0] if key.startswith("recall_")]
    routes = list(dict.fromkeys((row["from"], row["to"]) for row in rows))
    y = np.arange(len(routes))[::-1]
    figure, grid = panels(1, len(at), width=PAGE, height=0.19 * len(routes) + 1.1, sharey=True, squeeze=False)
    ways = {"mapped": ("o", PALETTE[0], "after a linear map"), "aligned": ("D", PALETTE[1], "as they are")}
    plotted = {}
    for axes, k in zip(grid[0], at, strict=True):
        for way, (mark, colour, word) in ways.items():
            found = {(row["from"], row["to"]): row[f"recall_{k}"] for row in of(rows, way=way)}
            plotted[f"{way} {k}"] = np.array([found.get(route, np.nan) for route in routes])
            axes.plot(plotted[f"{way} {k}"], y, mark, ms=3.5, mfc="none", color=colour, label=word)
        chance = {(row["from"], row["to"]): row[f"chance_{k}"] for row in rows}
        axes.plot([chance[route] for route in routes], y, "|", ms=8, mew=1.4, color="0.5", ls="", label="by chance")
        axes.set(xlabel=f"recall@{k}", xlim=(-0.03, 1.03))
    grid[0, 0].set_yticks(y, [f"{one} → {two}" for one, two in routes], fontsize=6)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    save(figure, path)
    return plotted


def cosine_histograms(
    predictions: Mapping[str, np.ndarray], about: About, path: Path, model: str | None = None
) -> dict[str, np.ndarray]:
    """Raw cosines of two vectors of one object (above), and centred ones beside pairs of different objects (below)."""
    rows = _cosine_rows(about, model)
    figure, grid = panels(2, len(rows), width=PAGE if len(rows) > 1 else 4.0, height=4.2, squeeze=False)
    plotted = {}
    for (above, below), row, colour in zip(grid.T, rows, ("#4682B4", "#3CB371", "#FF7F50") * 3, strict=False):
        raw, centred, other = (predictions[f"cosine.{kind}.{row['pair']}"] for kind in ("raw", "centred", "mismatched"))
        raw, centred, other = (v[np.isfinite(v)] for v in (raw, centred, other))
        above.hist(raw, bins=50, color=colour)
        above.axvline(raw.mean(), color="red", ls="--", lw=1, label=f"mean {raw.mean():.3f}")
        above.axvline(np.median(raw), color="orange", ls="--", lw=1, label=f"median {np.median(raw):.3f}")
        above.legend(fontsize=6)
        above.set_title(row["pair"].replace(" ~ ", "\n"), fontsize=6.5)
        above.set_xlabel("cosine, raw")
        low, high = np.quantile([*centred, *other], [0.001, 0.999])
        edges = np.linspace(float(low), float(high), 51)
        below.hist(other, bins=edges, color="0.7", label="other object")
        below.hist(centred, bins=edges, color=colour, histtype="step", lw=1.2, label=f"same object, AUC {row['auc']:.3f}")
        below.legend(fontsize=6)
        below.set_xlabel("cosine, centred")
        plotted[row["pair"]] = raw
    for axes in grid[:, 0]:
        axes.set_ylabel("objects")
    save(figure, path)
    return plotted


def cosine_with_redshift(
    predictions: Mapping[str, np.ndarray], about: About, path: Path, model: str | None = None
) -> dict[str, np.ndarray]:
    """Raw cosine against redshift, with its running mean over 5 percent of the objects."""
    rows = _cosine_rows(about, model)
    z = predictions["truth.redshift"]
    figure, grid = panels(1, len(rows), width=PAGE if len(rows) > 1 else 4.0, height=2.5, squeeze=False)
    plotted = {}
    for axes, row in zip(grid[0], rows, strict=True):
        cosine = predictions[f"cosine.raw.{row['pair']}"]
        use = np.flatnonzero(np.isfinite(cosine) & np.isfinite(z))
        use = use[np.argsort(z[use], kind="stable")]
        window = max(int(0.05 * len(use)) // 2 * 2 + 1, 5)
        if len(use) <= window:
            axes.set_axis_off()
            continue
        axes.scatter(z[use], cosine[use], s=2, c=z[use], cmap="magma", lw=0, alpha=0.5, rasterized=True)
        mean = np.convolve(cosine[use], np.ones(window) / window, "valid")
        middle = z[use][window // 2 : window // 2 + len(mean)]
        axes.plot(middle, mean, color="k", lw=1.2, label=f"running mean of {window}")
        axes.legend(fontsize=6)
        axes.set(xlabel="redshift", ylabel="cosine, raw")
        axes.set_title(row["pair"].replace(" ~ ", "\n"), fontsize=6.5)
        plotted[row["pair"]] = mean
    save(figure, path)
    return plotted


def same_neighbours(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, np.ndarray]:
    """Do two embeddings give an object the same nearest neighbour? Bars of same and different; marks: shared
    among ten, chance."""
    rows = about["nearest"][:8]
    figure, grid = panels(1, 1, width=PAGE, height=2.6, squeeze=False)
    axes = grid[0, 0]
    x = np.arange(len(rows))
    same, overlap, chance = (np.array([row[key] for row in rows]) for key in ("same_nearest", "overlap", "chance"))
    axes.bar(x - 0.2, same, 0.4, color=PALETTE[0], label="same nearest neighbour")
    axes.bar(x + 0.2, 1 - same, 0.4, color="0.8", label="different")
    axes.plot(x, overlap, "D", ms=4, color=PALETTE[1], label="neighbours in common", ls="")
    axes.plot(x, chance, "_", ms=10, mew=1.5, color="k", label="by chance", ls="")
    axes.set_xticks(x, [f"{row['first']}\n{row['second']}" for row in rows], fontsize=6)
    axes.set(ylabel="share", ylim=(0, 1.05))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, path)
    return {"same": same, "overlap": overlap, "chance": chance}


def _cosine_rows(about: About, model: str | None) -> list[Mapping[str, Any]]:
    """Pairs of modalities of one model; with None, pairs of different models."""
    models = {row["pair"]: {name.partition("/")[0] for name in (row["first"], row["second"])} for row in about["cosines"]}
    if model is None:
        return [row for row in about["cosines"] if len(models[row["pair"]]) > 1][:4]
    return [row for row in about["cosines"] if models[row["pair"]] == {model}][:4]
