"""What a tracker is, and several of them as one."""

import contextlib
import importlib.util
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from skyloom.errors import UserError
from skyloom.run import Run

__all__ = ["Identity", "Tracker", "Trackers"]


@dataclass(frozen=True)
class Identity:
    """What a run is called, where it is, and what it was asked to do; `config` holds plain JSON values."""

    run_id: str
    directory: Path
    config: Mapping[str, Any]
    group: str | None = None
    job_type: str = "train"
    tags: tuple[str, ...] = ()


class Tracker(Protocol):
    """A window on a run. A subclass overrides what it can show; the rest does nothing.

    The order of calls is start, resume where there is something to resume, then any of log, figure, table and
    artifact, then finish, once.
    """

    def start(self, run: Identity) -> None:
        """Open, or open again after a stop, under the same identity."""

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take up a run that was stopped: `rows` are what its record holds up to the checkpoint it goes on from."""

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Show a row of metrics (`train/...`, `val/...`, `test/...`) at an optimizer step."""

    def figure(self, name: str, path: str | Path, caption: str = "") -> None:
        """Show an image file."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table."""

    def artifact(self, path: str | Path) -> None:
        """Keep a file (the best weights), where the user asked for that."""

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Close with the run's end state (finished, failed, interrupted, pruned) and final numbers."""


class Trackers:
    """Several trackers as one, none of which can break the training: one that fails is left out, with one warning.

    `trackers` is a list, or the mapping that `logger=[console,wandb]` composes. As a context it closes them in any
    case: as failed when an error passes through and nobody has called `finish`.
    """

    def __init__(self, trackers: Iterable[Tracker] | Mapping[str, Tracker] | None = None):
        members = trackers.values() if isinstance(trackers, Mapping) else trackers or ()
        self.active: list[Tracker] = list(members)
        self._open: list[Tracker] = []

    def start(
        self,
        run_id: str,
        directory: str | Path,
        config: Mapping[str, Any],
        group: str | None = None,
        job_type: str = "train",
        tags: Sequence[str] = (),
    ) -> None:
        self._open = list(self.active)
        self._to_resume: Path | None = Path(directory)
        self._each("start", Identity(run_id, Path(directory), plain(config), group, job_type, tuple(tags)))

    def log(self, row: Mapping[str, Any], step: int) -> None:
        self._resume(row)
        self._each("log", row, step)

    def figure(self, name: str, path: str | Path, caption: str = "") -> None:
        self._resume()
        self._each("figure", name, Path(path), caption)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._resume()
        self._each("table", name, columns, rows)

    def artifact(self, path: str | Path) -> None:
        self._resume()
        self._each("artifact", Path(path))

    def finish(self, status: str = "finished", summary: Mapping[str, Any] | None = None) -> None:
        """Close all; a second call does nothing."""
        if self._open:
            self._resume()
        self._each("finish", status, dict(summary or {}))
        self._open = []

    def _resume(self, row: Mapping[str, Any] | None = None) -> None:
        """Before the first word of this process, and not at its start: by now the record ends at the checkpoint."""
        if self._to_resume is None:
            return
        rows = [r for r in Run(self._to_resume).rows() if isinstance(r.get("step"), int)]
        self._to_resume = None
        if rows and row is not None and json.dumps(rows[-1]) == json.dumps(dict(row)):
            rows.pop()  # the row that is about to be logged is in the record already
        if rows:
            self._each("resume", rows)

    def _each(self, call: str, *arguments: Any) -> None:
        for tracker in list(self._open):
            try:
                getattr(tracker, call)(*arguments)
            except Exception as error:
                self._leave_out(tracker, call, error)

    def _leave_out(self, tracker: Tracker, call: str, error: Exception) -> None:
        self._open.remove(tracker)
        warnings.warn(
            f"{type(tracker).__name__} could not {call} ({type(error).__name__}: {error}) and is left out from now on. "
            "The run goes on; its directory has every number.",
            RuntimeWarning,
            stacklevel=4,
        )
        if call != "finish":
            with contextlib.suppress(Exception):  # closed, or the next run in this process would write into this one
                tracker.finish("interrupted", {})

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._open:
            stopped = kind is not None and not issubclass(kind, Exception)
            self.finish("interrupted" if stopped else "failed" if kind else "finished", {"reason": str(error or "")})


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numeric columns of a row but for the step; undefined ones (None) are left out.

    >>> numbers({"step": 3, "val/nll": 0.5, "val/auroc": None, "note": "x"})
    {'val/nll': 0.5}
    """
    found = {k: v for k, v in row.items() if k != "step" and isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {key: float(value) for key, value in found.items()}


def objectives(config: Mapping[str, Any]) -> dict[str, str]:
    """Metric and direction ("minimize", "maximize") of what the run is judged by."""
    declared = config.get("objective") or []
    return {o["metric"]: o.get("direction", "minimize") for o in declared if isinstance(o, Mapping) and "metric" in o}


def improves(value: float, best: float | None, direction: str) -> bool:
    if not math.isfinite(value):
        return False
    return best is None or (value > best if direction == "maximize" else value < best)


def plain(value: Any) -> Any:
    """Plain JSON values; a function or class by its dotted name, never by its address in memory.

    >>> plain({"f": math.sqrt, "p": Path("a/b"), "t": (1, 2.5, None)})
    {'f': 'math.sqrt', 'p': 'a/b', 't': [1, 2.5, None]}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if hasattr(value, "func") and hasattr(value, "keywords"):  # functools.partial
        return plain(value.func)
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}" if re.search(r" at 0x[0-9a-f]+", text) else text


def require(module: str, tracker: str) -> None:
    """Say at launch, not an hour later, that an optional library is missing."""
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"the {tracker} tracker needs the library {module!r}, which is not installed: "
            f"pip install 'skyloom[tracking]', or choose another logger (logger=console)."
        )
