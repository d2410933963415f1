"""The tables of docs/lensfind.md, from the run directories that made their numbers:

    python -m lensfind.evaluate.numbers docs/lensfind.md runs/lensfind

Every finished run at laptop size counts; runs that differ in their seed alone share a row. A table stands between
`<!-- numbers: name -->` and `<!-- /numbers -->` and is written anew, with the command of each row.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.evaluate.rows import Row, between, cost, gather, valued
from skyloom.data.tables import read_columns
from skyloom.errors import DataError
from skyloom.metrics import Ranking, delong, tpr_at_fpr
from skyloom.run import Run
from skyloom.run.files import write_text
from skyloom.training.progress import said

__all__ = ["ensembles", "experiments", "large", "pairs", "survey_table", "surveys", "write"]

_METRICS = {
    "test/auroc": "AUROC", "test/average_precision": "average precision", "test/tpr_at_fpr_1e-2": "TPR at FPR 1e-2",
    "test/ece": "ECE", "test/lenses_ratio": "expected/true lenses",
}  # fmt: skip


def experiments(rows: Iterable[Row]) -> str:
    """One line per setting at laptop size: network, cost, and what it reached; ± is the standard deviation over seeds."""
    rows = [row for row in rows if row.word("data.n_train") is None and row.word("survey") is None]
    names = list(_METRICS.values())
    lines = [f"| experiment | share of lenses | parameters | MFLOP | speed | {' | '.join(names)} | seeds | on |"]
    lines.append("|---" * (7 + len(names)) + "|")
    costs = {row: cost(row.runs[0]) for row in rows}
    reference = next((c["seconds"] for row, c in costs.items() if row.experiment == "resnet18" and "seconds" in c), math.nan)
    for row in rows:
        c = costs[row]
        speed = f"{reference / c['seconds']:.1f}" if "seconds" in c and math.isfinite(reference) else "–"
        flops = f"{c['flops'] / 1e6:.0f}" if "flops" in c else "–"
        parameters = f"{c['parameters'] / 1e6:.2f} M" if c.get("parameters") else "trees"
        cells = [
            f"`{row.experiment}`" + (f" {' '.join(row.words)}" if row.words else ""),
            f"{row.prior:g}",
            parameters,
            flops,
            speed,
        ]
        cells += [row.shown(metric, 4 if metric == "test/ece" else 3) for metric in _METRICS]
        lines.append("| " + " | ".join([*cells, str(len(row.runs)), row.device]) + " |")
    return "\n".join(lines)


def pairs(rows: Sequence[Row], compared: Sequence[tuple[str, str]]) -> str:
    """AUROC and TPR at FPR 1e-2 of the first setting less the second, on the same test rows, seed by seed; intervals by DeLong.

    A setting is named by its experiment, and its words after a space."""
    by_name = {" ".join([row.experiment, *row.words]): row for row in rows}
    lines = ["| first | second | seed | AUROC | AUROC | difference | 95% interval | TPR at FPR 1e-2 | TPR at FPR 1e-2 |"]
    lines.append("|---" * 9 + "|")
    for first, second in compared:
        if first not in by_name or second not in by_name:
            continue
        others = {int(run.config["seed"]): run for run in by_name[second].runs}
        for run in by_name[first].runs:
            seed = int(run.config["seed"])
            if seed in others:
                lines.append(f"| {first} | {second} | {seed} | {_pair(run, others[seed])} |")
    return "\n".join(lines) if len(lines) > 2 else "No two of the settings to be compared have been run on the same rows yet."


def _pair(run: Run, other: Run) -> str:
    a, b = (read_columns(r.directory / "predictions" / "test.parquet")[0] for r in (run, other))
    if "seed" in a and not np.array_equal(a["seed"], b["seed"]):
        raise DataError(f"{run.directory} and {other.directory} were scored on different rows.")
    rows = a["labelled"] == 0
    lens = a["lens"][rows] > 0
    c = delong(a["logit"][rows], b["logit"][rows], lens)
    found = [float(tpr_at_fpr(Ranking(columns["logit"][rows], lens), 1e-2).tpr) for columns in (a, b)]
    return (
        f"{c.first:.4f} | {c.second:.4f} | {float(c.difference):+.4f} | {c.difference.low:+.4f} … {c.difference.high:+.4f} | "
        f"{found[0]:.3f} | {found[1]:.3f}"
    )


def survey_table(rows: Iterable[Row]) -> str:
    """From evaluation.json: the operating point, faint and bright arcs, coverage, and probabilities at another prevalence."""
    names = ["experiment", "seed", "TPR at FPR 1e-3", "recall of arcs with S/N > 8", "purity at 1e-3", "expected/true at 1e-3"]
    lines = [f"| {' | '.join([*names, 'coverage: lenses', 'coverage: others'])} |"]
    lines.append("|---" * 8 + "|")
    for row in rows:
        for run, table in _written(row, "evaluation.json"):
            rate = table["tpr_at_fpr"]["1e-3"]
            shown = f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]" if rate["resolved"] else "not resolvable"
            bright = [s for s in table["strata"].get("arc_snr", []) if not s["bin"].startswith("[0,")]
            n, found = sum(s["n"] for s in bright), sum(s["found"] for s in bright)
            calibration = table["calibration"]
            sets = calibration.get("conformal", {})
            cells = [f"`{row.experiment}` {' '.join(row.words)}".strip(), str(run.config["seed"]), shown]
            cells += [f"{found / n:.3f} ({n})" if n else "–", _number(table["survey"]["purity"]["value"])]
            cells += [_number(calibration.get("at_prevalence", {}).get("expected_over_true"))]
            cells += [_number(sets.get("coverage_lenses")), _number(sets.get("coverage_others"))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def large(rows: Iterable[Row]) -> str:
    """Runs on more training cutouts, with enough held-out non-lenses for a false-positive rate of 1e-3."""
    names = ["experiment", "training cutouts", "held-out non-lenses", "lenses", "AUROC", "TPR at FPR 1e-3",
             "AUROC, arcs of S/N > 8", "TPR at FPR 1e-3, arcs of S/N > 8", "ECE", "expected/true at 1e-3",
             "coverage: lenses, others", "on"]  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        for run in row.runs if row.word("data.n_train") else ():
            table = json.loads((run.directory / "evaluation.json").read_text())
            visible, calibration = table.get("visible", {}), table["calibration"]
            sets = calibration.get("conformal", {})
            cells = [f"`{row.experiment}`", row.word("data.n_train") or "", f"{table['n_others']:,}", f"{table['n_lenses']:,}"]
            cells += [between(table["auroc"], 4), between(table["tpr_at_fpr"]["1e-3"])]
            cells += [between(visible.get("auroc", {}), 4), between(visible.get("tpr_at_fpr_1e-3", {}))]
            cells += [valued(run, "test/ece", 4), _number(calibration.get("at_prevalence", {}).get("expected_over_true"))]
            cells += [f"{_number(sets.get('coverage_lenses'))}, {_number(sets.get('coverage_others'))}", row.device]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "None has been run yet."


def surveys(rows: Iterable[Row]) -> str:
    """The same network on the sky of several surveys; where `across` scored them on one another, all AUROCs."""
    rows = [row for row in rows if row.word("survey")]
    others = [row.word("survey") or "" for row in rows]
    names = [
        "experiment",
        "learned on",
        "AUROC there",
        "average precision",
        "TPR at FPR 1e-2",
        *(f"AUROC on {o}" for o in others),
    ]
    lines = [f"| {' | '.join([*names, 'on'])} |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        run = row.runs[0]
        path = run.directory / "across.json"
        scores = json.loads(path.read_text())["auroc"] if path.is_file() else {}
        cells = [f"`{row.experiment}`", row.word("survey") or ""]
        cells += [row.shown(f"test/{m}") for m in ("auroc", "average_precision", "tpr_at_fpr_1e-2")]
        cells += [between(scores.get(other, {})) for other in others]
        lines.append(f"| {' | '.join([*cells, row.device])} |")
    return "\n".join(lines) if rows else "None has been run yet."


def ensembles(rows: Iterable[Row]) -> str:
    """Every rule of fusion against the member that validation calls best; DeLong's paired interval on the test rows."""
    lines = [
        "| experiment | seed | AUROC of the members | rule | AUROC | less the best on validation | used |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        for run, found in _written(row, "ensemble.json"):
            members = ", ".join(f"{value:.3f}" for value in found["members"].values())
            for rule, of in found["rules"].items():
                cells = [f"`{row.experiment}`", str(run.config["seed"]), members, rule.replace("_", " "), f"{of['auroc']:.4f}"]
                cells += [between(of["less_best_member"], 4), "yes" if rule == found["used"]["rule"] else ""]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "None has been run yet."


def _written(row: Row, name: str) -> Iterator[tuple[Run, dict[str, Any]]]:
    """The runs of a row that wrote the file, with what it says."""
    for run in row.runs:
        path = run.directory / name
        if path.is_file():
            yield run, json.loads(path.read_text())


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def write(page: Path, folder: Path, compared: Sequence[tuple[str, str]]) -> list[str]:
    """Rewrite the tables of a page; gives their names."""
    rows = gather(folder)
    tables = {"experiments": experiments(rows), "pairs": pairs(rows, compared), "survey": survey_table(rows)}
    tables |= {"large": large(rows), "surveys": surveys(rows), "ensembles": ensembles(rows)}
    tables["commands"] = "\n".join(f"    {row.command}" for row in rows)
    text, written = page.read_text(encoding="utf-8"), []
    for name, table in tables.items():
        begin, end = f"<!-- numbers: {name} -->", "<!-- /numbers -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
            written.append(name)
    write_text(page, text)
    return written


COMPARED = (
    ("vit_nnpu", "vit_pn"),
    ("vit_nnpu", "vit_nnpu task=lensfind/unlabeled_as_negative"),
    ("vit_pn", "vit_nnpu task=lensfind/unlabeled_as_negative"),
    ("deep_ensemble", "vit_nnpu"),
    ("vit_nnpu", "resnet_nnpu"),
    ("two_stage", "vit_nnpu"),
    ("lightgbm_pu", "vit_nnpu"),
    ("color_aware", "vit"),
    ("arc_attention", "light_transformer"),
    ("enhanced_light_transformer", "light_transformer"),
    ("multi_scale", "light_transformer"),
)
"""Settings that the page sets side by side."""


if __name__ == "__main__":
    said(f"written: {', '.join(write(Path(sys.argv[1]), Path(sys.argv[2]), COMPARED))}")
