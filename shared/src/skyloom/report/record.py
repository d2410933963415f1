"""What a run directory holds, read with patience: a failed or killed run lacks files, and its page says so."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from skyloom.errors import MissingFile
from skyloom.plots import Figure
from skyloom.run import Run

__all__ = ["Record", "objective_of", "read_record"]


@dataclass
class Record:
    """A run as it lies on disk. `problems` are sentences about what could not be read."""

    directory: Path
    result: dict[str, Any]
    status: str
    config_text: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    rows: list[dict[str, Any]]
    figures: list[Figure]
    problems: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.result.get("id") or self.directory.name)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """name -> value, low, high; what is undefined or absent is NaN."""
        found = {}
        for name, entry in (self.result.get("metrics") or {}).items():
            entry = entry if isinstance(entry, dict) else {"value": entry}
            found[name] = {part: as_number(entry.get(part)) for part in ("value", "low", "high")}
        return found

    @property
    def synthetic(self) -> bool:
        return bool(self.result.get("synthetic"))

    @property
    def commit(self) -> str:
        commit = str(self.provenance.get("commit") or "unknown")[:10]
        return commit + ("+changes" if self.provenance.get("dirty") else "")


def read_record(directory: str | Path) -> Record:
    """Read a run; only a directory that is no run at all is an error."""
    directory = Path(directory)
    if not directory.is_dir():
        raise MissingFile(f"there is no run directory {directory}. `make runs` lists runs.")
    problems: list[str] = []
    text = ""
    config: Any = {}
    if (directory / "config.yaml").is_file():
        try:
            text = (directory / "config.yaml").read_text(encoding="utf-8")
            config = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError, OSError):
            problems.append("config.yaml cannot be read.")
    else:
        problems.append("config.yaml is missing.")
    result = _json(directory, "result.json", problems)
    status = str(result.get("status") or "unknown")
    if status == "running" and not Run(directory).held:
        status = "killed"
    return Record(
        directory,
        result if isinstance(result, dict) else {},
        status,
        text,
        config if isinstance(config, dict) else {},
        _json(directory, "provenance.json", problems),
        _rows(directory, problems),
        _figures(directory, problems),
        problems,
    )


def _json(directory: Path, name: str, problems: list[str]) -> dict[str, Any]:
    path = directory / name
    if not path.is_file():
        problems.append(f"{name} is missing.")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        problems.append(f"{name} cannot be read.")
        return {}
    return value if isinstance(value, dict) else {}


def _rows(directory: Path, problems: list[str]) -> list[dict[str, Any]]:
    path = directory / "metrics.jsonl"
    if not path.is_file():
        problems.append("metrics.jsonl is missing: nothing was logged.")
        return []
    rows, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
        except json.JSONDecodeError:
            torn += 1
    if torn:
        problems.append(f"Lines of metrics.jsonl that could not be read, and are left out: {torn}.")
    return rows


def _figures(directory: Path, problems: list[str]) -> list[Figure]:
    folder = directory / "figures"
    listing = folder / "figures.json"
    if not listing.is_file():
        return [Figure(p, p.stem.replace("_", " "), "") for p in sorted(folder.glob("*.png"))]
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        listed = [Figure(folder / e["file"], str(e.get("title") or ""), str(e.get("caption") or "")) for e in entries]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        problems.append("figures/figures.json cannot be read.")
        return []
    present = []
    for figure in listed:
        if figure.path.resolve().parent != folder.resolve():
            problems.append(f"the figure {figure.path.name} lies outside the run and is left out.")
        elif not figure.path.is_file():
            problems.append(f"the figure {figure.path.name} is listed but its file is missing.")
        else:
            present.append(figure)
    return present


def as_number(value: Any) -> float:
    """A float; NaN for anything that is not a number."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def objective_of(record: Record) -> list[dict[str, Any]]:
    """metric, direction and value of what the run is judged by, first of all objectives first."""
    declared = record.result.get("objective") or record.config.get("objective") or []
    return [
        {
            "metric": str(o["metric"]),
            "direction": str(o.get("direction") or "minimize"),
            "value": as_number(o.get("value", record.metrics.get(str(o["metric"]), {}).get("value"))),
        }
        for o in declared
        if isinstance(o, dict) and "metric" in o
    ]
