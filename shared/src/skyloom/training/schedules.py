"""Learning-rate schedules: a factor on every group's rate, as a function of the step (or, for a plateau, of the validation)."""

import math
from typing import Any, Literal

from skyloom.errors import ConfigError

__all__ = ["Constant", "Cosine", "OneCycle", "Plateau", "Schedule"]

Unit = Literal["fraction", "epochs", "steps"]


class Schedule:
    """`factor` at a step of `total`; `per_epoch` steps make an epoch. Linear warm-up first, then what `after` says.

    Args:
        warmup: length of the warm-up
        unit: of `warmup`: fraction of the run, epochs, or steps
    """

    def __init__(self, warmup: float = 0.0, unit: Unit = "fraction"):
        if unit not in ("fraction", "epochs", "steps"):
            raise ConfigError(f"schedule.unit={unit}: choose fraction, epochs or steps.")
        if warmup < 0 or (unit == "fraction" and warmup > 1):
            raise ConfigError(f"schedule.warmup={warmup} {unit} cannot be; a fraction lies in [0, 1].")
        self.warmup, self.unit = warmup, unit

    def warmup_steps(self, total: int, per_epoch: int) -> float:
        return self.warmup * {"fraction": total, "epochs": per_epoch, "steps": 1}[self.unit]

    def factor(self, step: int, total: int, per_epoch: int) -> float:
        first = self.warmup_steps(total, per_epoch)
        if step < first:
            return (step + 1) / (first + 1)
        return self.after(min((step - first) / max(total - first, 1), 1.0))

    def after(self, progress: float) -> float:
        return 1.0

    def observe(self, value: float, minimize: bool) -> None:
        """A validation's objective; most schedules do not listen."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Constant(Schedule):
    """The same rate throughout, after the warm-up."""


class Cosine(Schedule):
    """Half a cosine from 1 to `floor` (Loshchilov and Hutter 2017, arXiv:1608.03983).

    >>> s = Cosine(warmup=0.0, floor=0.0)
    >>> [round(s.factor(k, 100, 10), 3) for k in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """

    def __init__(self, warmup: float = 0.05, unit: Unit = "fraction", floor: float = 0.01):
        super().__init__(warmup, unit)
        self.floor = floor

    def after(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class OneCycle(Schedule):
    """Cosine up from 1/`divide` to 1 over the first `peak` of the run, then down to 1/(`divide` `final_divide`)
    (Smith and Topin 2018, arXiv:1708.07120)."""

    def __init__(self, peak: float = 0.3, divide: float = 25.0, final_divide: float = 1.0e4):
        super().__init__()
        if not 0 < peak < 1:
            raise ConfigError(f"schedule.peak={peak} must lie between 0 and 1.")
        self.peak, self.low, self.last = peak, 1 / divide, 1 / (divide * final_divide)

    def after(self, progress: float) -> float:
        start, end, part = (
            (self.low, 1.0, progress / self.peak)
            if progress < self.peak
            else (1.0, self.last, (progress - self.peak) / (1 - self.peak))
        )
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


class Plateau(Schedule):
    """Multiply by `shrink` when `patience` validations in a row bring no relative gain above `threshold`."""

    def __init__(
        self,
        warmup: float = 0.0,
        unit: Unit = "fraction",
        shrink: float = 0.3,
        patience: int = 5,
        threshold: float = 1e-4,
        floor: float = 1e-4,
    ):
        super().__init__(warmup, unit)
        self.shrink, self.patience, self.threshold, self.floor = shrink, patience, threshold, floor
        self.level, self.best, self.waited = 1.0, math.inf, 0

    def after(self, progress: float) -> float:
        return self.level

    def observe(self, value: float, minimize: bool) -> None:
        value = value if minimize else -value
        if value < self.best - self.threshold * abs(self.best if math.isfinite(self.best) else 0.0):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.level, self.waited = max(self.level * self.shrink, self.floor), 0

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level, self.best, self.waited = state["level"], state["best"], state["waited"]
