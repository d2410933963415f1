"""What a run was made of, frozen when it is submitted: code, versions, machine, command."""

import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from skyloom.run.directory import Run, now
from skyloom.run.files import write_text

__all__ = ["record_provenance"]


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def record_provenance(run: Run, verb: str, overrides: list[str], seed: int) -> None:
    """Write provenance.json, and code.diff when the checkout differs from its commit."""
    commit = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD", "--binary") or ""
    code = ("conf", "packages", "shared", "constraints.txt", "pyproject.toml")
    untracked = (_git("ls-files", "--others", "--exclude-standard", "--", *code) or "").splitlines()
    if diff:
        write_text(run.directory / "code.diff", diff)
    command = "make " + " ".join([verb, *(shlex.quote(word) for word in overrides)])
    run.write_json(
        "provenance.json",
        {
            "command": command,
            "overrides": overrides,
            "commit": commit.strip() if commit else None,
            "dirty": bool(diff or untracked),
            "diff_file": "code.diff" if diff else None,
            "untracked": untracked[:200],
            "python": sys.version.split()[0],
            "versions": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()},
            "hardware": {"processor": _processor(), "cores": os.cpu_count(), "memory_gib": _memory_gib()},
            "platform": platform.platform(),
            "host": socket.gethostname(),
            "seed": seed,
            "submitted": now(),
        },
    )
