"""Figures that ask whether observed and generated bundles agree: in bins of the condition, in two dimensions, by rank, by
classifier, and after one composition is turned into another by weights."""

from itertools import product
from pathlib import Path

import numpy as np
import torch

from muonflow.scores import auc_of_two_samples, wasserstein
from skyloom.plots import PAGE, PALETTE, panels, save, style

__all__ = ["density", "in_bins", "multiplicity_by_mass", "ranks", "reweighted", "roc", "spread"]

Arrays = dict[str, np.ndarray]
DATA, MODEL, EXACT = PALETTE[6], PALETTE[0], PALETTE[1]
NAMES = {"energy": "muon energy at depth $E$ [GeV]", "radius": "distance from shower axis $r$ [m]"}
RANGES = {"energy": (1, 5e3), "radius": (0.5, 120)}
COLUMN = {"energy": 0, "radius": 1}


def flat(p: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Observed and generated muons [M, 2], what each stands for [M], and its event [M]."""
    there = ~np.isnan(p["observed"][..., 0])
    event = np.nonzero(there)[0]
    held = there.sum(1)[event]
    return p["observed"][there], p["generated"][there], p["count"][event] / held, event


def in_bins(p: Arrays, which: str, path: Path, label: str) -> Arrays:
    """Nine ranges of primary energy and depth, each a third of the muons: observed, generated, and their ratio."""
    observed, generated, weight, event = flat(p)
    log_energy, depth = np.log10(p["condition"][event, 0]), p["condition"][event, 3]
    cuts = [np.quantile(v, [0, 1 / 3, 2 / 3, 1]) for v in (log_energy, depth)]
    for cut in cuts:
        cut[-1] += 1e-3
    edges = np.geomspace(*RANGES[which], 15)
    width, centre = np.diff(np.log(edges)), np.sqrt(edges[1:] * edges[:-1])
    curves: Arrays = {"edges": edges}
    with style():
        figure, grid = panels(6, 3, width=PAGE, height=6.6, sharex=True, sharey="row", height_ratios=(2, 1) * 3)
        for i, j in product(range(3), range(3)):
            chosen = (depth >= cuts[1][i]) & (depth < cuts[1][i + 1])
            chosen &= (log_energy >= cuts[0][j]) & (log_energy < cuts[0][j + 1])
            sums = [histogram(v[chosen, COLUMN[which]], weight[chosen], edges) for v in (observed, generated)]
            (seen, error), (made, made_error) = sums
            curves |= {f"observed_{i}{j}": seen, f"generated_{i}{j}": made}
            top, below = grid[2 * i, j], grid[2 * i + 1, j]
            total = max(seen.sum(), 1)
            top.stairs(made / width / total, edges, color=MODEL, label="generated")
            top.errorbar(centre, seen / width / total, error / width / total, fmt=".", color=DATA, ms=3, lw=0.8, label=label)
            text = f"{cuts[0][j]:.1f} < log$_{{10}}$($E_0$/GeV) < {cuts[0][j + 1]:.1f}\n"
            text += f"{cuts[1][i] / 1000:.1f} < depth/km < {cuts[1][i + 1] / 1000:.1f}\n"
            pair = [torch.as_tensor(np.log(v[chosen, COLUMN[which]])) for v in (observed, generated)]
            text += f"$W_1$ of the logarithm {wasserstein(*pair, *[torch.as_tensor(weight[chosen])] * 2):.3f}"
            top.text(0.03, 0.96, text, transform=top.transAxes, ha="left", va="top", fontsize=5.5)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = seen / made
                bar = ratio * np.sqrt((error / seen) ** 2 + (made_error / made) ** 2)
            below.axhline(1, color=MODEL, lw=0.9)
            below.errorbar(centre, ratio, bar, fmt=".", color=DATA, ms=3, lw=0.8)
            below.set(ylim=(0.5, 1.5))
            top.set(xscale="log", ylim=(0, 0.75))
            if j == 0:
                top.set_ylabel("density in ln " + ("$E$" if which == "energy" else "$r$"))
                below.set_ylabel("test / gen.")
            if i == 2:
                below.set_xlabel(NAMES[which])
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, ncols=2, loc="outside upper center")
        save(figure, path)
    return curves


def density(p: Arrays, path: Path, label: str) -> Arrays:
    """ln E and ln r together: observed, generated, and ln of their ratio where both have ten muons or more."""
    observed, generated, weight, _ = flat(p)
    edges = [np.geomspace(*RANGES[name], 29) for name in ("radius", "energy")]
    area = np.outer(*(np.diff(np.log(e)) for e in edges))
    counts = [np.histogram2d(v[:, 1], v[:, 0], edges, weights=weight)[0] for v in (observed, generated)]
    numbers = [np.histogram2d(v[:, 1], v[:, 0], edges)[0] for v in (observed, generated)]
    enough = (numbers[0] >= 10) & (numbers[1] >= 10)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(enough, np.log(counts[1] / counts[0]), np.nan)
        logs = [np.log10(c / c.sum() / area) for c in counts]
    with style():
        figure, axes = panels(1, 3, width=PAGE, height=2.6, sharex=True, sharey=True)
        for axis, values, name in zip(axes[:2], logs, (label, "generated"), strict=True):
            shown = np.where(np.isfinite(values), values, np.nan)
            mesh = axis.pcolormesh(*edges, shown.T, vmin=-3.5, vmax=-0.4, cmap="viridis", rasterized=True)
            axis.set_title(name, fontsize=8)
        figure.colorbar(mesh, ax=axes[:2], label="log$_{10}$ density in (ln $E$, ln $r$)", location="bottom", aspect=40)
        mesh = axes[2].pcolormesh(*edges, ratio.T, vmin=-1, vmax=1, cmap="RdBu_r", rasterized=True)
        axes[2].set_title("ln(generated / test)", fontsize=8)
        figure.colorbar(mesh, ax=axes[2], location="bottom", label="ln ratio ($\\geq 10$ muons in each)", aspect=20)
        for axis in axes:
            axis.set(xscale="log", yscale="log", xlabel="$r$ [m]")
        axes[0].set_ylabel("$E$ [GeV]")
        save(figure, path)
    return {"observed": counts[0], "generated": counts[1], "log_ratio": ratio}


def spread(p: Arrays, path: Path, label: str) -> Arrays:
    """Mean distance from the axis against muon energy, for protons and iron: higher energies are closer."""
    observed, generated, weight, event = flat(p)
    edges = np.geomspace(3, 3e3, 10)
    centre = np.sqrt(edges[1:] * edges[:-1])
    curves: Arrays = {"edges": edges}
    with style():
        figure, axes = panels(1, 1, height=2.8)
        for mass, name, color, shift in ((1, "p", PALETTE[0], 0.97), (56, "Fe", PALETTE[3], 1.03)):
            chosen = p["condition"][event, 2] == mass
            for values, kind, dash in ((observed, label, "."), (generated, "generated", "")):
                mean, error = profile(values[chosen, 0], values[chosen, 1], weight[chosen], edges)
                curves[f"{name}_{'observed' if dash else 'generated'}"] = mean
                if dash:
                    axes.errorbar(centre * shift, mean, error, fmt=dash, color=color, ms=4, lw=0.8, label=f"{name}, {kind}")
                else:
                    axes.stairs(mean, edges, color=color, label=f"{name}, {kind}", baseline=None)
        axes.set(xscale="log", ylim=(0, None), xlabel=NAMES["energy"], ylabel="mean distance from axis [m]")
        axes.legend()
        save(figure, path)
    return curves


def ranks(p: Arrays, path: Path) -> Arrays:
    """Where observed muons stand among generated ones of their own condition: flat if each conditional density is right."""
    curves: Arrays = {}
    with style():
        figure, pair = panels(1, 2, width=PAGE, height=2.5, sharey=True)
        for axes, (which, column) in zip(pair, COLUMN.items(), strict=True):
            values = p["pit"][..., column]
            values = values[~np.isnan(values)]
            rivals = 9
            seen = np.bincount(np.round(values * rivals).astype(int), minlength=rivals + 1)
            expected = len(values) / (rivals + 1)
            error = np.sqrt(expected * (1 - 1 / (rivals + 1)))
            edges = np.arange(rivals + 2) - 0.5
            axes.fill_between([-0.5, rivals + 0.5], 1 - 2 * error / expected, 1 + 2 * error / expected, color="0.88", lw=0,
                              label="two standard errors")  # fmt: skip
            axes.stairs(seen / expected, edges, color=MODEL, lw=1.2)
            axes.axhline(1, color=EXACT, lw=0.8)
            axes.set(xlabel=f"rank of observed {which} among {rivals} generated", xlim=(-0.5, rivals + 0.5), ylim=(0.7, 1.3))
            curves[which] = seen / expected
        pair[0].set_ylabel("muons / expected")
        pair[0].legend(loc="lower left")
        save(figure, path)
    return curves


def roc(p: Arrays, path: Path) -> Arrays:
    """A classifier's ROC, asked to tell generated from observed muons; the diagonal where it cannot."""
    scores = p["told_apart"]
    scores = scores[~np.isnan(scores[..., 0])]
    auc = auc_of_two_samples({"told_apart": torch.as_tensor(scores)[:, None]})
    cuts = np.quantile(scores, np.linspace(1, 0, 200))
    rates = [np.array([(scores[:, k] >= cut).mean() for cut in cuts]) for k in (0, 1)]
    with style():
        figure, axes = panels(1, 1, height=2.8)
        axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
        axes.plot(*rates, color=MODEL, label=f"area {auc:.3f} ({len(scores)} pairs)")
        axes.set(xlabel="observed muons called generated", ylabel="generated muons called generated", aspect="equal")
        axes.legend(loc="lower right")
        save(figure, path)
    return {"observed": rates[0], "generated": rates[1], "auc": np.array(auc)}


def reweighted(p: Arrays, path: Path) -> Arrays:
    """Muons generated as if every primary were a proton, weighted into those of iron by the model's own densities."""
    some = (p["count"] > 0) & (p["condition"][:, 0] > 56 * 2000)
    light, heavy = p["as_proton"][some], p["as_iron"][some]
    weight = np.exp(np.clip(p["log_weight"][some].astype(float), -np.inf, 30))
    size = weight.sum() ** 2 / max((weight**2).sum(), 1e-300) / max(len(weight), 1)
    curves: Arrays = {"effective_share": np.array(size)}
    with style():
        figure, grid = panels(2, 2, width=PAGE, height=3.4, sharex="col", height_ratios=(2.4, 1))
        for k, which in enumerate(COLUMN):
            edges = np.geomspace(*RANGES[which], 18)
            width, centre = np.diff(np.log(edges)), np.sqrt(edges[1:] * edges[:-1])
            iron, iron_error = histogram(heavy[:, k], np.ones(len(heavy)), edges)
            proton, _ = histogram(light[:, k], np.ones(len(light)), edges)
            turned, error = histogram(light[:, k], weight, edges)
            top, below = grid[0, k], grid[1, k]
            scale = width * max(len(heavy), 1)
            top.stairs(proton / scale, edges, color=PALETTE[3], ls="--", label="protons")
            top.stairs(iron / scale, edges, color=MODEL, label="iron")
            top.errorbar(centre, turned / scale, error / scale, fmt=".", color=DATA, ms=3, lw=0.8, label="protons, weighted")
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = turned / iron
                bar = ratio * np.sqrt((error / turned) ** 2 + (iron_error / iron) ** 2)
                pull = (turned - iron) ** 2 / (error**2 + iron_error**2)
            there = (iron >= 20) & (turned > 0)
            curves[f"chi2_{which}"] = np.array(pull[there].mean() if there.any() else np.nan)
            below.axhline(1, color=MODEL, lw=0.9)
            below.errorbar(centre[there], ratio[there], bar[there], fmt=".", color=DATA, ms=3, lw=0.8)
            below.set(ylim=(0.5, 1.5), xlabel=NAMES[which])
            top.set(xscale="log")
            top.set_title(f"$\\chi^2$/bins = {curves[f'chi2_{which}']:.2f}; effective share {size:.2f}", fontsize=7)
        grid[0, 0].set_ylabel("density in ln $E$, ln $r$")
        grid[1, 0].set_ylabel("weighted / iron")
        grid[0, 0].legend()
        save(figure, path)
    return curves


def multiplicity_by_mass(p: Arrays, path: Path, exact: bool, label: str) -> Arrays:
    """P(N | N >= 1) of protons and iron in four ranges of primary energy: observed, predicted, exact."""
    largest = p["multiplicity"].shape[1]
    n = np.arange(1, largest)
    curves: Arrays = {}
    some = p["count"] > 0
    cuts = np.quantile(np.log10(p["condition"][some, 0]), [0, 0.5, 0.8, 0.95, 1])
    cuts[-1] += 1e-3
    with style():
        figure, grid = panels(2, 4, width=PAGE, height=3.6, sharex=True, sharey=True)
        for (row, (mass, name)), k in product(enumerate(((1, "p"), (56, "Fe"))), range(4)):
            axes = grid[row, k]
            log_energy = np.log10(p["condition"][:, 0])
            chosen = some & (p["condition"][:, 2] == mass) & (log_energy >= cuts[k]) & (log_energy < cuts[k + 1])
            total = int(chosen.sum())
            text = f"{name}, {cuts[k]:.1f} to {cuts[k + 1]:.1f}\n{total} events"
            axes.text(0.96, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=6)
            if total:
                axes.step(n, p["multiplicity"][chosen].mean(0)[:-1], where="mid", color=MODEL, label="predicted")
                if exact:
                    axes.plot(n, p["multiplicity_oracle"][chosen].mean(0)[:-1], color=EXACT, lw=1.0, label="exact")
                seen = np.bincount(np.minimum(p["count"][chosen].astype(int), largest), minlength=largest + 1)[1:largest]
                there = seen > 0
                bars = np.sqrt(seen[there]) / total
                axes.errorbar(n[there], seen[there] / total, bars, fmt=".", color=DATA, ms=2.5, lw=0.7, label=label)
                curves[f"observed_{name}_{k}"] = seen / total
            if row:
                axes.set_xlabel("$N$")
        grid[0, 0].set(xscale="log", yscale="log", ylim=(1e-3, 2), xlim=(0.9, largest))
        grid[0, 0].set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"], minor=False)
        grid[0, 0].xaxis.minorticks_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("$P(N\\,|\\,N\\geq 1)$")
        handles, names = grid[0, 0].get_legend_handles_labels()
        title = "range of log$_{10}$($E_0$/GeV) in each panel"
        figure.legend(handles, names, ncols=3, loc="outside upper center", title=title, title_fontsize=7)
        save(figure, path)
    return curves


def histogram(values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of weights in each bin and its standard error."""
    return np.histogram(values, edges, weights=weight)[0], np.sqrt(np.histogram(values, edges, weights=weight**2)[0])


def profile(x: np.ndarray, y: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of y in bins of x, and its standard error; NaN where fewer than five rows are."""
    number = np.histogram(x, edges)[0]
    total, squares = (np.histogram(x, edges, weights=w)[0] for w in (weight, weight**2))
    first, second = (np.histogram(x, edges, weights=weight * v)[0] for v in (y, y**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = first / total
        error = np.sqrt(np.maximum(second / total - mean**2, 0) * squares) / total
    return np.where(number >= 5, mean, np.nan), np.where(number >= 5, error, np.nan)
