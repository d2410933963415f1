"""Signals for the processes of a distributed run."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from skyloom.run import StopSignals

__all__ = ["forwarding"]


@contextlib.contextmanager
def forwarding(stop: StopSignals) -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 go on to the child processes, which save and leave together; Ctrl-C reaches them anyway."""

    def forward(signum: int, frame: FrameType | None) -> None:
        stop.requested = signum
        if signum != signal.SIGINT:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signum)

    before: dict[int, Any] = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
