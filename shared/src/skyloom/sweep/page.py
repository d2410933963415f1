"""How a sweep went: `report.html`, one self-contained file, `study.json` for programs, and the table of its runs."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from skyloom.report import write_group_report
from skyloom.report.digits import duration
from skyloom.report.render import by_day_and_night, render
from skyloom.run import Run
from skyloom.run.directory import now
from skyloom.run.files import read_json, write_json, write_text
from skyloom.sweep import figures
from skyloom.sweep.study import Sweep
from skyloom.sweep.workers import exclusive

__all__ = ["importances", "summary", "write_sweep"]

STATUS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
FEW = 4  # finished trials below which importances would be noise


def write_sweep(sweep: Sweep) -> Path:
    """Write the sweep's page, `study.json` and the group table `runs/`; returns the page."""
    with exclusive(sweep.directory):
        write_json(sweep.directory / "study.json", summary(sweep))
        path = sweep.directory / "report.html"
        _write_group(sweep)
        write_text(path, render("sweep.html", **_contents(sweep)))
    return path


def summary(sweep: Sweep) -> dict[str, Any]:
    """The study as plain values."""
    record, trials = read_json(sweep.record), sweep.trials
    return {
        **{key: record[key] for key in ("id", "study", "created", "n_trials", "space", "sampler", "pruner", "seed")},
        "objective": sweep.objective,
        "written": now(),
        "counts": {name: sum(STATUS[t.state] == name for t in trials) for name in STATUS.values()},
        "best": [t.number for t in _front(sweep)],
        "importance": importances(sweep),
        "trials": [
            {
                "number": t.number,
                "status": STATUS[t.state],
                "params": t.params,
                "values": t.values,
                "validations": len(t.intermediate_values),
                "seconds": t.duration.total_seconds() if t.duration else None,
                "reason": t.user_attrs.get("reason"),
                "run": str(sweep.trial_directory(t.number).relative_to(sweep.directory)),
            }
            for t in trials
        ],
    }


def importances(sweep: Sweep) -> dict[str, dict[str, float]]:
    """For each objective the fANOVA shares (Hutter et al. 2014, ICML) of the swept values; empty while trials are few."""
    done = [t for t in sweep.trials if t.state == TrialState.COMPLETE]
    if len(done) < FEW:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    found: dict[str, dict[str, float]] = {}
    for k, goal in enumerate(sweep.objective):
        if len({t.values[k] for t in done}) < 2:
            continue

        def value(trial: FrozenTrial, k: int = k) -> float:
            return float(trial.values[k])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                shares = get_param_importances(sweep.study, evaluator=FanovaImportanceEvaluator(seed=0), target=value)
            except (ValueError, RuntimeError):  # no value varied
                continue
        found[goal["metric"]] = {name: share for name, share in shares.items() if math.isfinite(share)}
    return {metric: shares for metric, shares in found.items() if shares}


def _front(sweep: Sweep) -> list[FrozenTrial]:
    return sorted(sweep.study.best_trials, key=lambda t: t.values)


def _contents(sweep: Sweep) -> dict[str, Any]:
    record, trials = read_json(sweep.record), sweep.trials
    counts = {name: sum(STATUS[t.state] == name for t in trials) for name in STATUS.values()}
    config = sweep.config
    seconds = sum(t.duration.total_seconds() for t in trials if t.duration)
    return {
        "id": sweep.id,
        "where": f"{config['pkg']} / {config.get('experiment') or 'default'}",
        "title": config.get("title") or "",
        "n_trials": sweep.n_trials,
        "counts": {name: count for name, count in counts.items() if count or name in ("finished", "failed", "pruned")},
        "facts": [
            ("sweep", sweep.id),
            ("begun", record["created"][:16].replace("T", " ") + " UTC"),
            ("time of all trials", duration(seconds)),
            ("sampler", _named(record["sampler"], "grid" if sweep.space.points is not None else "TPE")),
            ("pruner", _named(record["pruner"], "none") if len(sweep.objective) == 1 else "none (several objectives)"),
            ("seed of the sampler", str(record["seed"])),
        ],
        "incomplete": sweep.n_trials - counts["finished"] - counts["pruned"] - counts["failed"],
        "synthetic": any(Run(sweep.trial_directory(t.number)).result.get("synthetic") for t in trials),
        "objective": sweep.objective,
        "best": [_row(sweep, t) for t in _front(sweep)],
        "names": sweep.space.names,
        "space": record["space"],
        "rows": [_row(sweep, t) for t in trials],
        "figures": _figures(sweep, trials),
        "finished": counts["finished"],
        "group": (sweep.directory / "group" / "report.html").exists(),
        "few": FEW,
        "resume": f"make sweep run={sweep.directory}",
    }


def _named(stated: dict[str, Any] | None, otherwise: str) -> str:
    return str((stated or {}).get("_target_") or otherwise).rpartition(".")[2]


def _row(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    folder = sweep.trial_directory(trial.number)
    values = trial.values or [None] * len(sweep.objective)
    return {
        "number": trial.number,
        "status": STATUS[trial.state],
        "kind": {"finished": "good", "failed": "bad"}.get(STATUS[trial.state], "warn"),
        "params": [_shown(trial.params.get(name)) if name in trial.params else "–" for name in sweep.space.names],
        "values": ["–" if value is None else f"{value:.5g}" for value in values],
        "took": duration(trial.duration.total_seconds()) if trial.duration else "",
        "validations": len(trial.intermediate_values),
        "reason": trial.user_attrs.get("reason") or "",
        "page": f"{trial.number}/report.html" if (folder / "report.html").exists() else "",
        "command": Run(folder).provenance.get("command", ""),
        "again": max(int(trial.user_attrs.get("attempts", 1)) - 1, 0),
    }


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


def _figures(sweep: Sweep, trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    """What can be drawn from the trials there are."""
    objective, done = sweep.objective, [t for t in trials if t.state == TrialState.COMPLETE]
    drawn: list[dict[str, Any]] = []

    def add(title: str, caption: str, draw: Callable[[], figures.Drawn]) -> None:
        drawn.append({**by_day_and_night(title, lambda _: draw()[0], None), "title": title, "caption": caption})

    if not done:
        return drawn
    add(
        "History",
        "Objective of each trial in the order they were begun, and the best so far.",
        lambda: figures.draw_history(trials, objective),
    )
    if len(objective) > 1:
        add(
            "Pareto front",
            "Trials that no other trial beats in every objective; numbers are trials.",
            lambda: figures.draw_pareto(trials, sweep.study.best_trials, objective),
        )
    if any(len(t.intermediate_values) > 1 for t in trials):
        add(
            "Courses",
            "The objective at each validation of each trial; a cross ends a pruned one.",
            lambda: figures.draw_courses(trials, objective),
        )
    shares = importances(sweep)
    if shares:
        few = ": with so few, a guide, not a measurement" if len(done) < 30 else ""
        add(
            "Importance",
            f"Share of the objective's variance over the space (fANOVA, from {len(done)} finished trials{few}).",
            lambda: figures.draw_importance(shares),
        )
    if len(done) > 1 and done[0].params:
        add(
            "Parallel coordinates",
            f"A line for each finished trial, from its values to {objective[0]['metric']}; "
            "the worse, the paler; the thick one is the best.",
            lambda: figures.draw_parallel(trials, objective),
        )
    return drawn


def _write_group(sweep: Sweep) -> None:
    """The table over the trials' runs; a page that cannot be made does not undo the sweep."""
    folders = [sweep.trial_directory(t.number) for t in sweep.trials]
    folders = [folder for folder in folders if (folder / "result.json").exists()]
    if not folders:
        return
    try:
        write_group_report(folders, sweep.directory / "group")
    except Exception as error:
        warnings.warn(f"the group table could not be written: {type(error).__name__}: {error}", stacklevel=2)
