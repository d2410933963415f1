"""Stop signals: ask for a stop, never save inside the handler.

A handler can run in the middle of a backward pass or of a file. So it only sets a flag; the training loop looks at the flag
at every step boundary, also inside validation. Where nothing is at stake (`deferred` is off) it raises at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "StopSignals"]

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(Exception):
    """The run was asked to stop, and has saved what it had."""

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Interrupted, (self.signum,)


class StopSignals:
    """Context in which SIGTERM, SIGUSR1 (Slurm preemption) and Ctrl-C ask for a stop; a second Ctrl-C insists."""

    def __init__(self, deferred: bool = False):
        self.requested: int | None = None
        self.deferred = deferred
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self.previous = {signum: signal.signal(signum, self._handle) for signum in STOPPING}
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signum
        if not self.deferred:
            raise Interrupted(signum)

    @contextlib.contextmanager
    def protected(self) -> Iterator[None]:
        """Within, a signal waits; on the way out it is raised."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before
        if self.requested is not None and not self.deferred:
            raise Interrupted(self.requested)
