"""The short table that ends a run, and lists of runs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skyloom.run import Run

__all__ = ["print_runs", "print_summary"]

SIGNS = {True: "met", False: "NOT MET", None: "unknown"}


def number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def interval(metric: dict[str, Any]) -> str:
    low, high = metric.get("low"), metric.get("high")
    return f"{low:.4g} … {high:.4g}" if low is not None and high is not None else ""


def print_summary(run: Run, page: Path | None) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    result = run.result
    console.print(f"\n{result['pkg']} {result.get('experiment') or 'default'}: {run.status}", style="bold", end="")
    took = f" after {result['duration_s']:.0f} s" if result.get("duration_s") is not None else ""
    console.print(took + (f" ({result['reason']})" if result.get("reason") else ""))
    if result.get("synthetic"):
        console.print("data: synthetic")
    tested = {name: m for name, m in result.get("metrics", {}).items() if name.startswith("test/")}
    if tested:
        table = Table("metric", "value", "95% interval", box=None, pad_edge=False)
        shown = headline(tested, result)
        for name in shown:
            table.add_row(name, number(tested[name]["value"]), interval(tested[name]))
        console.print(table)
        if len(shown) < len(tested):
            console.print(f"… and {len(tested) - len(shown)} more in result.json and the report")
    if result.get("goals"):
        table = Table("goal", "value", "met", box=None, pad_edge=False)
        for goal in result["goals"]:
            table.add_row(goal_text(goal), number(goal["value"]), SIGNS[goal["met"]])
        console.print(table)
        if run.config.get("scale") == "smoke":
            console.print("(goals are stated for the laptop scale; this is scale=smoke)")
    console.print(f"run:    {run.directory}\nreport: {page}")
    if result["status"] in ("interrupted", "failed"):
        console.print(f"resume: make train run={run.directory}")


def headline(metrics: dict[str, Any], result: dict[str, Any], most: int = 12) -> list[str]:
    """The metrics that a goal or the objective is about first, then as many others as make a short table."""
    asked = [goal["metric"] for goal in result.get("goals") or []]
    asked += [entry["metric"].replace("val/", "test/", 1) for entry in result.get("objective") or []]
    first = [name for name in dict.fromkeys(asked) if name in metrics]
    others = [name for name in metrics if name not in first]
    return first + others[: max(most - len(first), 0)]


def goal_text(goal: dict[str, Any]) -> str:
    return f"{goal['metric']} {'≥' if 'min' in goal else '≤'} {goal.get('min', goal.get('max'))}"


def print_runs(runs: list[Run], runs_dir: str) -> None:
    table = Table(
        "run", "experiment", "status", "objective", "goals met", "duration", "started (UTC)", box=None, pad_edge=False
    )
    for run in runs:
        result = run.result
        objective = (result.get("objective") or [{}])[0]
        goals = result.get("goals") or []
        shown = f"{objective.get('metric', '')} {number(objective.get('value'))}" if objective else ""
        table.add_row(
            str(run.directory.relative_to(runs_dir)) if run.directory.is_relative_to(runs_dir) else str(run.directory),
            str(result.get("experiment") or ""),
            run.status,
            shown,
            f"{sum(g['met'] is True for g in goals)} of {len(goals)}" if goals else "",
            f"{result['duration_s']:.0f} s" if result.get("duration_s") is not None else "",
            str(result.get("started", ""))[:16].replace("T", " "),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    console.print(table)
