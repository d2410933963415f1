"""Is a training still going anywhere? A smoothed loss, and its slope over the last hundred, five and ten thousand steps.

Slopes are in nats per thousand steps. Both are computed from the record of a run (`metrics.jsonl`), which outlives an
interruption: a run that was resumed has the same trends as one that was not.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["WINDOWS", "slopes", "smoothed"]

WINDOWS = (100, 5_000, 10_000)  # steps


def smoothed(steps: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, keep: float = 0.95) -> np.ndarray:
    """s <- k s + (1 - k) v, from the first value, where k is `keep` to the number of steps since the last value.

    >>> smoothed([1, 2, 3], [2.0, 2.0, 2.0]).tolist()
    [2.0, 2.0, 2.0]
    """
    out, keeps = np.array(values, float), keep ** np.diff(np.asarray(steps, float))
    for k, kept in enumerate(keeps, start=1):
        out[k] = kept * out[k - 1] + (1 - kept) * out[k]
    return out


def slopes(steps: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> dict[int, float]:
    """Least-squares slope per thousand steps over each of the last `WINDOWS` steps; NaN where fewer than two values lie there.

    >>> slopes([50, 100, 150, 200], [4.0, 3.9, 3.8, 3.7])[100]
    -2.0
    """
    x, y = np.asarray(steps, float), np.asarray(values, float)
    out = {}
    for window in WINDOWS:
        last = x >= x[-1] - window if len(x) else np.zeros(0, bool)
        if last.sum() < 2:
            out[window] = float("nan")
            continue
        centred = x[last] - x[last].mean()
        out[window] = round(1000 * float(centred @ y[last]) / float(centred @ centred), 9)
    return out
