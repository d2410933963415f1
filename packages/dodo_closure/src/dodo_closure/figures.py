"""Figures, from saved predictions alone. Errors are means over the 24 components of |F - F_true| / N."""

from pathlib import Path
from typing import Any

import numpy as np

from skyloom.plots import PAGE, Figure, panels, save, style

__all__ = ["calibration", "changes", "crossing_depth", "draw", "error_distributions", "flux_factors", "per_species"]

Arrays = dict[str, np.ndarray]
_CLOSURES = {  # column of the predictions: label, colour, line
    "initial": ("no conversion", "0.55", ":"),
    "box": ("Box3D", "C1", "--"),
    "smooth": ("smooth Box3D", "C2", "-."),
    "predicted": ("Box3D + learned residual", "C0", "-"),
}
_SPECIES = ("$\\nu_e$", "$\\nu_x$", "$\\bar\\nu_e$", "$\\bar\\nu_x$")


def draw(predictions: Arrays, about: dict[str, Any], directory: Path) -> list[Figure]:
    from dodo_closure.sky import sky_maps

    note = f" Synthetic states; their truth is of tier {about['tier'].upper()}: {about['truth']}." if about["synthetic"] else ""
    families = " and ".join(about["families"])
    error_distributions(predictions, about, directory / "errors.png")
    crossing_depth(predictions, directory / "crossing_depth.png")
    per_species(predictions, directory / "species.png")
    changes(predictions, directory / "changes.png")
    calibration(predictions, about, directory / "calibration.png")
    flux_factors(predictions, directory / "flux_factors.png")
    row = sky_maps(predictions, directory / "sky.png")
    return [
        Figure(
            directory / "errors.png",
            "How large the errors are",
            f"Share of test states whose error is below the abscissa: families seen in training ({families})"
            f"{', one never seen (' + str(about['heldout_family']) + ')' if about['heldout_family'] else ''}, and, where there "
            "are such, states whose truth was computed with three flavors." + note,
        ),
        Figure(
            directory / "crossing_depth.png",
            "Where the residual helps",
            "Left: median error in equally filled bins of the depth of the crossing, I_< / I_>, of all test states; bands hold "
            "the middle half. Right: the skill 1 - error / Box3D's error in the same bins." + note,
        ),
        Figure(
            directory / "species.png",
            "Species by species, component by component",
            "Mean error of the number density and of a flux component, of each species (x: one heavy flavor), in units of N, "
            "for families seen in training; bars are 95% bootstrap intervals over states." + note,
        ),
        Figure(
            directory / "changes.png",
            "Predicted and true change of the electron flavor",
            "Change of the electron-neutrino density (left) and length of the error of its flux change (right), in units of "
            "the total density N, for all test states. A perfect closure lies on the line, and at zero." + note,
        ),
        Figure(
            directory / "calibration.png",
            "Does the closure know its error?",
            "Left: how often each component's error is within k times its error bar (half-width of the 68% interval), against "
            "a normal distribution. Right: actual against expected mean error of a state, in equally filled bins." + note,
        ),
        Figure(
            directory / "flux_factors.png",
            "Flux factors stay below one",
            "Distribution of |F| / n over species and test states, before, after (truth), and as predicted." + note,
        ),
        Figure(
            directory / "sky.png",
            "One state on the sphere, before and after",
            f"Electron-minus-heavy lepton number G(n) of test state {row}, from maximum-entropy distributions of its "
            "four-fluxes: initial, Box3D, predicted and true. Mollweide projection about the crossing axis of the initial "
            "state; one colour scale, in units of N per steradian; black: G = 0." + note,
        ),
    ]


def _errors(p: Arrays, column: str) -> np.ndarray:
    return np.abs(p[column].astype(float) - p["final"]).mean(axis=(1, 2, 3))


def _parts(p: Arrays, about: dict[str, Any]) -> dict[str, np.ndarray]:
    """Titles of the sets of test rows, and which rows they hold."""
    titles = ("families seen in training", f"family never seen ({about['heldout_family']})", "three-flavor truth (T3)")
    return {title: p["set"] == k for k, title in enumerate(titles) if (p["set"] == k).any()}


def error_distributions(p: Arrays, about: dict[str, Any], path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Cumulative distributions of the row error, per closure; returns the sorted errors of each panel."""
    parts = _parts(p, about)
    drawn: dict[str, dict[str, np.ndarray]] = {}
    with style():
        figure, axes = panels(1, len(parts), width=PAGE, height=2.9, squeeze=False, sharey=True)
        for axis, (title, rows) in zip(axes[0], parts.items(), strict=True):
            drawn[title] = {}
            for column, (label, colour, line) in _CLOSURES.items():
                error = np.sort(_errors(p, column)[rows])
                share = np.arange(1, len(error) + 1) / len(error)
                axis.plot(error, share, line, color=colour, label=label)
                drawn[title][column] = error
            axis.set(xscale="log", xlabel="mean |F − F$_{true}$| / N of a state", title=f"{title}: {rows.sum()}")
            axis.set_ylim(0, 1)
        axes[0, 0].set_ylabel("share of states below")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, path)
    return drawn


def crossing_depth(p: Arrays, path: Path, bins: int = 8) -> dict[str, np.ndarray]:
    """Median error and quartiles against I_< / I_> in equally filled bins, and the skill; returns centres, medians, skill."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ratio = p["smaller"] / p["larger"]
    edges = np.quantile(ratio, np.linspace(0, 1, bins + 1))
    which = np.clip(np.searchsorted(edges, ratio, side="right") - 1, 0, bins - 1)
    used = [k for k in range(bins) if (which == k).any()]
    centre = np.array([np.median(ratio[which == k]) for k in used])
    drawn = {"ratio": centre}
    with style():
        figure, (axis, right) = panels(1, 2, width=PAGE, height=2.9)
        mean: dict[str, np.ndarray] = {}
        for column, (label, colour, line) in _CLOSURES.items():
            error = _errors(p, column)
            mean[column] = np.array([error[which == k].mean() for k in used])
            if column == "initial":
                continue
            low, middle, high = np.array([np.quantile(error[which == k], [0.25, 0.5, 0.75]) for k in used]).T
            axis.plot(centre, middle, line, color=colour, label=label, marker="o")
            axis.fill_between(centre, low, high, color=colour, alpha=0.15, linewidth=0)
            drawn[column] = middle
        for column in ("smooth", "predicted"):
            label, colour, line = _CLOSURES[column]
            right.plot(centre, 1 - mean[column] / mean["box"], line, color=colour, marker="o", label=label)
        drawn["skill"] = 1 - mean["predicted"] / mean["box"]
        right.axhline(0, color=_CLOSURES["box"][1], linestyle="--", label="Box3D")
        axis.set(xscale="log", yscale="log", xlabel=r"depth of the crossing  $I_</I_>$")
        axis.set_ylabel("mean |F − F$_{true}$| / N")
        right.set(xscale="log", xlabel=r"depth of the crossing  $I_</I_>$", ylabel="skill over Box3D")
        right.set_ylim(min(-0.1, float(drawn["skill"].min()) - 0.05), 1)
        for each in (axis, right):
            each.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            each.xaxis.set_major_formatter("{x:g}")
            each.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save(figure, path)
    return drawn


def per_species(p: Arrays, path: Path, resamples: int = 200) -> dict[str, np.ndarray]:
    """Mean error of density and flux per species with bootstrap intervals; returns [2 kinds, 4 species, 3] per closure."""
    rows = p["set"] == 0
    rng = np.random.default_rng(0)
    index = rng.integers(0, rows.sum(), (resamples, rows.sum()))
    drawn: dict[str, np.ndarray] = {}
    with style():
        figure, axes = panels(1, 2, width=PAGE, height=2.8)
        for place, column in enumerate(("box", "smooth", "predicted")):
            label, colour, _ = _CLOSURES[column]
            error = np.abs(p[column][rows].astype(float) - p["final"][rows])[:, :, :2]
            kinds = [error[..., 3].reshape(len(error), 4), error[..., :3].mean(axis=-1).reshape(len(error), 4)]
            found = []
            for axis, value in zip(axes, kinds, strict=True):
                low, high = np.quantile(value[index].mean(axis=1), [0.025, 0.975], axis=0)
                middle = value.mean(axis=0)
                where = np.arange(4) + 0.26 * (place - 1)
                axis.bar(where, middle, 0.24, color=colour, label=label)
                axis.errorbar(where, middle, [middle - low, high - middle], fmt="none", ecolor="0.2", elinewidth=0.8)
                found.append(np.stack([middle, low, high], axis=1))
            drawn[column] = np.stack(found)
        for axis, name in zip(axes, ("mean |n − n$_{true}$| / N", "mean |F$^i$ − F$^i_{true}$| / N"), strict=True):
            axis.set_xticks(range(4), _SPECIES)
            axis.set_ylabel(name)
            axis.grid(axis="x", visible=False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save(figure, path)
    return drawn


def changes(p: Arrays, path: Path) -> dict[str, np.ndarray]:
    """True against predicted change of n_e, and the distribution of flux errors; returns what is plotted."""
    truth = p["final"][:, 0, 0] - p["initial"][:, 0, 0]
    closures = {name: _CLOSURES[name] for name in ("box", "predicted")}
    drawn = {"truth": truth[:, 3]}
    with style():
        figure, (left, right) = panels(1, 2, width=PAGE, height=3.0)
        ends = np.array([truth[:, 3].min(), truth[:, 3].max()])
        errors = {}
        for column, (label, colour, _) in closures.items():
            change = p[column][:, 0, 0].astype(float) - p["initial"][:, 0, 0]
            left.plot(truth[:, 3], change[:, 3], ".", color=colour, ms=3, alpha=0.5, label=label)
            errors[column] = np.linalg.norm((change - truth)[:, :3], axis=1)
            drawn[column], drawn[f"{column} flux error"] = change[:, 3], errors[column]
        left.plot(ends, ends, color="0.3", linewidth=0.8)
        left.set(xlabel="true Δn$_e$ / N", ylabel="predicted Δn$_e$ / N")
        left.legend(loc="upper left", markerscale=2.5)
        edges = np.linspace(0, np.quantile(np.concatenate(list(errors.values())), 0.98), 40)
        for column, (label, colour, _) in closures.items():
            right.hist(errors[column].clip(max=edges[-1]), edges, histtype="step", color=colour, label=label, linewidth=1.3)
        right.set(xlabel="|ΔF$_e$ − ΔF$_{e,true}$| / N" + "; last bin: the rest", ylabel="states per bin")
        right.locator_params(axis="x", nbins=5)
        right.legend(loc="upper right")
        save(figure, path)
    return drawn


def calibration(p: Arrays, about: dict[str, Any], path: Path, bins: int = 8) -> dict[str, dict[str, np.ndarray]]:
    """Coverage of k error bars, and actual against expected error of a state; returns both, per set of rows."""
    from scipy.stats import norm

    error = np.abs(p["predicted"].astype(float) - p["final"])
    bar = p["error"].astype(float)
    k = np.linspace(0.1, 3, 30)
    drawn: dict[str, dict[str, np.ndarray]] = {}
    with style():
        figure, (left, right) = panels(1, 2, width=PAGE, height=3.0)
        unit = norm.ppf(0.84)
        left.plot(k, 2 * norm.cdf(k * unit) - 1, color="0.3", linewidth=0.8, label="normal distribution")
        for number, (title, rows) in enumerate(_parts(p, about).items()):
            covered = np.array([(error[rows] <= factor * bar[rows]).mean() for factor in k])
            expected, actual = bar[rows].mean(axis=(1, 2, 3)), error[rows].mean(axis=(1, 2, 3))
            order = np.array_split(np.argsort(expected), min(bins, rows.sum()))
            x, y = (np.array([value[part].mean() for part in order]) for value in (expected, actual))
            left.plot(k, covered, color=f"C{number}", label=title)
            right.plot(x, y, "o-", color=f"C{number}", label=title)
            drawn[title] = {"covered": covered, "expected": x, "actual": y}
        ends = np.array([min(d["expected"].min() for d in drawn.values()), max(d["expected"].max() for d in drawn.values())])
        right.plot(ends, ends * norm.expect(np.abs) / unit, color="0.3", linewidth=0.8)
        left.axvline(1, color="0.7", linewidth=0.8)
        left.set(xlabel="k error bars", ylabel="share of components within", ylim=(0, 1))
        right.set(xscale="log", yscale="log", xlabel="mean error bar of a state / N", ylabel="its mean error / N")
        left.legend(loc="lower right")
        save(figure, path)
    return drawn


def flux_factors(p: Arrays, path: Path) -> dict[str, np.ndarray]:
    """Histograms of flux factors; returns them per column."""
    columns = {"initial": ("initial", "0.55"), "final": ("truth", "#000000"), "box": _CLOSURES["box"][:2]}
    columns["predicted"] = _CLOSURES["predicted"][:2]
    edges = np.linspace(0, 1, 41)
    drawn: dict[str, np.ndarray] = {}
    with style():
        figure, axes = panels(1, 2, width=PAGE, height=2.8, sharex=True)
        for axis, flavor, name in zip(axes, (0, 1), ("electron flavor", "heavy flavors"), strict=True):
            for column, (label, colour) in columns.items():
                F = p[column][:, :, flavor].astype(float).reshape(-1, 4)
                n = np.maximum(F[:, 3], 1e-30)
                factor = np.linalg.norm(F[:, :3], axis=1) / n
                axis.hist(factor, edges, histtype="step", color=colour, label=label, linewidth=1.2)
                drawn[f"{column} {name}"] = factor
            axis.set(xlabel=f"flux factor, {name}", ylabel="four-fluxes per bin", xlim=(0, 1))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, path)
    return drawn
