"""Can the labels be told without looking at the galaxy? A small model on metadata, noise level and PSF alone must fail.

If it does not, positives and negatives come from different telescopes, depths or seasons, and a network would learn those.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lensfind.data.manifest import known
from skyloom.errors import DataError

__all__ = ["LIMIT", "NUISANCES", "Leakage", "image_nuisances", "leakage"]

LIMIT = 0.6  # AUROC
NUISANCES = ("seeing", "psf_fwhm", "pixel_scale", "depth", "zero_point", "exposure", "quality", "ra", "dec")
"""What the observation was like; what the object is like (magnitude, size, redshift) may tell its class."""
_CATEGORIES = ("survey", "instrument", "bands")


@dataclass(frozen=True)
class Leakage:
    auroc: float  # of the better of two models, cross-validated by group
    error: float  # standard error under no leakage, sqrt((n1 + n0 + 1) / (12 n1 n0))
    features: dict[str, float]  # AUROC of each feature alone, at least 0.5
    limit: float

    @property
    def leaks(self) -> bool:
        """Whether the labels can be told: significantly above chance, and above the limit."""
        return self.auroc > max(self.limit, 0.5 + 3 * self.error)


def image_nuisances(images: np.ndarray) -> pd.DataFrame:
    """Per image and band: pixel noise along the frame, its sky level, its correlation (a blurred frame), and missing pixels."""
    frame = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], axis=-1)
    step = np.diff(frame, axis=-1)
    columns = {}
    for band in range(images.shape[1]):
        noise = 1.4826 * np.nanmedian(np.abs(step[:, band]), axis=-1) / np.sqrt(2)
        spread = 1.4826 * np.nanmedian(np.abs(frame[:, band] - np.nanmedian(frame[:, band], axis=-1, keepdims=True)), axis=-1)
        columns[f"noise {band}"] = noise
        columns[f"correlation {band}"] = spread / np.maximum(noise, 1e-30)
        columns[f"missing {band}"] = (~np.isfinite(images[:, band])).mean(axis=(-1, -2))
    return pd.DataFrame(columns)


def _features(table: pd.DataFrame) -> pd.DataFrame:
    """Numeric nuisances and whether they are there, and categories by code."""
    columns = {}
    for name in NUISANCES:
        if name in table:
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            columns[name] = values
            if 0 < np.isfinite(values).mean() < 1:
                columns[f"{name} is known"] = np.isfinite(values).astype(float)
    for name in _CATEGORIES:
        if name in table and table[name][known(table[name])].nunique() > 1:
            for value in table[name].unique():
                columns[f"{name} is {value or '?'}"] = (table[name] == value).to_numpy(dtype=float)
    return pd.DataFrame(columns)


def _auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Mann-Whitney: ties count half."""
    ranks, n1 = rankdata(score), positive.sum()
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(positive) - n1)))


def leakage(
    table: pd.DataFrame,
    images: np.ndarray | None = None,
    target: str = "label",
    limit: float = LIMIT,
    folds: int = 5,
    seed: int = 0,
) -> Leakage:
    """AUROC of the label (1 against the rest) from nuisances alone: logistic regression and boosted trees, the better of both.

    Folds are by `sky_group_id` where there is one. `images` [N, bands, H, W] adds noise, its correlation and missing pixels.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = table.reset_index(drop=True)
    positive = (table[target] == 1).to_numpy()
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if min(n1, n0) < 2 * folds:
        raise DataError(f"{n1} lenses and {n0} others: too few to tell whether labels leak; at least {2 * folds} of each.")
    found = _features(table)
    if images is not None:
        found = pd.concat([found, image_nuisances(np.asarray(images))], axis=1)
    found = found.loc[:, [name for name in found if found[name].nunique(dropna=True) > 1]]
    error = float(np.sqrt((n1 + n0 + 1) / (12 * n1 * n0)))
    if found.shape[1] == 0:
        return Leakage(0.5, error, {}, limit)
    group = (
        table["sky_group_id"]
        if "sky_group_id" in table and known(table["sky_group_id"]).all()
        else pd.Series(range(len(table)))
    )
    names = pd.Series(pd.factorize(group)[0])
    order = np.random.default_rng(seed).permutation(names.nunique())
    split = GroupKFold(min(folds, names.nunique()))
    x = found.to_numpy(dtype=float)
    models = (
        make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=500)),
        HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, max_leaf_nodes=8, random_state=seed),
    )
    scores = [
        cross_val_predict(model, x, positive, groups=order[names.to_numpy()], cv=split, method="predict_proba")[:, 1]
        for model in models
    ]
    alone = {}
    for name in found:
        values = found[name].fillna(found[name].median()).to_numpy(dtype=float)
        one = _auroc(values, positive)
        alone[name] = max(one, 1 - one)
    return Leakage(
        max(_auroc(score, positive) for score in scores), error, dict(sorted(alone.items(), key=lambda p: -p[1])), limit
    )
