"""The workflow of a network: fit, then score the test split with its best weights, with intervals, figures and a page."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from skyloom.data import Data
from skyloom.data.tables import write_columns
from skyloom.metrics import Estimate, bootstrap
from skyloom.plots import labelled
from skyloom.run import Run
from skyloom.run.files import write_json
from skyloom.run.seeds import numpy_generator
from skyloom.training import checkpoints
from skyloom.training.hardware import choose_threads
from skyloom.training.loading import fetch
from skyloom.training.task import Task
from skyloom.training.trainer import Trainer

__all__ = ["evaluate", "train"]

Draw = Callable[..., list[Any]]


def train(
    run: Run,
    fabric: Fabric,
    data: Data,
    task: Callable[..., Task],
    optimizer: Callable[[Any], torch.optim.Optimizer],
    schedule: Any,
    trainer: Callable[..., Trainer],
    evaluation: Draw | None = None,
    trackers: Any = None,
    prune: Callable[[dict[str, float], int], bool] | None = None,
    threads: int | str = "auto",
    seed: int = 0,
) -> dict[str, float]:
    """Train `task(about=data.about)` and score it; returns the metrics of the best validation and of the test split."""
    torch.manual_seed(seed)
    module = task(about=data.about)
    loop = trainer(fabric=fabric)
    _use_threads(run, fabric, module, data, loop, threads)
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "data_fingerprint": data.about["fingerprint"]})
    run.update(
        parameters=sum(p.numel() for p in module.parameters()),
        synthetic=bool(data.about["synthetic"]),
        splits=data.sizes(),
    )
    fitted = loop.fit(
        module, data, optimizer, schedule, run, record=trackers.log if trackers is not None else None, prune=prune
    )
    run.update(best={"step": fitted.best_step, "epoch": fitted.best_epoch})
    best = checkpoints.load_best(run.checkpoints)["metrics"] if run.checkpoints.exists() else fitted.metrics
    tested = evaluate(run, fabric, data, module, loop, evaluation, seed=seed)
    return {**best, **tested}


def evaluate(
    run: Run, fabric: Fabric, data: Data, module: Task, loop: Trainer, evaluation: Draw | None, seed: int = 0
) -> dict[str, float]:
    """Score the test split; write predictions/test.parquet and the package's figures. Other processes get an empty dict."""
    if fabric.world_size == 1:
        module = module.to(fabric.device)
    predictions = loop.predict(module, data.test, data.carry, "test", label="scoring test")
    if fabric.global_rank > 0:
        return {}
    groups = predictions[data.group] if data.group is not None else None
    scores = bootstrap(module.score, predictions, groups, numpy_generator(seed, "bootstrap"))
    write_columns(run.directory / "predictions" / "test.parquet", predictions, data.about)
    if evaluation is not None:
        arrays = {name: value.numpy() for name, value in predictions.items()}
        draw_figures(evaluation, arrays, data.about, run.directory / "figures")
    return {f"test/{name}": Estimate(value, value.low, value.high) for name, value in scores.items()}


def draw_figures(evaluation: Draw, predictions: dict[str, np.ndarray], about: dict[str, Any], folder: Path) -> None:
    """The package's figures and their captions, drawn anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with labelled(bool(about.get("synthetic"))):
        figures = evaluation(predictions, about, folder)
    listed = [{"file": Path(f.path).name, "title": f.title, "caption": f.caption} for f in figures]
    write_json(folder / "figures.json", listed)


def _use_threads(run: Run, fabric: Fabric, module: Task, data: Data, loop: Trainer, threads: int | str) -> None:
    """CPU threads of this run: as asked, as the run used before (sums depend on it), or as measured."""
    if fabric.device.type != "cpu":
        return
    used = run.provenance.get("threads")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads != "auto":
        chosen = int(threads)
    elif used is not None:
        chosen = int(used)
    elif fabric.world_size > 1 or loop.deterministic:
        chosen = max(cores // fabric.world_size, 1) if not loop.deterministic else 1
    else:
        rows = np.arange(min(loop.batch_size // loop.accumulate, len(data.train)))
        chosen = choose_threads(module, fetch(data.train, rows), module.losses, cores)
    torch.set_num_threads(chosen)
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "threads": chosen})
