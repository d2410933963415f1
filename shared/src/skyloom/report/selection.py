"""Mean and spread over seeds, and the setting that validation chooses."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyloom.report.record import Record, as_number, objective_of
from skyloom.report.settings import Setting

__all__ = ["Summary", "choose", "metric_values", "metrics_of", "summarise"]


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over seeds, and the Student interval of the mean.

    With n values of mean m and deviation s (n - 1 in the denominator) the interval is m ± t(0.975, n - 1) s / √n, given
    from three values on: with two it would be more than twelve times the deviation's own size.
    """

    n: int
    mean: float
    spread: float
    low: float
    high: float


def summarise(values: Iterable[float]) -> Summary:
    """Undefined values do not count, and `n` says how many were left.

    >>> s = summarise([1.0, 2.0, 3.0])
    >>> s.n, s.mean, s.spread, round(s.low, 3), round(s.high, 3)
    (3, 2.0, 1.0, -0.484, 4.484)
    """
    finite = [v for v in values if math.isfinite(v)]
    n = len(finite)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = math.fsum(finite) / n
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (n - 1))
    if n == 2:
        return Summary(2, mean, spread, math.nan, math.nan)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return Summary(n, mean, spread, mean - half, mean + half)


def metric_values(setting: Setting, split: str) -> dict[str, list[float]]:
    """For each `split/...` metric its value in every finished run (NaN where a run lacks it).

    Validation metrics that the result does not hold are those of the row of the best step.
    """
    tables = [metrics_of(run, split) for run in setting.finished]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {name: [table.get(name, math.nan) for table in tables] for name in names}


def metrics_of(run: Record, split: str) -> dict[str, float]:
    found: dict[str, float] = {}
    best = (run.result.get("best") or {}).get("step")
    for row in run.rows:
        if best is not None and row.get("step") == best:
            found |= {name: as_number(v) for name, v in row.items() if name.startswith(f"{split}/")}
    found |= {o["metric"]: o["value"] for o in objective_of(run) if o["metric"].startswith(f"{split}/")}
    return found | {name: m["value"] for name, m in run.metrics.items() if name.startswith(f"{split}/")}


def choose(settings: Sequence[Setting]) -> tuple[list[Setting], str]:
    """The setting that validation chooses, and the sentence that says how; with several objectives the Pareto set.

    Only settings with the largest number of finished runs are compared: a setting whose other seeds failed would
    otherwise win by its luckiest one. The test split has no say.
    """
    with_runs = [s for s in settings if s.finished]
    if not with_runs:
        return [], "No run has finished, so nothing is chosen."
    objectives = objective_of(with_runs[0].finished[0])
    if len({tuple((o["metric"], o["direction"]) for o in objective_of(run)) for s in with_runs for run in s.finished}) > 1:
        return [], "The runs are judged by different objectives, so nothing is chosen."
    if len(settings) == 1:
        return list(settings), "All runs share one setting: there was nothing to choose."
    if not objectives:
        return [], "The runs state no objective, so nothing is chosen."
    if any(not o["metric"].startswith("val/") for o in objectives):
        names = ", ".join(o["metric"] for o in objectives if not o["metric"].startswith("val/"))
        return (
            [],
            f"The objective {names} is not a validation metric, so nothing is chosen: that would be fitting the test.",
        )
    most = max(len(s.finished) for s in with_runs)
    candidates = [(s, _means(s, objectives)) for s in with_runs if len(s.finished) == most]
    candidates = [(s, m) for s, m in candidates if all(math.isfinite(v) for v in m)]
    if not candidates:
        return [], "The validation objective is undefined in every run, so nothing is chosen."
    front = [s for s, m in candidates if not any(_dominates(other, m) for _, other in candidates)]
    best = [f"{'highest' if o['direction'] == 'maximize' else 'lowest'} mean {o['metric']}" for o in objectives]
    kind = "the settings that none beats in every objective" if len(objectives) > 1 else "the setting"
    among = f"{len(candidates)} setting{'s' * (len(candidates) > 1)}"
    how = f"Chosen on validation alone, among {among} with {most} finished run{'s' * (most > 1)}: "
    how += f"{kind} with {' and '.join(best)}."
    left_out = sum(len(s.finished) < most for s in with_runs)
    if left_out:
        how += f" Not compared: {left_out} with fewer finished runs."
    return (front if len(objectives) > 1 else front[:1]), how


def _means(setting: Setting, objectives: Sequence[Mapping[str, Any]]) -> list[float]:
    """Mean of each objective over the finished runs, with the sign that makes less better; NaN if any run lacks it."""
    values = metric_values(setting, "val")
    means = []
    for objective in objectives:
        found = values.get(objective["metric"], [math.nan])
        sign = -1.0 if objective["direction"] == "maximize" else 1.0
        means.append(sign * math.fsum(found) / len(found) if all(map(math.isfinite, found)) else math.nan)
    return means


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))
