"""Signals and mistakes between the processes of a distributed run.

The first process of a command starts the others and waits for them. A signal must reach every one of them: those that are up by
`os.kill`, those that still load their libraries by a number in shared memory, which they read when they can act on it.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from types import FrameType
from typing import Any

from skyloom.run import Interrupted, StopSignals
from skyloom.run.files import read_json, write_json

__all__ = ["forwarding", "mistake", "no_mistake", "report_mistake", "take_up"]

Desk = MutableSequence[int]
"""In shared memory: the signal that was asked for or 0, then the process ids of those that can handle one."""


@contextlib.contextmanager
def forwarding(stop: StopSignals, processes: int) -> Iterator[Desk]:
    """Within, SIGTERM and SIGUSR1 go on to the child processes, which save and leave together; Ctrl-C reaches them anyway."""
    desk: Any = multiprocessing.get_context("spawn").RawArray("i", 1 + processes)

    def forward(signum: int, frame: FrameType | None) -> None:
        stop.requested = desk[0] = signum
        if signum != signal.SIGINT:
            for pid in filter(None, desk[1:]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)

    before: dict[int, Any] = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield desk
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def take_up(desk: Desk | None, rank: int) -> None:
    """A child that handles signals from now on says so, and hears of one that came before."""
    if desk is not None:
        desk[1 + rank] = os.getpid()
        if desk[0]:
            raise Interrupted(desk[0])


def report_mistake(directory: Path, outcome: dict[str, Any]) -> None:
    """A user's mistake that one process met, for the others: they only see that it is gone."""
    write_json(directory / "mistake.json", outcome)


@contextlib.contextmanager
def no_mistake(directory: Path) -> Iterator[None]:
    """Before and after, none is left: not of an earlier start, not for a later one."""
    path = directory / "mistake.json"
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def mistake(directory: Path) -> dict[str, Any] | None:
    """What a process reported, once."""
    path = directory / "mistake.json"
    return read_json(path) if path.exists() else None
