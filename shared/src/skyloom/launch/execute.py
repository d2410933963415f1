"""One run, from its record to its result: the same in this process, in processes of its own, and in a sweep's job."""

import contextlib
import time
import traceback
from pathlib import Path
from typing import Any

from skyloom.errors import UserError
from skyloom.run import Interrupted, Run, StopSignals, judge_goals
from skyloom.run.directory import now
from skyloom.run.files import read_json

__all__ = ["Outcome", "execute"]

Outcome = dict[str, Any]
"""status, metrics {name: {value, low, high}}, reason, user_error."""


def execute(run: Run, config: dict[str, Any]) -> Outcome:
    """Do the work of `run` and record how it ended. Raises only for a bug of ours, after recording it as failed."""
    import warnings

    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    run.acquire()
    began = time.monotonic()
    spent = run.result.get("duration_s") or 0.0
    run.update(status="running", reason=None)
    outcome: Outcome = {"status": "failed", "metrics": {}, "reason": None}
    try:
        with StopSignals() as stop:
            try:
                outcome = _launch(run, config, stop)
            except Interrupted as signal:
                outcome = {"status": "interrupted", "metrics": {}, "reason": str(signal), "signum": signal.signum}
        return outcome
    except (UserError, OSError) as error:
        outcome = {"status": "failed", "metrics": {}, "reason": str(error), "user_error": str(error)}
        if not isinstance(error, (UserError, FileNotFoundError, PermissionError)):
            raise
        return outcome
    except BaseException as error:
        outcome["reason"] = f"{type(error).__name__}: {error}"
        run.write_json("traceback.json", traceback.format_exc().splitlines())
        raise
    finally:
        _record(run, config, outcome, spent + time.monotonic() - began)
        run.release()


def _record(run: Run, config: dict[str, Any], outcome: Outcome, seconds: float) -> None:
    metrics = outcome["metrics"] or run.result.get("metrics", {})  # what an earlier part of the run measured is kept
    values = {name: m["value"] for name, m in metrics.items()}
    run.update(
        status=outcome["status"],
        reason=outcome["reason"],
        ended=now(),
        duration_s=round(seconds, 2),
        metrics=metrics,
        interval={"level": 0.95},
        objective=[{**entry, "value": values.get(entry["metric"])} for entry in config["objective"]],
        goals=judge_goals(config["goals"], values),
    )


def _launch(run: Run, config: dict[str, Any], stop: StopSignals) -> Outcome:
    """Here, or in as many processes as the hardware says. When one leaves early the others fail for want of it: what counts
    is why it left."""
    from skyloom.launch.build import build
    from skyloom.launch.processes import forwarding, mistake, no_mistake
    from skyloom.training.hardware import spawns

    fabric = build(config, "hardware")
    directory, own = str(run.directory), spawns(fabric)
    with no_mistake(run.directory) if fabric.global_rank == 0 else contextlib.nullcontext():
        try:
            if own:
                with forwarding(stop, fabric._strategy.num_processes) as desk:
                    return fabric.launch(work, directory, config, desk)
            fabric.launch()  # one process, or as many as a scheduler has started
            return work(fabric, directory, config)
        except Exception:
            found = mistake(run.directory)
            if found is None and stop.requested is not None and own:
                gone = Interrupted(stop.requested)
                found = {"status": "interrupted", "metrics": {}, "reason": str(gone), "signum": gone.signum}
            if found is None:
                raise
            return found


def work(fabric: Any, directory: str, config: dict[str, Any], desk: Any = None) -> Outcome:
    """What every process of a run does. `desk`: where signals are left for processes that are not up yet."""
    run = Run.open(directory, writable=fabric.global_rank == 0)
    if fabric.global_rank == 0:
        from skyloom.training.hardware import device_name

        run.update(device=device_name(fabric))
    with StopSignals() if fabric.world_size > 1 else contextlib.nullcontext():
        trackers = _start_trackers(run, config) if fabric.global_rank == 0 else None
        outcome: Outcome = {"status": "failed", "metrics": {}, "reason": None}
        try:
            outcome = _call(run, fabric, config, trackers, desk)
        finally:
            if trackers is not None:
                trackers.finish(outcome["status"], {name: m["value"] for name, m in outcome["metrics"].items()})
        if fabric.world_size > 1 and outcome.get("user_error"):
            from skyloom.launch.processes import report_mistake

            report_mistake(run.directory, outcome)
            raise UserError(outcome["user_error"])
    return outcome


def _call(run: Run, fabric: Any, config: dict[str, Any], trackers: Any, desk: Any) -> Outcome:
    """Build the parts that the workflow asks for, and call it."""
    from skyloom.launch.build import build, workflow_parts
    from skyloom.launch.processes import take_up
    from skyloom.metrics import Estimate
    from skyloom.training import Pruned

    workflow = build(config, "workflow")
    parts: dict[str, Any] = {}
    ready = {
        "run": run,
        "fabric": fabric,
        "trackers": trackers,
        "seed": config["seed"],
        "threads": config["hardware"].get("threads", "auto"),
        "prune": _pruning(config),
    }
    try:
        take_up(desk, fabric.local_rank)
        for name in workflow_parts(workflow):
            if name in ready:
                parts[name] = ready[name]
            elif name == "data":  # the first process prepares and caches, the others read
                with fabric.rank_zero_first():
                    parts[name] = build(config, name)
            elif config.get(name) is not None:
                parts[name] = build(config, name)
        metrics = workflow(**parts)
    except Interrupted as signal:
        return {"status": "interrupted", "metrics": {}, "reason": str(signal), "signum": signal.signum}
    except Pruned as pruned:
        return {"status": "pruned", "metrics": _last_validation(run), "reason": str(pruned)}
    except UserError as error:
        return {"status": "failed", "metrics": {}, "reason": str(error), "user_error": str(error)}
    estimates = {name: m if isinstance(m, Estimate) else Estimate(m) for name, m in metrics.items()}
    _show(trackers, run)
    return {"status": "finished", "metrics": {name: e.to_json() for name, e in estimates.items()}, "reason": None}


def _last_validation(run: Run) -> dict[str, Any]:
    rows = [row for row in run.rows() if any(name.startswith("val/") for name in row)]
    return {name: {"value": v} for name, v in rows[-1].items() if name.startswith("val/")} if rows else {}


def _pruning(config: dict[str, Any]) -> Any:
    if not config.get("trial"):
        return None
    from skyloom.sweep import live_trial

    return live_trial(config["trial"], config["objective"])


def _start_trackers(run: Run, config: dict[str, Any]) -> Any:
    from skyloom.launch.build import build
    from skyloom.tracking import Trackers

    trial = config.get("trial") or {}
    chosen = [build(config["logger"], name) for name in config["logger"] or {}]
    trackers = Trackers(chosen)
    group = Path(trial["directory"]).name if trial.get("directory") else None
    job_type = "trial" if trial else "train"
    trackers.start(run.id, run.directory, config, group, job_type, [config["pkg"], config.get("experiment") or "default"])
    return trackers


def _show(trackers: Any, run: Run) -> None:
    """Figures with their captions, and the best weights for those trackers that were asked to keep them."""
    if trackers is None:
        return
    listed = run.directory / "figures" / "figures.json"
    for figure in read_json(listed) if listed.exists() else []:
        path = run.directory / "figures" / figure["file"]
        trackers.figure(path.stem, path, figure["caption"])
    if (run.checkpoints / "best.pt").exists():
        trackers.artifact(run.checkpoints / "best.pt")
