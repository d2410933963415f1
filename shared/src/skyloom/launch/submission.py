"""A run through a queue: its directory is made when it is submitted, and a preempted job goes on in it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from skyloom.errors import ConfigError, UserError
from skyloom.run import Interrupted, Run

__all__ = ["SubmittedRun", "is_first_task", "one_task_per_device", "submit", "surviving_preemption"]

T = TypeVar("T")


def submit(config: dict[str, Any], overrides: list[str], run: Run | None = None) -> int:
    """Submit a new run, or the `run` given, through the Hydra launcher that `hardware.launcher` names; return at once.

    The launcher's settings are `hydra.launcher.*` (partition, timeout_min, signal_delay_s…); its own `launch` would wait for
    the job and compose the configuration again inside it, so only its settings are used.
    """
    from rich.console import Console

    from skyloom.launch.records import new_run

    settings, cluster = _launcher(config, overrides)
    if cluster == "slurm":
        settings.update(one_task_per_device(config["hardware"], overrides))
    run = run or new_run(config, "train", overrides)
    executor = _executor(settings, cluster, run)
    try:
        job = executor.submit(SubmittedRun(str(run.directory.absolute())))
    except (RuntimeError, OSError) as error:
        run.update(status="failed", reason=f"could not be submitted: {error}")
        raise UserError(f"the run could not be submitted: {error} (run: {run.directory})") from None
    run.update(job={"id": str(job.job_id), "cluster": cluster, "log": str(job.paths.stdout)})
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"submitted: job {job.job_id} ({cluster})\nrun:       {run.directory}", markup=False)
    console.print(f"log:       {job.paths.stdout}\nresume:    make train run={run.directory}", markup=False)
    return 0


class SubmittedRun:
    """What the job does, and, by `checkpoint`, what it does again after a requeue: the same, in the same directory."""

    def __init__(self, directory: str):
        self.directory = directory

    def __call__(self) -> str:
        surviving_preemption(self.work)
        return Run.open(self.directory).status

    def work(self) -> None:
        from skyloom.launch.execute import execute
        from skyloom.launch.records import write_page
        from skyloom.launch.summary import print_summary

        run = Run.open(self.directory, writable=is_first_task())
        outcome = execute(run, run.config)
        if outcome["status"] == "interrupted":
            raise Interrupted(outcome["signum"])
        if is_first_task():
            page = write_page(run.directory)
            if page is not None:
                print_summary(run, page)
        if outcome.get("user_error"):
            raise UserError(outcome["user_error"])

    def checkpoint(self) -> Any:
        """submitit calls this before it requeues the job. There is nothing to save here: the run has saved itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def surviving_preemption(work: Callable[[], T]) -> T:
    """Do `work`; when the queue's preemption signal arrives, let it save and leave, and only then requeue the job.

    submitit's own handler requeues and exits wherever the program stands, in the middle of a backward pass or a file. Here
    the signal becomes the stop request that the loop knows; when `work` has answered it with `Interrupted`, submitit's
    handler is called after all. The signal is SIGUSR2, or what SUBMITIT_PREEMPT_SIGNAL names; SIGTERM alone (`scancel`) saves
    and does not requeue. Outside a submitit job nothing is changed.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return work()
    from submitit import JobEnvironment

    preempted = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
    requeue = signal.getsignal(preempted)
    if not callable(requeue):  # the debug executor, in the process of the command itself
        return work()
    asked: list[int] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        stop = signal.getsignal(signal.SIGUSR1)
        if callable(stop):
            stop(signal.SIGUSR1, frame)
        else:  # before the run began, or after it ended: nothing is at stake
            requeue(signum, frame)

    if preempted != signal.SIGUSR1:
        signal.signal(preempted, ask)
    try:
        return work()
    except Interrupted as stopped:
        if asked or stopped.signum == preempted:
            requeue(preempted, None)  # writes the requeued submission and exits
        raise
    finally:
        signal.signal(preempted, requeue)


def is_first_task() -> bool:
    """Whether this process is the one of its job that writes."""
    return int(os.environ.get("SLURM_PROCID") or os.environ.get("SUBMITIT_LOCAL_GLOBALID") or 0) == 0


def _launcher(config: dict[str, Any], overrides: list[str]) -> tuple[dict[str, Any], str]:
    """Settings of the Hydra launcher, and the cluster it submits to."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import ConfigCompositionException
    from omegaconf import OmegaConf

    from skyloom.launch.compose import conf_dir

    name = config["hardware"]["launcher"]
    chosen = [word for word in overrides if not word.startswith("hydra/launcher=")]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", [*chosen, f"hydra/launcher={name}"], return_hydra_config=True)
    except ConfigCompositionException as error:
        raise ConfigError(f"hardware.launcher={name}: {str(error).splitlines()[0]}") from None
    node = OmegaConf.masked_copy(composed.hydra, ["launcher"]).launcher
    plain = OmegaConf.to_container(OmegaConf.masked_copy(node, [k for k in node if k not in ("submitit_folder", "name")]))
    assert isinstance(plain, dict)
    settings = {str(key): value for key, value in plain.items()}
    kind = str(settings.pop("_target_"))
    clusters = {"SlurmLauncher": "slurm", "LocalLauncher": "local"}
    if kind.rpartition(".")[2] not in clusters:
        raise ConfigError(f"hardware.launcher={name} submits no single run: use submitit_slurm or submitit_local.")
    return settings, clusters[kind.rpartition(".")[2]]


def one_task_per_device(hardware: dict[str, Any], overrides: list[str]) -> dict[str, int]:
    """Slurm starts a task for each device, and Fabric joins them; what was given as hydra.launcher.* stays."""
    given = dict(word.lstrip("+").split("=", 1) for word in overrides if "=" in word)
    devices = hardware["devices"]
    if devices == "auto":
        devices = given.get("hydra.launcher.gpus_per_node", 1)
    wanted = {"tasks_per_node": int(devices), "nodes": int(hardware["num_nodes"])}
    if hardware["accelerator"] not in ("cpu", "auto"):
        wanted["gpus_per_node"] = int(devices)
    return {key: value for key, value in wanted.items() if f"hydra.launcher.{key}" not in given}


def _executor(settings: dict[str, Any], cluster: str, run: Run) -> Any:
    """submitit's executor, as hydra-submitit-launcher sets it up, with its files inside the run."""
    import submitit

    special = {"max_num_timeout": settings.pop("max_num_timeout")} if "max_num_timeout" in settings else {}
    folder = Path(run.directory).absolute() / "submitit"
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **{f"{cluster}_{k}": v for k, v in special.items()})
        general = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "stderr_to_stdout"}
        named = {key if key in general else f"{cluster}_{key}": value for key, value in settings.items()}
        executor.update_parameters(name=run.id, **named)
    except (RuntimeError, ValueError, NameError) as error:
        run.update(status="failed", reason=f"could not be submitted: {error}")
        raise UserError(f"cannot submit to {cluster}: {str(error).splitlines()[0]} (run: {run.directory})") from None
    return executor
