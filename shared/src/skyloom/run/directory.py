"""A run: one directory, one identity, made before anything else and kept across restarts."""

import fcntl
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from skyloom.errors import MissingFile, UserError
from skyloom.run.files import read_json, write_json, write_text

__all__ = ["Run", "now"]

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_id() -> str:
    """`20261121-101502-k3f9q`: sorts by time; the random part keeps apart runs of the same second."""
    return time.strftime("%Y%m%d-%H%M%S") + "-" + "".join(secrets.choice(_ALPHABET) for _ in range(5))


class Run:
    """What a run has written, and the only hand that writes it.

    A run that is not `writable` (every process but the first of a distributed one) ignores all writes.
    """

    def __init__(self, directory: str | Path, writable: bool = True):
        self.directory = Path(directory)
        self.writable = writable
        self._lock: int | None = None

    # ---------------------------------------------------------------- making and finding

    @classmethod
    def create(cls, runs_dir: str | Path, config: dict[str, Any], *, directory: str | Path | None = None) -> "Run":
        """A new directory `runs_dir/<pkg>/<experiment>/<id>`, or exactly `directory`; an existing one is refused."""
        parent = Path(runs_dir) / str(config.get("pkg", "notebook")) / str(config.get("experiment") or "default")
        for _ in range(100):
            path = Path(directory) if directory is not None else parent / new_id()
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                if directory is not None:
                    raise UserError(
                        f"{path} exists already; a run never overwrites another. "
                        f"Resume it with run={path}, or choose another directory."
                    ) from None
            except OSError as error:
                raise UserError(
                    f"cannot make the run directory {path}: {error.strerror}. Set runs_dir=<a directory you can write>."
                ) from error
        run = cls(path)
        write_text(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        run.update(
            id=path.name if directory is None else f"{path.parent.name}-{path.name}",
            pkg=config.get("pkg"),
            experiment=config.get("experiment"),
            title=config.get("title"),
            status="submitted",
            started=now(),
        )
        return run

    @classmethod
    def open(cls, directory: str | Path, writable: bool = False) -> "Run":
        directory = Path(directory)
        if not (directory / "config.yaml").is_file():
            raise MissingFile(f"{directory} is not a run directory: it holds no config.yaml. `make runs` lists runs.")
        return cls(directory, writable)

    def acquire(self) -> "Run":
        """Take the run for this process; a second process is refused while the first lives."""
        if not self.writable:  # one of several tasks of a job; the first one takes it
            return self
        self._lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise UserError(f"another process is working on {self.directory}; wait for it, or stop it with SIGTERM.") from None
        return self

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def held(self) -> bool:
        """Whether a living process works on this run."""
        path = self.directory / ".lock"
        if self._lock is not None:
            return True
        if not path.exists():
            return False
        with open(path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not see each other
            except OSError:
                return True
        return False

    # ---------------------------------------------------------------- what it holds

    @property
    def id(self) -> str:
        return str(self.result["id"])

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.directory / "config.yaml").read_text(encoding="utf-8"))

    @property
    def result(self) -> dict[str, Any]:
        path = self.directory / "result.json"
        return read_json(path) if path.exists() else {}

    @property
    def provenance(self) -> dict[str, Any]:
        path = self.directory / "provenance.json"
        return read_json(path) if path.exists() else {}

    @property
    def status(self) -> str:
        """finished, interrupted, pruned, failed, running, submitted; or killed: it says running and nothing runs."""
        status = self.result.get("status", "unknown")
        return "killed" if status == "running" and not self.held else status

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    # ---------------------------------------------------------------- writing

    def update(self, **fields: Any) -> None:
        """Merge into result.json."""
        if self.writable:
            write_json(self.directory / "result.json", {**self.result, **fields})

    def write_json(self, name: str, value: Any) -> None:
        if self.writable:
            write_json(self.directory / name, value)

    @property
    def metrics_path(self) -> Path:
        return self.directory / "metrics.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line torn by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def append(self, row: dict[str, Any]) -> None:
        if self.writable:
            with open(self.metrics_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def keep_rows(self, count: int) -> None:
        """Forget rows after the first `count`: they were written after the checkpoint that a resume starts from."""
        if self.writable and self.metrics_path.exists():
            kept = self.rows()[:count]
            write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))
