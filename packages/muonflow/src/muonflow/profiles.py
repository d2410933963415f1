"""Figures against published parametrisations: how many muons, how far from the axis, how energetic."""

from pathlib import Path

import numpy as np
import torch

from muonflow import physics, published, showers
from muonflow.checks import Arrays, flat, histogram, profile
from muonflow.trends import slopes, smoothed
from skyloom.plots import PAGE, PALETTE, panels, save, style

__all__ = ["beside_published", "learning", "mean_multiplicity"]

DATA, MODEL, EXACT, OTHER = PALETTE[6], PALETTE[0], PALETTE[1], PALETTE[3]
BECHERINI = "Becherini et al. 2006"
STEEP = 0.8  # least cosine of the zenith angle for spectra near the vertical
FEWEST = 5  # values of the loss, from which a slope is no accident
LARGEST = 200  # muons of a bundle in sums over the published multiplicities


def mean_multiplicity(p: Arrays, path: Path, exact: bool, label: str) -> Arrays:
    """Mean N of the bundles that arrive, against the cosine of the zenith angle and against depth."""
    count, generated = p["count"].astype(float), p["generated_count"].astype(float)
    nature = np.where(count > 0, 1.0, 1 / p["kept"])
    cosine, depth = np.cos(p["condition"][:, 1]), p["condition"][:, 3] / 1000
    curves: Arrays = {}
    with style():
        figure, pair = panels(1, 2, width=PAGE, height=2.7, sharey=True)
        lines = (
            ("cosine", cosine, np.linspace(0.1, 1, 10), "cos zenith"),
            ("depth", depth, np.linspace(1, 2.8, 10), "depth [km]"),
        )
        for axes, (name, value, edges, unit) in zip(pair, lines, strict=True):
            centre = (edges[1:] + edges[:-1]) / 2
            some, made = count > 0, generated > 0
            mean, error = profile(value[some], count[some], np.ones(some.sum()), edges)
            axes.errorbar(centre, mean, error, fmt=".", color=DATA, ms=4, lw=0.8, label=label)
            drawn, _ = profile(value[made], generated[made], nature[made], edges)
            axes.stairs(drawn, edges, color=MODEL, label="generated", baseline=None)
            curves |= {f"{name}_observed": mean, f"{name}_generated": drawn}
            if exact:
                here = showers.arrival(torch.as_tensor(p["condition"][some]))
                expected = here.mean.numpy() / np.maximum(p["survival_oracle"][some], 1e-12)
                curves[f"{name}_exact"], _ = profile(value[some], expected, np.ones(some.sum()), edges)
                axes.plot(centre, curves[f"{name}_exact"], color=EXACT, lw=1.1, label="Elbert's yield, exact fluctuations")
            other = depth if name == "cosine" else cosine
            typical, _ = profile(value[some], other[some], np.ones(some.sum()), edges)
            pairs = (typical, centre) if name == "cosine" else (centre, typical)
            axes.plot(centre, _published_mean(*pairs), color=OTHER, ls=":", lw=1.2, label=BECHERINI)
            axes.set(xlabel=unit)
        top = max(np.nanmax(values) for values in curves.values())
        pair[0].set_ylim(0, 1.12 * top)
        pair[0].set_ylabel("mean $N$ of bundles that arrive")
        handles, names = pair[0].get_legend_handles_labels()
        figure.legend(handles, names, ncols=4, loc="outside upper center")
        save(figure, path)
    return curves


def _published_mean(depth: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Mean of m over the published flux of bundles, m from 1; NaN where the fit does not hold."""
    h = physics.water_equivalent(torch.as_tensor(depth))
    m = torch.arange(1.0, LARGEST + 1, dtype=torch.float64)[:, None]
    flux = published.bundle_flux(m, h, torch.as_tensor(cosine).clamp(min=0.09))
    mean = ((m * flux).sum(0) / flux.sum(0)).numpy()
    low, high = published.DEPTHS_OF_THE_FIT
    return np.where((h.numpy() >= low) & (h.numpy() <= high), mean, np.nan)


def beside_published(p: Arrays, path: Path, label: str) -> Arrays:
    """Distances of muons in bundles and energies of single ones, steep, at 1.8 to 2.6 km, beside the published shapes."""
    observed, generated, weight, event = flat(p)
    condition = p["condition"][event]
    steep = (np.cos(condition[:, 1]) > STEEP) & (condition[:, 3] > 1800) & (condition[:, 3] < 2600)
    number = p["count"][event]
    curves: Arrays = {}
    with style():
        figure, pair = panels(1, 2, width=PAGE, height=2.8)
        for axes, column, chosen, edges in (
            (pair[0], 1, steep & (number >= 2), np.linspace(0, 100, 26)),
            (pair[1], 0, steep & (number == 1), np.geomspace(1, 3e3, 22)),
        ):
            centre, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
            sums = [histogram(v[chosen, column], weight[chosen], edges) for v in (observed, generated)]
            (seen, error), (made, _) = sums
            norm = max(seen.sum(), 1) * width
            axes.stairs(made / norm, edges, color=MODEL, label="generated")
            axes.errorbar(centre, seen / norm, error / norm, fmt=".", color=DATA, ms=3, lw=0.8, label=label)
            curves |= {f"observed_{column}": seen, f"generated_{column}": made}
            if chosen.any():
                shape = _published_shape(column, centre, condition[chosen], number[chosen])
                curves[f"published_{column}"] = shape
                axes.plot(centre, shape / (shape * width).sum(), color=OTHER, ls=":", lw=1.2, label=BECHERINI)
        pair[0].set(
            xlabel="distance from shower axis $r$ [m], $N \\geq 2$", ylabel="density [1/m]", yscale="log", ylim=(1e-5, None)
        )
        pair[1].set(xlabel="muon energy at depth $E$ [GeV], $N = 1$", ylabel="density [1/GeV]", xscale="log", yscale="log")
        for axes in pair:
            axes.legend()
        save(figure, path)
    return curves


def _published_shape(column: int, x: np.ndarray, condition: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The published density at the mean depth and zenith of these muons; distances averaged over their multiplicities."""
    h = physics.water_equivalent(torch.tensor(float(condition[:, 3].mean()) / 1000))
    zenith = torch.tensor(float(condition[:, 1].mean()), dtype=torch.float64)
    value = torch.as_tensor(x, dtype=torch.float64)
    if column == 0:
        gamma, offset = published.single_energy(h, torch.cos(zenith))
        return ((value + offset) ** -gamma).numpy()
    share = [(number == 2).mean(), (number == 3).mean(), (number >= 4).mean()]
    return sum(
        s * published.lateral_density(value, torch.tensor(m), h, zenith).numpy()
        for s, m in zip(share, (2.0, 3.0, 4.0), strict=True)
    )


def learning(rows: list[dict[str, float]], path: Path) -> Arrays:
    """Nats per muon while training: the batches, the validation split, and the lines between which a model lies."""
    steps = {name: [(r["step"], r[name]) for r in rows if name in r] for name in ("train/nll", "val/nll")}
    lines = {"val/nll_oracle": ("exact density", EXACT, "-"), "val/nll_marginal": ("best without condition", PALETTE[2], "--")}
    with style():
        figure, axes = panels(1, 1, height=2.8)
        for name, points in steps.items():
            if points:
                x, y = np.array(points).T
                train = name.startswith("train")
                axes.plot(x, y, color="0.6" if train else MODEL, lw=0.7 if train else 1.2, marker="" if train else "o", ms=3,
                          label="training batches" if train else "validation")  # fmt: skip
                if train:
                    axes.text(0.97, 0.28, _slopes(x, y), transform=axes.transAxes, fontsize=6, ha="right", va="bottom")
        for name, (text, color, dash) in lines.items():
            last = [r[name] for r in rows if name in r]
            if last:
                axes.axhline(last[-1], color=color, ls=dash, lw=1.0, label=f"{text} ({last[-1]:.3f})")
        shown = [y for _, y in steps["val/nll"]]
        if shown:
            low = min([*shown, *(r["val/nll_oracle"] for r in rows if "val/nll_oracle" in r)])
            axes.set_ylim(low - 0.05, max(low + 0.4, shown[-1] + 0.2))
        axes.set(xlabel="step", ylabel="NLL per muon in $(e, v)$ [nat]")
        axes.legend()
        save(figure, path)
    return {name: np.array(points) for name, points in steps.items()}


def _slopes(steps: np.ndarray, loss: np.ndarray) -> str:
    """The slopes of a loss over those windows that lie within the run and hold enough values."""
    found = slopes(steps, smoothed(steps, loss))
    said = [
        f"last {window} steps: {slope:+.4f}"
        for window, slope in found.items()
        if window <= steps[-1] and (steps >= steps[-1] - window).sum() >= FEWEST
    ]
    return "\n".join(["slope [nat per 1000 steps]", *said]) if said else ""
