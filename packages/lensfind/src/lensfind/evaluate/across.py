"""A finder on the sky of other surveys: how far does what it learned of one camera carry to another?

    python -m lensfind.evaluate.across runs/lensfind/vit/<one> runs/lensfind/vit/<other> …

writes `across.json` into every run: AUROC of its weights on the test images of each of the runs, pixel by pixel as they are.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import ConfigError
from skyloom.metrics import auroc_delong
from skyloom.run import Run
from skyloom.training.progress import said

__all__ = ["across", "opened"]


def across(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Of each run, {survey: AUROC with DeLong's interval} over the unlabeled test rows of all runs, and which one it learned.

    The network sees every survey through that survey's own noise, mean and deviation per band: what could be measured on any
    images, without labels. Its other weights stay.
    """
    from hydra.utils import instantiate
    from lightning_fabric import Fabric

    from skyloom.training import Trainer
    from skyloom.training.saved import load_task

    surveys = {str(run.config["survey"]["name"]): instantiate(run.config["data"], _convert_="all") for run in runs}
    shapes = {name: (tuple(data.about["bands"]), data.about["size"]) for name, data in surveys.items()}
    if len(surveys) < len(runs) or len(set(shapes.values())) > 1:
        raise ConfigError(f"runs of different surveys with the same bands and size in pixels are wanted, not {shapes}.")
    loop = Trainer(batch_size=256, quiet=True, fabric=Fabric(accelerator="cpu", devices=1))
    found = []
    for run in runs:
        task, about = load_task(run)
        scores = {}
        for name, data in surveys.items():
            for key, values in data.about["statistics"].items():
                getattr(task, key).copy_(task.noise.new_tensor(values)[:, None, None])
            said_of = loop.predict(task, data.test, ("labelled", "lens"))
            rows = said_of["labelled"].numpy() == 0
            lens = said_of["lens"].numpy()[rows] > 0
            scores[name] = auroc_delong(said_of["logit"].numpy()[rows].astype(np.float64), lens).to_json()
        found.append({"learned": about["survey"]["name"], "auroc": scores, "synthetic": bool(about["synthetic"])})
        run.write_json("across.json", found[-1])
    return found


def opened(directories: Sequence[str]) -> list[Run]:
    """Runs to which what is found is added."""
    return [Run.open(Path(directory), writable=True) for directory in directories]


if __name__ == "__main__":
    for line in across(opened(sys.argv[1:])):
        cells = ", ".join(f"{name} {value['value']:.3f}" for name, value in line["auroc"].items())
        said(f"learned {line['learned']}: {cells}")
