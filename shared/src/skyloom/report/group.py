"""Many runs that differ in seed and swept values: one table, one choice, one set of curves; HTML, CSV and LaTeX."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.plots import Curve, draw_bands, learning_curves, panels
from skyloom.report.collect import Group, collect, notes
from skyloom.report.digits import number, with_interval
from skyloom.report.record import Record, objective_of
from skyloom.report.render import by_day_and_night, render
from skyloom.report.selection import metric_values, summarise
from skyloom.report.settings import Setting, show
from skyloom.report.tables import interval_text, runs_csv, settings_csv, tables_tex, value_text
from skyloom.run.files import write_text

__all__ = ["write_group_report"]

_COLUMNS, _CURVES = 8, 4  # metrics in the table for people; the CSV has all


def write_group_report(run_directories: Sequence[str | Path], output: str | Path) -> dict[str, Path]:
    """Write `report.html`, `settings.csv`, `runs.csv` and `tables.tex` into the directory `output`.

    Runs are grouped by their resolved configuration without seed, paths, identities and trial. For every setting the
    tables hold how many runs finished, failed, were pruned, interrupted or are missing, and the mean, standard deviation
    and (from three runs on) 95% Student interval of every validation metric. Validation chooses; the test metrics are
    given once, for the chosen setting. Every number is tied to the ids and commits of its runs.
    """
    output = Path(output)
    group = collect(run_directories, output.name)
    written = {
        "html": (output / "report.html", render("group.html", **_contents(group))),
        "csv": (output / "settings.csv", settings_csv(group)),
        "runs_csv": (output / "runs.csv", runs_csv(group)),
        "tex": (output / "tables.tex", tables_tex(group)),
    }
    for path, text in written.values():
        write_text(path, text)
    return {kind: path for kind, (path, _) in written.items()}


def _contents(group: Group) -> dict[str, Any]:
    validation = group.metrics("val")[:_COLUMNS]
    return {
        "name": group.name,
        "packages": sorted({f"{r.result.get('pkg', '?')} / {r.result.get('experiment') or 'default'}" for r in group.records}),
        "synthetic": group.synthetic,
        "counts": {status: group.counts[status] for status in group.counted},
        "ends": group.ends,
        "total": len(group.records),
        "notes": notes(group),
        "how": group.how,
        "varied": group.varied,
        "validation": validation,
        "more": len(group.metrics("val")) - len(validation),
        "rows": [_row(group, setting, validation) for setting in group.settings],
        "chosen": [_chosen(setting, group.metrics("test", [setting])) for setting in group.chosen],
        "curves": _curves(group),
        "runs": [_run(setting, record) for setting in group.settings for record in setting.runs],
        "unfinished": [
            {"id": r.id, "status": r.status, "reason": str(r.result.get("reason") or "")}
            for s in group.settings
            for r in s.runs
            if r.status != "finished"
        ],
    }


def _row(group: Group, setting: Setting, metrics: Sequence[str]) -> dict[str, Any]:
    values = metric_values(setting, "val")
    cells = []
    for name in metrics:
        s = summarise(values.get(name, []))
        cells.append({"text": value_text(s), "interval": interval_text(s), "n": s.n if s.n != len(setting.finished) else None})
    return {
        "number": setting.number,
        "values": [show(v) for v in setting.values.values()],
        "counts": [setting.counts()[status] for status in group.ends],
        "cells": cells,
        "chosen": setting in group.chosen,
    }


def _chosen(setting: Setting, metrics: Sequence[str]) -> dict[str, Any]:
    values = metric_values(setting, "test")
    summaries = {name: summarise(values.get(name, [])) for name in metrics}
    return {
        "label": setting.label,
        "rows": [{"name": n, "text": value_text(s), "interval": interval_text(s), "n": s.n} for n, s in summaries.items()],
        "metrics": list(metrics)[:4],
        "runs": [
            {"id": run.id, "seed": show(run.config.get("seed")), "cells": [_own(run, name) for name in list(metrics)[:4]]}
            for run in setting.finished
        ],
    }


def _own(run: Record, name: str) -> str:
    metric = run.metrics.get(name)
    if metric is None:
        return "–"
    value, interval = with_interval(metric["value"], metric["low"], metric["high"])
    return f"{value} ({interval})" if interval else value


def _run(setting: Setting, record: Record) -> dict[str, Any]:
    first = (objective_of(record) or [{"metric": "", "value": math.nan}])[0]
    return {
        "id": record.id,
        "seed": show(record.config.get("seed")),
        "values": [show(v) for v in setting.values.values()],
        "status": record.status,
        "objective": f"{first['metric']} {number(first['value'])}" if math.isfinite(first["value"]) else "–",
        "commit": record.commit,
    }


def _curves(group: Group) -> list[dict[str, str]]:
    """The validation curves of every setting, mean and band, one picture per metric."""
    curves: dict[str, dict[str, list[Curve]]] = {}
    for setting in group.settings:
        for run in setting.runs:
            for curve in learning_curves(run.rows):
                if curve.split == "val" and np.isfinite(curve.value).sum() > 1:
                    curves.setdefault(f"val/{curve.metric}", {}).setdefault(setting.label, []).append(curve)
    names = [n for n in dict.fromkeys([*group.objectives, "val/loss", *sorted(curves)]) if n in curves][:_CURVES]
    chosen = group.chosen[0].label if group.chosen else None

    def draw(name: str) -> Any:
        figure, axes = panels(height=2.7)
        draw_bands(axes, curves[name], emphasise=chosen)
        axes.set_title(name)
        return figure

    return [by_day_and_night(name, draw, name) for name in names]
