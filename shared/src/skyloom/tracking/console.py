"""One line per validation."""

from collections.abc import Mapping, Sequence
from typing import Any

from skyloom.tracking.tracker import Identity, Tracker, improves, numbers, objectives

__all__ = ["Console"]


class Console(Tracker):
    """A compact line per validation row, through rich's shared console, so that it appears above a progress bar.

    The line shows the epoch, the step, the latest training loss, the objective (with `*` when it is the best so far)
    and further validation metrics, those that a goal is about first, at most `columns` of them.
    """

    def __init__(self, columns: int = 5):
        self.columns = columns

    def start(self, run: Identity) -> None:
        self._objectives = objectives(run.config)
        self._goals = [str(goal["metric"]).replace("test/", "val/", 1) for goal in run.config.get("goals") or []]
        self._best: dict[str, float] = {}
        self._training_loss: float | None = None

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._line_of(row, row["step"])  # what is the best so far

    def log(self, row: Mapping[str, Any], step: int) -> None:
        line = self._line_of(row, step)
        if line:
            import rich

            rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)

    def _line_of(self, row: Mapping[str, Any], step: int) -> str:
        """The line of a validation row, nothing for other rows."""
        values = numbers(row)
        self._training_loss = values.get("train/loss", self._training_loss)
        validation = {key: value for key, value in values.items() if key.startswith("val/")}
        if not validation:
            return ""
        epoch = row.get("epoch")
        order = [*self._objectives, *self._goals, "val/loss", *validation]
        shown = [key for key in dict.fromkeys(order) if key in validation][: self.columns]
        parts = [] if epoch is None else [f"epoch {epoch:g}"]
        parts.append(f"step {step}")
        if self._training_loss is not None:
            parts.append(f"train/loss {self._training_loss:.4g}")
        for key in shown:
            mark = ""
            if key in self._objectives and improves(validation[key], self._best.get(key), self._objectives[key]):
                self._best[key] = validation[key]
                mark = "*"
            parts.append(f"{key} {validation[key]:.4g}{mark}")
        return "  ".join(parts)
