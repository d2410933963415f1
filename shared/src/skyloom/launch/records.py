"""Where runs are, how one begins, and the page that ends it."""

import os
from pathlib import Path
from typing import Any

import yaml

from skyloom.launch.compose import conf_dir
from skyloom.run import Run
from skyloom.run.provenance import record_provenance

__all__ = ["new_run", "runs_dir", "write_page"]


def new_run(config: dict[str, Any], verb: str, overrides: list[str], directory: Path | None = None) -> Run:
    """Checked, made and recorded, in this order: a mistyped key leaves no directory behind."""
    from skyloom.launch.build import check_targets

    check_targets(config)
    run = Run.create(config["runs_dir"], config, directory=directory)
    record_provenance(run, verb, overrides, int(config["seed"]))
    return run


def runs_dir(overrides: list[str]) -> str:
    given = dict(word.split("=", 1) for word in overrides if word.startswith("runs_dir="))
    local = conf_dir() / "local" / "default.yaml"
    own = (yaml.safe_load(local.read_text(encoding="utf-8")) or {}).get("runs_dir") if local.exists() else None
    return given.get("runs_dir") or own or os.environ.get("SKYLOOM_RUNS") or str(conf_dir().parent / "runs")


def write_page(directory: Path) -> Path | None:
    """The run's page; a page that cannot be drawn does not undo the run."""
    import warnings

    from skyloom.report import write_report

    try:
        return write_report(directory)
    except Exception as error:
        warnings.warn(f"the page of {directory} could not be written: {type(error).__name__}: {error}", stacklevel=2)
        return None
