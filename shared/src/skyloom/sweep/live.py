"""A trial's line to its study while it trains: it reports each validation and hears whether to stop."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.run.files import read_json

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["live_trial"]

VALIDATIONS = "validations"  # user attribute: the optimizer steps at which the trial was validated


def live_trial(trial: dict[str, Any], objective: list[dict[str, str]]) -> Callable[[dict[str, float], int], bool] | None:
    """The function that the loop calls with each validation's metrics and step; true means: stop, this leads nowhere.

    Reported is the n-th validation, not the optimizer step: steps of trials with different batch sizes could not be
    compared. A validation repeated after a restart is recognized by its step and not reported twice. With several
    objectives there is no pruning, and None is returned. A storage that fails costs the pruning, never the trial.

    Args:
        trial: {study, storage, number, directory} of the sweep
        objective: [{metric, direction}]
    """
    if len(objective) != 1:
        return None
    metric = objective[0]["metric"]
    opened: list[Trial | None] = []

    def report(metrics: dict[str, float], step: int) -> bool:
        try:
            if not opened:
                opened.append(_open(trial))
            live = opened[0]
            if live is None or metric not in metrics:
                return False
            return _report(live, metrics[metric], step)
        except Exception as error:  # a busy or lost data base raises what it likes
            opened[:] = [None]
            warnings.warn(f"the sweep's storage failed ({error}): this trial goes on, and is not pruned.", stacklevel=2)
            return False

    return report


def _open(trial: dict[str, Any]) -> "Trial | None":
    """A live trial from study and number. One taken from `study.trials` is frozen: its reports go nowhere."""
    import optuna
    from optuna.samplers import RandomSampler

    from skyloom.sweep.samplers import make_pruner
    from skyloom.sweep.storage import open_storage

    directory = Path(trial["directory"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=trial["study"],
        storage=open_storage(trial["storage"], directory),
        sampler=RandomSampler(),  # draws nothing here
        pruner=make_pruner(read_json(directory / "sweep.json")["pruner"]),
    )
    frozen = next((t for t in study.get_trials(deepcopy=False) if t.number == trial["number"]), None)
    if frozen is None or frozen.state.is_finished():
        return None  # a run taken up again after its sweep had settled it
    return optuna.trial.Trial(study, frozen._trial_id)


def _report(live: "Trial", value: float, step: int) -> bool:
    steps: list[int] = list(live.user_attrs.get(VALIDATIONS, []))
    if step not in steps:
        steps.append(step)
        live.set_user_attr(VALIDATIONS, steps)
    number = steps.index(step) + 1
    if number not in live._cached_frozen_trial.intermediate_values:
        live.report(value, number)
    return live.should_prune()
