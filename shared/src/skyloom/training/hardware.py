"""Where a run computes: a Fabric, and how many threads a process should use."""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from torch import Tensor

from skyloom.errors import ConfigError
from skyloom.training.task import Task

__all__ = ["choose_threads", "device_name", "fabric", "spawns"]


def fabric(
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    precision: Any = "32-true",
    threads: int | str = "auto",
    launcher: str | None = None,
) -> Fabric:
    """A Fabric on the devices named; `ddp` starts its own processes unless a scheduler already did.

    Args:
        accelerator: auto, cpu, gpu (cuda, mps, tpu…)
        devices: how many, or auto for all that are visible
        strategy: auto, ddp, or any other that Fabric knows
        precision: 32-true, bf16-mixed, 16-mixed, bf16-true, 64-true
        threads: CPU threads of this process; auto measures (used by the training workflow)
        launcher: Hydra launcher that submits the run (submitit_slurm), or null; used by the command line
    """
    del threads, launcher
    if accelerator == "auto":
        accelerator = "cpu" if not torch.cuda.is_available() and not torch.backends.mps.is_available() else "auto"
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"hardware.accelerator={accelerator}, but this torch ({torch.__version__}) sees no CUDA device. "
            "Use hardware=auto or hardware=cpu."
        )
    if accelerator == "cpu" and devices == "auto":
        devices = 1
    several = devices not in (1, "1") or num_nodes > 1
    if strategy in ("auto", "ddp") and several:
        from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

        external = SLURMEnvironment.detect() or TorchElasticEnvironment.detect()
        strategy = "ddp" if external or num_nodes > 1 else "ddp_spawn"
    try:
        return Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy, precision=precision)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"hardware cannot be had: {error}") from error


def spawns(made: Fabric) -> bool:
    """Whether `made.launch(function)` runs the function in processes of its own."""
    return isinstance(made._strategy.launcher, _MultiProcessingLauncher)


def device_name(made: Fabric) -> str:
    """What computes: CPU, NVIDIA H200, 4 x NVIDIA H200.

    >>> device_name(Fabric(accelerator="cpu", devices=2))
    '2 x CPU'
    """
    kind = made.device.type
    name = torch.cuda.get_device_name(made.device) if kind == "cuda" else kind.upper()
    return f"{made.world_size} x {name}" if made.world_size > 1 else name


def choose_threads(task: Task, batch: dict[str, Tensor], losses: Callable[..., Any], cores: int) -> int:
    """1 or `cores`, whichever does a training step of this model faster here and now.

    Two threads on two cores are slower than one for small operations, and far slower when the cores are busy; no rule knows
    which model is small, so measure it. The task is left as it was.
    """
    if cores < 2:
        return 1
    before = {name: value.clone() for name, value in task.state_dict().items()}
    seconds: dict[int, float] = {}
    for _ in range(2):
        for threads in (1, cores):
            torch.set_num_threads(threads)
            began = time.perf_counter()
            losses(batch)["loss"].backward()
            task.zero_grad()
            seconds[threads] = min(seconds.get(threads, float("inf")), time.perf_counter() - began)
    task.load_state_dict(before)
    chosen = cores if seconds[cores] < 0.85 * seconds[1] else 1
    torch.set_num_threads(chosen)
    return chosen
