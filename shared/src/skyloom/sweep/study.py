"""A sweep's record and study: opened or joined, asked for trials, told how they ended."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from skyloom.errors import ConfigError, UserError
from skyloom.run import Run
from skyloom.run.directory import now
from skyloom.run.files import read_json, write_json
from skyloom.sweep.samplers import make_pruner, make_sampler
from skyloom.sweep.space import Space
from skyloom.sweep.storage import hidden, open_storage
from skyloom.sweep.workers import Worker, exclusive, is_living

__all__ = ["Claim", "Sweep"]

ATTEMPTS = 3  # of a trial whose worker is killed each time
# What another worker, or a resume, may say differently. All else makes the trials what they are.
MAY_DIFFER = (
    *("logger", "hardware", "devices", "runs_dir", "cache_dir", "sweep"),
    *("title", "goals", "evaluation", "predict", "verbs"),
)


@dataclass(frozen=True)
class Claim:
    """A trial that this worker, and no other, is to run."""

    number: int
    params: dict[str, Any]
    again: bool = False  # taken up after the worker that began it was stopped


@dataclass
class Sweep:
    """One sweep: a directory, a study in a storage, and what its trials have in common."""

    directory: Path
    settings: dict[str, Any]
    config: dict[str, Any]  # what all trials share, resolved
    space: Space
    words: list[str]
    n_trials: int = 0
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sampler(0)  # a sampler or pruner that cannot be is refused before anything is written
        make_pruner(self.settings["pruner"] or {})
        self.n_trials = self._total()

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def objective(self) -> list[dict[str, str]]:
        return self.config["objective"]

    @property
    def study_name(self) -> str:
        return "/".join(str(self.config.get(key) or "default") for key in ("pkg", "experiment")) + f"/{self.id}"

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return make_sampler(self.settings["sampler"] or {}, self.space, int(self.settings["seed"]), number)

    def trial_identity(self, number: int) -> dict[str, Any]:
        return {
            "study": self.study_name,
            "storage": self.settings["storage"],
            "number": number,
            "directory": str(self.directory),
        }

    # ---------------------------------------------------------------- opening

    def open(self) -> bool:
        """Make the sweep, or join the one that is there; true when it is new."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with exclusive(self.directory):
            new = not self.record.exists()
            if not new:
                self._check_same(read_json(self.record))
            self.study = optuna.create_study(
                study_name=self.study_name,
                storage=open_storage(self.settings["storage"], self.directory),
                directions=[StudyDirection[entry["direction"].upper()] for entry in self.objective],
                pruner=make_pruner(self.settings["pruner"] or {}),
                sampler=self.sampler(0),
                load_if_exists=True,
            )
            if new or self.n_trials != read_json(self.record)["n_trials"]:
                self._write_record(now() if new else read_json(self.record)["created"])
        return new

    @property
    def record(self) -> Path:
        return self.directory / "sweep.json"

    def _write_record(self, created: str) -> None:
        settings = {**self.settings, "storage": hidden(self.settings["storage"])}
        record = {
            "id": self.id,
            "study": self.study_name,
            "created": created,
            "n_trials": self.n_trials,
            "words": self.words,
            "space": self.space.described(),
            "sampler": settings["sampler"],
            "pruner": settings["pruner"] or {},
            "seed": settings["seed"],
            "storage": settings["storage"],
            "objective": self.objective,
            "config": {**self.config, "sweep": settings},
        }
        write_json(self.record, record)

    def _check_same(self, record: dict[str, Any]) -> None:
        """A resumed or joined sweep must be the same sweep."""
        changed = [f"the swept values of {k}" for k in _differing(record["space"], self.space.described())]
        changed += [f"sweep.{k}" for k in ("sampler", "seed") if (record[k] or {}) != (self.settings[k] or {})]
        shared = _differing(_flat(record["config"]), _flat(self.config))
        changed += [key for key in shared if key.split(".")[0] not in MAY_DIFFER and key not in self.space.names]
        if changed:
            raise ConfigError(
                f"{self.directory} is another sweep: {', '.join(changed)} differ. Its trials could not be compared; "
                "leave out sweep.directory to start a new sweep. May differ: sweep.n_trials, sweep.batch, "
                f"sweep.max_failure_rate, sweep.lease, sweep/pruner, {', '.join(k for k in MAY_DIFFER if k != 'sweep')}."
            )

    def _total(self) -> int:
        stated, points = self.settings["n_trials"], self.space.points
        sampler = (self.settings["sampler"] or {}).get("_target_", "")
        if points is not None and (not sampler or sampler.endswith(".Grid")):
            return min(int(stated), len(points)) if stated is not None else len(points)
        if stated is None:
            raise ConfigError("say how many trials: sweep.n_trials=30 (in total, over all workers and restarts).")
        return int(stated)

    # ---------------------------------------------------------------- trials

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def claim(self, worker: Worker, count: int) -> list[Claim]:
        """Up to `count` trials for this worker: first those that dead workers left, then new ones up to the total."""
        with exclusive(self.directory):
            trials = self.trials
            left = [t for t in trials if t.state == TrialState.RUNNING and not self._is_worked_on(t, worker)]
            claims = [claim for t in left[:count] if (claim := self._take_up(t, worker)) is not None]
            for number in range(len(trials), min(len(trials) + count - len(claims), self.n_trials)):
                self.study.sampler = self.sampler(number)
                trial = self.study.ask()
                claims.append(self._take(trial, worker, 1))
        return claims

    def _is_worked_on(self, trial: FrozenTrial, worker: Worker) -> bool:
        """By a living worker other than this one, or by a job that outlived its worker."""
        if Run(self.trial_directory(trial.number)).held:
            return True
        owner = trial.user_attrs.get("worker")
        return owner is not None and owner != worker.id and is_living(self.directory, owner, worker.lease)

    def _take_up(self, frozen: FrozenTrial, worker: Worker) -> Claim | None:
        self.study.sampler = self.sampler(frozen.number)
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        attempts = int(frozen.user_attrs.get("attempts", 0)) + 1
        if attempts > ATTEMPTS:
            self.tell(frozen.number, UserError(f"its process was killed {ATTEMPTS} times (out of memory?)"))
            return None
        return self._take(trial, worker, attempts)

    def _take(self, trial: optuna.trial.Trial, worker: Worker, attempts: int) -> Claim:
        trial.set_user_attr("worker", worker.id)
        trial.set_user_attr("attempts", attempts)
        return Claim(trial.number, self.space.suggest(trial), again=attempts > 1)

    def excuse(self, number: int) -> None:
        """A stop that somebody asked for does not count among the attempts."""
        trial = self._live(number)
        trial.set_user_attr("attempts", max(int(trial.user_attrs.get("attempts", 1)) - 1, 0))

    def trial_directory(self, number: int) -> Path:
        return self.directory / str(number)

    def _live(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self.study, self.trials[number]._trial_id)

    def tell(self, number: int, outcome: Any) -> None:
        """How a trial ended: its value or values, `optuna.TrialPruned`, or the exception that it failed with."""
        if self.trials[number].state.is_finished():
            return
        if isinstance(outcome, optuna.TrialPruned):
            self.study.tell(number, state=TrialState.PRUNED)
            return
        values = list(outcome) if isinstance(outcome, (tuple, list)) else [outcome]
        finite = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
        if finite and len(values) == len(self.objective):
            self.study.tell(number, values)
            return
        failure = isinstance(outcome, BaseException)
        reason = _reason(outcome) if failure else f"the objective is not a finite number: {outcome}"
        self._live(number).set_user_attr("reason", reason)
        self.study.tell(number, state=TrialState.FAIL)

    def check_failures(self) -> None:
        """Stop a sweep in which too much fails."""
        ended = [trial for trial in self.trials if trial.state.is_finished()]
        failed = [trial for trial in ended if trial.state == TrialState.FAIL]
        rate = float(self.settings["max_failure_rate"])
        hopeless = rate < 1 and len(ended) >= 3 and len(failed) == len(ended)
        if len(failed) > rate * self.n_trials or hopeless:
            reason = failed[-1].user_attrs.get("reason", "unknown")
            raise UserError(
                f"{len(failed)} of {len(ended)} trials failed, so the sweep stops (sweep.max_failure_rate={rate:g}). "
                f"The last one: {reason} Mend it and start a new sweep."
            )


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text if isinstance(error, UserError) and text else f"{type(error).__name__}: {text}"


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        found |= _flat(child, f"{prefix}.{name}" if prefix else str(name))
    return found


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
