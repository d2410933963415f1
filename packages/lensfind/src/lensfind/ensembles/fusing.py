r"""One logit from several members, fitted and judged without a certified non-lens; from saved logits, so that no network is run
twice.

Members first: logits z and variances v are [members, n]. What needs fitting is fitted on validation rows, labelled and
unlabeled, by the logistic risk over the population (`lensfind.calibration.platt`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from lensfind.calibration.calibrating import platt
from lensfind.calibration.merit import sigmoid
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.uncertainty import linear_pool, log_pool, random_effects

__all__ = ["RULES", "Fusion", "fuse", "population_risk", "pu_stack", "worth_keeping"]

Array = np.ndarray


def population_risk(z: Array, labelled: Array, prior: float) -> float:
    """E_U ln(1 + e^z) - prior E_P z: the logistic risk of logits z [n] over the population."""
    labelled = np.asarray(labelled) > 0.5
    return float(np.logaddexp(0, z[~labelled]).mean() - prior * z[labelled].mean())


def pu_stack(
    z: Array, labelled: Array, prior: float, free: Array | None = None, ridge: float = 0.02
) -> tuple[Array, Array, float]:
    """Weights a >= 0 of members, c of any sign of the rows `free` [k, n], and b: of least risk of a z + c s + b.

    Stacking (Wolpert 1992; Breiman 1996) by the risk over the population, drawn by `ridge` (in units of the prior) towards the
    mean logit, so that members that say the same share their weight.
    """
    labelled = np.asarray(labelled) > 0.5
    if labelled.all() or not labelled.any():
        raise DataError("stacking needs labelled and unlabeled rows.")
    m = len(z)
    s = np.zeros((0, z.shape[1])) if free is None else np.atleast_2d(free)
    scale = np.concatenate([np.full(m, z.std() or 1.0), s.std(axis=1) + 1e-12])
    x = np.concatenate([z, s]) / scale[:, None]
    start = np.concatenate([np.full(m, scale[0] / m), np.zeros(len(s)), [0.0]])
    u, target = x[:, ~labelled], x[:, labelled].mean(axis=1)

    def risk(v: Array) -> tuple[float, Array]:
        logit = v[:-1] @ u + v[-1]
        p = sigmoid(logit)
        away = v - start
        value = np.logaddexp(0, logit).mean() - prior * (v[:-1] @ target + v[-1]) + 0.5 * ridge * prior * away @ away
        gradient = np.append((u * p).mean(axis=1) - prior * target, p.mean() - prior)
        return float(value), gradient + ridge * prior * away

    bounds = [(0.0, None)] * m + [(None, None)] * (len(s) + 1)
    found = minimize(risk, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12}).x
    weights = found[:-1] / scale
    return weights[:m], weights[m:], float(found[-1])


def worth_keeping(
    z: Array, score: Array, labelled: Array, prior: float, rng: np.random.Generator, folds: int = 5, shuffles: int = 20
) -> tuple[bool, float, float]:
    """Whether a score [n] beside the members lowers the held-out risk by more than shuffled copies of it do.

    Gives the answer, the gain, and the largest gain of a shuffled score: what has no information must not weigh members.
    """
    labelled = np.asarray(labelled) > 0.5
    fold = np.empty(len(labelled), dtype=int)
    for part in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        fold[part] = rng.permutation(len(part)) % folds

    def held_out(free: Array | None) -> float:
        out = np.empty(len(labelled))
        for k in range(folds):
            there = fold == k
            part = None if free is None else free[None, ~there]
            a, c, b = pu_stack(z[:, ~there], labelled[~there], prior, part)
            out[there] = a @ z[:, there] + b + (0.0 if free is None else float(c[0]) * free[there])
        return population_risk(out, labelled, prior)

    alone = held_out(None)
    gain = alone - held_out(score)
    chance = max(alone - held_out(rng.permutation(score)) for _ in range(shuffles))
    return bool(gain > max(chance, 0.0)), float(gain), float(chance)


@dataclass(frozen=True)
class Fusion:
    """A fitted rule: logits [n] of member logits [members, n], of their variances or a further score where it asks for them."""

    rule: str
    slopes: Array  # calibration of each member: slope,
    offsets: Array  # and offset
    weights: Array
    intercept: float
    score_weight: float = 0.0

    def __call__(self, z: Array, variances: Array | None = None, score: Array | None = None) -> Array:
        member = self.slopes[:, None] * z + self.offsets[:, None]
        if self.rule == "mean_probability":
            return linear_pool(member)
        if self.rule == "random_effects":
            if variances is None:
                raise DataError("fusing by variance needs members that give one (a head with dropout or its own variance).")
            return random_effects(member, self.slopes[:, None] ** 2 * variances).logit
        if self.rule == "stack":
            out = self.weights @ member + self.intercept
            return out if score is None or self.score_weight == 0 else out + self.score_weight * score
        return log_pool(member)


RULES: tuple[str, ...] = ("mean_logit", "mean_probability", "random_effects", "stack")


def fuse(rule: str, z: Array, labelled: Array, prior: float, score: Array | None = None, trust: bool = True) -> Fusion:
    """Fit a rule on validation logits. `trust` calibrates each member first: one made twice as sharp gets no more say."""
    if rule not in RULES:
        raise ConfigError(f"there is no rule {rule!r}.{nearest(rule, RULES)}")
    fits = [platt(member, labelled, prior) for member in z] if trust else [(1.0, 0.0)] * len(z)
    slopes, offsets = (np.array(values) for values in zip(*fits, strict=True))
    weights, extra, intercept = np.full(len(z), 1 / len(z)), np.zeros(1), 0.0
    if rule == "stack":
        free = None if score is None else score[None]
        weights, extra, intercept = pu_stack(slopes[:, None] * z + offsets[:, None], labelled, prior, free)
    return Fusion(rule, slopes, offsets, weights, intercept, float(extra[0]) if len(extra) else 0.0)
