r"""Boosted trees on named features: what a finder must beat to be worth its network.

Labelled lenses are told from unlabeled cutouts; in the setting of two samples the odds g / (1 - g) of that question are the
ratio of densities times n_P / n_U, so that the posterior of a lens is

$$p = \pi \frac{g}{1 - g} \frac{n_U}{n_P},$$

which no classifier keeps below 1. Out-of-fold values of p then weigh a second fit in which every unlabeled cutout stands twice,
as a lens with weight p and as none with weight 1 - p (Elkan and Noto 2008, KDD, section 3); its logit needs no further
division.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from lensfind.calibration.calibrating import calibration
from lensfind.features import appearance as measuring
from lensfind.features.appearance import features
from lensfind.training.boosting import Loss, Settings, boosting
from lensfind.training.task import Scored
from skyloom.data import Batch, Data
from skyloom.data.tables import write_columns
from skyloom.errors import DataError, UserError
from skyloom.metrics import Estimate
from skyloom.run import Run
from skyloom.run.seeds import numpy_generator
from skyloom.training import Trainer, checkpoints
from skyloom.training.workflow import evaluate

__all__ = ["TreeFinder", "measured", "posterior", "train"]

_EPS = 1e-6


def posterior(g: np.ndarray, labelled: np.ndarray, prior: float) -> np.ndarray:
    """The share of lenses at each row, from the probability g of being labelled in these two samples; at most 1.

    >>> posterior(np.array([0.5, 0.05]), np.array([1, 0, 0, 0]), prior=0.1).round(4)
    array([0.3   , 0.0158])
    """
    odds = np.clip(g, _EPS, 1 - _EPS) / (1 - np.clip(g, _EPS, 1 - _EPS))
    return np.clip(prior * odds * (labelled == 0).sum() / (labelled > 0).sum(), 0, 1)


class TreeFinder(Scored):
    """Gradient-boosted trees behind the three methods of a task; the model is text, kept as bytes among the buffers.

    Args:
        library: lightgbm or xgboost
        trees, leaves, rate, rows, columns, smallest: number of trees at most, leaves of each (xgboost: of depth log2 of it),
            learning rate, shares of rows and features that each tree sees, fewest rows of a leaf
        patience: trees without a gain on validation before stopping
        folds: of the out-of-fold posterior
        target: `labelled`, or `lens` for the oracle that knows the truth
    """

    model: Tensor

    def __init__(
        self,
        about: dict[str, Any],
        library: Literal["lightgbm", "xgboost"] = "lightgbm",
        trees: int = 300,
        leaves: int = 15,
        rate: float = 0.05,
        rows: float = 0.8,
        columns: float = 0.8,
        smallest: int = 20,
        patience: int = 40,
        folds: int = 5,
        target: Literal["labelled", "lens"] = "labelled",
    ):
        super().__init__(float(about["class_prior"]))
        self.about, self.library, self.folds, self.target = about, boosting(library), folds, target
        self.settings = Settings(trees, leaves, rate, rows, columns, smallest, patience)
        self.register_buffer("model", torch.zeros(0, dtype=torch.uint8))
        self._booster: Any = None

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "model" in state:  # of any length
            self.model = torch.empty_like(state[prefix + "model"])
            self._booster = None
        super()._load_from_state_dict(state, prefix, *args)

    # ---------------------------------------------------------------- a task

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        raise UserError("boosted trees have no gradient: +experiment=lightgbm_pu says which workflow fits them.")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        columns = features(batch["image"].float().cpu(), self.about)
        logit = torch.from_numpy(self.logit(columns)).float().to(self.slope.device)
        return {"logit": logit} | self.calibrated(logit)

    def logit(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        table = np.stack(list(columns.values()), axis=1)
        return np.asarray(self.library.logit(self._loaded(), table), dtype=np.float64)

    def _loaded(self) -> Any:
        if self._booster is None:
            if not len(self.model):
                raise DataError("these trees are not fitted yet.")
            self._booster = self.library.from_text(bytes(self.model.cpu().numpy()))
        return self._booster

    # ---------------------------------------------------------------- fitting

    def fit(
        self, train: dict[str, np.ndarray], labels: np.ndarray, val: dict[str, np.ndarray], val_labels: np.ndarray, seed: int
    ) -> dict[str, np.ndarray]:
        """Fit on columns and 0/1 labels; gives the importance of each feature (gain)."""
        x, v = (np.stack(list(columns.values()), axis=1) for columns in (train, val))
        y = np.asarray(labels) > 0.5
        if self.target == "lens":
            booster = self._boosted(x, y, np.ones(len(y)), v, _log_loss(val_labels), seed)
        else:
            soft = posterior(self._out_of_fold(x, y, v, val_labels, seed), y, self.prior)
            booster = self._boosted(*_twice(x, y, soft, self.prior), v, _risk(val_labels, self.prior), seed)
        text = self.library.to_text(booster)
        self.model = torch.frombuffer(bytearray(text), dtype=torch.uint8).clone()
        self._booster = None
        return dict(zip(train, self.library.importance(booster, x.shape[1]), strict=True))

    def _out_of_fold(self, x: np.ndarray, y: np.ndarray, v: np.ndarray, val_labels: np.ndarray, seed: int) -> np.ndarray:
        """P(labelled) of each row from trees that did not see it; folds hold P and U in the same proportion."""
        fold = np.empty(len(y), dtype=int)
        for part in (np.flatnonzero(y), np.flatnonzero(~y)):
            fold[part] = numpy_generator(seed, "folds", len(part)).permutation(len(part)) % self.folds
        g = np.empty(len(y))
        for k in range(self.folds):
            held = fold == k
            booster = self._boosted(x[~held], y[~held], np.ones((~held).sum()), v, _log_loss(val_labels), seed)
            g[held] = 1 / (1 + np.exp(-self.library.logit(booster, x[held])))
        return g

    def _boosted(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, seed: int) -> Any:
        return self.library.fit(x, y, weight, v, loss, self.settings, seed)


def _log_loss(labels: np.ndarray) -> Loss:
    y = np.asarray(labels) > 0.5
    return lambda z: float((np.logaddexp(0, z) - y * z).mean())


def _risk(labels: np.ndarray, prior: float) -> Loss:
    """The logistic risk over the population from labelled and unlabeled rows: E_U ln(1 + e^z) - prior E_P z."""
    y = np.asarray(labels) > 0.5
    return lambda z: float(np.logaddexp(0, z[~y]).mean() - prior * z[y].mean())


def _twice(x: np.ndarray, y: np.ndarray, soft: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled lenses, and unlabeled rows as lenses and as none; half of the weight of lenses comes from the labelled."""
    u = ~y
    share = prior * u.sum()
    doubled = np.concatenate([x[y], x[u], x[u]])
    labels = np.concatenate([np.ones(y.sum()), np.ones(u.sum()), np.zeros(u.sum())])
    as_lens = soft[u] * (0.5 * share / max(soft[u].sum(), 1e-9))
    weight = np.concatenate([np.full(y.sum(), 0.5 * share / y.sum()), as_lens, 1 - soft[u]])
    keep = weight > 1e-4
    return doubled[keep], labels[keep] > 0.5, weight[keep]


# ---------------------------------------------------------------- workflow


def train(
    run: Run,
    fabric: Fabric,
    data: Data,
    task: Callable[..., TreeFinder],
    trainer: Callable[..., Trainer],
    evaluation: Any = None,
    features_dir: str = "cache",
    seed: int = 0,
) -> dict[str, float]:
    """Measure the features of every cutout (kept under `features_dir`), fit, calibrate on validation, score the test split."""
    torch.manual_seed(seed)
    module, loop = task(about=data.about), trainer(fabric=fabric)
    run.update(synthetic=bool(data.about["synthetic"]), splits=data.sizes())
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "data_fingerprint": data.about["fingerprint"]})
    columns = {name: measured(getattr(data, name), data.about, name, features_dir) for name in ("train", "val")}
    labels = {name: _column(getattr(data, name), module.target) for name in columns}
    importance = module.fit(columns["train"], labels["train"], columns["val"], labels["val"], seed)
    total = sum(importance.values())
    run.write_json("importance.json", {k: v / total for k, v in sorted(importance.items(), key=lambda kv: -kv[1])})
    predictions = loop.predict(module, data.val, data.carry, "val", label="scoring val")
    logit, labelled = predictions["logit"].numpy(), predictions["labelled"].numpy()
    values = calibration(logit, labelled, module.prior)
    module.calibrate(values)
    validated = {f"val/{name}": value for name, value in module.score(predictions).items()}
    run.write_json("calibration.json", {**values, "prior": module.prior, "synthetic": bool(data.about["synthetic"])})
    write_columns(run.directory / "predictions" / "val.parquet", predictions, data.about)
    run.checkpoints.mkdir(exist_ok=True)
    state = {"task": module.state_dict(), "about": data.about, "step": 0, "epoch": 0, "metrics": validated}
    checkpoints.save(state, run.checkpoints, "best")
    tested = evaluate(run, fabric, data, module, loop, evaluation, seed=seed)
    return {**{name: Estimate(value) for name, value in validated.items()}, **tested}


def _column(split: Any, name: str) -> np.ndarray:
    return np.asarray(split[name])


def measured(split: Any, about: dict[str, Any], name: str, cache_dir: str, step: int = 256) -> dict[str, np.ndarray]:
    """The features of a split, measured once: the file is named by the data and by the code that measures."""
    from skyloom.data.tables import read_columns

    probe = features(split.__getitems__(np.arange(1))["image"], about)
    recipe = [about["fingerprint"], name, len(split), list(probe), Path(measuring.__file__).read_text()]
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    path = Path(cache_dir) / "lensfind" / f"features-{digest}.parquet"
    if path.exists():
        return read_columns(path)[0]
    parts = [
        features(split.__getitems__(np.arange(start, min(start + step, len(split))))["image"], about)
        for start in range(0, len(split), step)
    ]
    found = {key: np.concatenate([part[key] for part in parts]) for key in probe}
    write_columns(path, found, {"synthetic": about["synthetic"], "fingerprint": about["fingerprint"]})
    return found
