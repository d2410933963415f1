"""Goals that an experiment states beside its settings, and whether a run met them."""

import math
from typing import Any

from skyloom.errors import ConfigError

__all__ = ["check_goals", "judge_goals"]


def check_goals(goals: list[dict[str, Any]]) -> None:
    for goal in goals:
        bounds = {"min", "max"} & set(goal)
        if "metric" not in goal or len(bounds) != 1 or set(goal) - {"metric", "min", "max"}:
            raise ConfigError(
                f"goal {goal} cannot be read: write {{metric: test/auroc, min: 0.98}} or {{metric: test/nll, max: 0.2}}."
            )


def judge_goals(goals: list[dict[str, Any]], metrics: dict[str, float]) -> list[dict[str, Any]]:
    """Each goal with its value, and whether it was met; a metric that is absent or NaN leaves `met` null, never true.

    >>> judge_goals([{"metric": "test/auroc", "min": 0.9}], {"test/auroc": 0.95})[0]["met"]
    True
    """
    check_goals(goals)
    judged = []
    for goal in goals:
        value = metrics.get(goal["metric"])
        met = None
        if value is not None and math.isfinite(value):
            met = value >= goal["min"] if "min" in goal else value <= goal["max"]
        judged.append({**goal, "value": value, "met": met})
    return judged
