"""Complementary or redundant: what two embeddings know together beyond what the better one knows alone."""

from collections.abc import Mapping

import numpy as np

from embeddings.probes.held_out import held_out_scores
from embeddings.probes.ridge import cross_validated_ridge
from embeddings.vectors.rows import Rows, SideBySide, Some
from skyloom.errors import DataError

__all__ = ["joint_gain"]


def joint_gain(
    a: Rows,
    b: Rows,
    rows: np.ndarray,
    properties: Mapping[str, np.ndarray],
    fold: np.ndarray,
    groups: np.ndarray,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Property -> R2 of the first, the second and both side by side, `gain` over the better one and over the first alone.

    All three ridge probes are fitted and scored on the same objects `rows` (which have both vectors) with the same folds, and
    the gains' intervals come from the same resamples of groups. Both vectors must be of comparable size (unit mean
    variance): they share one penalty.
    """
    first, second = Some(a, rows), Some(b, rows)
    names = [n for n, v in properties.items() if np.isfinite(v[rows]).sum() >= 50 and np.nanstd(v[rows]) > 0]
    if not names:
        return {}
    y = np.stack([properties[n][rows] for n in names], axis=1)
    try:
        found = [cross_validated_ridge(x, y, fold[rows]).predictions for x in (first, second, SideBySide([first, second]))]
    except DataError:  # too few objects in a fold
        return {}
    pairs = {f"{k} {n}": (y[:, t], p[:, t]) for k, p in enumerate(found) for t, n in enumerate(names)}
    differences = {f"{k} {n}": (f"2 {n}", f"{k} {n}") for k in (0, 1) for n in names}
    scores = held_out_scores(pairs, groups[rows], differences, resamples=resamples, seed=seed)
    table = {}
    for n in names:
        better = 0 if scores[f"r2/0 {n}"] >= scores[f"r2/1 {n}"] else 1
        gain, over_first = scores[f"difference/{better} {n}"], scores[f"difference/0 {n}"]
        table[n] = {
            "r2_first": float(scores[f"r2/0 {n}"]), "r2_second": float(scores[f"r2/1 {n}"]),
            "r2_both": float(scores[f"r2/2 {n}"]),
            "gain": float(gain), "gain_low": gain.low, "gain_high": gain.high,
            "over_first": float(over_first), "over_first_low": over_first.low, "over_first_high": over_first.high,
        }  # fmt: skip
    return table
