"""The loop. What is trained is a task; what it is trained on is `Data`; where it runs is Fabric's business.

    trainer = Trainer(epochs=20, batch_size=256)
    fitted = trainer.fit(task, data)
    predictions = trainer.predict(task, data.test)
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skyloom.data.splits import Batch, Data, columns_of
from skyloom.data.draws import SampleDraws
from skyloom.errors import ConfigError, UserError, nearest
from skyloom.run import Interrupted, Run, StopSignals
from skyloom.run.files import write_whole
from skyloom.run.seeds import derive
from skyloom.training import checkpoints
from skyloom.training.averaging import Average
from skyloom.training.loading import load
from skyloom.training.optimizers import optimizer as default_optimizer
from skyloom.training.order import Order
from skyloom.training.progress import Bar, said
from skyloom.training.schedules import Cosine, Schedule

__all__ = ["NonFinite", "Pruned", "Trainer"]


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
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation


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
        workers: processes that fetch batches; 0 fetches in this one
        seed: of order, augmentation and every draw
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    objective: list[dict[str, str]] = field(
        default_factory=lambda: [{"metric": "val/loss", "direction": "minimize"}]
    )
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
    seed: int = 0
    quiet: bool = False
    fabric: Fabric | None = None

    def __post_init__(self) -> None:
        complaints = [
            f"trainer.{name}={value} must be positive"
            for name in ("epochs", "batch_size", "accumulate", "validate_every", "log_every")
            if (value := getattr(self, name)) < 1
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
        task: nn.Module,
        data: Data,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] = default_optimizer,
        schedule: Schedule | None = None,
        run: Run | None = None,
        record: Callable[[dict[str, float], int], None] | None = None,
        prune: Callable[[dict[str, float], int], bool] | None = None,
    ) -> Progress:
        """Train `task` on `data`, leaving it with its best weights. With a `run` that holds a checkpoint, go on from there.

        Args:
            record: called with every row of metrics and its step (trackers)
            prune: called with every validation; true ends the run as pruned
        """
        fabric = self._fabric
        torch.use_deterministic_algorithms(self.deterministic)
        fit = _Fit(self, task, data, optimizer, schedule or Cosine(), run, record, prune)
        with StopSignals(deferred=True) as stop:
            fit.stop = stop
            fit.resume()
            if not fit.progress.finished:
                fit.epochs()
        fit.restore_best()
        fabric.barrier()
        return fit.progress

    # ---------------------------------------------------------------- evaluation

    def predict(
        self,
        task: nn.Module,
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
        rows = np.arange(len(dataset))[fabric.global_rank :: fabric.world_size]
        parts = np.array_split(rows, max(math.ceil(len(rows) / self.batch_size), 1))[: self.limit_batches]
        was_training = task.training
        task.eval()
        pieces: list[dict[str, Tensor]] = []
        with torch.no_grad(), Bar(label, len(parts), quiet=self.quiet or fabric.global_rank > 0) as bar:
            for batch, part in zip(load(dataset, parts, self.workers), parts, strict=True):
                self._seed_everything("evaluate", seed_name, int(part[0]) if len(part) else 0)
                batch = fabric.to_device(batch)
                with fabric.autocast():
                    out = task.predict(batch)
                pieces.append({k: v.detach().float().cpu() for k, v in out.items()})
                pieces[-1] |= {k: v.cpu() for k, v in columns_of(batch, carry).items()}
                bar.advance()
                if stop is not None and self._any_process(stop.requested is not None):
                    raise Interrupted(stop.requested or 15)
        task.train(was_training)
        joined = {k: torch.cat([piece[k] for piece in pieces]) for k in pieces[0]}
        return self._gather(joined, np.concatenate(parts))

    def evaluate(self, task: nn.Module, data: Data, split: str, stop: StopSignals | None = None) -> dict[str, float]:
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

    def _seed_everything(self, *names: str | int) -> None:
        """The global torch generators, as a function of (seed, names, process): no generator state needs saving."""
        seed = derive(self.seed, *names, self._fabric.global_rank)
        torch.default_generator.manual_seed(seed)
        if self._fabric.device.type == "cuda":
            torch.cuda.default_generators[self._fabric.device.index or 0].manual_seed(seed)

    def _any_process(self, flag: bool) -> bool:
        """Whether the flag is up anywhere, so that all processes leave the loop together."""
        if self._fabric.world_size == 1:
            return flag
        return bool(self._fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum") > 0)

    def _gather(self, mine: dict[str, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
        if self._fabric.world_size == 1:
            return mine
        everyone: list[Any] | None = [None] * self._fabric.world_size if self._fabric.global_rank == 0 else None
        torch.distributed.gather_object((rows, mine), everyone, dst=0)
        if everyone is None:
            return {}
        order = torch.as_tensor(np.argsort(np.concatenate([part for part, _ in everyone])))
        return {k: torch.cat([piece[k] for _, piece in everyone])[order] for k in mine}


class _Fit:
    """One call of `Trainer.fit`: the state that moves, and the steps that move it."""

    stop: StopSignals

    def __init__(
        self,
        trainer: Trainer,
        task: nn.Module,
        data: Data,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Schedule,
        run: Run | None,
        record: Callable[[dict[str, float], int], None] | None,
        prune: Callable[[dict[str, float], int], bool] | None,
    ):
        self.settings, self.fabric, self.data, self.schedule, self.run = trainer, trainer._fabric, data, schedule, run
        self.record, self.prune = record, prune
        self.minimize = trainer.objective[0]["direction"] == "minimize"
        self.task = task
        self.wrapped, self.optimizer = self.fabric.setup(task, optimizer(task))
        self.wrapped.mark_forward_method("losses")
        self.losses = self._compiled() if trainer.compile else self.wrapped.losses
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = Average(self.task, trainer.ema_decay) if trainer.ema_decay else None
        self.progress = Progress()
        self.best: dict[str, Any] | None = None
        self.order = Order(
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
        self.quiet = trainer.quiet or self.fabric.global_rank > 0

    # ---------------------------------------------------------------- epochs and steps

    def epochs(self) -> None:
        p, settings = self.progress, self.settings
        total = settings.epochs * self.per_epoch
        with Bar("training", total, p.step, self.quiet) as bar:
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
        batches = self.order.epoch(p.epoch)[p.batch : self.per_epoch]
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
            self.boundary()

    def step(self, pieces: Iterator[tuple[np.ndarray, Batch]]) -> None:
        """One optimizer step over `accumulate` micro-batches."""
        p, n = self.progress, self.settings.accumulate
        self.settings._seed_everything("step", p.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule.factor(p.step, self.settings.epochs * self.per_epoch, self.per_epoch)
        values: list[float] = []
        names: list[str] = []
        for k in range(n):
            began = time.perf_counter()
            rows, batch = next(pieces)
            self.waiting += time.perf_counter() - began
            batch = self.fabric.to_device(batch)
            if self.data.augment is not None:
                index = torch.as_tensor(rows, device=self.fabric.device)
                batch = self.data.augment(batch, SampleDraws(self.settings.seed, p.epoch, index))
            with self.fabric.no_backward_sync(self.wrapped, enabled=True) if k < n - 1 else nullcontext():
                terms = self.losses(batch)
                self.fabric.backward(terms["loss"] / n if n > 1 else terms["loss"])
            names = list(terms)
            # the one forced wait for the device in a step
            new = torch.stack([v.detach().float() for v in terms.values()]).tolist()
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

    def _clip(self) -> float:
        """Norm of the gradient over all parameters, before it is clipped to `clip_norm`."""
        scaler = getattr(self.fabric._precision, "scaler", None)
        if scaler is not None:
            self.fabric._precision.unscale_gradients(self.optimizer)
        gradients = [q.grad for q in self.task.parameters() if q.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        limit = self.settings.clip_norm
        if limit is not None:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        value = float(norm)
        # with fp16 the scaler itself leaves out overflowing steps and lowers its scale
        return value if scaler is None or math.isfinite(value) else 0.0

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
        if self.settings._any_process(self.stop.requested is not None):
            self.save()
            raise Interrupted(self.stop.requested or 15)
        if time.monotonic() - self.saved_at > self.settings.checkpoint_every:
            self.save()

    # ---------------------------------------------------------------- validation

    def validate(self) -> bool:
        """Score the whole validation split; keep the best; say whether a sweep prunes the run here."""
        p, settings = self.progress, self.settings
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
        """Mean of the loss over the validation rows, for tasks whose score holds no objective."""
        rows = np.arange(len(self.data.val))[self.fabric.global_rank :: self.fabric.world_size]
        parts = np.array_split(rows, max(math.ceil(len(rows) / self.settings.batch_size), 1))
        total = torch.zeros(2, dtype=torch.float64)
        self.task.eval()
        self.settings._seed_everything("evaluate", "loss")
        with torch.no_grad():
            for part, batch in zip(parts, load(self.data.val, parts), strict=True):
                loss = float(self.task.losses(self.fabric.to_device(batch))["loss"])
                total += torch.tensor([loss * len(part), len(part)], dtype=torch.float64)
        total = self.fabric.all_reduce(total, reduce_op="sum")
        return float(total[0] / total[1])

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
            mean = self.fabric.all_reduce(mean, reduce_op="mean")
        return {f"train/{name}": float(value / mean[-1]) for name, value in zip(names, mean, strict=False) if count}

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
            names = sorted(p.sums)
            mean = self.fabric.all_reduce(torch.tensor([p.sums[n] for n in names], dtype=torch.float64), reduce_op="mean")
            p.sums = dict(zip(names, mean.tolist(), strict=True))
        if self.run is None or not self.run.writable:
            return
        scaler = getattr(self.fabric._precision, "scaler", None)
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
        if state["scaler"] is not None and getattr(self.fabric._precision, "scaler", None) is not None:
            self.fabric._precision.scaler.load_state_dict(state["scaler"])
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

    # ---------------------------------------------------------------- compilation

    def _compiled(self) -> Callable[[Batch], dict[str, Tensor]]:
        """The compiled losses; the first failure to compile falls back to the plain ones, with a warning."""
        plain = self.wrapped.losses
        compiled = torch.compile(plain)
        state = {"losses": compiled}

        def losses(batch: Batch) -> dict[str, Tensor]:
            if state["losses"] is plain:
                return plain(batch)
            try:
                return compiled(batch)
            except Exception as error:  # the compiler raises many kinds
                warnings.warn(f"torch.compile failed ({type(error).__name__}); going on without it.", stacklevel=2)
                state["losses"] = plain
                return plain(batch)

        return losses
