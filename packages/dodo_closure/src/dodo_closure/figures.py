"""Figures, from saved predictions alone. Errors are means over the 24 components of |F - F_true| / N."""

from pathlib import Path
from typing import Any

import numpy as np

from skyloom.plots import PAGE, Figure, panels, save, style

__all__ = ["changes", "crossing_depth", "draw", "error_distributions"]

Arrays = dict[str, np.ndarray]
_CLOSURES = {  # column of the predictions: label, colour, line
    "initial": ("no conversion", "0.55", ":"),
    "box": ("Box3D", "C1", "--"),
    "smooth": ("smooth Box3D (truth without scatter)", "C2", "-."),
    "predicted": ("Box3D + learned residual", "C0", "-"),
}


def draw(predictions: Arrays, about: dict[str, Any], directory: Path) -> list[Figure]:
    note = f" Synthetic states and a synthetic truth of tier {about['tier']}, {about['truth']}." if about["synthetic"] else ""
    families = " and ".join(about["families"])
    error_distributions(predictions, about, directory / "errors.png")
    crossing_depth(predictions, about, directory / "crossing_depth.png")
    changes(predictions, about, directory / "changes.png")
    return [
        Figure(
            directory / "errors.png",
            "How large the errors are",
            f"Share of test states whose error is below the abscissa: families seen in training ({families}, left) and one "
            f"never seen ({about['heldout_family']}, right). The smooth variant errs only by the random scatter of this "
            "truth, which four-fluxes do not tell." + note,
        ),
        Figure(
            directory / "crossing_depth.png",
            "Where the residual helps",
            "Median error in equally filled bins of the depth of the crossing, I_< / I_>, of all test states; bands hold the "
            "middle half." + note,
        ),
        Figure(
            directory / "changes.png",
            "Predicted and true change of the electron flavor",
            "Change of the electron-neutrino density (left) and length of the error of its flux change (right), in units of "
            "the total density N, for all test states. A perfect closure lies on the line, and at zero." + note,
        ),
    ]


def _errors(p: Arrays, column: str) -> np.ndarray:
    return np.abs(p[column].astype(float) - p["final"]).mean(axis=(1, 2, 3))


def error_distributions(p: Arrays, about: dict[str, Any], path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Cumulative distributions of the row error, per closure; returns the sorted errors of both panels."""
    seen = p["heldout"] == 0
    parts = {"families seen in training": seen, f"family never seen ({about['heldout_family']})": ~seen}
    parts = {title: rows for title, rows in parts.items() if rows.any()}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    with style():
        figure, axes = panels(1, len(parts), width=PAGE, height=3.0, squeeze=False, sharey=True)
        for axis, (title, rows) in zip(axes[0], parts.items(), strict=True):
            drawn[title] = {}
            for column, (label, colour, line) in _CLOSURES.items():
                error = np.sort(_errors(p, column)[rows])
                share = np.arange(1, len(error) + 1) / len(error)
                axis.plot(error, share, line, color=colour, label=label)
                drawn[title][column] = error
            axis.set(xscale="log", xlabel="mean |F − F$_{true}$| / N of a state", title=f"{title}: {rows.sum()} states")
            axis.set_ylim(0, 1)
        axes[0, 0].set_ylabel("share of states below (synthetic)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        save(figure, path)
    return drawn


def crossing_depth(p: Arrays, about: dict[str, Any], path: Path, bins: int = 8) -> dict[str, np.ndarray]:
    """Median error and quartiles against I_< / I_> in equally filled bins; returns the bin centres and medians."""
    ratio = p["smaller"] / p["larger"]
    edges = np.quantile(ratio, np.linspace(0, 1, bins + 1))
    which = np.clip(np.searchsorted(edges, ratio, side="right") - 1, 0, bins - 1)
    used = [k for k in range(bins) if (which == k).any()]
    centre = np.array([np.median(ratio[which == k]) for k in used])
    drawn = {"ratio": centre}
    with style():
        figure, axis = panels(height=3.0)
        for column, (label, colour, line) in _CLOSURES.items():
            if column == "initial":
                continue
            error = _errors(p, column)
            low, middle, high = np.array([np.quantile(error[which == k], [0.25, 0.5, 0.75]) for k in used]).T
            axis.plot(centre, middle, line, color=colour, label=label, marker="o")
            axis.fill_between(centre, low, high, color=colour, alpha=0.15, linewidth=0)
            drawn[column] = middle
        axis.set(xscale="log", yscale="log", xlabel=r"depth of the crossing  $I_</I_>$")
        axis.set_ylabel("mean |F − F$_{true}$| / N (synthetic)")
        axis.legend(loc="best")
        save(figure, path)
    return drawn


def changes(p: Arrays, about: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
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
        left.set(xlabel="true Δn$_e$ / N (synthetic)", ylabel="predicted Δn$_e$ / N")
        left.legend(loc="upper left", markerscale=2.5)
        edges = np.linspace(0, np.quantile(np.concatenate(list(errors.values())), 0.98), 40)
        for column, (label, colour, _) in closures.items():
            right.hist(errors[column].clip(max=edges[-1]), edges, histtype="step", color=colour, label=label, linewidth=1.3)
        right.set(xlabel="|ΔF$_e$ − ΔF$_{e,true}$| / N (synthetic; last bin holds the rest)", ylabel="states per bin")
        right.legend(loc="upper right")
        save(figure, path)
    return drawn
