"""What a sweep varies: Hydra's sweep syntax as Optuna distributions, and a trial's values as overrides again."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep, Transformer
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from skyloom.errors import ConfigError

__all__ = ["Dimension", "Space", "read_space"]

FIXED = {  # what no trial may vary, and why
    "pkg": "its trials would belong to several packages",
    "hardware": "it is chosen before the trials are",
    "devices": "it is chosen before the trials are",
    "sweep": "it is the sweep itself",
    "trial": "it names the trial",
    "runs_dir": "all trials live in the sweep's directory",
    "hydra": "it is chosen before the trials are",
}


@dataclass(frozen=True)
class Dimension:
    """One swept key: as it is overridden (`+key` and all), its distribution, and its values if they can be listed."""

    key: str
    distribution: BaseDistribution
    values: tuple[Any, ...] | None

    @property
    def name(self) -> str:
        return self.key.lstrip("+")


@dataclass(frozen=True)
class Space:
    """All swept keys, in the order written."""

    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> list[str]:
        return [dimension.name for dimension in self.dimensions]

    @property
    def points(self) -> list[dict[str, Any]] | None:
        """Every combination, the last key fastest; None when a key is continuous."""
        if any(dimension.values is None for dimension in self.dimensions):
            return None
        values = [dimension.values or () for dimension in self.dimensions]
        return [dict(zip(self.names, point, strict=True)) for point in itertools.product(*values)]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Let the study's sampler choose; values that the trial has already stay."""
        return {d.name: _suggest(trial, d.name, d.distribution) for d in self.dimensions}

    def first(self) -> dict[str, Any]:
        """One point, to try whether it can be composed."""
        return {d.name: d.values[0] if d.values else getattr(d.distribution, "low", None) for d in self.dimensions}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        return [f"{d.key}={_written(params[d.name])}" for d in self.dimensions]

    def described(self) -> dict[str, str]:
        return {d.name: _described(d) for d in self.dimensions}


def read_space(words: list[str], stated: Mapping[str, Any], loader: ConfigLoader | None = None) -> tuple[list[str], Space]:
    """Split overrides into fixed ones and a space, together with `sweep.space`; the command line wins over the latter.

    >>> fixed, space = read_space(["seed=1,2", "trainer.epochs=3"], {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))"})
    >>> fixed, space.described()
    (['trainer.epochs=3'], {'optimizer.lr': '0.0001 … 0.01 (log)', 'seed': '1, 2'})
    """
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(words)
    taken = {override.key_or_group for override in given}
    swept: list[Override] = []
    for key, text in stated.items():
        if key.lstrip("+~") in taken:
            continue
        try:
            override = parser.parse_override(f"{key}={text}")
        except HydraException as error:
            raise ConfigError(f"sweep.space.{key}: {text} cannot be read: {str(error).splitlines()[0]}") from None
        if not override.is_sweep_override():
            raise ConfigError(
                f"sweep.space.{key}: {text} is one value. Write choice(a,b), range(0,6,2), interval(0.1,0.5), "
                "int(interval(1,9)) or tag(log,interval(1e-4,1e-2)); a fixed value goes on the command line."
            )
        swept.append(override)
    swept += [override for override in given if override.is_sweep_override()]
    for override in swept:
        root = override.key_or_group.replace("/", ".").split(".")[0]
        if root in FIXED:
            raise ConfigError(f"{override.key_or_group} cannot be swept: {FIXED[root]}.")
    fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
    return fixed, Space(tuple(_dimension(override) for override in swept))


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low <= high or (log and low <= 0):
            raise ConfigError(f"{key}: no values lie in {override.input_line}.")
        if isinstance(low, int) and isinstance(high, int):
            return Dimension(key, IntDistribution(low, high, log=log), None)
        return Dimension(key, FloatDistribution(float(low), float(high), log=log), None)
    choices = [_plain(choice) for choice in override.sweep_iterator()]
    if not choices:
        raise ConfigError(f"{key}: no values lie in {override.input_line}.")
    if isinstance(value, RangeSweep):
        return Dimension(key, _evenly_spaced(sorted(choices), log), tuple(choices))
    return Dimension(key, CategoricalDistribution(choices), tuple(choices))


def _evenly_spaced(values: list[Any], log: bool) -> BaseDistribution:
    step = values[1] - values[0] if len(values) > 1 else 1
    if all(isinstance(value, int) for value in values):
        return IntDistribution(values[0], values[-1], log=log, step=1 if log else step)
    return FloatDistribution(values[0], values[-1], log=log, step=None if log else step)


def _plain(choice: Any) -> Any:
    """Numbers, booleans and null as they are; anything else as the text that an override would hold."""
    if choice is None or isinstance(choice, (bool, int, float)):
        return choice
    return choice.with_quotes() if isinstance(choice, QuotedString) else str(Transformer.str(choice))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else str(Transformer.str(value))


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _described(dimension: Dimension) -> str:
    if dimension.values is not None:
        return ", ".join(_written(value) for value in dimension.values)
    distribution = dimension.distribution
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    kind = "integer" if isinstance(distribution, IntDistribution) else ""
    notes = ", ".join(note for note in (kind, "log" if distribution.log else "") if note)
    return f"{distribution.low:g} … {distribution.high:g}" + (f" ({notes})" if notes else "")


def is_finite(values: Any) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
