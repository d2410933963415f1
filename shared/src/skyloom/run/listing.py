"""Finding runs again: all of them newest first, or one by a unique part of its name."""

from pathlib import Path

from skyloom.errors import MissingFile, UserError
from skyloom.run.directory import Run

__all__ = ["find_run", "list_runs"]


def list_runs(runs_dir: str | Path, pkg: str | None = None, experiment: str | None = None) -> list[Run]:
    """Every run under `runs_dir`, newest first. A run within another's directory (an ensemble's member) is a part of it."""
    found = {path.parent for path in Path(runs_dir).glob("**/config.yaml") if (path.parent / "result.json").exists()}
    runs = [Run.open(directory) for directory in sorted(found) if found.isdisjoint(directory.parents)]
    chosen = [
        run
        for run in runs
        if (pkg is None or run.result.get("pkg") == pkg) and (experiment is None or run.result.get("experiment") == experiment)
    ]
    return sorted(chosen, key=lambda run: (run.result.get("started") or "", str(run.directory)), reverse=True)


def find_run(text: str, runs_dir: str | Path) -> Run:
    """The run whose directory is `text`, or the only one whose path under `runs_dir` contains `text`; `last` is the newest."""
    if (Path(text) / "config.yaml").is_file():
        return Run.open(text)
    runs = list_runs(runs_dir)
    if text == "last" and runs:
        return runs[0]
    matches = [run for run in runs if text in str(run.directory.relative_to(runs_dir))]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise MissingFile(f"no run matches run={text} under {runs_dir}. `make runs` lists the {len(runs)} there are.")
    shown = ", ".join(str(run.directory.relative_to(runs_dir)) for run in matches[:6])
    raise UserError(f"run={text} matches {len(matches)} runs: {shown}{', …' if len(matches) > 6 else ''}. Give a longer part.")
