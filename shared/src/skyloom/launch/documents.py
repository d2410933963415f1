"""The generated parts of the documentation: what can go stale is written by the program.

A part stands between `<!-- generated: name -->` and `<!-- end -->`.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml

from skyloom.launch.compose import conf_dir, experiments, first_comment
from skyloom.launch.records import runs_dir
from skyloom.launch.summary import goal_text
from skyloom.run import Run, list_runs
from skyloom.run.files import write_text

__all__ = ["generated", "refresh_gallery", "rewrite"]


def rewrite() -> list[Path]:
    """Bring every generated part, and the gallery's pictures, up to date; returns the files that changed."""
    root = conf_dir().parent
    changed = refresh_gallery(root)
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        after = generated(before, root)
        if after != before:
            write_text(path, after)
            changed.append(path)
    return changed


def generated(text: str, root: Path) -> str:
    parts: dict[str, Callable[[Path], str]] = {
        "packages": _packages,
        "experiments": _experiments,
        "verbs": _verbs,
        "gallery": _gallery,
    }

    def fill(match: re.Match[str]) -> str:
        return f"{match.group(1)}\n{parts[match.group(2)](root)}\n<!-- end -->"

    return re.sub(r"(<!-- generated: (\w+) -->)\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def _packages(root: Path) -> str:
    lines = ["| package | what it does |", "|---|---|"]
    for path in sorted((root / "packages").glob("*/pyproject.toml")):
        about = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        name = path.parent.name
        lines.append(f"| [{name}](packages/{name}/README.md) | {about['description']} |")
    return "\n".join(lines)


def _experiments(root: Path) -> str:
    lines = ["| package | experiment | what it shows | goals |", "|---|---|---|---|"]
    for name, stated in sorted(experiments().items(), key=lambda item: (str(item[1].get("pkg")), item[0])):
        goals = "<br>".join(goal_text(goal) for goal in stated.get("goals") or [])
        lines.append(f"| {stated.get('pkg')} | `{name}` | {first_comment(name)} | {goals} |")
    return "\n".join(lines)


def _verbs(root: Path) -> str:
    shown = subprocess.run(["make", "-s", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    return "```\n" + shown.rstrip() + "\n```"


def _pictures(root: Path) -> list[dict[str, str]]:
    path = root / "docs" / "gallery.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []


def _gallery(root: Path) -> str:
    cells = [
        f'<img src="docs/gallery/{entry["experiment"]}-{entry["figure"]}" width="390" alt="{entry["alt"]}">'
        for entry in _pictures(root)
    ]
    return (
        "\n".join(cells)
        + "\n\nEach picture was written by the experiment that its file is named after; all data are synthetic."
    )


def _as_filed(run: Run) -> bool:
    """Whether a run changed nothing of its experiment but where it ran."""
    words = run.provenance.get("overrides", [])
    return {re.split(r"[.=]", word)[0] for word in words} <= {"pkg", "+experiment", "hardware", "logger"}


def refresh_gallery(root: Path) -> list[Path]:
    """Copy the pictures that docs/gallery.yaml names from the newest finished run of each experiment, as its file says it."""
    changed = []
    for entry in _pictures(root):
        runs = [r for r in list_runs(runs_dir([]), experiment=entry["experiment"]) if r.status == "finished" and _as_filed(r)]
        source = runs[0].directory / "figures" / entry["figure"] if runs else None
        target = root / "docs" / "gallery" / f"{entry['experiment']}-{entry['figure']}"
        if source is not None and source.exists() and (not target.exists() or source.read_bytes() != target.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            changed.append(target)
    return changed
