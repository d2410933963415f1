"""Which runs are repeats of one setting, and what the settings differ in."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyloom.report.record import Record

__all__ = ["Setting", "fingerprint", "group_settings", "settings_of", "show"]

# What does not change what is learned: the seed (runs are repeats over it), where files go, who watches, whose trial.
IGNORED = {"seed", "runs_dir", "cache_dir", "logger", "sweep", "trial", "title", "goals", "debug", "hydra"}
COUNTED = ("finished", "failed", "pruned", "interrupted", "running", "missing")
_COUNTS_AS = {"killed": "interrupted", "submitted": "running", "unknown": "missing"}


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names and values; a list is one value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{name}.")
        else:
            found[name] = value
    return found


def _canonical(value: Any) -> Any:
    """1 and 1.0 are one value; True and 1 are not."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return repr(float(value))
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    return str(value)


def settings_of(record: Record) -> dict[str, Any]:
    """The resolved configuration without seed, paths, identities and trial.

    The seed appears wherever a part of the configuration refers to it (`data.seed`): keys named `seed` or `..._seed`
    that hold the run's own seed are left out too, and so are texts that hold the run's id or directory.
    """
    seed = record.config.get("seed")
    own = (record.id, str(record.directory))
    kept = {}
    for name, value in leaves({k: v for k, v in record.config.items() if k not in IGNORED}).items():
        last = name.rpartition(".")[2]
        if (last == "seed" or last.endswith("_seed")) and value == seed:
            continue
        if isinstance(value, str) and any(mark in value for mark in own):
            continue
        kept[name] = value
    return kept


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of the canonical form: runs that share it are repeats.

    >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2], "a": 1.0}) != fingerprint({"a": True, "b": [2]})
    True
    """
    text = json.dumps(_canonical(settings), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Setting:
    """Runs that differ in their seed alone. `values` are those of the swept keys."""

    key: str
    values: dict[str, Any]
    runs: list[Record]  # one per seed
    repeats: list[Record] = field(default_factory=list)  # further runs with a seed that is in `runs`: not counted
    missing: list[Any] = field(default_factory=list)  # seeds that other settings of the group have
    number: int = 0  # its row in the table, from 1

    @property
    def finished(self) -> list[Record]:
        return [run for run in self.runs if run.status == "finished"]

    def counts(self) -> dict[str, int]:
        """How many runs ended how. A killed run counts as interrupted; one without a readable record as missing."""
        found = dict.fromkeys(COUNTED, 0)
        for run in self.runs:
            status = _COUNTS_AS.get(run.status, run.status)
            found[status if status in found else "missing"] += 1
        found["missing"] += len(self.missing)
        return found

    @property
    def label(self) -> str:
        """The swept values, where they fit a legend; else its number in the table."""
        names = [name.rpartition(".")[2] for name in self.values]
        names = names if len(set(names)) == len(names) else list(self.values)
        text = ", ".join(f"{name}={show(v)}" for name, v in zip(names, self.values.values(), strict=True))
        return (text if len(text) <= 32 else f"setting {self.number}") or "all runs"


def group_settings(records: Sequence[Record]) -> tuple[list[Setting], list[str]]:
    """Settings with their runs, and the keys in which the settings differ (the swept values).

    Of several runs with one setting and one seed the newest finished one counts: they are repeats of one experiment,
    and counting them all would make the spread over seeds too small.
    """
    described = [(record, settings_of(record)) for record in records]
    names = sorted({name for _, settings in described for name in settings})
    varied = [n for n in names if len({json.dumps(_canonical(s.get(n, "absent"))) for _, s in described}) > 1]
    by_key: dict[str, Setting] = {}
    for record, settings in sorted(described, key=lambda pair: (pair[0].result.get("started") or "", pair[0].id)):
        key = fingerprint(settings)
        values = {name: settings.get(name, "absent") for name in varied}
        by_key.setdefault(key, Setting(key, values, [])).runs.append(record)
    seeds = sorted({_seed(r) for r in records if _seed(r) is not None}, key=str)
    for setting in by_key.values():
        _one_per_seed(setting)
    if _is_grid(by_key.values(), seeds):
        for setting in by_key.values():
            setting.missing = [seed for seed in seeds if seed not in {_seed(run) for run in setting.runs}]
    ordered = sorted(by_key.values(), key=lambda s: [_order(v) for v in s.values.values()])
    for number, setting in enumerate(ordered, start=1):
        setting.number = number
    return ordered, varied


def _seed(record: Record) -> Any:
    return record.config.get("seed", record.provenance.get("seed"))


def _one_per_seed(setting: Setting) -> None:
    chosen: dict[Any, Record] = {}
    for record in setting.runs:  # oldest first
        before = chosen.get(_seed(record))
        if before is None or record.status == "finished" or before.status != "finished":
            if before is not None:
                setting.repeats.append(before)
            chosen[_seed(record)] = record
        else:
            setting.repeats.append(record)
    setting.runs = sorted(chosen.values(), key=lambda r: (_order(_seed(r)), r.id))


def _is_grid(settings: Iterable[Setting], seeds: Sequence[Any]) -> bool:
    """Seeds were swept beside the values: some setting has more than one. Else each trial has a seed of its own."""
    return len(seeds) > 1 and any(len({_seed(r) for r in s.runs}) > 1 for s in settings)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, show(value))


def show(value: Any) -> str:
    """A configured value as one would type it.

    >>> show(0.001), show([64, 128]), show(None), show(True)
    ('0.001', '[64,128]', 'null', 'true')
    """
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)
