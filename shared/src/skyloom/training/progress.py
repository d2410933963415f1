"""A bar with rate and remaining time on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "said"]

LINE_EVERY = 30.0  # seconds between lines where there is no terminal


def said(text: str, quiet: bool = False) -> None:
    """One line to a person, on standard error, where results do not go."""
    if not quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


class Bar:
    """Progress of `total` steps that may start at `done`; `quiet` says nothing (every process but the first)."""

    def __init__(self, label: str, total: int, done: int = 0, quiet: bool = False):
        self.label, self.total, self.done, self.quiet = label, total, done, quiet
        self._start, self._first, self._last_line = time.monotonic(), done, time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._drawn = 0.0

    def __enter__(self) -> "Bar":
        if not self.quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, rate="")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if self.quiet:
            return
        moment = time.monotonic()
        if self._bar is not None:
            if moment - self._drawn > 0.1 or self.done >= self.total:
                self._drawn = moment
                rate = (self.done - self._first) / max(moment - self._start, 1e-9)
                self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/s")
        elif moment - self._last_line > LINE_EVERY:
            self._last_line = moment
            rate = (self.done - self._first) / max(moment - self._start, 1e-9)
            left = (self.total - self.done) / rate if rate > 0 else float("nan")
            said(f"{self.label}: {self.done}/{self.total}, {rate:.1f}/s, {left:.0f} s left")
