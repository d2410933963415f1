"""`hydra/sweeper=skyloom`: the settings are `config.sweep`, the work is `skyloom.sweep`.

Hydra imports this file at every start and runs it without registering it as a module: it stays light, and its annotations
stay objects (dataclasses in it could not read strings).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class SkyloomSweeperConf:
    _target_: str = "hydra_plugins.skyloom_sweeper.sweeper.SkyloomSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="skyloom", node=SkyloomSweeperConf, provider="skyloom")


class SkyloomSweeper(Sweeper):
    """Optuna chooses, the configured launcher runs; see `skyloom.sweep`.

    The task function may have a method `prepare(overrides, directory, identity)`, called before a trial is launched.
    """

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.directory = Path()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function
        self.directory = _directory(config)
        with open_dict(config.hydra.sweep):
            config.hydra.sweep.dir = str(self.directory)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from skyloom.sweep.conduct import Jobs, conduct
        from skyloom.sweep.space import read_space
        from skyloom.sweep.study import Sweep

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        config = _plain(self.config)
        settings = config["sweep"]
        fixed, space = read_space(arguments, settings["space"] or {}, self.hydra_context.config_loader)
        fixed = [word for word in fixed if not word.startswith("sweep.directory=")]
        sweep = Sweep(self.directory, settings, config, space, arguments)
        self.validate_batch_is_legal([[*fixed, *space.overrides(space.first())]])
        sweep.open()
        kind = type(self.launcher).__name__
        jobs = Jobs(
            launch=self._launch,
            prepare=getattr(self.task_function, "prepare", _nothing),
            fixed=fixed,
            in_process=kind == "BasicLauncher",
            detached=kind == "SlurmLauncher",
        )
        stopped = conduct(sweep, jobs, settings["batch"] or _side_by_side(self.launcher, kind))
        return sweep, stopped

    def _launch(self, batch: list[list[str]], first: int) -> list[Any]:
        """Each job's value or exception. A launcher that lost a process raises for the whole batch."""
        from concurrent.futures import BrokenExecutor

        from skyloom.sweep.conduct import Lost

        assert self.launcher is not None
        try:
            returned = self.launcher.launch(batch, initial_job_idx=first)
        except BrokenExecutor as error:
            return [Lost(str(error))] * len(batch)
        except RuntimeError as error:
            if not type(error).__module__.startswith("submitit"):
                raise
            return [Lost(str(error))] * len(batch)
        return [job._return_value for job in returned]


def _directory(config: DictConfig) -> Path:
    """Where the sweep lives: a new place, or the one that sweep.directory names."""
    from skyloom.run.directory import new_id

    runs = Path(config.runs_dir).absolute() / str(config.pkg) / str(config.experiment or "default")
    named = config.sweep.directory
    if named is None:
        return runs / f"sweep-{new_id()}"
    return Path(named).absolute() if "/" in str(named) else runs / str(named)


def _plain(config: DictConfig) -> Any:
    """The configuration that all trials share, without Hydra's own part; what only a trial fills stays open."""
    shared = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return OmegaConf.to_container(shared, resolve=True, throw_on_missing=False)


def _side_by_side(launcher: Launcher, kind: str) -> int:
    """How many trials a launcher runs at once."""
    import os

    if kind == "BasicLauncher":
        return 1
    n_jobs = int(getattr(launcher, "joblib", {}).get("n_jobs") or 0) if kind == "JoblibLauncher" else 8
    return n_jobs if n_jobs > 0 else os.cpu_count() or 1


def _nothing(overrides: Any, directory: Any, identity: Any) -> None:
    """For task functions that need nothing before they are called."""
