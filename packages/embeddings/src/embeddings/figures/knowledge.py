"""What is encoded: probes with their nulls, what is left beyond nuisances, how many labels it takes, how
classes stand apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.anchors import anchors_of
from embeddings.figures.pieces import MODALITY_COLOURS, MODALITY_MARKS, About, bars, label_of, of, property_axis
from skyloom.plots import PAGE, PALETTE, panels, save

__all__ = ["classes", "has_known", "labels", "partial", "probes"]

OTHER_MARKS = {"knn": "x", "mlp": "+", "trees": "^"}
OTHER_WORDS = {"knn": "nearest neighbours", "mlp": "network", "trees": "boosted trees"}


def probes(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """R2 per property, a panel per model; returns embedding -> arrays in the order of the properties."""
    names = _probed(about, about["probes"])
    models = list(dict.fromkeys(name.partition("/")[0] for name in about["mean_r2"]))
    plotted: dict[str, dict[str, np.ndarray]] = {}
    figure, grid = panels(1, len(models), height=0.32 * len(names) + 1.3, width=PAGE, sharey=True, sharex=True, squeeze=False)
    for axes, model in zip(grid[0], models, strict=True):
        own = [name for name in about["mean_r2"] if name.partition("/")[0] == model]
        for place, name in enumerate(own):
            shift = 0.5 - (place + 0.5) / len(own)
            plotted[name] = _draw_probe(axes, about, name, names, 0.75 * shift, PALETTE[place % len(PALETTE)])
        _draw_null(axes, about, model)
        lowest = min(-0.04, *(float(np.nanmin([*p["low"], *p["knn"], *p["r2"]])) - 0.02 for p in plotted.values()))
        axes.set(xlabel="held-out $R^2$", title=model, xlim=(max(lowest, -0.3), 1.02))
        for k in range(len(names) - 1):
            axes.axhline(k + 0.5, color="0.9", lw=0.5, zorder=0)
        axes.grid(visible=False, axis="y")
    property_axis(grid[0], about, names)
    _legend(figure, grid[0], about)
    save(figure, path)
    return plotted


def _draw_probe(axes: Any, about: About, name: str, names: list[str], shift: float, colour: str) -> dict[str, np.ndarray]:
    model, _, modality = name.partition("/")
    colour, mark = MODALITY_COLOURS.get(modality, colour), MODALITY_MARKS.get(modality, "o")
    rows = {row["property"]: row for row in of(about["probes"], embedding=name, probe="ridge")}
    r2, low, high, known = (
        np.array([rows[n][k] if n in rows else np.nan for n in names]) for k in ("r2", "r2_low", "r2_high", "known_r2")
    )
    y = np.arange(len(names))[::-1] + shift
    axes.errorbar(r2, y, xerr=bars(r2, low, high), fmt=mark, ms=3.0, color=colour, elinewidth=1.0, label=modality, zorder=3)
    axes.plot(known, y, mark, ms=6.0, mfc="none", mec=colour, mew=0.7, zorder=4)
    others = {}
    for kind, other in OTHER_MARKS.items():
        found = {row["property"]: row["r2"] for row in of(about["probes"], embedding=name, probe=kind)}
        others[kind] = np.array([found.get(n, np.nan) for n in names])
        axes.plot(others[kind], y, other, ms=3.2, mew=0.8, color=colour, mfc="none", alpha=0.75, zorder=2)
    for entry in anchors_of(model, modality):
        at = [(entry[n], y[k]) for k, n in enumerate(names) if n in entry]
        axes.plot(*np.transpose(at), "|", ms=7, mew=1.4, color="0.55", zorder=5)
    return {"r2": r2, "low": low, "high": high, "known": known, "y": y, **others}


def _draw_null(axes: Any, about: About, model: str) -> None:
    null = max((abs(row["null_r2"]) for row in of(about["probes"], model=model, probe="ridge")), default=0.0)
    axes.axvspan(-null, null, color="0.6", lw=0, alpha=0.5, zorder=1)
    axes.axvline(0.0, color="0.5", lw=0.8, zorder=1)


def _legend(figure: Any, row: Sequence[Any], about: About) -> None:
    """Modalities by colour, and what the marks are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    plain: dict[str, Any] = {"color": "0.4", "ls": ""}
    for kind, mark in OTHER_MARKS.items():
        if of(about["probes"], probe=kind):
            found[OTHER_WORDS[kind]] = Line2D([], [], marker=mark, ms=3.6, mew=0.9, mfc="none", **plain)
    if has_known(about):
        found["best linear, closed form"] = Line2D([], [], marker="o", ms=6.0, mfc="none", mew=0.7, **plain)
    if any(anchors_of(*name.split("/", 1)) for name in about["mean_r2"]):
        found["published, other data"] = Line2D([], [], marker="|", ms=7, mew=1.4, color="0.55", ls="")
    found["shuffled properties"] = Patch(color="0.6", alpha=0.5, lw=0)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5), columnspacing=1.2)


def partial(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """R2 beside the partial R2 beyond nuisances, a panel per embedding; returns embedding -> arrays."""
    embeddings = list(dict.fromkeys(row["embedding"] for row in about["partial"]))
    names = _probed(about, about["partial"])
    columns = min(len(embeddings), 3)
    lines = -(-len(embeddings) // columns)
    figure, grid = panels(
        lines, columns, height=lines * (0.17 * len(names) + 0.7) + 0.4, width=PAGE, sharey=True, sharex=True, squeeze=False
    )
    plotted = {}
    for axes, name in zip(grid.flat, embeddings, strict=False):
        rows = {row["property"]: row for row in of(about["partial"], embedding=name)}
        whole = {row["property"]: row["r2"] for row in of(about["probes"], embedding=name, probe="ridge")}
        value, low, high, known = (np.array([rows[n][k] for n in names]) for k in ("partial_r2", "low", "high", "known"))
        y = np.arange(len(names))[::-1]
        plain = np.array([whole[n] for n in names])
        axes.axvline(0.0, color="0.5", lw=0.8)
        axes.plot(plain, y, "o", ms=3.5, color="0.7", label="$R^2$")
        axes.errorbar(
            value, y, xerr=bars(value, low, high), fmt="o", ms=3, color=PALETTE[0], elinewidth=1, label="beyond S/N and flags"
        )
        axes.plot(known, y, "o", ms=6.0, mfc="none", mec=PALETTE[0], mew=0.7)
        axes.set(title=name, xlim=(-0.05, 1.0))
        plotted[name] = {"partial": value, "r2": plain}
    for axes in grid.flat[len(embeddings) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("held-out $R^2$")
    for row in grid:
        property_axis(row, about, names)
    handles, words = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=2)
    save(figure, path)
    return plotted


def labels(predictions: Mapping[str, np.ndarray], about: About, path: Path, most: int = 6) -> dict[str, Any]:
    """R2 against the number of labels, a panel per property (those encoded best first by name order), a line per embedding."""
    names = _probed(about, about["labels"])
    best = {n: max(row["r2"] for row in of(about["probes"], property=n, probe="ridge")) for n in names}
    names = [n for n in names if best[n] > 0.2][:most] or names[:1]
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure, grid = panels(lines, columns, width=PAGE, height=1.9 * lines + 0.4, sharex=True, squeeze=False)
    plotted: dict[str, Any] = {}
    embeddings = list(dict.fromkeys(row["embedding"] for row in about["labels"]))
    for axes, name in zip(grid.flat, names, strict=False):
        for k, embedding in enumerate(embeddings):
            rows = of(about["labels"], embedding=embedding, property=name)
            if not rows:
                continue
            x, y, low, high = (np.array([row[key] for row in rows]) for key in ("labels", "r2", "r2_low", "r2_high"))
            colour, line = _line_of(embedding, embeddings, k)
            axes.plot(x, y, line, color=colour, marker=".", ms=4, lw=1.1, label=embedding)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            plotted[f"{embedding} {name}"] = y
        lowest = axes.get_ylim()[0]
        axes.set(xscale="log", title=label_of(about, name), ylim=(max(min(lowest, -0.02), -0.3), 1.02))
        counts = sorted({row["labels"] for row in about["labels"]})
        axes.set_xticks(counts, [f"{count // 1000}k" if count >= 1000 else str(count) for count in counts])
        axes.minorticks_off()
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("labelled objects")
    for axes in grid[:, 0]:
        axes.set_ylabel("held-out $R^2$")
    handles, words = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=min(len(words), 4))
    save(figure, path)
    return plotted


def _line_of(embedding: str, embeddings: list[str], k: int) -> tuple[str, str]:
    """Colour by modality, line by model."""
    model, _, modality = embedding.partition("/")
    models = list(dict.fromkeys(name.partition("/")[0] for name in embeddings))
    return MODALITY_COLOURS.get(modality, PALETTE[k % len(PALETTE)]), ("-", "--", ":", "-.")[models.index(model) % 4]


def classes(predictions: Mapping[str, np.ndarray], about: About, path: Path) -> dict[str, Any]:
    """Confusion of classes, a row per kind of class, a panel per model's fullest embedding, and macro-F1 of all embeddings."""
    kinds = list(dict.fromkeys(row["kind"] for row in about["classes"]))
    shown = [name for name in about["one_each"] if of(about["classes"], embedding=name)][:3]
    figure, grid = panels(
        len(kinds), len(shown) + 1, width=PAGE, height=2.3 * len(kinds) + 0.2, squeeze=False,
        gridspec_kw={"width_ratios": [1.0] * len(shown) + [1.2]},
    )  # fmt: skip
    plotted = {}
    for line, kind in zip(grid, kinds, strict=True):
        for axes, name in zip(line, shown, strict=False):
            found = of(about["classes"], embedding=name, kind=kind)
            if found:
                plotted[f"{kind} {name}"] = _confusion(axes, found[0])
            else:
                axes.set_axis_off()
        rows = of(about["classes"], kind=kind)
        y = np.arange(len(rows))[::-1]
        value, low, high, null = (np.array([row[k] for row in rows]) for k in ("macro_f1", "low", "high", "null_macro_f1"))
        line[-1].errorbar(
            value, y, xerr=bars(value, low, high), fmt="o", ms=3, elinewidth=1, color=PALETTE[0], label="macro-F1"
        )
        line[-1].plot(null, y, "|", ms=8, mew=1.4, color="0.55", label="classes shuffled")
        line[-1].plot([row["silhouette"] for row in rows], y, "D", ms=2.6, mfc="none", color=PALETTE[1], label="silhouette")
        line[-1].set(
            title=kind, xlim=(min(-0.1, *(row["silhouette"] - 0.05 for row in rows)), 1.02), ylim=(-0.6, len(rows) - 0.4)
        )
        line[-1].set_yticks(y, [row["embedding"] for row in rows], fontsize=6)
    handles, words = grid[0, -1].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=3)
    save(figure, path)
    return plotted


def _confusion(axes: Any, row: Mapping[str, Any]) -> np.ndarray:
    """Shares of each true class, with counts."""
    counts = np.array(row["confusion"])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = row["names"]
    for (i, j), value in np.ndenumerate(counts):
        axes.text(
            j, i, f"{share[i, j]:.0%}\n{value}", ha="center", va="center", fontsize=5.5, color="w" if share[i, j] > 0.6 else "k"
        )
    axes.set_xticks(range(len(names)), names, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6, rotation=90, va="center")
    axes.set(title=row["embedding"], xlabel="predicted", ylabel=f"true ({row['kind']})")
    axes.grid(visible=False)
    return counts


def has_known(about: About) -> bool:
    return any(np.isfinite(row["known_r2"]) for row in about["probes"])


def _probed(about: About, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {row["property"] for row in rows}
    return [entry["name"] for entry in about["properties"] if entry["name"] in there]
