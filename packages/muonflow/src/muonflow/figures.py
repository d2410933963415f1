"""Figures, from saved predictions alone; the exact curves follow from the carried conditions and published formulas."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muonflow import checks, profiles, showers
from muonflow.captions import CAPTIONS, EXPECTED
from muonflow.physics import slant_depth, threshold_energy
from muonflow.scores import muon_weights
from skyloom.plots import PAGE, PALETTE, Figure, panels, save, style

__all__ = ["draw", "expected_histogram", "likelihoods", "multiplicities", "spectrum", "survival"]

Arrays = dict[str, np.ndarray]
DATA, MODEL, EXACT, MARGINAL = PALETTE[6], PALETTE[0], PALETTE[1], PALETTE[2]
AXES = {
    "energy": ("muon energy at depth $E$ [GeV]", "muons per unit of ln $E$", np.geomspace(0.5, 2e4, 32)),
    "radius": ("distance from shower axis $r$ [m]", "muons per unit of ln $r$", np.geomspace(0.3, 150, 32)),
}
AXES_OF = {"energy": "energy", "lateral": "radius"}  # figures of one quantity
QUANTILES = 32  # points at which the exact spectrum is integrated over muon energy
MOST_EVENTS = 2000  # of which exact curves are made; more are sampled


def draw(
    predictions: Arrays, about: dict[str, Any], directory: Path, every: bool = True, plateau: bool = False
) -> list[Figure]:
    """Spectra, multiplicities, survival and likelihoods beside what is known exactly; then whether observed and generated agree
    in bins, in two dimensions, by rank, by classifier and by weights.

    Args:
        every: all figures; false draws the first eight
        plateau: also train three small models on new synthetic showers, two of them on torn batches (about half a minute)
    """
    exact, curve = about.get("oracle") in showers.LATERAL, about.get("oracle") == "elbert"
    label = "test events (synthetic)" if about["synthetic"] else "test events"
    drawn: list[Figure] = []
    p = predictions

    def page(name: str) -> Path:
        title, caption = CAPTIONS[name]
        beside = EXPECTED if curve and name in AXES_OF else ""
        path = directory / f"{name}.png"
        drawn.append(Figure(path, title, caption + beside + (" Synthetic showers." if about["synthetic"] else "")))
        return path

    for name, which in AXES_OF.items():
        spectrum(p, which, page(name), curve, label)
    multiplicities(p, page("multiplicity"), exact, label)
    checks.multiplicity_by_mass(p, page("multiplicity_mass"), exact, label)
    survival(p, page("survival"), exact, label)
    profiles.mean_multiplicity(p, page("mean_multiplicity"), exact, label)
    profiles.beside_published(p, page("published"), label)
    likelihoods(p, page("likelihood"), exact, label)
    if not every:
        return drawn
    checks.in_bins(p, "energy", page("energy_bins"), label)
    checks.in_bins(p, "radius", page("lateral_bins"), label)
    checks.density(p, page("density"), label)
    checks.spread(p, page("spread"), label)
    checks.ranks(p, page("pit"))
    if "told_apart" in p:
        checks.roc(p, page("two_sample"))
    checks.reweighted(p, page("reweighting"))
    metrics = directory.parent / "metrics.jsonl"
    if metrics.exists():
        profiles.learning([json.loads(line) for line in metrics.read_text().splitlines() if line.strip()], page("learning"))
    if plateau:
        from muonflow.plateau import draw_plateau, reproduce

        draw_plateau(reproduce(), page("plateau"))
    return drawn


def spectrum(p: Arrays, which: str, path: Path, exact: bool, label: str) -> Arrays:
    """Observed, generated and expected muons per unit of ln E or ln r, and their ratios."""
    quantity, unit, edges = AXES[which]
    column = ("energy", "radius").index(which)
    width = np.diff(np.log(edges))
    centre = np.sqrt(edges[1:] * edges[:-1])
    observed, error = _histogram(p["observed"], p["count"], column, edges)
    generated, model_error = _histogram(p["generated"], p["count"], column, edges)
    expected = expected_histogram(p, which, edges) if exact else None
    reference = generated if expected is None else expected
    shown = reference > 0
    with style():
        figure, (top, ratio) = panels(2, 1, height=3.4, sharex=True, height_ratios=(2.6, 1))
        top.stairs(generated / width, edges, color=MODEL, label="generated")
        if expected is not None:
            top.plot(centre, expected / width, color=EXACT, lw=1.1, label="exact")
        top.errorbar(centre, observed / width, error / width, fmt=".", color=DATA, ms=3, lw=0.8, label=label)
        top.set(xscale="log", yscale="log", ylabel=unit, ylim=(0.5 * _smallest(observed / width), None))
        top.legend(loc="lower center")
        ratio.axhline(1, color=EXACT if expected is not None else MODEL, lw=1.1)
        x, r = centre[shown], reference[shown]
        ratio.errorbar(x, observed[shown] / r, error[shown] / r, fmt=".", color=DATA, ms=3, lw=0.8)
        if expected is not None:
            ratio.errorbar(x * 1.04, generated[shown] / r, model_error[shown] / r, fmt=".", color=MODEL, ms=3, lw=0.8)
        ratio.set(xlabel=quantity, ylabel="ratio to exact" if expected is not None else "test / generated", ylim=(0.5, 1.5))
        save(figure, path)
    none = np.full_like(observed, np.nan)
    curves = {"observed": observed, "error": error, "generated": generated, "expected": none if expected is None else expected}
    return {"edges": edges, **curves}


def expected_histogram(p: Arrays, which: str, edges: np.ndarray) -> np.ndarray:
    """Muons per bin that the exact density expects of these events, given how many muons each has."""
    some = np.flatnonzero(p["count"] > 0)
    weight = p["count"][some].astype(float)
    if len(some) > MOST_EVENTS:  # the events with most muons, and a regular sample of the others, weighted up
        some, weight = _thinned(some, weight)
    condition = torch.as_tensor(p["condition"][some])
    bounds = torch.as_tensor(edges)
    if which == "energy":
        above = torch.stack([showers.energy_survival(edge.expand(len(condition)), condition) for edge in bounds], 1)
        share = above[:, :-1] - above[:, 1:]
    else:
        share = _radius_shares(condition, bounds)
    return (torch.as_tensor(weight)[:, None] * share).sum(0).numpy()


def _radius_shares(condition: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """P(r in each bin | condition) [N, bins]: the Gamma(2, s) distribution averaged over quantiles of the muon energy."""
    u = ((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES).expand(len(condition), QUANTILES).reshape(-1)
    here = showers.Arrival(*(value.repeat_interleave(QUANTILES) for value in showers.arrival(condition)))
    scale = showers.radius_scale(showers.surface_energies(here, u), here.height)
    x = edges[None] / scale[:, None]
    below = 1 - (1 + x) * torch.exp(-x)
    return (below[:, 1:] - below[:, :-1]).reshape(len(condition), QUANTILES, -1).mean(1)


def _thinned(some: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The half with the most muons exactly, the rest by a regular sample that stands for all of it."""
    order = np.argsort(-weight, kind="stable")
    first, rest = order[: MOST_EVENTS // 2], order[MOST_EVENTS // 2 :]
    sample = rest[:: -(-len(rest) // (MOST_EVENTS // 2))]
    scaled = weight[sample] * weight[rest].sum() / weight[sample].sum()
    return some[np.concatenate([first, sample])], np.concatenate([weight[first], scaled])


def multiplicities(p: Arrays, path: Path, exact: bool, label: str) -> Arrays:
    """P(N | N >= 1) observed, predicted and exact; ranges of E0 are cut at 50, 80 and 95% of the events with muons."""
    log_energy, some = np.log10(p["condition"][:, 0]), p["count"] > 0
    bounds = np.quantile(log_energy[some], [0, 0.5, 0.8, 0.95, 1])
    bounds[-1] += 1e-6
    largest = p["multiplicity"].shape[1]
    n = np.arange(1, largest)
    curves: Arrays = {"edges": bounds}
    with style():
        figure, grid = panels(2, 2, width=PAGE, height=4.4, sharex=True, sharey=True)
        for k, (axes, (low, high)) in enumerate(zip(grid.flat, pairwise(bounds), strict=True)):
            chosen = some & (log_energy >= low) & (log_energy < high)
            seen = np.bincount(np.minimum(p["count"][chosen].astype(int), largest), minlength=largest + 1)[1:largest]
            total = max(int(chosen.sum()), 1)
            predicted = p["multiplicity"][chosen].mean(0)[:-1]
            axes.step(n, predicted, where="mid", color=MODEL, label="predicted")
            if exact:
                truth = p["multiplicity_oracle"][chosen].mean(0)[:-1]
                axes.plot(n, truth, color=EXACT, lw=1.1, label="exact")
                curves[f"exact_{k}"] = truth
            there = seen > 0
            bars = np.sqrt(seen[there]) / total
            axes.errorbar(n[there], seen[there] / total, bars, fmt=".", color=DATA, ms=3, lw=0.8, label=label)
            text = f"{low:.1f} < log$_{{10}}$($E_0$/GeV) < {high:.1f}\n{total} events"
            axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=7)
            curves |= {f"observed_{k}": seen / total, f"predicted_{k}": predicted}
        grid[0, 0].set(xscale="log", yscale="log", ylim=(2e-4, 1.5), xlim=(0.9, largest))
        grid[0, 0].set_xticks([1, 2, 3, 5, 10, 20, 40], ["1", "2", "3", "5", "10", "20", "40"], minor=False)
        grid[0, 0].xaxis.minorticks_off()
        grid[0, 0].legend(loc="lower left")
        for axes in grid[1]:
            axes.set_xlabel("muons in the bundle $N$")
        for axes in grid[:, 0]:
            axes.set_ylabel("$P(N\\,|\\,N\\geq 1)$")
        save(figure, path)
    return curves


def survival(p: Arrays, path: Path, exact: bool, label: str) -> Arrays:
    """P(N >= 1) against the energy per nucleon over the threshold; events without muons weigh 1 / kept."""
    energy, zenith, mass, depth = p["condition"].T
    column = slant_depth(torch.tensor(depth) / 1000, torch.cos(torch.tensor(zenith)))
    reach = energy / mass / threshold_energy(column).numpy()
    edges = np.geomspace(1, max(float(reach.max()) * 1.001, 10), 15)
    empty = p["count"] == 0
    weight = np.where(empty, 1 / p["kept"], 1.0)
    total = _sums(reach, weight, edges)
    total[total == 0] = np.nan
    terms = {"predicted": p["survival"], "exact": p["survival_oracle"] if exact else np.full(len(reach), np.nan)}
    curves: Arrays = {name: _sums(reach, weight * values.astype(float), edges) / total for name, values in terms.items()}
    filled = _sums(reach, (~empty).astype(float), edges)
    curves["observed"] = filled / total
    # of q = F / (F + E), with F counted and E a weighted sum: dq = q (1 - q) sqrt(var F / F^2 + var E / E^2)
    left = total - filled
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(1 / filled + _sums(reach, empty * weight**2, edges) / left**2)
        curves["error"] = np.nan_to_num(curves["observed"] * (1 - curves["observed"]) * relative)
    reference = curves["exact" if exact else "predicted"]
    centre = np.sqrt(edges[1:] * edges[:-1])
    there = (filled > 0) & (reference > 0)
    x, r, y, e = (v[there] for v in (centre, reference, curves["observed"], curves["error"]))
    with style():
        figure, (top, ratio) = panels(2, 1, height=3.4, sharex=True, height_ratios=(2.6, 1))
        top.stairs(curves["predicted"], edges, color=MODEL, label="predicted", baseline=None)
        ratio.axhline(1, color=EXACT if exact else MODEL, lw=1.1)
        if exact:
            top.plot(centre, curves["exact"], color=EXACT, lw=1.1, label="exact")
            ratio.plot(x, curves["predicted"][there] / r, ".", color=MODEL, ms=4)
        top.errorbar(x, y, e, fmt=".", color=DATA, ms=3, lw=0.8, label=label)
        ratio.errorbar(x, y / r, e / r, fmt=".", color=DATA, ms=3, lw=0.8)
        top.set(xscale="log", yscale="log", ylabel="$P(N\\geq 1)$", ylim=(0.3 * _smallest(y), 2))
        top.legend(loc="lower right")
        name = "ratio to exact" if exact else "test / predicted"
        ratio.set(xlabel="energy per nucleon / threshold energy", ylabel=name, ylim=(0.5, 1.5))
        save(figure, path)
    return {"edges": edges, **curves}


def likelihoods(p: Arrays, path: Path, exact: bool, label: str) -> Arrays:
    """NLL per muon in bins of condition: model, exact density, marginal and shuffled conditions."""
    some = p["count"] > 0
    energy, zenith, mass, depth = p["condition"][some].T
    column = slant_depth(torch.as_tensor(depth) / 1000, torch.cos(torch.as_tensor(zenith))).numpy()
    lines = {
        "shuffled condition": ("log_prob_shuffled", PALETTE[3], ":"),
        "no condition": ("log_prob_marginal", MARGINAL, "--"),
    }
    if exact:
        lines["exact density"] = ("log_prob_oracle", EXACT, "-")
    lines["spline flow"] = ("log_prob", MODEL, "-")
    curves: Arrays = {}
    with style():
        figure, pair = panels(1, 2, width=PAGE, height=2.7, sharey=True)
        names = ("energy per nucleon $E_0/A$ [GeV]", "slant depth [km w.e.]")
        for axes, value, name, key in zip(pair, (energy / mass, column), names, ("nucleon", "column"), strict=True):
            edges = _edges(value, 9)
            count = p["count"][some].astype(float)
            centre = np.exp(_sums(value, count * np.log(value), edges) / _sums(value, count, edges))
            curves[f"{key}_edges"] = edges
            for line, (term, color, dash) in lines.items():
                mean, error = _nll(p[term][some], p["count"][some], value, edges)
                axes.plot(centre, mean, dash, color=color, label=line, marker="o", ms=2.5)
                axes.fill_between(centre, mean - error, mean + error, color=color, alpha=0.2, lw=0)
                curves[f"{key}_{term}"] = mean
            axes.set(xscale="log", xlabel=name)
        pair[0].set(ylabel="NLL per muon in $(e, v)$ [nat]")
        pair[1].set_xticks([1, 1.5, 2, 3], ["1", "1.5", "2", "3"])
        pair[1].xaxis.minorticks_off()
        handles, names_shown = pair[0].get_legend_handles_labels()
        figure.legend(handles, names_shown, ncols=4, loc="outside upper center", title=label, title_fontsize=7)
        save(figure, path)
    return curves


def _histogram(packed: np.ndarray, count: np.ndarray, column: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Muons per bin and their errors; each packed muon stands for count / packed of its event."""
    there = ~np.isnan(packed[..., 0])
    weight = muon_weights(torch.tensor(packed), torch.tensor(count)).numpy()[there]
    values = packed[..., column][there]
    total, _ = np.histogram(values, edges, weights=weight)
    squared, _ = np.histogram(values, edges, weights=weight**2)
    return total, np.sqrt(squared)


def _sums(value: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(value, edges, weights=weight)[0]


def _smallest(values: np.ndarray) -> float:
    positive = values[values > 0]
    return float(positive.min()) if len(positive) else 1.0


def _edges(value: np.ndarray, bins: int) -> np.ndarray:
    """Edges between which equally many events lie."""
    edges = np.unique(np.quantile(value, np.linspace(0, 1, bins + 1)))
    edges[-1] *= 1 + 1e-6
    return edges


def _nll(log_prob: np.ndarray, count: np.ndarray, value: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean -ln p per muon in each bin, and its standard error over events (a ratio of sums)."""
    mean, error = np.full(len(edges) - 1, np.nan), np.full(len(edges) - 1, np.nan)
    for k, (low, high) in enumerate(pairwise(edges)):
        chosen = (value >= low) & (value < high)
        if chosen.any():
            n, total = count[chosen].astype(float), log_prob[chosen].astype(float)
            mean[k] = -total.sum() / n.sum()
            error[k] = np.sqrt(((total + mean[k] * n) ** 2).sum()) / n.sum()
    return mean, error
