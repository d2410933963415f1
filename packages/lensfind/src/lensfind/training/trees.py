r"""Boosted trees on named features: what a finder must beat to be worth its network.

Labelled lenses are told from unlabeled cutouts; in the setting of two samples the odds g / (1 - g) of that question are the
ratio of densities times n_P / n_U, so that the posterior of a lens is

$$p = \pi \frac{g}{1 - g} \frac{n_U}{n_P},$$

which no classifier keeps below 1. Out-of-fold values of p then weigh a second fit in which every unlabeled cutout stands twice,
as a lens with weight p and as none with weight 1 - p (Elkan and Noto 2008, KDD, section 3); its logit needs no further
division.
"""

import hashlib
import importlib
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
from lensfind.training.task import Scored
from skyloom.data import Batch, Data
from skyloom.data.tables import write_columns
from skyloom.errors import ConfigError, DataError, UserError
from skyloom.metrics import Estimate
from skyloom.run import Run
from skyloom.run.seeds import numpy_generator
from skyloom.training import Trainer, checkpoints
from skyloom.training.workflow import evaluate

__all__ = ["TreeFinder", "measured", "posterior", "train"]

_EPS = 1e-6
Loss = Callable[[np.ndarray], float]
"""Of the logits of the validation rows: lower is better, and stops the fit."""


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
        if library not in ("lightgbm", "xgboost"):
            raise ConfigError(f"trees are lightgbm or xgboost, not {library!r}.")
        self.about, self.library, self.folds, self.patience, self.target = about, library, folds, patience, target
        self.settings = {"trees": trees, "leaves": leaves, "rate": rate, "rows": rows, "columns": columns, "smallest": smallest}
        self.register_buffer("model", torch.zeros(0, dtype=torch.uint8))
        self._booster: Any = None

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "model" in state:  # of any length
            self.model = torch.empty_like(state[prefix + "model"])
            self._booster = None
        super()._load_from_state_dict(state, prefix, *args)

    # ---------------------------------------------------------------- a task

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        raise UserError("boosted trees have no gradient: workflow=lensfind_trees fits them.")

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        columns = features(batch["image"].float().cpu(), self.about)
        logit = torch.from_numpy(self.logit(columns)).float().to(self.slope.device)
        return {"logit": logit} | self.calibrated(logit)

    def logit(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        table = np.stack(list(columns.values()), axis=1)
        return np.asarray(_raw(self.library, self._loaded(), table), dtype=np.float64)

    def _loaded(self) -> Any:
        if self._booster is None:
            if not len(self.model):
                raise DataError("these trees are not fitted yet.")
            self._booster = _from_text(self.library, bytes(self.model.cpu().numpy()))
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
        text = _to_text(self.library, booster)
        self.model = torch.frombuffer(bytearray(text), dtype=torch.uint8).clone()
        self._booster = None
        return dict(zip(train, _importance(self.library, booster, x.shape[1]), strict=True))

    def _out_of_fold(self, x: np.ndarray, y: np.ndarray, v: np.ndarray, val_labels: np.ndarray, seed: int) -> np.ndarray:
        """P(labelled) of each row from trees that did not see it; folds hold P and U in the same proportion."""
        fold = np.empty(len(y), dtype=int)
        for part in (np.flatnonzero(y), np.flatnonzero(~y)):
            fold[part] = numpy_generator(seed, "folds", len(part)).permutation(len(part)) % self.folds
        g = np.empty(len(y))
        for k in range(self.folds):
            held = fold == k
            booster = self._boosted(x[~held], y[~held], np.ones((~held).sum()), v, _log_loss(val_labels), seed)
            g[held] = 1 / (1 + np.exp(-_raw(self.library, booster, x[held])))
        return g

    def _boosted(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, seed: int) -> Any:
        fit = _lightgbm if self.library == "lightgbm" else _xgboost
        return fit(x, y, weight, v, loss, self.settings, self.patience, seed)


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


# ---------------------------------------------------------------- the two libraries


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(f"{name} is not installed: pip install 'skyloom-lensfind[trees]' (or run `make setup`).") from None


def _lightgbm(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, settings: dict[str, Any], patience: int,
    seed: int,
) -> Any:  # fmt: skip
    lightgbm = _library("lightgbm")
    options = {
        "objective": "binary", "metric": "none", "num_leaves": settings["leaves"], "learning_rate": settings["rate"],
        "bagging_fraction": settings["rows"], "bagging_freq": 1, "feature_fraction": settings["columns"],
        "min_data_in_leaf": settings["smallest"], "seed": seed % 2**31, "verbose": -1, "num_threads": torch.get_num_threads(),
        "deterministic": True, "force_row_wise": True,
    }  # fmt: skip
    rows = lightgbm.Dataset(x, y.astype(float), weight=weight)
    watched = [lightgbm.Dataset(v, np.zeros(len(v)), reference=rows)]
    stop = [lightgbm.early_stopping(patience, verbose=False)]

    def judged(p: np.ndarray, _: Any) -> tuple[str, float, bool]:
        return "risk", loss(_logit(p)), False

    return lightgbm.train(options, rows, settings["trees"], valid_sets=watched, feval=judged, callbacks=stop)


def _xgboost(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, settings: dict[str, Any], patience: int,
    seed: int,
) -> Any:  # fmt: skip
    xgboost = _library("xgboost")
    options = {
        "objective": "binary:logistic", "disable_default_eval_metric": True, "tree_method": "hist", "eta": settings["rate"],
        "max_leaves": settings["leaves"], "max_depth": 0, "grow_policy": "lossguide", "subsample": settings["rows"],
        "colsample_bytree": settings["columns"], "min_child_weight": settings["smallest"] / 20, "seed": seed % 2**31,
        "nthread": torch.get_num_threads(), "base_score": float(np.clip(np.average(y, weights=weight), 1e-6, 1 - 1e-6)),
    }  # fmt: skip
    watched = [(xgboost.DMatrix(v, np.zeros(len(v))), "val")]
    return xgboost.train(
        options, xgboost.DMatrix(x, y.astype(float), weight=weight), settings["trees"], evals=watched,
        custom_metric=lambda p, _: ("risk", loss(_logit(p))), maximize=False, early_stopping_rounds=patience,
        verbose_eval=False,
    )  # fmt: skip


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, dtype=np.float64), 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def _raw(library: str, booster: Any, x: np.ndarray) -> np.ndarray:
    """The logit of every row."""
    if library == "lightgbm":
        return booster.predict(x, raw_score=True, num_iteration=booster.best_iteration)
    last = getattr(booster, "best_iteration", booster.num_boosted_rounds() - 1)
    return booster.predict(_library("xgboost").DMatrix(x), output_margin=True, iteration_range=(0, last + 1))


def _to_text(library: str, booster: Any) -> bytes:
    if library == "lightgbm":
        return booster.model_to_string(num_iteration=booster.best_iteration).encode()
    return bytes(booster[: booster.best_iteration + 1].save_raw("json"))


def _from_text(library: str, text: bytes) -> Any:
    if library == "lightgbm":
        return _library("lightgbm").Booster(model_str=text.decode())
    booster = _library("xgboost").Booster()
    booster.load_model(bytearray(text))
    return booster


def _importance(library: str, booster: Any, count: int) -> np.ndarray:
    if library == "lightgbm":
        return booster.feature_importance("gain")
    gains = booster.get_score(importance_type="total_gain")
    return np.array([gains.get(f"f{k}", 0.0) for k in range(count)])


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
