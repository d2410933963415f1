"""LightGBM and XGBoost behind one interface: fitted to weighted rows, stopped by a loss of one's own, kept as text."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from skyloom.errors import ConfigError, UserError, nearest

__all__ = ["LIBRARIES", "Boosting", "Loss", "Settings", "boosting"]

Loss = Callable[[np.ndarray], float]
"""Of the logits of the validation rows: lower is better, and stops the fit."""


@dataclass(frozen=True)
class Settings:
    """What both libraries understand."""

    trees: int  # at most
    leaves: int  # of each
    rate: float
    rows: float  # share that each tree sees
    columns: float  # share of features that each tree sees
    smallest: int  # rows of a leaf
    patience: int  # trees without a gain on validation


class Boosting(Protocol):
    """One library; boosters are its own objects."""

    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, s: Settings, seed: int) -> Any:
        """A booster of rows [n, F] with labels and weights [n], stopped where `loss` of its logits of rows `v` ends falling."""
        ...

    @staticmethod
    def logit(booster: Any, x: np.ndarray) -> np.ndarray:
        """Of every row, by the best of its trees."""
        ...

    @staticmethod
    def to_text(booster: Any) -> bytes: ...

    @staticmethod
    def from_text(text: bytes) -> Any: ...

    @staticmethod
    def importance(booster: Any, count: int) -> np.ndarray:
        """The gain of each of the `count` features."""
        ...


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise UserError(f"{name} is not installed: pip install 'skyloom-lensfind[trees]' (or run `make setup`).") from None


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, dtype=np.float64), 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


class LightGBM:
    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, s: Settings, seed: int) -> Any:
        lightgbm = _installed("lightgbm")
        options = {
            "objective": "binary", "metric": "none", "num_leaves": s.leaves, "learning_rate": s.rate,
            "bagging_fraction": s.rows, "bagging_freq": 1, "feature_fraction": s.columns, "min_data_in_leaf": s.smallest,
            "seed": seed % 2**31, "verbose": -1, "num_threads": torch.get_num_threads(), "deterministic": True,
            "force_row_wise": True,
        }  # fmt: skip
        rows = lightgbm.Dataset(x, y.astype(float), weight=weight)
        watched = [lightgbm.Dataset(v, np.zeros(len(v)), reference=rows)]
        stop = [lightgbm.early_stopping(s.patience, verbose=False)]

        def judged(p: np.ndarray, _: Any) -> tuple[str, float, bool]:
            return "risk", loss(_logit(p)), False

        return lightgbm.train(options, rows, s.trees, valid_sets=watched, feval=judged, callbacks=stop)

    @staticmethod
    def logit(booster: Any, x: np.ndarray) -> np.ndarray:
        return booster.predict(x, raw_score=True, num_iteration=booster.best_iteration)

    @staticmethod
    def to_text(booster: Any) -> bytes:
        return booster.model_to_string(num_iteration=booster.best_iteration).encode()

    @staticmethod
    def from_text(text: bytes) -> Any:
        return _installed("lightgbm").Booster(model_str=text.decode())

    @staticmethod
    def importance(booster: Any, count: int) -> np.ndarray:
        return booster.feature_importance("gain")


class XGBoost:
    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, v: np.ndarray, loss: Loss, s: Settings, seed: int) -> Any:
        xgboost = _installed("xgboost")
        options = {
            "objective": "binary:logistic", "disable_default_eval_metric": True, "tree_method": "hist", "eta": s.rate,
            "max_leaves": s.leaves, "max_depth": 0, "grow_policy": "lossguide", "subsample": s.rows,
            "colsample_bytree": s.columns, "min_child_weight": s.smallest / 20, "seed": seed % 2**31,
            "nthread": torch.get_num_threads(), "base_score": float(np.clip(np.average(y, weights=weight), 1e-6, 1 - 1e-6)),
        }  # fmt: skip
        watched = [(xgboost.DMatrix(v, np.zeros(len(v))), "val")]
        return xgboost.train(
            options, xgboost.DMatrix(x, y.astype(float), weight=weight), s.trees, evals=watched,
            custom_metric=lambda p, _: ("risk", loss(_logit(p))), maximize=False, early_stopping_rounds=s.patience,
            verbose_eval=False,
        )  # fmt: skip

    @staticmethod
    def logit(booster: Any, x: np.ndarray) -> np.ndarray:
        last = getattr(booster, "best_iteration", booster.num_boosted_rounds() - 1)
        return booster.predict(_installed("xgboost").DMatrix(x), output_margin=True, iteration_range=(0, last + 1))

    @staticmethod
    def to_text(booster: Any) -> bytes:
        return bytes(booster[: booster.best_iteration + 1].save_raw("json"))

    @staticmethod
    def from_text(text: bytes) -> Any:
        booster = _installed("xgboost").Booster()
        booster.load_model(bytearray(text))
        return booster

    @staticmethod
    def importance(booster: Any, count: int) -> np.ndarray:
        gains = booster.get_score(importance_type="total_gain")
        return np.array([gains.get(f"f{k}", 0.0) for k in range(count)])


LIBRARIES: dict[str, type[Boosting]] = {"lightgbm": LightGBM, "xgboost": XGBoost}


def boosting(name: str) -> type[Boosting]:
    if name not in LIBRARIES:
        raise ConfigError(f"trees are {' or '.join(LIBRARIES)}, not {name!r}.{nearest(name, LIBRARIES)}")
    return LIBRARIES[name]
