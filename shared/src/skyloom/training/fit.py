"""One call of `Trainer.fit`: the state that moves, and the steps that move it."""

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from skyloom.data import Batch, Data, SampleDraws
from skyloom.errors import ConfigError, UserError, nearest
from skyloom.run import Interrupted, Run, StopSignals
from skyloom.run.files import write_whole
from skyloom.run.seeds import derive
from skyloom.training import checkpoints
from skyloom.training.averaging import Average
from skyloom.training.compiling import compiled
from skyloom.training.loading import load
from skyloom.training.order import Order
from skyloom.training.profiling import Profiler
from skyloom.training.progress import Bar, said
from skyloom.training.schedules import Schedule
from skyloom.training.task import Task
from skyloom.training.whole_step import WholeStep

if TYPE_CHECKING:
    from skyloom.training.trainer import Trainer

__all__ = ["Fit", "NonFinite", "Progress", "Pruned"]

Record = Callable[[dict[str, float], int], None]
Prune = Callable[[dict[str, float], int], bool]


_MOST_OVERFLOWS = 32  # halvings take the scale from its first 65536 to 1.5e-5, where no finite gradient overflows


class Pruned(Exception):
    """A sweep ended this run early; what it had is saved."""


class NonFinite(UserError):
    """The loss or its gradient is not a number any more."""


@dataclass
class Progress:
    """Where a run stands. Everything else that a resumed run needs is weights."""

    epoch: int = 0
    batch: int = 0  # next batch of the epoch
    step: int = 0
    rows: int = 0  # of metrics.jsonl
    skipped: int = 0
    order: int = 0  # CRC of all row numbers trained on, in order
    best: float | None = None
    best_step: int = 0
    best_epoch: int = 0
    waited: int = 0  # validations without a gain
    finished: bool = False
    sums: dict[str, float] = field(default_factory=dict)  # of loss terms since the last epoch's end
    count: int = 0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation


class Fit:
    """Everything that one run of the loop holds."""

    stop: StopSignals

    def __init__(
        self,
        trainer: "Trainer",
        task: Task,
        data: Data,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        schedule: Schedule,
        run: Run | None,
        record: Record | None,
        prune: Prune | None,
    ):
        self.settings, self.fabric, self.data, self.schedule, self.run = trainer, trainer._fabric, data, schedule, run
        self.record, self.prune = record, prune
        self.precision: Any = self.fabric._precision
        self.autocast = nullcontext if self.precision.precision == "32-true" else self.fabric.autocast
        self.draws = derive(trainer.seed, "step", self.fabric.global_rank)  # the generators' seed at step 0
        self.minimize = trainer.objective[0]["direction"] == "minimize"
        self.task = task
        self.wrapped, self.optimizer = self.fabric.setup(cast(nn.Module, task), optimizer(task))
        self.wrapped.mark_forward_method("losses")
        self.parameters = list(self.task.parameters())
        self.losses = compiled(self.wrapped.losses) if trainer.compile else self.wrapped.losses
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = Average(cast(nn.Module, task), trainer.ema_decay) if trainer.ema_decay else None
        self.progress = Progress()
        self.profiler: Profiler | None = None
        self.best: dict[str, Any] | None = None
        self.order = getattr(data.train, "order", Order)(
            len(data.train),
            trainer.batch_size,
            trainer.seed,
            self.fabric.global_rank,
            self.fabric.world_size,
            trainer.accumulate,
        )
        self.per_epoch = min(self.order.batches, trainer.limit_batches or self.order.batches)
        self.saved_at = self.logged_at = time.monotonic()
        self.logged_step = self.logged_count = 0
        self.logged_sums: dict[str, float] = {}
        self.waiting = 0.0
        self.overflows = 0  # steps in a row that the fp16 scaler left out
        self.quiet = trainer.quiet or self.fabric.global_rank > 0
        self.pools: bool | None = None if trainer.accumulate > 1 else False  # whether the loss takes means over whole steps

    # ---------------------------------------------------------------- epochs and steps

    def epochs(self) -> None:
        p, settings = self.progress, self.settings
        total = settings.epochs * self.per_epoch
        with Bar("training", total, p.step, self.quiet) as bar, self._profiled():
            while p.epoch < settings.epochs and not self._out_of_patience():
                self.task.train()
                self.epoch(bar)
                due = (p.epoch + 1) % settings.validate_every == 0 or p.epoch + 1 == settings.epochs
                pruned = self.validate() if due else False
                p.epoch, p.batch, p.sums, p.count = p.epoch + 1, 0, {}, 0
                self.logged_sums, self.logged_count = {}, 0
                self.save()
                if pruned:
                    raise Pruned(f"pruned after {p.epoch} epochs")
        p.finished = True
        self.save()

    def epoch(self, bar: Bar) -> None:
        p = self.progress
        batches = self.order.epoch(0 if self.settings.overfit else p.epoch)[p.batch : self.per_epoch]
        parts = [part for batch in batches for part in self.order.parts(batch)]
        loaded = load(self.data.train, parts, self.settings.workers, derive(self.settings.seed, "workers", p.epoch))
        pieces = iter(zip(parts, loaded, strict=True))
        for rows in batches:
            self.step(pieces)
            p.order = crc32(rows.tobytes(), p.order)
            p.step, p.batch = p.step + 1, p.batch + 1
            if p.step % self.settings.log_every == 0:
                self.log_losses()
            bar.advance()
            if self.profiler is not None:
                self.profiler.step()
            self.boundary()

    def step(self, pieces: Iterator[tuple[np.ndarray, Batch]]) -> None:
        """One optimizer step over `accumulate` micro-batches."""
        p, n = self.progress, self.settings.accumulate
        self.settings._set_generators((self.draws + p.step) % 2**63)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule.factor(p.step, self.settings.epochs * self.per_epoch, self.per_epoch)
        values: list[float] = []
        names: list[str] = []
        parts, whole = self._parts(pieces)
        with whole:
            for k, (rows, batch) in enumerate(parts):  # noqa: B007
                with self.fabric.no_backward_sync(self.wrapped, enabled=True) if k < n - 1 else nullcontext():
                    with self.autocast():
                        terms = self.losses(batch)
                    self.fabric.backward(terms["loss"] / n if n > 1 else terms["loss"])
                names = list(terms)
                new = self._numbers(terms)
                values = [a + b / n for a, b in zip(values, new, strict=True)] if values else [v / n for v in new]
        norm = self._clip()
        if not math.isfinite(norm) or (self.fabric.world_size == 1 and not math.isfinite(values[names.index("loss")])):
            self._nonfinite(batch, rows, names, values, norm)
        else:
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            for name, value in [*zip(names, values, strict=True), ("grad_norm", norm)]:
                p.sums[name] = p.sums.get(name, 0.0) + value
            p.count += 1
        self.optimizer.zero_grad()

    def _parts(self, pieces: Iterator[tuple[np.ndarray, Batch]]) -> tuple[Iterable[tuple[np.ndarray, Batch]], Any]:
        """The micro-batches of a step; for losses that need means over all of them, those means, measured beforehand.

        Whether the loss does is seen in the first step. Measuring leaves generators and buffers as they were.
        """
        stream = (self._part(pieces) for _ in range(self.settings.accumulate))
        if self.pools is False:
            return stream, nullcontext()
        parts = list(stream)
        buffers = [(buffer, buffer.clone()) for buffer in self.task.buffers()]
        with torch.no_grad(), self.autocast(), WholeStep(len(parts)) as whole:
            for _, batch in parts:
                self.losses(batch)
            self.pools = whole.asked
            if self.pools:
                whole.measured()
            for buffer, before in buffers:
                buffer.copy_(before)
        self.settings._set_generators((self.draws + self.progress.step) % 2**63)
        return parts, whole if self.pools else nullcontext()

    def _part(self, pieces: Iterator[tuple[np.ndarray, Batch]]) -> tuple[np.ndarray, Batch]:
        began = time.perf_counter()
        rows, batch = next(pieces)
        self.waiting += time.perf_counter() - began
        batch = self.settings._placed(batch)
        if self.data.augment is not None:
            index = torch.as_tensor(rows, device=self.fabric.device)
            batch = self.data.augment(batch, SampleDraws(self.settings.seed, self.progress.epoch, index))
        return rows, batch

    def _numbers(self, terms: dict[str, Tensor]) -> list[float]:
        """Values of the loss terms: on a GPU all at once, the one forced wait for it in a step."""
        if self.fabric.device.type == "cpu":
            return [v.item() for v in terms.values()]
        return torch.stack([v.detach().float() for v in terms.values()]).tolist()

    def _clip(self) -> float:
        """Norm of the gradient over all parameters, before it is clipped to `clip_norm`."""
        scaler = getattr(self.precision, "scaler", None)
        if scaler is not None:
            self.precision.unscale_gradients(self.optimizer.optimizer)  # the scaler knows it by identity, unwrapped
        gradients = [q.grad for q in self.parameters if q.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        limit = self.settings.clip_norm
        if limit is not None:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        value = float(norm)
        # with fp16 the scaler itself leaves out overflowing steps and halves its scale; if that never helps, it is no overflow
        self.overflows = 0 if math.isfinite(value) else self.overflows + 1
        return value if scaler is None or math.isfinite(value) or self.overflows > _MOST_OVERFLOWS else 0.0

    def _nonfinite(self, batch: Batch, rows: np.ndarray, names: list[str], values: list[float], norm: float) -> None:
        p = self.progress
        p.skipped += 1
        where = ""
        if self.run is not None:
            path = self.run.directory / "nonfinite" / f"step-{p.step}-rank-{self.fabric.global_rank}.pt"
            with write_whole(path) as temporary:
                torch.save({"batch": batch, "rows": torch.as_tensor(rows), "task": self.task.state_dict()}, temporary)
            where = f" The batch and the weights are in {path}."
        terms = ", ".join(f"{name}={value:.4g}" for name, value in zip(names, values, strict=True))
        message = f"step {p.step}: not finite ({terms}; gradient norm {norm:.4g}).{where}"
        if p.skipped > self.settings.nonfinite_skips:
            raise NonFinite(
                f"{message} Lower optimizer.lr, set trainer.clip_norm, look for extreme values in the data, "
                "or leave out up to n such steps with trainer.nonfinite_skips=n."
            )
        warnings.warn(f"{message} Left out, {p.skipped} of {self.settings.nonfinite_skips} allowed.", stacklevel=2)

    def boundary(self) -> None:
        """Between steps everything is whole: save when it is time, leave when asked."""
        due = self.fabric.global_rank == 0 and time.monotonic() - self.saved_at > self.settings.checkpoint_every
        leave, due = self.settings._anywhere(self.stop.requested is not None, due)
        if leave or due:
            self.save()
        if leave:
            raise Interrupted(self.stop.requested or signal.SIGTERM)

    # ---------------------------------------------------------------- validation

    def validate(self) -> bool:
        """Score the whole validation split; keep the best; say whether a sweep prunes the run here."""
        p, settings = self.progress, self.settings
        if self.fabric.world_size > 1:  # running statistics are each process' own; those of the first are saved
            for buffer in self.task.buffers():
                torch.distributed.broadcast(buffer, 0)
        try:
            with self.average.in_place() if self.average else nullcontext():
                metrics = settings.evaluate(self.task, self.data, "val", self.stop)
                if any(goal["metric"] == "val/loss" for goal in settings.objective) and "val/loss" not in metrics:
                    metrics["val/loss"] = self._validation_loss()
                value = self._objective(metrics)
                gained = p.best is None or (
                    value < p.best - settings.min_delta if self.minimize else value > p.best + settings.min_delta
                )
                if gained and math.isfinite(value):
                    p.best, p.best_step, p.best_epoch, p.waited = value, p.step, p.epoch, 0
                    self._keep_best(metrics)
                else:
                    p.waited += 1
        except Interrupted:
            self.save()
            raise
        p.metrics = metrics
        self.schedule.observe(value, self.minimize)
        self._row({**self._means(p.sums, p.count), **metrics, "order": float(p.order)})
        return self._pruned(metrics)

    def _validation_loss(self) -> float:
        """Mean of the loss over the validation rows, for tasks whose score holds no objective.

        A loss that takes means over whole steps takes them over the whole split: how it is cut must not change it.
        """
        rows = np.arange(len(self.data.val))[self.fabric.global_rank :: self.fabric.world_size]
        parts = np.array_split(rows, math.ceil(len(rows) / self.settings.batch_size)) if len(rows) else []
        self.task.eval()
        everywhere = len(self.data.val) >= self.fabric.world_size  # a process without rows would let the others wait
        with torch.no_grad(), WholeStep(len(parts)) if everywhere else nullcontext() as whole:
            total = self._summed_loss(parts)
            if whole is not None and whole.asked:
                whole.measured()
                total = self._summed_loss(parts)
        total = self._reduced(total, "sum")
        return float(total[0] / total[1])

    def _summed_loss(self, parts: list[np.ndarray]) -> Tensor:
        """Sum over the validation rows of these parts of their loss, and how many they are."""
        total = torch.zeros(2, dtype=torch.float64)
        self.settings._seed_everything("evaluate", "loss")
        with self.fabric.autocast():
            for part, batch in zip(parts, load(self.data.val, parts), strict=True):
                loss = float(self.task.losses(self.settings._placed(batch))["loss"])
                total += torch.tensor([loss * len(part), len(part)], dtype=torch.float64)
        return total

    def _objective(self, metrics: dict[str, float]) -> float:
        name = self.settings.objective[0]["metric"]
        if name not in metrics:
            raise ConfigError(f"objective {name} is not among the validation metrics.{nearest(name, metrics)}")
        return metrics[name]

    def _pruned(self, metrics: dict[str, float]) -> bool:
        """The first process asks and all of them hear the answer."""
        answer = bool(self.prune(metrics, self.progress.step)) if self.prune and self.fabric.global_rank == 0 else False
        return bool(self.fabric.broadcast(answer))

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.progress.waited >= self.settings.patience

    # ---------------------------------------------------------------- records

    def log_losses(self) -> None:
        """A row of training losses: means since the last such row."""
        p = self.progress
        recent = {name: total - self.logged_sums.get(name, 0.0) for name, total in p.sums.items()}
        self._row(self._means(recent, p.count - self.logged_count))
        self.logged_sums, self.logged_count = dict(p.sums), p.count

    def _means(self, sums: dict[str, float], count: int) -> dict[str, float]:
        names = sorted(sums)
        mean = torch.tensor([sums[name] for name in names] + [float(count)], dtype=torch.float64)
        if self.fabric.world_size > 1:
            mean = self._reduced(mean, "mean")
        return {f"train/{name}": float(value / mean[-1]) for name, value in zip(names, mean, strict=False) if count}

    def _reduced(self, value: Tensor, operation: str) -> Tensor:
        """Sum or mean over processes."""
        return cast(Tensor, self.fabric.all_reduce(value, reduce_op=operation))

    def _row(self, values: dict[str, float]) -> None:
        p, moment = self.progress, time.monotonic()
        elapsed = max(moment - self.logged_at, 1e-9)
        row = {
            "step": p.step,
            "epoch": p.epoch,
            **values,
            "lr": self.optimizer.param_groups[-1]["lr"],
            "time/samples_per_s": (p.step - self.logged_step) * self.settings.batch_size / elapsed,
            "time/data_wait": min(self.waiting / elapsed, 1.0),
        }
        self.logged_at, self.logged_step, self.waiting = moment, p.step, 0.0
        p.rows += 1
        if self.fabric.global_rank == 0:
            if self.run is not None:
                self.run.append(row)
            if self.record is not None:
                self.record(row, p.step)

    # ---------------------------------------------------------------- checkpoints

    def _keep_best(self, metrics: dict[str, float]) -> None:
        p = self.progress
        weights = {name: value.detach().clone() for name, value in self.task.state_dict().items()}
        self.best = {"task": weights, "about": self.data.about, "step": p.step, "epoch": p.epoch, "metrics": metrics}
        if self.run is not None and self.run.writable:
            checkpoints.save(self.best, self.run.checkpoints, "best")

    def save(self) -> None:
        """The whole state of the run, at a step boundary."""
        self.saved_at = time.monotonic()
        p = self.progress
        if self.fabric.world_size > 1:  # sums differ from process to process; what is saved is their mean
            for sums in (p.sums, self.logged_sums):
                names = sorted(sums)
                mean = self._reduced(torch.tensor([sums[n] for n in names], dtype=torch.float64), "mean")
                sums.update(zip(names, mean.tolist(), strict=True))
        if self.run is None or not self.run.writable:
            return
        scaler = getattr(self.precision, "scaler", None)
        state = {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "scaler": scaler.state_dict() if scaler else None,
            "progress": asdict(p),
            "logged": {"sums": self.logged_sums, "count": self.logged_count},
            "about": self.data.about,
        }
        checkpoints.save(state, self.run.checkpoints, "last", keep_previous=True)

    def resume(self) -> None:
        """Go on from the run's last good checkpoint, if it has one."""
        state = checkpoints.load_last(self.run.checkpoints) if self.run is not None else None
        if state is None:
            if self.run is not None:
                self.run.keep_rows(0)  # written by a start that was killed before its first checkpoint
            return
        assert self.run is not None
        was, is_now = state["about"].get("fingerprint"), self.data.about.get("fingerprint")
        if was != is_now:
            raise ConfigError(
                f"the data differ from those this run was trained on (fingerprint {was} then, {is_now} now): "
                "resume with the same data, or start a new run."
            )
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"] is not None and getattr(self.precision, "scaler", None) is not None:
            self.precision.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self.logged_sums, self.logged_count = state["logged"]["sums"], state["logged"]["count"]
        self.logged_step = self.progress.step
        self.progress.finished = self.progress.finished and self.progress.epoch >= self.settings.epochs
        self.run.keep_rows(self.progress.rows)
        said(f"resuming at step {self.progress.step}, epoch {self.progress.epoch}", self.quiet)

    def restore_best(self) -> None:
        """Leave the task with the weights that validated best."""
        if self.best is None and self.run is not None and (self.run.checkpoints / "best.pt").exists():
            self.best = checkpoints.load_best(self.run.checkpoints)
        weights = self.fabric.broadcast(self.best["task"] if self.best else None)
        if weights is not None:
            self.task.load_state_dict(weights)

    # ---------------------------------------------------------------- profile

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        steps = self.settings.profile
        if not steps or self.run is None or self.quiet:
            yield
            return
        with Profiler(self.run.directory / "profile", steps) as self.profiler:
            yield
