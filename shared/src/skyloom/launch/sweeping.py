"""`sweep`: many runs, chosen by Optuna. A trial is a run in the sweep's directory, made before it is launched."""

import math
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from skyloom.errors import ConfigError, MissingFile, UserError
from skyloom.launch.compose import compose_config, conf_dir, resolve
from skyloom.launch.records import new_run, runs_dir, write_page
from skyloom.launch.submission import is_first_task, one_task_per_device, surviving_preemption
from skyloom.launch.words import take
from skyloom.run import Interrupted, Run
from skyloom.run.files import read_json

__all__ = ["TrialJob", "sweep"]

ENDED = ("finished", "pruned", "failed")
OBJECTIVE = "give objective: [{metric: val/nll, direction: minimize}]"


def sweep(words: list[str]) -> int:
    """Start a sweep, join it, or take up a stopped one with run=<its directory or a unique part of it>."""
    own, words = take(words, "run")
    if "run" in own:
        words = _recorded(own["run"], words)
    config = _checked(words)
    given = {word.split("=", 1)[0] for word in words}
    if "hydra/sweeper" not in given:
        words.append("hydra/sweeper=skyloom")
    launcher = config["hardware"].get("launcher")
    if launcher and "hydra/launcher" not in given:
        words.append(f"hydra/launcher={launcher}")
    if launcher == "submitit_slurm":
        words += [f"hydra.launcher.{k}={v}" for k, v in one_task_per_device(config["hardware"], words).items()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        result = hydra.multirun("config", TrialJob(), words, with_log_configuration=False)
    if not isinstance(result, tuple):
        return 0  # another sweeper, which keeps its own record
    return _finish(*result)


def _checked(words: list[str]) -> dict[str, Any]:
    """The configuration that all trials share; it, and one point of the space, are checked before anything is written."""
    from skyloom.launch.build import check_targets

    try:
        parsed = OverridesParser.create().parse_overrides(words)
    except OverrideParseException as error:
        raise ConfigError(f"cannot read the override {error.override!r}: {error}. Quote it for your shell?") from None
    config = resolve(compose_config([str(o.input_line) for o in parsed if not o.is_sweep_override()]))
    if not config["objective"]:
        raise ConfigError(f"pkg={config['pkg']} states no objective, so a sweep has nothing to improve: {OBJECTIVE}.")
    from skyloom.sweep.space import read_space

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    fixed, space = read_space(words, config["sweep"]["space"] or {}, loader)
    check_targets(resolve(compose_config([*fixed, *space.overrides(space.first())])))
    return config


def _recorded(name: str, words: list[str]) -> list[str]:
    """The words of an earlier sweep, with later ones after them."""
    runs = Path(runs_dir(words))
    found = [Path(name)] if (Path(name) / "sweep.json").is_file() else []
    found = found or [path.parent for path in runs.glob("*/*/*/sweep.json") if name in str(path.parent.relative_to(runs))]
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found[:6])
        raise MissingFile(f"run={name} names {len(found)} sweeps under {runs}{': ' + listed if found else ''}.")
    earlier = [word for word in read_json(found[0] / "sweep.json")["words"] if not word.startswith("sweep.directory=")]
    later = {word.split("=", 1)[0].lstrip("+") for word in words}
    kept = [word for word in earlier if word.split("=", 1)[0].lstrip("+") not in later]
    return [*kept, *words, f"sweep.directory={found[0].absolute()}"]


def _finish(made: Any, stopped: int | None) -> int:
    """Page and summary; the exit code of the command."""
    from rich.console import Console

    from skyloom.sweep.page import write_sweep

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=240)
    if stopped is None:
        page = write_sweep(made)
        console.print(_table(made))
        console.print(f"sweep:  {made.directory}\nreport: {page}", markup=False)
        return 0
    ended = sum(trial.state.is_finished() for trial in made.trials)
    console.print(f"\nstopped by {signal.Signals(stopped).name}; {ended} of {made.n_trials} trials have ended.")
    console.print(f"sweep:  {made.directory}\nresume: make sweep run={made.directory}", markup=False)
    return 130 if stopped == signal.SIGINT else 0


def _table(made: Any) -> Any:
    """The best trials and how all of them ended."""
    from rich.table import Table

    counts = Counter(trial.state.name.lower() for trial in made.trials)
    ended = ", ".join(f"{count} {name}" for name, count in counts.items())
    metrics = [entry["metric"] for entry in made.objective]
    title = f"{len(made.trials)} of {made.n_trials} trials: {ended}"
    table = Table("best trial", *made.space.names, *metrics, box=None, pad_edge=False, title=title, title_justify="left")
    for trial in made.study.best_trials:
        params = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.params.values()]
        table.add_row(str(trial.number), *params, *(f"{value:.5g}" for value in trial.values))
    return table


class TrialJob:
    """What a launcher runs for each trial, in whatever process: it opens the trial's run and executes it."""

    def prepare(self, overrides: list[str], directory: Path, identity: dict[str, Any]) -> None:
        """The run directory, made when the trial is launched: code and configuration are frozen from here on."""
        from skyloom.sweep.storage import hidden

        if (directory / "result.json").exists() and (directory / "provenance.json").exists():
            return  # taken up again, as it was recorded
        shutil.rmtree(directory, ignore_errors=True)  # a start that was killed before it was whole
        config = resolve(compose_config(overrides))
        config["trial"] = {**identity, "storage": hidden(identity["storage"])}
        config["sweep"]["storage"] = hidden(config["sweep"]["storage"])
        shown = [word for word in overrides if not word.lstrip("+").startswith(("sweep.", "sweep=", "sweep/"))]
        run = new_run(config, "train", shown, directory=directory)
        run.update(sweep={"id": directory.parent.name, "trial": identity["number"]})

    def __call__(self, config: DictConfig) -> float | tuple[float, ...]:
        """The objective's value, or values; a trial that gives none raises why."""
        given = OmegaConf.to_container(config.trial, resolve=True)
        assert isinstance(given, dict)
        identity = {str(key): value for key, value in given.items()}
        directory = Path(str(identity["directory"])) / str(identity["number"])
        return surviving_preemption(lambda: _run_trial(directory, identity))


def _run_trial(directory: Path, identity: dict[str, Any]) -> float | tuple[float, ...]:
    from skyloom.launch.execute import execute
    from skyloom.sweep.conduct import Busy

    run = Run.open(directory, writable=is_first_task())
    if run.writable and run.held:
        raise Busy(f"another process works on {directory}")
    if run.result["status"] not in ENDED:  # else it ended, and its worker was killed before it told
        try:
            outcome = execute(run, {**run.config, "trial": identity})
        finally:
            _free_memory()
        if outcome["status"] == "interrupted":
            raise Interrupted(outcome["signum"])
        if run.writable:
            write_page(directory)
    return _value(run) if run.writable else math.nan  # launchers hear the first task


def _value(run: Run) -> float | tuple[float, ...]:
    """From the record, whether it was written just now or before a kill."""
    import optuna

    result = run.result
    if result["status"] == "pruned":
        raise optuna.TrialPruned(result["reason"])
    if result["status"] == "failed":
        raise UserError(result["reason"] or "failed without a reason")
    values = [entry["value"] for entry in result["objective"]]
    missing = [entry["metric"] for entry in result["objective"] if entry["value"] is None]
    if missing:
        raise UserError(f"{', '.join(missing)} has no finite value.")
    return values[0] if len(values) == 1 else tuple(values)


def _free_memory() -> None:
    """Leave nothing of this trial to the next one in the same process."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
