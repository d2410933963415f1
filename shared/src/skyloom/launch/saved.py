"""Verbs over a run's best weights: `evaluate`, `predict`, `export`. The run directory is all they need."""

from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import ConfigError, MissingFile, nearest
from skyloom.launch.build import build, check_targets, workflow_parts
from skyloom.launch.records import runs_dir
from skyloom.launch.words import parsed, take
from skyloom.run import Run, find_run, judge_goals, list_runs
from skyloom.training.progress import said

__all__ = ["evaluate", "export", "named_run", "predict"]


def evaluate(words: list[str]) -> int:
    """Score the test split again and rewrite predictions, figures and page."""
    from skyloom.launch.summary import print_summary
    from skyloom.metrics import Estimate
    from skyloom.report import write_report
    from skyloom.training import workflow
    from skyloom.training.saved import load_task

    run, config, _ = _named(words)
    if "task" not in workflow_parts(build(config, "workflow")):
        raise ConfigError(f"the workflow of pkg={config['pkg']} scores as it runs: repeat it with make rerun run={run.id}.")
    fabric, loop = _loop(config)
    task, about = load_task(run)
    data = build(config, "data")
    if data.about["fingerprint"] != about["fingerprint"]:
        raise ConfigError(
            f"the data differ from those this run was trained on (fingerprint {about['fingerprint']} then, "
            f"{data.about['fingerprint']} now)."
        )
    draw = build(config, "evaluation") if config.get("evaluation") else None
    run.acquire()
    tested = workflow.evaluate(run, fabric, data, task, loop, draw, seed=int(config["seed"]))
    fresh = {name: m.to_json() if isinstance(m, Estimate) else {"value": m} for name, m in tested.items()}
    metrics = {**run.result.get("metrics", {}), **fresh}
    values = {name: m["value"] for name, m in metrics.items()}
    run.update(metrics=metrics, goals=judge_goals(config["goals"], values))
    run.release()
    print_summary(run, write_report(run.directory))
    return 0


def predict(words: list[str]) -> int:
    """Apply the best weights to `input`, by the package's own reader and writer."""
    run, config, own = _named(words, "input", "output")
    if "input" not in own:
        raise ConfigError("say what to predict for: input=<file>.")
    if not config.get("predict"):
        raise ConfigError(f"pkg={config['pkg']} has no `predict` in its configuration.")
    source = Path(own["input"])
    if not source.exists():
        raise MissingFile(f"input={source} does not exist.")
    target = Path(own.get("output") or run.directory / "predictions" / f"{source.stem}.parquet")
    if source.stem == "test" and "output" not in own:
        raise ConfigError("predictions/test.parquet holds the test split's own: say output=<file>.")
    if target.exists() and "output" in own:
        raise ConfigError(f"output={target} exists already and is not overwritten: name another file.")
    from skyloom.training.saved import load_task

    task, about = load_task(run)
    _, loop = _loop(config)
    loop.limit_batches = None  # whatever the training tried, every row is wanted here
    task = task.to(loop.fabric.device) if loop.fabric is not None else task

    def apply(dataset: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in loop.predict(task, dataset).items()}

    summary = build(config, "predict")(task, about, source, target, apply)
    for name, value in summary.items():
        said(f"{name}: {value}")
    said(f"written: {target}")
    return 0


def export(words: list[str]) -> int:
    """The best weights as one graph that needs no Skyloom, with a parity check."""
    run, config, own = _named(words, "output", "format")
    from skyloom.training.graphs import FORMATS, write_graph
    from skyloom.training.saved import load_task

    format = own.get("format", "pt2")
    if format not in FORMATS:
        raise ConfigError(f"format={format} does not exist.{nearest(format, FORMATS)}")
    task, _ = load_task(run)
    if not hasattr(task, "example"):
        raise ConfigError(f"the task of pkg={config['pkg']} gives no `example()` batch, so it cannot be exported.")
    path = Path(own.get("output") or run.directory / "export" / f"model{FORMATS[format]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = write_graph(task, path, format)
    named = f"inputs {', '.join(done.inputs)}; outputs {', '.join(done.outputs)}"
    said(f"written: {path} ({named}; largest difference {done.worst:.2g})")
    return 0


def named_run(text: str, words: list[str]) -> tuple[Run, dict[str, Any], list[str]]:
    """The run that `text` names (a directory, a unique part of it, or `last`), its record, and the words left over."""
    own, rest = take(words, "pkg")
    folder = runs_dir(rest)
    run = _newest_trained(folder, own.get("pkg")) if text == "last" else find_run(text, folder)
    run.writable = True
    return run, run.config, take(rest, "runs_dir")[1]


def _named(words: list[str], *names: str) -> tuple[Run, dict[str, Any], dict[str, str]]:
    own, rest = take(words, "run", *names)
    if "run" not in own:
        raise ConfigError("say which run: run=<directory or a unique part of it>; run=last is the newest.")
    run, config, rest = named_run(own["run"], rest)
    for word in rest:
        name, _, value = word.partition("=")
        if name.startswith("predict.") and config.get("predict"):
            config["predict"][name.removeprefix("predict.")] = parsed(value)
        else:
            allowed = ", ".join([*names, "predict.<argument>"] if "input" in names else names) or "nothing else"
            raise ConfigError(f"{word}: a saved run is used as it was recorded; beside run= it takes {allowed}.")
    check_targets({"predict": config.get("predict")})
    return run, config, own


def _newest_trained(folder: str, pkg: str | None) -> Run:
    """The newest run that has weights."""
    for run in list_runs(folder, pkg):
        if (run.checkpoints / "best.pt").exists():
            said(f"run: {run.directory}")
            return run
    raise MissingFile(f"no run under {folder} has weights yet. `make runs` lists runs.")


def _loop(config: dict[str, Any]) -> tuple[Any, Any]:
    """One process on the device at hand, whatever the run was trained on, at the run's precision."""
    from skyloom.training.hardware import fabric as make_fabric

    fabric = make_fabric(devices=1, precision=config["hardware"].get("precision", "32-true"))
    fabric.launch()
    return fabric, build(config, "trainer")(fabric=fabric)
