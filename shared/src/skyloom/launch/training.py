"""`train`: a new run, or an old one taken up again. `rerun`: the same again, and whether it agrees."""

import math
import signal
from typing import Any

import yaml
from omegaconf import OmegaConf

from skyloom.errors import ConfigError, UserError
from skyloom.launch.compose import compose_config, resolve
from skyloom.launch.records import new_run, runs_dir, write_page
from skyloom.launch.words import take
from skyloom.run import Run, find_run, list_runs
from skyloom.run.files import write_text

__all__ = ["analyse", "finish", "rerun", "train"]

# What may change when a run is taken up again; anything else would make its second half another run.
MAY_CHANGE = (
    *(f"trainer.{name}" for name in ("epochs", "patience", "checkpoint_every", "log_every", "workers", "nonfinite_skips")),
    *("logger", "hardware", "devices", "goals", "title", "evaluation", "predict", "verbs", "sweep"),
)
OWN = ("run", "resume")


def train(words: list[str]) -> int:
    own, overrides = take(words, *OWN)
    if "run" in own:
        run, config = resumed(own["run"], overrides)
        if run.status == "finished" and not take(overrides, "pkg", "runs_dir")[1]:
            from skyloom.launch.summary import print_summary

            print_summary(run, run.directory / "report.html")
            print("this run is finished; trainer.epochs=<more> trains it longer")  # noqa: T201
            return 0
        return _go_on(run, config, overrides)
    config = resolve(compose_config(overrides))
    if own.get("resume") == "auto":
        found = _unfinished(config)
        if found is not None:
            return _go_on(found, config, overrides)
    elif "resume" in own:
        raise ConfigError(f"resume={own['resume']}: say resume=auto, or name the run with run=<directory>.")
    if config["hardware"].get("launcher"):
        from skyloom.launch.submission import submit

        return submit(config, overrides)
    return finish(new_run(config, "train", overrides), config)


analyse = train  # what a package without a network calls it


def _go_on(run: Run, config: dict[str, Any], overrides: list[str]) -> int:
    """Take the run up again, here or through the queue that it was submitted to."""
    if not config["hardware"].get("launcher"):
        return finish(run, config)
    from skyloom.launch.submission import submit

    return submit(config, [*_composed(run), *overrides], run)


def _composed(run: Run) -> list[str]:
    """The words that the run's configuration was composed from; a rerun's are those of the run that it repeats."""
    words = run.provenance.get("composed") or run.provenance.get("overrides") or []
    return take(words, *OWN)[1]


def finish(run: Run, config: dict[str, Any]) -> int:
    """Execute, write the page, print the table; the exit code of the command."""
    from skyloom.launch.execute import execute
    from skyloom.launch.summary import print_summary

    outcome = execute(run, config)
    page = write_page(run.directory)
    print_summary(run, page)
    if outcome.get("user_error"):
        raise UserError(f"{outcome['user_error']} (run: {run.directory})")
    return 130 if outcome.get("signum") == signal.SIGINT else 0


def resumed(text: str, overrides: list[str]) -> tuple[Run, dict[str, Any]]:
    """The run named, and its configuration with the few changes that a resume allows."""
    run = find_run(text, runs_dir(overrides))
    if run.held:
        raise UserError(f"another process is working on {run.directory}; wait for it, or stop it with SIGTERM.")
    run.writable = True
    config = run.config
    _, overrides = take(overrides, "pkg", "+experiment")
    if overrides:
        recorded = _composed(run)
        before, after = compose_config(recorded), compose_config(recorded + overrides)
        # named as they were given: before interpolation copies them elsewhere
        changed = _changes(OmegaConf.to_container(before), OmegaConf.to_container(after))
        refused = [key for key in changed if not any(key == k or key.startswith(f"{k}.") for k in MAY_CHANGE)]
        if refused:
            raise ConfigError(
                f"{run.directory} cannot be resumed with {', '.join(sorted(refused))} changed: its first half was "
                f"trained otherwise. May change: {', '.join(MAY_CHANGE)}. For anything else start a new run."
            )
        changed = _changes(resolve(before), resolve(after))
        for key, value in changed.items():
            _set(config, key.split("."), value)
        write_text(run.directory / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return run, config


def rerun(words: list[str]) -> int:
    """Repeat a run from its own record; compare all metrics."""
    own, overrides = take(words, "run")
    if "run" not in own:
        raise ConfigError("say which run to repeat: run=<directory or a unique part of it>.")
    first = find_run(own["run"], runs_dir(overrides))
    config = {**first.config, "trial": None}
    second = new_run(config, "rerun", [f"run={first.directory}"])
    second.write_json("provenance.json", {**second.provenance, "composed": _composed(first)})
    code = finish(second, config)
    if code == 0:
        _compare(first, second)
    return code


def _compare(first: Run, second: Run) -> None:
    from skyloom.training.progress import said

    a, b = first.result.get("metrics", {}), second.result.get("metrics", {})
    differing = {}
    for name in sorted(set(a) | set(b)):
        x, y = (m.get(name, {}).get("value") for m in (a, b))
        if x is None or y is None or abs(x - y) > 1e-12 * max(abs(x), abs(y), 1e-300):
            differing[name] = math.inf if x is None or y is None else abs(x - y)
    commits = [r.provenance.get("commit") for r in (first, second)]
    second.update(rerun={"of": first.id, "agrees": not differing, "differences": differing})
    said(f"rerun of {first.id}: " + ("all metrics agree." if not differing else f"{len(differing)} metrics differ:"))
    for name, by in differing.items():
        said(f"  {name}: {a.get(name, {}).get('value')} then, {b.get(name, {}).get('value')} now (by {by:.3g})")
    if differing and (commits[0] != commits[1] or first.provenance.get("dirty") or second.provenance.get("dirty")):
        said(f"  the code differs: {commits[0]} then, {commits[1]} now, or uncommitted changes (code.diff).")


def _unfinished(config: dict[str, Any]) -> Run | None:
    """The newest run of this very configuration that did not finish."""
    for run in list_runs(config["runs_dir"], config["pkg"], config.get("experiment")):
        if run.status in ("interrupted", "killed", "failed", "submitted") and run.config == config:
            run.writable = True
            return run
    return None


def _changes(before: Any, after: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys whose values differ, with the new value."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: dict[str, Any] = {}
        for key in before.keys() | after.keys():
            found |= _changes(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else str(key))
        return found
    return {} if before == after else {prefix: after}


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(config.get(name), dict):
            config[name] = {}
        config = config[name]
    config[path[-1]] = value
