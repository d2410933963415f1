"""A group of runs: its settings, what validation chooses, and what a reader must know before trusting the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import MissingFile
from skyloom.report.record import Record, objective_of, read_record
from skyloom.report.selection import choose, metric_values
from skyloom.report.settings import COUNTED, Setting, group_settings

__all__ = ["Group", "collect", "notes"]


@dataclass
class Group:
    """What the pages and tables are written from."""

    name: str
    records: list[Record]
    settings: list[Setting]
    varied: list[str]
    chosen: list[Setting]
    how: str

    @property
    def objectives(self) -> list[str]:
        return list(dict.fromkeys(o["metric"] for record in self.records for o in objective_of(record)))

    def metrics(self, split: str, settings: Sequence[Setting] | None = None) -> list[str]:
        """The objectives first, then what has a goal, then the rest as the task lists them."""
        found = [name for s in (self.settings if settings is None else settings) for name in metric_values(s, split)]
        goals = [str(g.get("metric", "")) for r in self.records for g in r.result.get("goals") or [] if isinstance(g, dict)]
        wanted = [f"{split}/{name.partition('/')[2]}" for name in [*self.objectives, *goals]]
        first = [name for name in wanted if name in found]
        return list(dict.fromkeys([*first, *found]))

    @property
    def synthetic(self) -> bool:
        return any(record.synthetic for record in self.records)

    @property
    def counts(self) -> dict[str, int]:
        return {status: sum(s.counts()[status] for s in self.settings) for status in COUNTED}

    @property
    def counted(self) -> list[str]:
        """The ends worth a column: those that must be asked about, and a run still going where there is one."""
        return [status for status in COUNTED if status != "running" or self.counts["running"]]

    @property
    def ends(self) -> list[str]:
        """Those that some run met, for tables that people read."""
        return [status for status in COUNTED if status == "finished" or self.counts[status]]


def collect(run_directories: Sequence[str | Path], name: str = "runs") -> Group:
    directories = list(dict.fromkeys(Path(d) for d in run_directories))
    if not directories:
        raise MissingFile("no runs to report on. `make runs` lists the runs there are.")
    records = [read_record(directory) for directory in directories]
    settings, varied = group_settings(records)
    chosen, how = choose(settings)
    return Group(name, records, settings, varied, chosen, how)


def notes(group: Group) -> list[str]:
    """What a reader must know before trusting the table."""
    found = []
    commits = sorted({record.commit for record in group.records})
    if len(commits) > 1:
        found.append(f"The runs come from {len(commits)} states of the code: {', '.join(commits)}.")
    changed = [record.id for record in group.records if record.provenance.get("dirty")]
    if changed:
        found.append(f"{len(changed)} of {len(group.records)} runs had uncommitted changes (kept as code.diff in each).")
    repeats = [record.id for setting in group.settings for record in setting.repeats]
    if repeats:
        found.append(f"Not counted, because a newer or finished run has the same setting and seed: {', '.join(repeats)}.")
    unreadable = [str(record.directory.name) for record in group.records if record.status == "unknown"]
    if unreadable:
        found.append(f"Counted as missing, because they left no readable result: {', '.join(unreadable)}.")
    if 0 < sum(record.synthetic for record in group.records) < len(group.records):
        found.append("Some of the runs used synthetic data and some did not.")
    return found + _data_note(group)


def _data_note(group: Group) -> list[str]:
    """The same setting and seed must mean the same data, whatever else is swept."""
    prints: dict[Any, set[str]] = {}
    for record in group.records:
        if record.provenance.get("data_fingerprint"):
            prints.setdefault(record.config.get("seed"), set()).add(str(record.provenance["data_fingerprint"]))
    swept = any(name.startswith(("data.", "survey.", "scale")) for name in group.varied)
    if not swept and any(len(found) > 1 for found in prints.values()):
        return ["Runs with one seed have seen different data, though no data setting differs."]
    return []
