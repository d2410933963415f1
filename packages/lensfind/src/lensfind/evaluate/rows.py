"""Runs as the rows of a table: those of one setting together, by seed; what they reached, and what their networks cost."""

import math
import shlex
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.data.tables import read_columns
from skyloom.run import Run

__all__ = ["Row", "between", "cost", "gather", "valued"]


@dataclass(frozen=True)
class Row:
    """Runs of one setting, by seed."""

    experiment: str
    words: tuple[str, ...]  # of the command beyond experiment and seed
    prior: float
    runs: tuple[Run, ...]

    @property
    def command(self) -> str:
        seeds = ",".join(str(run.config["seed"]) for run in self.runs)
        extra = "".join(f" {shlex.quote(word)}" for word in self.words)
        several = f" seed={seeds}" if len(self.runs) > 1 or seeds != "0" else ""
        return f"make {'sweep' if len(self.runs) > 1 else 'train'} pkg=lensfind +experiment={self.experiment}{extra}{several}"

    def values(self, metric: str) -> np.ndarray:
        found = [run.result["metrics"].get(metric, {}).get("value") for run in self.runs]
        return np.array([v for v in found if v is not None and math.isfinite(v)])

    def shown(self, metric: str, digits: int = 3) -> str:
        """Mean and standard deviation over seeds; of one run the value and its interval."""
        return _mean(self.values(metric), digits) if len(self.runs) > 1 else valued(self.runs[0], metric, digits)

    def word(self, name: str) -> str | None:
        """What was typed for this key, if anything."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")), None)

    @property
    def device(self) -> str:
        """What the first of the runs was computed on."""
        return self.runs[0].result.get("device") or "–"


def gather(folder: Path, scale: str = "laptop") -> list[Row]:
    """All finished runs of this size under a directory of runs, newest of each setting and seed."""
    found: dict[tuple[str, tuple[str, ...], float], dict[int, Run]] = defaultdict(dict)
    for path in sorted(Path(folder).glob("*/*/result.json")):
        run = Run.open(path.parent)
        config = run.config
        if run.status != "finished" or config.get("scale") != scale:
            continue
        words = tuple(word for word in _words(run) if not word.startswith(("seed=", "logger", "hardware.", "+experiment=")))
        key = (str(config.get("experiment")), words, float(config["data"]["class_prior"]))
        found[key][int(config["seed"])] = run
    return [Row(*key, tuple(by_seed[seed] for seed in sorted(by_seed))) for key, by_seed in sorted(found.items())]


def _words(run: Run) -> list[str]:
    """What was typed, less verb and package."""
    typed = run.provenance.get("command") or []
    words = shlex.split(typed) if isinstance(typed, str) else list(typed)
    return [word for word in words if "=" in word and not word.startswith(("pkg=", "run="))]


def cost(run: Run, images: int = 64, rounds: int = 5) -> dict[str, float]:
    """Parameters, floating-point operations per image (2 per multiply-add) and CPU seconds per image of one forward pass."""
    import torch
    from hydra.utils import instantiate
    from torch.utils.flop_counter import FlopCounterMode

    _, about = read_columns(run.directory / "predictions" / "test.parquet")  # weights do not matter here
    task = instantiate(run.config["task"], _convert_="all")(about=about).eval()
    if not any(True for _ in task.parameters()):
        return {}
    example = task.example() if hasattr(task, "example") else next(iter(task.members.values())).example()
    batch = {name: value[:1].expand(images, *value.shape[1:]).clone() for name, value in example.items()}
    torch.set_num_threads(1)
    with torch.no_grad():
        counter = FlopCounterMode(display=False)
        with counter:
            task.predict(batch)
        seconds = []
        for _ in range(rounds):
            began = time.process_time()
            task.predict(batch)
            seconds.append(time.process_time() - began)
    return {
        "parameters": float(sum(p.numel() for p in task.parameters())),
        "flops": counter.get_total_flops() / images,
        "seconds": float(np.median(seconds)) / images,
    }


def valued(run: Run, metric: str, digits: int = 3) -> str:
    return between(run.result["metrics"].get(metric, {}), digits)


def between(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """`value [low, high]`, as far as these are known."""
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None or not math.isfinite(value):
        return "–"
    known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if known else "")


def _mean(values: np.ndarray, digits: int = 3) -> str:
    if not len(values):
        return "–"
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"
