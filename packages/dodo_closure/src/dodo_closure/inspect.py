"""`make inspect run=…`: what a run's best weights say of N rows of a split: loss terms, flux factors, the worst rows."""

from typing import Any

import numpy as np
import torch

from dodo_closure.fluxes import flux_factor
from dodo_closure.task import row_error
from skyloom.errors import ConfigError
from skyloom.training.loading import fetch

__all__ = ["inspect"]


def inspect(run: Any, split: str = "val", samples: int = 256, worst: int = 10) -> dict[str, Any]:
    """The first `samples` rows of a split, through the very loss of the training, beside Box3D.

    Args:
        split: train, val or test
        samples: rows
        worst: rows to list, those with the largest error
    """
    from hydra.utils import instantiate

    from skyloom.training.saved import load_task

    if split not in ("train", "val", "test"):
        raise ConfigError(f"split={split}: choose train, val or test.")
    task, about = load_task(run)
    data = instantiate(run.config["data"], _convert_="all")
    if data.about["fingerprint"] != about["fingerprint"]:
        raise ConfigError("the data differ from those this run was trained on.")
    rows = getattr(data, split)
    batch = fetch(rows, np.arange(min(samples, len(rows))))
    with torch.no_grad():
        losses, found = task.losses(batch), task.predict(batch)
    error, box = row_error(found["predicted"], batch["final"]), row_error(batch["box"], batch["final"])
    factors = {"predicted": flux_factor(found["predicted"]), "true": flux_factor(batch["final"])}
    lines: dict[str, Any] = {"rows": len(error), "residual rms / N": about["residual_rms"]}
    lines |= {f"loss {name}" if name != "loss" else "loss": float(value) for name, value in losses.items()}
    lines |= {"mean |dF| / N": float(error.mean()), "Box3D's": float(box.mean())}
    for name, factor in factors.items():
        finite = factor[torch.isfinite(factor)]
        lines[f"flux factor, {name}"] = f"mean {float(finite.mean()):.4f}, largest {float(finite.max()):.4f}"
    for row in error.argsort(descending=True)[:worst].tolist():
        ratio = float(batch["smaller"][row] / batch["larger"][row])
        lines[f"row {row}"] = f"error {float(error[row]):.5f}, Box3D's {float(box[row]):.5f}, I_</I_> {ratio:.3f}"
    return lines
