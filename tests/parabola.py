"""Cheap functions to sweep, and how a sweep over them is started."""

import math
import signal

import optuna
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from skyloom.run import Interrupted
from skyloom.sweep import live_trial

CONFIG = """
defaults:
  - _self_
  - sweep: auto
  - override hydra/sweeper: skyloom
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
pkg: parabola
experiment: null
seed: 0
runs_dir: RUNS
objective: [{metric: val/loss, direction: minimize}]
trial: null
trainer: {epochs: 10}
x: 0.0
y: 0.0
kind: plain
hydra: {output_subdir: null, run: {dir: .}, sweep: {dir: ., subdir: .}}
"""


def parabola(config):
    return (config.x - 1) ** 2


def failing(config):
    if config.x == 2:
        raise MemoryError("no room")
    return math.nan if config.x == 3 else float(config.x)


def stopping(config):
    if config.x == 2:
        raise Interrupted(signal.SIGTERM)
    return float(config.x)


def both(config):
    return (config.x - 1) ** 2, (config.x + 1) ** 2


def course(config):
    """Ten validations on the way to `y`; returns the last, or leaves when told to."""
    report = live_trial(dict(config.trial), list(config.objective))
    for step in range(1, 11):
        value = config.y + 1.0 / step
        if report({"val/loss": value}, 100 * step):
            raise optuna.TrialPruned(f"after {step}")
    return value


def swept(home, function, *words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(home / "conf"), version_base="1.3"):
        return GlobalHydra.instance().hydra.multirun("config", function, list(words), with_log_configuration=False)


def states(sweep):
    return [trial.state.name for trial in sweep.trials]
