"""One run as one self-contained HTML page."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.plots import Curve, by_metric, draw_metric, panels
from skyloom.report.digits import duration, with_interval
from skyloom.report.record import Record, as_number, objective_of, read_record
from skyloom.report.render import by_day_and_night, inline, is_wide, render
from skyloom.run.files import write_text

__all__ = ["write_report"]

_STATUS = {  # word, kind (colour), what it means
    "finished": ("finished", "good", "The run went to its end."),
    "failed": ("failed", "bad", "The run ended with an error; numbers below are those it had reached."),
    "interrupted": ("interrupted", "warn", "The run was stopped and can be resumed; it is not complete."),
    "killed": ("killed", "bad", "The process ended without a word; the run can be resumed; it is not complete."),
    "pruned": ("pruned", "warn", "A sweep stopped this run early because others did better."),
    "running": ("running", "warn", "The run was still going on when this page was written."),
    "submitted": ("submitted", "warn", "The run had not begun when this page was written."),
}
_HEADLINES = 6


@dataclass(frozen=True)
class Metric:
    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class Goal:
    metric: str
    target: str
    value: str
    interval: str
    verdict: str
    kind: str


def write_report(directory: str | Path) -> Path:
    """Write `report.html` into a run directory from the files in it, and return its path.

    The page needs no network and no other file; other pages in the run's directory are linked. It is written for failed and
    unfinished runs as well, and depends on nothing but the run's files: written twice, it is the same, byte for byte.
    """
    record = read_record(directory)
    path = record.directory / "report.html"
    write_text(path, render("page.html", **_contents(record)))
    return path


def _contents(record: Record) -> dict[str, Any]:
    result, config = record.result, record.config
    word, kind, meaning = _STATUS.get(record.status, ("unknown", "bad", "The run left no readable result."))
    goals = goals_of(record)
    return {
        "title": str(result.get("title") or config.get("title") or result.get("experiment") or record.id),
        "pkg": str(result.get("pkg") or config.get("pkg") or "?"),
        "experiment": str(result.get("experiment") or config.get("experiment") or "default"),
        "id": record.id,
        "status": {"word": word, "kind": kind, "meaning": meaning, "reason": str(result.get("reason") or "")},
        "synthetic": record.synthetic,
        "problems": record.problems,
        "caveats": [str(caveat) for caveat in result.get("caveats") or []],
        "companions": sorted(p.name for p in record.directory.glob("*.html") if p.name != "report.html"),
        "facts": _facts(record),
        "headlines": _headlines(record),
        "goals": goals,
        "goals_met": sum(goal.verdict == "met" for goal in goals),
        "metrics": {split: _metrics(record, split) for split in ("test", "val")},
        "level": f"{100 * as_number((result.get('interval') or {}).get('level', 0.95)):.0f}%",
        "curves": _curves(record),
        "figures": [(inline(f.path), is_wide(f.path), f) for f in record.figures],
        "commands": _commands(record),
        "config": record.config_text,
        "provenance": _provenance(record),
        "versions": sorted((record.provenance.get("versions") or {}).items(), key=lambda item: str(item[0]).lower()),
    }


def _facts(record: Record) -> list[tuple[str, str]]:
    result = record.result
    parameters = result.get("parameters")
    best = result.get("best") or {}
    facts = [
        ("run", record.id),
        ("started", _time(result.get("started"))),
        ("took", duration(as_number(result.get("duration_s")))),
        ("on", result.get("device") or ""),
        ("seed", str(record.provenance.get("seed", record.config.get("seed", "unknown")))),
        ("parameters", f"{parameters:,}".replace(",", " ") if isinstance(parameters, int) else ""),
        ("best weights", f"step {best['step']}" if "step" in best else ""),
        ("code", record.commit),
    ]
    return [(name, value) for name, value in facts if value]


def _time(text: Any) -> str:
    """2026-11-21 10:15 UTC."""
    return str(text)[:16].replace("T", " ") + " UTC" if text else "unknown"


def goals_of(record: Record) -> list[Goal]:
    """Every goal the experiment states; one that was not measured is shown as such."""
    goals = []
    for entry in record.result.get("goals") or record.config.get("goals") or []:
        if not isinstance(entry, Mapping) or "metric" not in entry:
            continue
        least = "min" in entry
        value, bound = as_number(entry.get("value")), as_number(entry.get("min" if least else "max"))
        met = entry.get("met") if math.isfinite(value) else None
        verdict, kind = ("not measured", "warn") if met is None else ("met", "good") if met else ("not met", "bad")
        target = f"{'≥' if least else '≤'} {bound:g}"
        metric = record.metrics.get(str(entry["metric"]), {})
        text, interval = with_interval(value, metric.get("low", math.nan), metric.get("high", math.nan))
        goals.append(Goal(str(entry["metric"]), target, text if math.isfinite(value) else "–", interval, verdict, kind))
    return goals


def _metrics(record: Record, split: str) -> list[Metric]:
    return [
        Metric(name, *with_interval(m["value"], m["low"], m["high"]))
        for name, m in record.metrics.items()
        if name.startswith(f"{split}/")
    ]


def _headlines(record: Record) -> list[dict[str, Any]]:
    """The numbers to read first: those with goals, then the objective's metric on both splits, then other test metrics."""
    goals = {goal.metric: goal for goal in goals_of(record)}
    judged = [o["metric"] for o in objective_of(record)]
    objective = [name for metric in judged for name in (metric.replace("val/", "test/", 1), metric)]
    tested = [name for name, m in record.metrics.items() if name.startswith("test/") and math.isfinite(m["value"])]
    names = [n for n in dict.fromkeys([*goals, *objective, *tested]) if n in record.metrics][:_HEADLINES]
    tiles = []
    for name in names:
        metric = record.metrics[name]
        value, interval = with_interval(metric["value"], metric["low"], metric["high"])
        tiles.append({"name": name, "value": value, "interval": interval, "goal": goals.get(name)})
    return tiles


def _curves(record: Record) -> list[dict[str, str]]:
    """The learning curves, one picture per metric."""
    best = (record.result.get("best") or {}).get("step")

    def draw(curves: list[Curve]) -> Any:
        figure, axes = panels(height=2.3)
        draw_metric(axes, curves, best)
        return figure

    metrics = by_metric(record.rows, first=[o["metric"] for o in objective_of(record)])
    return [by_day_and_night(curves[0].metric, draw, curves) for curves in metrics]


def _commands(record: Record) -> list[tuple[str, str]]:
    """What to type to get this run again, each with what it does."""
    name, provenance = shlex.quote(record.id), record.provenance
    commands = []
    if provenance.get("commit"):
        commands.append((f"git checkout {shlex.quote(str(provenance['commit']))}", "the code as it was"))
        if provenance.get("diff_file"):
            diff = shlex.quote(str(provenance["diff_file"]))
            commands.append((f"git apply {diff}", "what had been changed in it; the file lies beside this page"))
    if provenance.get("command"):
        commands.append((str(provenance["command"]), "as it was launched"))
    commands.append((f"make rerun run={name}", "repeat it from its own record and compare the metrics"))
    if record.status in ("interrupted", "killed", "failed"):
        commands.append((f"make train run={name}", "go on where it stopped"))
    if record.status == "finished":
        commands.append((f"make evaluate run={name}", "score the test split again with the best weights"))
        commands.append((f"make predict run={name} input=<file>", "apply it to new data"))
    return commands


def _provenance(record: Record) -> list[tuple[str, str]]:
    """Every recorded fact but the long lists, which have places of their own."""
    listed = []
    for name, value in record.provenance.items():
        if name in ("versions", "overrides") or value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            text = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, Sequence) and not isinstance(value, str):
            text = ", ".join(map(str, value))
        else:
            text = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        listed.append(({"dirty": "uncommitted changes"}.get(name, name.replace("_", " ")), text))
    return listed
