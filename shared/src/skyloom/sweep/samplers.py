"""Samplers and pruners from the configuration; a sampler is made anew for every trial, from its number."""

import importlib
import inspect
import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, QMCSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import derive
from skyloom.sweep.space import Space

__all__ = ["Grid", "make_pruner", "make_sampler"]


class Grid(BaseSampler):
    """Trial n gets point n. Numbers are given out by the storage, once each, so no two workers can share a point."""

    def __init__(self, space: Space):
        points = space.points
        if points is None:
            raise ConfigError(
                "a grid needs values that can be listed, such as 1e-3,1e-2 or range(1,5); "
                "for intervals choose sweep=tpe, sweep=random, sweep=qmc or sweep=gp."
            )
        self.points = points

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.points[trial.number % len(self.points)][param_name]


def make_sampler(stated: dict[str, Any], space: Space, seed: int, number: int) -> BaseSampler:
    """The sampler of trial `number`.

    A sampler's generator is in no storage: one seed for all would let every restart and every worker draw the same values
    again. So each trial has its own seed, derived from the sweep's and the trial's number, and a sweep that was killed
    draws what an undisturbed one would have drawn. (A quasi-random sequence is one sequence: it keeps one seed.)
    """
    if not stated.get("_target_"):
        if space.points is not None:
            return Grid(space)
        return TPESampler(seed=_short(seed, number), multivariate=True, constant_liar=True)
    target = _locate(stated["_target_"], "sweep.sampler")
    arguments = {key: value for key, value in stated.items() if not key.startswith("_")}
    accepted = inspect.signature(target).parameters
    if "space" in accepted:
        arguments["space"] = space
    if "seed" in accepted:
        arguments["seed"] = _short(seed, -1 if target is QMCSampler else number)
    return _call(target, arguments, "sweep.sampler")


def make_pruner(stated: dict[str, Any]) -> BasePruner:
    if not stated.get("_target_"):
        return NopPruner()
    arguments = {key: value for key, value in stated.items() if not key.startswith("_")}
    return _call(_locate(stated["_target_"], "sweep.pruner"), arguments, "sweep.pruner")


def _short(seed: int, number: int) -> int:
    return derive(seed, "sweep", number) % 2**32


def _locate(name: str, where: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}._target_={name} cannot be imported: {error}") from None


def _call(target: Any, arguments: dict[str, Any], where: str) -> Any:
    unknown = sorted(set(arguments) - set(inspect.signature(target).parameters))
    if unknown:
        raise ConfigError(
            f"{where}.{unknown[0]}: {target.__name__} has no such argument."
            f"{nearest(unknown[0], inspect.signature(target).parameters)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return target(**arguments)
        except (ImportError, ValueError, TypeError) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{where}: {error}") from None
