"""Two stages in one run: what cutouts look like, learned without labels; then what a lens looks like, from those weights."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric

from lensfind.training.selfsupervised import backbone_of
from skyloom.data import Data
from skyloom.run import Run
from skyloom.run.files import write_whole
from skyloom.training import Trainer, workflow
from skyloom.training.optimizers import optimizer as make_optimizer
from skyloom.training.progress import said
from skyloom.training.schedules import Cosine

__all__ = ["train"]

_FILE = "pretrained.pt"


def train(
    run: Run,
    fabric: Fabric,
    data: Data,
    task: Callable[..., Any],
    optimizer: Callable[[Any], torch.optim.Optimizer],
    schedule: Any,
    trainer: Callable[..., Trainer],
    method: Callable[..., Any],
    pretrain_epochs: int = 10,
    pretrain_lr: float = 1e-3,
    pretrain_batch: int = 128,
    evaluation: Any = None,
    trackers: Any = None,
    prune: Any = None,
    threads: int | str = "auto",
    seed: int = 0,
) -> dict[str, float]:
    """Pretrain the backbone of `task` by `method(finder=...)` on all training cutouts, labels unseen; then
    `skyloom.training.workflow.train` from these weights.

    The first stage is a run of its own inside this one, and as safe against a stop: <run>/pretraining. Its weights are kept in
    <run>/pretrained.pt, which any later run may start from (model.backbone.weights).
    """
    path = run.directory / _FILE
    if not path.exists():
        _first_stage(run, fabric, data, task, method, pretrain_epochs, pretrain_lr, pretrain_batch, trackers, seed)
    weights = torch.load(path, map_location="cpu", weights_only=True)

    def prepared(about: dict[str, Any]) -> Any:
        made = task(about=about)
        backbone_of(made).load_state_dict(weights)
        return made

    return workflow.train(run, fabric, data, prepared, optimizer, schedule, trainer, evaluation, trackers, prune, threads, seed)


def _first_stage(
    run: Run, fabric: Fabric, data: Data, task: Callable[..., Any], method: Callable[..., Any], epochs: int, lr: float,
    batch: int, trackers: Any, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    finder = task(about=data.about)
    asks = inspect.signature(method).parameters
    learner = method(finder=finder, **({"about": data.about} if "about" in asks else {}))
    directory = run.directory / "pretraining"
    inner = Run.open(directory, run.writable) if (directory / "config.yaml").exists() else None
    if inner is None and fabric.global_rank == 0:
        config = {
            "pkg": "lensfind",
            "experiment": f"{run.config.get('experiment')}: pretraining",
            "synthetic": data.about["synthetic"],
        }
        inner = Run.create(run.directory, config, directory=directory)
    fabric.barrier()
    inner = inner or Run.open(directory, writable=False)
    loop = Trainer(
        epochs=epochs, batch_size=min(batch, len(data.train)), fabric=fabric, seed=seed, clip_norm=1.0,
        objective=[{"metric": "val/loss", "direction": "minimize"}],
    )  # fmt: skip
    if fabric.global_rank == 0:
        said(f"pretraining by {type(learner).__name__}")
    progress = loop.fit(
        learner, _unturned(data), lambda m: make_optimizer(m, lr=lr, weight_decay=0.05), Cosine(warmup=0.1), inner
    )
    if fabric.global_rank == 0:
        inner.update(status="finished", best={"step": progress.best_step, "epoch": progress.best_epoch})
        with write_whole(run.directory / _FILE) as temporary:
            torch.save(backbone_of(finder).state_dict(), temporary)
    fabric.barrier()


def _unturned(data: Data) -> Data:
    """The same data without augmentation (views do that), and without what only truth would tell."""
    return Data(data.train, data.val, data.test, about=data.about, carry=("labelled",), augment=None)
