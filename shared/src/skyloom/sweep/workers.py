"""Workers of one sweep: who is alive, and one at a time where they choose what to do next."""

import contextlib
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from skyloom.run.files import read_json, write_json

__all__ = ["Worker", "exclusive", "is_living"]


def this_machine() -> str:
    """A running kernel: locks seen from the same one are the whole truth."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Within, no other worker of this sweep is within."""
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Worker:
    """Context of a process that works on a sweep: a file that it holds locked, and touches `lease` / 4 seconds apart.

    On the same machine the lock alone tells whether a worker lives, at once and without a clock. Another machine may not see
    the lock; there the file's age decides.
    """

    def __init__(self, directory: Path, lease: float):
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.path = directory / "workers" / f"{self.id}.json"
        self.lease = lease
        self._left = threading.Event()

    def __enter__(self) -> "Worker":
        write_json(self.path, {"host": socket.gethostname(), "pid": os.getpid(), "machine": this_machine()})
        self._handle = os.open(self.path, os.O_RDWR)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        os.close(self._handle)

    def _touch(self) -> None:
        while not self._left.wait(self.lease / 4):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def is_living(directory: Path, worker: str, lease: float) -> bool:
    """Whether the worker of this name still works on the sweep."""
    path = directory / "workers" / f"{worker}.json"
    if not path.exists():
        return False
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    elsewhere = read_json(path).get("machine") != this_machine()
    return elsewhere and time.time() - path.stat().st_mtime < lease
