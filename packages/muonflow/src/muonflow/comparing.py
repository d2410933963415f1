"""A classifier that is asked to tell generated muons from observed ones, with their conditions in hand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from muonflow.coordinates import derived_features
from skyloom.run.seeds import derive
from skyloom.training import Trainer

__all__ = ["ComparingTrainer", "told_apart"]

MOST = 40_000  # pairs that the classifier learns from and judges


def told_apart(p: dict[str, Tensor], seed: int = 0, most: int = MOST) -> Tensor:
    """Held-out scores [B, SLOTS, 2] of observed and generated muons; NaN for those that were left out.

    Gradient-boosted trees on the features of the condition, ln E and ln r; two halves of the showers, each judged by the trees
    of the other.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    there = torch.nonzero(~torch.isnan(p["observed"][..., 0]))
    rng = np.random.default_rng(seed)
    if len(there) > most:
        there = there[torch.as_tensor(np.sort(rng.choice(len(there), most, replace=False)))]
    event, slot = there.unbind(1)
    features = derived_features(p["condition"][event])
    pairs = [torch.cat([features, p[name][event, slot].log()], 1).numpy() for name in ("observed", "generated")]
    out = torch.full((*p["observed"].shape[:2], 2), torch.nan)
    shower = p["shower"][event].numpy()
    half = rng.permutation(len(np.unique(shower)))[np.unique(shower, return_inverse=True)[1]] % 2
    for side in (0, 1):
        train, held = half != side, half == side
        if train.sum() < 20 or not held.any():
            continue
        x = np.concatenate([pair[train] for pair in pairs])
        y = np.repeat([0, 1], int(train.sum()))
        trees = HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=seed % 2**32).fit(x, y)
        rows = torch.as_tensor(held)
        for k, pair in enumerate(pairs):
            scores = torch.as_tensor(trees.predict_proba(pair[held])[:, 1], dtype=torch.float32)
            out[event[rows], slot[rows], k] = scores
    return out


class ComparingTrainer(Trainer):
    """The loop, whose predictions of the test split also say how well a classifier tells them from the observed."""

    def predict(
        self, task: Any, dataset: Any, carry: Any = (), seed_name: str = "predict", stop: Any = None, label: str = "predicting"
    ) -> dict[str, Tensor]:
        out = super().predict(task, dataset, carry, seed_name, stop, label)
        if seed_name == "test" and "observed" in out and "shower" in out:
            out["told_apart"] = told_apart(out, derive(self.seed, "told apart"))
        return out
