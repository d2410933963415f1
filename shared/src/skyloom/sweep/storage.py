"""Where a study is kept: an Optuna journal in the sweep's directory, or any database that SQLAlchemy reaches."""

import fcntl
import os
import re
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from skyloom.errors import ConfigError

__all__ = ["hidden", "open_storage"]

JOURNAL = "journal.log"


def open_storage(url: str | None, directory: Path) -> BaseStorage:
    """The storage that `sweep.storage` names; None is the journal of the sweep in `directory`."""
    if url is None:
        path = str(directory / JOURNAL)
        lock: Any = _KernelLock(path)  # Optuna exports no class to derive it from
        return JournalStorage(JournalFileBackend(path, lock_obj=lock))
    if HIDDEN in url:
        raise ConfigError("the storage's password is not kept: give sweep.storage=<url> again.")
    if "://" not in url:
        raise ConfigError(f"sweep.storage={url} is no URL: write sqlite:///{url}, or null for a journal file.")
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return RDBStorage(url, engine_kwargs=waiting)
    except Exception as error:  # SQLAlchemy, its drivers and Optuna each raise their own
        reason = str(error).splitlines()[0]
        raise ConfigError(f"sweep.storage={hidden(url)} cannot be opened: {reason}") from error


HIDDEN = ":***@"


def hidden(url: str | None) -> str | None:
    """A storage URL as it may be written into records and pages.

    >>> hidden("postgresql://ada:secret@db/sweeps")
    'postgresql://ada:***@db/sweeps'
    """
    return re.sub(r"(://[^:/@]+):[^@/]*@", r"\1" + HIDDEN, url) if url else url


class _KernelLock:
    """flock: the kernel frees it when its holder is killed, so that no stale lock ever holds up the others.

    A holder killed while writing leaves half a line, after which Optuna could never read the journal again; the next one to
    take the lock removes it (that record was not acknowledged to anyone).
    """

    def __init__(self, path: str):
        self.path = path
        self.handle = -1

    def acquire(self) -> bool:
        self.handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self.handle, fcntl.LOCK_EX)
        with open(self.path, "r+b") as journal:
            _cut_torn_line(journal.fileno())
        return True

    def release(self) -> None:
        os.close(self.handle)


def _cut_torn_line(handle: int) -> None:
    end = size = os.fstat(handle).st_size
    while end > 0:
        start = max(end - 4096, 0)
        block = os.pread(handle, end - start, start)
        if b"\n" in block:
            end = start + block.rindex(b"\n") + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
