"""`runs`: past runs. `report`: one run's page, or many runs' table. `docs`: the generated parts of the documentation."""

from pathlib import Path

from skyloom.errors import ConfigError, MissingFile
from skyloom.launch.records import runs_dir
from skyloom.launch.summary import print_runs
from skyloom.launch.words import take
from skyloom.run import find_run, list_runs

__all__ = ["docs", "report", "runs"]


def runs(words: list[str]) -> int:
    own, rest = take(words, "pkg", "experiment", "+experiment", "n")
    folder = runs_dir(rest)
    found = list_runs(folder, own.get("pkg"), own.get("experiment") or own.get("+experiment"))
    shown = found[: int(own.get("n", 40))]
    print_runs(shown, folder)
    if len(shown) < len(found):
        print(f"… and {len(found) - len(shown)} older ones; n=<how many> shows more")  # noqa: T201
    return 0


def report(words: list[str]) -> int:
    from skyloom.report import write_group_report, write_report

    own, rest = take(words, "run", "group", "pkg", "output")
    folder = runs_dir(rest)
    if "run" in own:
        print(f"written: {write_report(find_run(own['run'], folder).directory)}")  # noqa: T201
        return 0
    if "group" not in own:
        raise ConfigError("say what to report: run=<directory or part of it>, or group=<experiment or sweep>.")
    group = own["group"]
    candidates = list_runs(folder, own.get("pkg"))
    members = [run for run in candidates if group in run.directory.parts] or [
        run for run in candidates if group in str(run.directory)
    ]
    if not members:
        raise MissingFile(f"no run belongs to group={group} under {folder}. `make runs` lists runs.")
    output = Path(own.get("output") or Path(folder) / "reports" / group.replace("/", "-"))
    for kind, path in write_group_report([run.directory for run in members], output).items():
        print(f"{kind}: {path}")  # noqa: T201
    return 0


def docs(words: list[str]) -> int:
    from skyloom.launch.documents import rewrite

    for path in rewrite():
        print(f"rewritten: {path}")  # noqa: T201
    return 0
