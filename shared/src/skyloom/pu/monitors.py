"""What the terms of a positive-unlabeled risk say while it is minimized: a playbook of symptoms, causes and cures.

The loop averages the terms of `nnpu` (train/risk_p+, train/risk_u-, train/risk_p-, train/negative_risk, train/clipped) into
metrics.jsonl, so `clipped` there is the share of clipped steps. `advice` reads such rows.
"""

from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["advice", "history"]


def history(rows: Iterable[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """The terms of a risk over the rows of a run's metrics that hold them: {step, risk_p+, risk_u-, …}."""
    held = [row for row in rows if "train/risk_p+" in row]
    names = sorted({name for row in held for name in row if name.startswith("train/")})
    series = {name.removeprefix("train/"): np.array([float(row.get(name, np.nan)) for row in held]) for name in names}
    return {"step": np.array([float(row.get("step", i)) for i, row in enumerate(held)]), **series}


def advice(rows: Iterable[Mapping[str, float]], prior: float, surrogate: str = "sigmoid") -> list[str]:
    """What the last third of a run shows, in words; empty where nothing is amiss.

    >>> rows = [{"train/risk_p+": 0.97, "train/risk_u-": 0.01, "train/clipped": 0.0, "train/negative_risk": 0.0}] * 6
    >>> advice(rows, prior=0.01)[0][:41]
    'nothing is called positive: R_P+ is 0.97,'
    """
    terms = history(rows)
    if len(terms["step"]) == 0:
        return []
    tail = slice(-max(len(terms["step"]) // 3, 1), None)
    mean = {name: float(np.nanmean(values[tail])) for name, values in terms.items() if np.isfinite(values[tail]).any()}
    if "risk_p+" not in mean:
        return ["R_P+ is not a number in all of the last third: look at the data, and lower the learning rate."]
    chance = 0.5 if surrogate == "sigmoid" else float(np.log(2))
    says = []
    if mean["risk_p+"] > 1.5 * chance and mean.get("risk_u-", 0.0) < 0.5 * chance:
        says.append(
            f"nothing is called positive: R_P+ is {mean['risk_p+']:.2g}, R_U- {mean['risk_u-']:.2g}. At the prior {prior:g} "
            "that is nearly the least risk; set target_prior=0.5, and compose batches with skyloom.pu.Balanced."
        )
    if mean.get("clipped", 0.0) > 0.5:
        says.append(
            f"{mean['clipped']:.0%} of the steps are clipped: the prior {prior:g} is too large, the labelled differ from the "
            "positives among the unlabeled, or the network learned the labelled rows by heart. Check the prior; regularise."
        )
    if "clipped" not in mean and mean.get("negative_risk", 0.0) < -0.05 * prior:
        says.append(
            f"the unbiased risk of negatives is {mean['negative_risk']:.2g}, which no risk can be: it overfits. Use nnpu."
        )
    if abs(mean["risk_p+"] - chance) < 0.02 * chance and abs(mean.get("risk_u-", 0.0) - chance) < 0.02 * chance:
        says.append("both risks stand at chance: nothing is learned yet. Raise the learning rate, or train longer.")
    return says
