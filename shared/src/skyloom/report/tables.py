"""The tables of a group of runs, for programs (CSV) and for papers (LaTeX)."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from skyloom.report import latex
from skyloom.report.collect import Group
from skyloom.report.digits import decimals_for, number, plus_minus
from skyloom.report.selection import Summary, metric_values, metrics_of, summarise
from skyloom.report.settings import show

__all__ = ["interval_text", "runs_csv", "settings_csv", "tables_tex", "value_text"]


_COLUMNS = 5  # metrics that fit a page beside the settings; the CSV has all


def value_text(s: Summary) -> str:
    return plus_minus(s.mean, s.spread) if s.n else "–"


def interval_text(s: Summary) -> str:
    """Empty with fewer than three values."""
    decimals = decimals_for(s.spread, s.mean)
    return " to ".join(number(v, decimals) for v in (s.low, s.high)) if math.isfinite(s.low) else ""


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _cell(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def settings_csv(group: Group) -> str:
    """A row per setting. Test metrics stand only in the rows that validation chose; empty means undefined."""
    validation, tested = group.metrics("val"), group.metrics("test", group.chosen)
    parts = ("n", "mean", "sd", "t95_low", "t95_high")
    header = [*group.varied, *group.counted, "chosen", "synthetic"]
    header += [f"{name} {part}" for name in [*validation, *tested] for part in parts]
    rows: list[Sequence[Any]] = [[*header, "runs", "commits"]]
    for setting in group.settings:
        chosen = setting in group.chosen
        row: list[Any] = [show(v) for v in setting.values.values()]
        row += [setting.counts()[status] for status in group.counted]
        row += ["yes" if chosen else "no", "yes" if any(r.synthetic for r in setting.runs) else "no"]
        for split, names in (("val", validation), ("test", tested)):
            values = metric_values(setting, split) if split == "val" or chosen else {}
            for name in names:
                s = summarise(values.get(name, []))
                row += [s.n or "", *map(_cell, (s.mean, s.spread, s.low, s.high))]
        row += [" ".join(r.id for r in setting.runs), " ".join(sorted({r.commit for r in setting.runs}))]
        rows.append(row)
    return _csv(rows)


def runs_csv(group: Group) -> str:
    """A row per run that counts: what it was, how it ended, and its validation metrics."""
    validation = group.metrics("val")
    rows: list[Sequence[Any]] = [
        ["run", "seed", *group.varied, "status", "reason", "commit", "data_fingerprint", "synthetic", *validation]
    ]
    for setting in group.settings:
        for run in setting.runs:
            values = metrics_of(run, "val")
            row: list[Any] = [run.id, show(run.config.get("seed")), *(show(v) for v in setting.values.values())]
            row += [run.status, run.result.get("reason") or "", run.commit, run.provenance.get("data_fingerprint") or ""]
            row += ["yes" if run.synthetic else "no", *(_cell(values.get(name, math.nan)) for name in validation)]
            rows.append(row)
    return _csv(rows)


# ------------------------------------------------------------------------------------------------------ LaTeX


def tables_tex(group: Group) -> str:
    """Two tables: every setting on validation; the chosen one on test."""
    validation = group.metrics("val")[:_COLUMNS]
    columns = [latex.escape(n) for n in group.varied] + [latex.escape(s) for s in group.ends]
    columns += [latex.escape(n) for n in validation]
    rows = []
    for setting in group.settings:
        values = metric_values(setting, "val")
        swept = [latex.escape(show(v)) for v in setting.values.values()]
        counts = [str(setting.counts()[status]) for status in group.ends]
        cells = [latex.math_number(value_text(summarise(values.get(name, [])))) for name in validation]
        chosen = setting in group.chosen
        rows.append([rf"\textbf{{{text}}}" if chosen else text for text in swept] + counts + cells)
    name = latex.escape(group.name)
    data = " Synthetic data." if group.synthetic else ""
    text = "% Needs \\usepackage{booktabs}.\n" + _sources(group)
    text += latex.table(
        columns,
        rows,
        caption=f"{name}: validation metrics, mean $\\pm$ standard deviation over seeds.{data} {latex.escape(group.how)}",
        label=f"tab:{_label(group.name)}-validation",
        left=len(group.varied),
    )
    for number_, setting in enumerate(group.chosen):
        values = metric_values(setting, "test")
        if values:
            text += "\n" + latex.table(
                ["metric", "mean $\\pm$ s.d.", "95\\% interval of the mean", "$n$"],
                [_test_row(metric, summarise(found)) for metric, found in values.items()],
                caption=f"{name}: test metrics of the chosen setting ({latex.escape(setting.label)}).{data}",
                label=f"tab:{_label(group.name)}-test" + (f"-{number_ + 1}" if len(group.chosen) > 1 else ""),
                left=1,
            )
    return text


def _test_row(metric: str, s: Summary) -> list[str]:
    interval = " to ".join(latex.math_number(end) for end in interval_text(s).split(" to "))
    return [latex.escape(metric), latex.math_number(value_text(s)), interval or "--", str(s.n)]


def _sources(group: Group) -> str:
    lines = []
    for setting in group.settings:
        runs = ", ".join(f"{r.id} ({r.status}, {r.commit})" for r in setting.runs)
        lines.append(f"% {setting.label}: {runs}".replace("\n", " "))
    return "\n".join(lines) + "\n" + ("% synthetic data\n" if group.synthetic else "")


def _label(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower() or "runs"
