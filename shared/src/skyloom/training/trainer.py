"""The loop. What is trained is a task; what it is trained on is `Data`; where it runs is Fabric's business.

trainer = Trainer(epochs=20, batch_size=256)
trainer.fit(task, data)
predictions = trainer.predict(task, data.test)
"""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from skyloom.data import Batch, Data
from skyloom.data.splits import columns_of
from skyloom.errors import ConfigError
from skyloom.run import Interrupted, Run, StopSignals
from skyloom.run.seeds import derive
from skyloom.training.fit import Fit, Progress, Prune, Record
from skyloom.training.loading import load
from skyloom.training.optimizers import optimizer as default_optimizer
from skyloom.training.progress import Bar
from skyloom.training.schedules import Cosine, Schedule
from skyloom.training.task import Task

__all__ = ["Trainer"]


@dataclass
class Trainer:
    """Settings of the loop, and the loop.

    Args:
        epochs: passes over the training split
        batch_size: rows of one optimizer step, over all devices and accumulated parts together
        accumulate: parts a batch is cut into, to fit memory
        clip_norm: largest norm of the gradient; null leaves it
        ema_decay: of the averaged weights that are validated and kept; null trains without
        objective: [{metric, direction}]: the first decides what is best, stops early and feeds a plateau schedule
        patience: validations without a gain of `min_delta` before stopping; null trains to the end
        validate_every: epochs
        checkpoint_every: seconds between saves within an epoch; every epoch's end is saved anyway
        compile: torch.compile the losses; falls back with a warning
        deterministic: refuse kernels whose result may differ from run to run (slower)
        nonfinite_skips: steps with a non-finite gradient to leave out before stopping
        limit_batches: batches per epoch and split at most, to try things
        log_every: steps between rows of training losses
        overfit: the same batches in every epoch, to see whether the model can learn them
        profile: steps to profile; the table and the trace go into the run's directory
        workers: processes that fetch batches; 0 fetches in this one
        seed: of order, augmentation and every draw
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    objective: list[dict[str, str]] = field(default_factory=lambda: [{"metric": "val/loss", "direction": "minimize"}])
    patience: int | None = None
    min_delta: float = 0.0
    validate_every: int = 1
    checkpoint_every: float = 60.0
    compile: bool = False
    deterministic: bool = False
    nonfinite_skips: int = 0
    limit_batches: int | None = None
    log_every: int = 50
    workers: int = 0
    overfit: bool = False
    profile: int | None = None
    seed: int = 0
    quiet: bool = False
    fabric: Fabric | None = None

    def __post_init__(self) -> None:
        complaints = [
            f"trainer.{name}={value} must be positive"
            for name in ("epochs", "batch_size", "accumulate", "validate_every", "log_every")
            if (value := getattr(self, name)) < 1
        ]
        complaints += [
            f"trainer.{name}={value} must be positive, or null"
            for name in ("clip_norm", "patience", "limit_batches", "profile")
            if (value := getattr(self, name)) is not None and value <= 0
        ]
        complaints += [
            f"trainer.{name}={value} must not be negative"
            for name in ("min_delta", "checkpoint_every", "nonfinite_skips", "workers")
            if (value := getattr(self, name)) < 0
        ]
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            complaints.append(f"trainer.ema_decay={self.ema_decay} must lie between 0 and 1")
        for goal in self.objective:
            if goal.get("direction") not in ("minimize", "maximize"):
                complaints.append(f"objective {goal} needs direction: minimize or maximize")
        if complaints:
            raise ConfigError("; ".join(complaints) + ".")
        if self.fabric is None:
            self.fabric = Fabric(accelerator="cpu" if not torch.cuda.is_available() else "auto", devices=1)
            self.fabric.launch()

    # ---------------------------------------------------------------- training

    def fit(
        self,
        task: Task,
        data: Data,
        optimizer: Callable[[Any], torch.optim.Optimizer] = default_optimizer,
        schedule: Schedule | None = None,
        run: Run | None = None,
        record: Record | None = None,
        prune: Prune | None = None,
    ) -> Progress:
        """Train `task` on `data`, leaving it with its best weights. With a `run` that holds a checkpoint, go on from there.

        Args:
            record: called with every row of metrics and its step (trackers)
            prune: called with every validation; true ends the run as pruned
        """
        fabric = self._fabric
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or CUDA's matrix products refuse
        torch.use_deterministic_algorithms(self.deterministic)
        fit = Fit(self, task, data, optimizer, schedule or Cosine(), run, record, prune)
        with StopSignals(deferred=True) as stop:
            fit.stop = stop
            fit.resume()
            if not fit.progress.finished:
                fit.epochs()
            if self._anywhere(stop.requested is not None)[0]:
                raise Interrupted(stop.requested or signal.SIGTERM)
        fit.restore_best()
        fabric.barrier()
        return fit.progress

    # ---------------------------------------------------------------- evaluation

    def predict(
        self,
        task: Task,
        dataset: Any,
        carry: tuple[str, ...] = (),
        seed_name: str = "predict",
        stop: StopSignals | None = None,
        label: str = "predicting",
    ) -> dict[str, Tensor]:
        """What `task.predict` gives for every row, in the data set's order, with the carried columns, on the CPU.

        Each process takes every world-th row; none is counted twice. Only the first process holds the result, the others
        an empty dict.
        """
        fabric = self._fabric
        every = _spread(len(dataset), self.limit_batches and self.limit_batches * self.batch_size * fabric.world_size)
        rows = every[fabric.global_rank :: fabric.world_size]
        longest = math.ceil(len(every) / fabric.world_size)  # as many parts in every process: they meet after each
        parts = np.array_split(rows, max(math.ceil(longest / self.batch_size), 1))
        was_training = task.training
        task.eval()
        pieces: list[dict[str, Tensor]] = []
        with torch.no_grad(), Bar(label, len(parts), quiet=self.quiet or fabric.global_rank > 0) as bar:
            for batch, part in zip(load(dataset, parts, self.workers), parts, strict=True):
                self._seed_everything("evaluate", seed_name, int(part[0]) if len(part) else 0)
                batch = self._placed(batch)
                with fabric.autocast():
                    out = task.predict(batch)
                pieces.append({k: v.detach().float().cpu() for k, v in out.items()})
                pieces[-1] |= {k: v.cpu() for k, v in columns_of(batch, carry).items()}
                bar.advance()
                if stop is not None and self._anywhere(stop.requested is not None)[0]:
                    raise Interrupted(stop.requested or signal.SIGTERM)
        task.train(was_training)
        joined = {k: torch.cat([piece[k] for piece in pieces]) for k in pieces[0]}
        return self._gather(joined, np.concatenate(parts))

    def evaluate(self, task: Task, data: Data, split: str, stop: StopSignals | None = None) -> dict[str, float]:
        """`task.score` over the whole split at once; the same numbers in every process."""
        predictions = self.predict(task, getattr(data, split), data.carry, split, stop, f"scoring {split}")
        scores = task.score(predictions) if self._fabric.global_rank == 0 else {}
        scores = self._fabric.broadcast({f"{split}/{name}": float(value) for name, value in scores.items()})
        return scores

    # ---------------------------------------------------------------- pieces

    @property
    def _fabric(self) -> Fabric:
        assert self.fabric is not None
        return self.fabric

    def _placed(self, batch: Batch) -> Batch:
        """On the device, and in the floating type that its precision wants."""
        fabric = self._fabric
        batch = batch if fabric.device.type == "cpu" else fabric.to_device(batch)
        precision = fabric._precision
        return batch if precision.precision == "32-true" else precision.convert_input(batch)

    def _seed_everything(self, *names: str | int) -> None:
        """The global torch generators, as a function of (seed, names, process): no generator state needs saving."""
        self._set_generators(derive(self.seed, *names, self._fabric.global_rank))

    def _set_generators(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if self._fabric.device.type == "cuda":
            torch.cuda.default_generators[self._fabric.device.index or 0].manual_seed(seed)

    def _anywhere(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags are up in any process, so that all of them save or leave together."""
        if self._fabric.world_size == 1:
            return flags
        raised = cast(Tensor, self._fabric.all_reduce(torch.tensor([float(flag) for flag in flags]), reduce_op="sum"))
        return tuple(bool(count > 0) for count in raised)

    def _gather(self, mine: dict[str, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
        if self._fabric.world_size == 1:
            return mine
        everyone: list[Any] | None = [None] * self._fabric.world_size if self._fabric.global_rank == 0 else None
        torch.distributed.gather_object((rows, mine), everyone, dst=0)
        if everyone is None:
            return {}
        order = torch.as_tensor(np.argsort(np.concatenate([part for part, _ in everyone])))
        return {k: torch.cat([piece[k] for _, piece in everyone])[order] for k in mine}


def _spread(rows: int, most: int | None) -> np.ndarray:
    """All rows, or `most` of them evenly spread: the first of a sorted split may all be of one kind."""
    return np.arange(rows) if not most or most >= rows else np.arange(most) * rows // most
