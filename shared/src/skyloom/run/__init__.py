"""The run directory: config, provenance, seeds, records, status. Importable without torch."""

from skyloom.run.directory import Run
from skyloom.run.goals import judge_goals
from skyloom.run.listing import find_run, list_runs
from skyloom.run.signals import Interrupted, StopSignals

__all__ = ["Interrupted", "Run", "StopSignals", "find_run", "judge_goals", "list_runs"]
