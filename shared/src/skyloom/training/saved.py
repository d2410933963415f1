"""A trained task from its run directory, which is all it needs."""

from pathlib import Path
from typing import Any

from skyloom.run import Run
from skyloom.training.checkpoints import load_best

__all__ = ["load_task"]


def load_task(run: Run | str | Path) -> tuple[Any, dict[str, Any]]:
    """The task with the run's best weights, in evaluation mode, and what it knows of its data (`about`).

    The task is built anew from the run's own configuration; nothing is unpickled.
    """
    from hydra.utils import instantiate

    run = run if isinstance(run, Run) else Run.open(run)
    best = load_best(run.checkpoints)
    task = instantiate(run.config["task"], _convert_="all")(about=best["about"])
    task.load_state_dict(best["task"])
    return task.eval(), best["about"]
