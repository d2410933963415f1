"""Side-by-side timing in one process: the same work, interleaved, reported as ratios with their spread."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyloom.run.files import write_json, write_text

RESULTS = Path(__file__).parent / "results"


def interleaved(cases: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process for each case in each round (the machine may be shared).

    One unrecorded round first; the order turns from round to round.
    """
    names = list(cases)
    for name in names:
        cases[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            began = time.process_time()
            cases[name]()
            seconds[name].append(time.process_time() - began)
    return seconds


def row(case: str, ours: list[float], peer: str, version: str, theirs: list[float], target: str) -> dict[str, Any]:
    """Ratio peer / ours, round by round: above 1 means that ours is faster."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "case": case,
        "ours_s": statistics.median(ours),
        "peer": peer,
        "version": version,
        "peer_s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
        "target": target,
    }


def write_table(name: str, title: str, rows: list[dict[str, Any]], notes: str = "") -> None:
    """`results/<name>.json` and `.md`, with the command that made them."""
    command = f"make bench name={name}"
    header = "| case | peer | version | ratio peer/ours: median | min | max | target |\n|---|---|---|---|---|---|---|\n"
    lines = [
        f"| {r['case']} | {r['peer']} | {r['version']} | {r['ratio']:.3f} | {r['ratio_min']:.3f} | {r['ratio_max']:.3f} "
        f"| {r['target']} |"
        for r in rows
    ]
    text = f"# {title}\n\nMade by `{command}`. Above 1: ours is faster.\n\n{header}" + "\n".join(lines) + f"\n\n{notes}\n"
    write_text(RESULTS / f"{name}.md", text)
    write_json(RESULTS / f"{name}.json", {"command": command, "python": sys.version.split()[0], "rows": rows, "notes": notes})
    print(text)
    print(json.dumps({r["case"]: round(r["ratio"], 3) for r in rows}))
