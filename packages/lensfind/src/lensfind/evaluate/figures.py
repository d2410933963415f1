"""Figures of a lens finder, drawn from its predictions alone; each function gives back the numbers it drew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from lensfind.simulation.population import Population
from lensfind.simulation.simulator import RECIPE, simulate
from lensfind.survey import Survey
from skyloom.errors import DataError
from skyloom.metrics import Ranking
from skyloom.plots import PAGE, PALETTE, Figure, panels, save, style

__all__ = ["colour_weights", "completeness", "cutouts", "draw", "has_truth", "pngs", "rank_curves", "rgb", "score_histograms"]

Arrays = dict[str, np.ndarray]
_COLUMNS = 10  # cutouts in a row of the mosaic


def draw(
    predictions: Arrays, about: dict[str, Any], directory: Path, threshold: float | None = None, fpr: float = 1e-2
) -> list[Figure]:
    """All figures that the predictions allow: those against the truth need the column `lens`, cutouts the column `seed`.

    `threshold` is that of the completeness, chosen for the false-positive rate `fpr`; by default on these rows themselves.
    """
    word = "synthetic " if about["synthetic"] else ""
    figures = []

    def keep(name: str, canvas: Any, title: str, caption: str) -> None:
        figures.append(Figure(save(canvas, Path(directory) / f"{name}.png"), title, caption))

    with style():
        canvas, axes = panels()
        score_histograms(axes, predictions)
        keep("scores", canvas, "Scores by sample", f"Logits of the {word}test split, each sample normalised on its own. "
             "The unlabeled sample is split by the truth, which training never saw; labelled and unlabeled lenses should "
             "agree. Logit 0 is even odds at the class prior.")  # fmt: skip
        if not has_truth(predictions):
            return figures
        canvas, axes = panels(1, 2)
        rank_curves(axes, predictions)
        keep("ranking", canvas, "Ranking against the truth", f"The unlabeled {word}test sample at a share of lenses of "
             f"{about['class_prior']:g}. Left: lenses found against non-lenses let through, with chance dashed. Right: purity "
             "against completeness, with the share of lenses dashed.")  # fmt: skip
        canvas, axes = panels(1, 2, sharey=True)
        completeness(axes, predictions, threshold, fpr)
        keep("completeness", canvas, "Which lenses are found", f"Share of {word}lenses above the threshold chosen to let "
             f"through {fpr:.0%} of non-lenses, in bins of equal numbers, with 68% Wilson intervals; labelled and unlabeled "
             "lenses of the test split together.")  # fmt: skip
        if "seed" in predictions and about["synthetic"] and same_sky(about):
            rows = _chosen(predictions)
            canvas, axes = panels(len(rows), _COLUMNS, width=PAGE, height=len(rows) * PAGE / _COLUMNS + 0.55)
            _mosaic(axes, rows, predictions, about)
            keep("cutouts", canvas, "Best candidates and worst mistakes", "Synthetic cutouts of the unlabeled test sample, "
                 f"{_side(about):.0f} arcsec wide, arcsinh colours ({_colours(about)}), with their logits. Green: lens. "
                 "Red: no lens.")  # fmt: skip
    return figures


def has_truth(predictions: Arrays) -> bool:
    lens = predictions.get("lens")
    return lens is not None and 0 < (lens[predictions["labelled"] == 0] > 0).sum() < (predictions["labelled"] == 0).sum()


def _unlabeled(predictions: Arrays) -> tuple[np.ndarray, np.ndarray]:
    rows = predictions["labelled"] == 0
    return predictions["logit"][rows], predictions["lens"][rows] > 0


def score_histograms(axes: Any, predictions: Arrays, bins: int = 40) -> Arrays:
    """Densities of the logit for labelled, unlabeled and, where known, unlabeled lenses and non-lenses."""
    logit, labelled = predictions["logit"], predictions["labelled"] > 0
    samples = {"labelled lenses": logit[labelled], "unlabeled": logit[~labelled]}
    if has_truth(predictions):
        lens = predictions["lens"] > 0
        samples |= {"unlabeled, lens": logit[~labelled & lens], "unlabeled, no lens": logit[~labelled & ~lens]}
    low, high = np.quantile(logit, [0.001, 0.999])
    edges = np.linspace(low, high, bins + 1)
    drawn: Arrays = {"edges": edges}
    colours = (PALETTE[0], "0.75", PALETTE[2], PALETTE[1])
    for (name, values), colour in zip(samples.items(), colours, strict=False):
        inside = values[(values >= edges[0]) & (values <= edges[-1])]
        density = np.histogram(inside, edges)[0] / (max(len(values), 1) * np.diff(edges))
        drawn[name] = density
        axes.stairs(density, edges, fill=name == "unlabeled", label=f"{name} ({len(values)})", color=colour)
    axes.axvline(0, color="0.3", lw=0.7, ls=":")
    axes.set(xlabel="logit", ylabel="density", ylim=(0, None))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=2, columnspacing=0.8, handlelength=1.2)
    return drawn


def rank_curves(axes: Any, predictions: Arrays) -> Arrays:
    """Receiver operating characteristic with a logarithmic axis, and purity against completeness."""
    logit, lens = _unlabeled(predictions)
    ranking = Ranking(logit, lens)
    fpr, tpr, _ = ranking.roc()
    purity, recall, _ = ranking.precision_recall()
    lowest = 0.5 / (~lens).sum()
    left, right = axes
    left.plot(np.maximum(fpr, lowest), tpr, label=f"AUROC {ranking.auroc:.3f}")
    chance = np.geomspace(lowest, 1, 100)
    left.plot(chance, chance, color="0.5", lw=0.8, ls="--")
    left.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.01), xlabel="false-positive rate", ylabel="completeness")
    left.legend(loc="upper left")
    right.plot(recall, purity, label=f"average precision {ranking.average_precision:.3f}")
    right.axhline(lens.mean(), color="0.5", lw=0.8, ls="--")
    right.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="completeness", ylabel="purity")
    low = ranking.average_precision < 0.5  # the curve lies below its middle: words go above it, else beneath
    right.legend(loc="upper right" if low else "lower left", bbox_to_anchor=(1, 1) if low else (0, 0.12))
    return {"fpr": fpr, "tpr": tpr, "purity": purity, "recall": recall}


def completeness(
    axes: Any, predictions: Arrays, threshold: float | None = None, fpr: float = 1e-2, bins: int = 8
) -> dict[str, Arrays]:
    """Share of lenses above the threshold of a false-positive rate, against Einstein radius and arc signal-to-noise."""
    logit, lens = _unlabeled(predictions)
    threshold = float(np.quantile(logit[~lens], 1 - fpr)) if threshold is None else threshold
    rows = predictions["lens"] > 0
    drawn = {}
    for axis, (name, label) in zip(
        axes, (("theta_E", "Einstein radius / arcsec"), ("arc_snr", "signal-to-noise of the arcs")), strict=True
    ):
        x, found = predictions[name][rows], predictions["logit"][rows] > threshold
        edges = np.quantile(x, np.linspace(0, 1, bins + 1))
        which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1)
        centre = np.array([np.median(x[which == k]) for k in range(bins)])
        share = np.array([found[which == k].mean() for k in range(bins)])
        interval = [binomtest(int(found[which == k].sum()), int((which == k).sum())) for k in range(bins)]
        low, high = np.array([b.proportion_ci(0.68, "wilson") for b in interval]).T
        spread = [np.maximum(share - low, 0), np.maximum(high - share, 0)]
        axis.errorbar(centre, share, spread, [centre - edges[:-1], edges[1:] - centre], fmt="o", elinewidth=0.9)
        axis.set(xlabel=label, ylim=(0, 1.02))
        drawn[name] = {"x": centre, "share": share, "low": low, "high": high}
    axes[0].set(ylabel=f"completeness at FPR {fpr:.0%}")
    axes[1].set(xscale="log")
    ticks = [t for t in (10, 20, 50, 100, 200, 500, 1000, 2000) if edges[0] <= t <= edges[-1]]
    axes[1].set_xticks(ticks, [str(t) for t in ticks])
    axes[1].minorticks_off()
    return drawn


def _chosen(predictions: Arrays) -> dict[str, np.ndarray]:
    """Row numbers for the mosaic: best-ranked unlabeled cutouts, best-ranked non-lenses, worst-ranked lenses."""
    unlabeled = np.flatnonzero(predictions["labelled"] == 0)
    order = unlabeled[np.argsort(-predictions["logit"][unlabeled], kind="stable")]
    lens = predictions["lens"][order] > 0
    return {
        "top ranked": order[:_COLUMNS],
        "false alarms": order[~lens][:_COLUMNS],
        "missed lenses": order[lens][::-1][:_COLUMNS],
    }


def same_sky(about: Mapping[str, Any]) -> bool:
    """Whether the simulator still draws from a seed what it drew for this run; data sets carry its number since recipe 4."""
    return about.get("simulator", 4) == RECIPE


def cutouts(rows: np.ndarray, predictions: Arrays, about: dict[str, Any]) -> torch.Tensor:
    """The synthetic cutouts of these rows, simulated again from their seeds: [rows, bands, size, size] in nJy."""
    if not same_sky(about):
        raise DataError(
            f"the images of this run were drawn by recipe {about['simulator']} of the simulator, which is at {RECIPE} now and "
            "would draw others from their seeds: train again to see what a network saw."
        )
    return simulate(
        torch.from_numpy(predictions["seed"][rows]),
        torch.from_numpy(predictions["kind"][rows]).long(),
        Survey.from_json(about["survey"]),
        Population(**about["population"]),
        about["size"],
        about["oversample"],
    )["image"]


def rgb(images: np.ndarray, weights: np.ndarray, floor: float = 2.0, ceiling: float = 400.0) -> np.ndarray:
    """Colours [B, H, W, 3] of images [B, bands, H, W] after Lupton et al. (2004, PASP 116, 133): one arcsinh stretch of the
    mean brightness for all channels, so that hue means colour. Bands run from blue to red; the reddest, the middle and the
    bluest of them, times their weights, become red, green and blue. `floor` and `ceiling` are brightnesses: black and white.
    """
    bands = images.shape[1]
    order = [bands - 1, (bands - 1) // 2, 0] if bands > 1 else [0, 0, 0]
    scaled = np.moveaxis((images * weights[:, None, None])[:, order], 1, -1)
    mean = np.maximum(scaled.mean(axis=-1, keepdims=True), 1e-6)
    bright = np.arcsinh(mean / floor) / np.arcsinh(ceiling / floor)
    coloured = np.clip(scaled / mean * bright, 0, None)
    return np.clip(coloured / np.maximum(coloured.max(axis=-1, keepdims=True), 1), 0, 1)


def pngs(images: np.ndarray, about: dict[str, Any]) -> list[bytes]:
    """Each image [bands, H, W] as a PNG in the colours of the figures, four screen pixels a pixel."""
    import io

    from PIL import Image

    found = []
    for picture in rgb(images, colour_weights(about)) if len(images) else []:
        levels = np.flipud((255 * picture).round().astype(np.uint8)).repeat(4, axis=0).repeat(4, axis=1)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, format="PNG", optimize=True)
        found.append(buffer.getvalue())
    return found


def colour_weights(about: dict[str, Any]) -> np.ndarray:
    """Grey is a spectrum F_nu ~ wavelength^1.6, between a galaxy that forms stars and one that does not; 1 is the noise."""
    wavelength = np.array([band["wavelength"] for band in about["survey"]["bands"].values()])
    return (wavelength / np.median(wavelength)) ** -1.6 / np.mean(about["statistics"]["noise"])


def _mosaic(axes: Any, rows: dict[str, np.ndarray], predictions: Arrays, about: dict[str, Any]) -> None:
    weights = colour_weights(about)
    for line, (name, chosen) in zip(axes, rows.items(), strict=True):
        pictures = rgb(cutouts(chosen, predictions, about).numpy(), weights)
        for k, axis in enumerate(line):
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if k >= len(chosen):
                axis.set_axis_off()
                continue
            lens = predictions["lens"][chosen[k]] > 0
            axis.imshow(pictures[k], origin="lower", interpolation="nearest")
            for spine in axis.spines.values():
                spine.set(visible=True, color="#1a9850" if lens else "#d73027", linewidth=1.6)
            kind = about["kinds"][int(predictions["kind"][chosen[k]])].replace("_", "-")
            axis.set_title(f"{predictions['logit'][chosen[k]]:+.1f}", fontsize=6, pad=2)
            axis.set_xlabel(kind, fontsize=6, labelpad=1)
        line[0].set_ylabel(name, fontsize=7)


def _side(about: dict[str, Any]) -> float:
    return float(about["size"] * about["survey"]["pixel_scale"])


def _colours(about: dict[str, Any]) -> str:
    bands = about["bands"]
    if len(bands) == 1:
        return f"grey: {bands[0]}"
    return f"red {bands[-1]}, green {bands[(len(bands) - 1) // 2]}, blue {bands[0]}"
