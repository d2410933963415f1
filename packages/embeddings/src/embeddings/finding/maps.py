r"""Maps of an embedding in two dimensions, and how far they can be trusted.

A map is fitted to a sample of the objects, reduced to 50 principal components first; every other object is placed at the mean
of its nearest fitted objects, weighted by inverse distance. So an object's place does not depend on which others are placed
with it (as it does in umap's own transform), and the fit's size is a choice.

UMAP's seed alone does not fix its answer: its neighbour search and its start depend on threads. Here both are given to it
(exact neighbours, principal components), so that a seed gives the same map at any number of threads.

- trustworthiness: neighbours in the map that are none in the embedding cost their rank (Venna and Kaski 2001);
- continuity: the same with the two exchanged: neighbours that the map tore apart;
- stability: Procrustes distance between maps of different seeds, 0 for equal up to rotation and scale.
"""

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embeddings.comparing.subspaces import rotation_fit
from embeddings.machine.threads import one_thread
from embeddings.vectors.neighbours import nearest_rows
from embeddings.vectors.rows import Rows, Some
from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import derive, numpy_generator

__all__ = ["PRESETS", "Map", "continuity", "draw_map", "trustworthiness"]

PRESETS: dict[str, dict[str, Any]] = {
    "standard": {"n_neighbors": 15, "min_dist": 0.1},
    "wide": {"n_neighbors": 50, "min_dist": 0.1},
    "balanced": {"n_neighbors": 30, "min_dist": 0.0, "densmap": True},
    "local": {"n_neighbors": 15, "min_dist": 0.05, "densmap": True},
    "global": {"n_neighbors": 50, "min_dist": 0.1, "densmap": False},
}
"""Of UMAP, as different analyses have used it; `standard` is the one of most."""

METHODS = ("pca", "umap", "tsne", "pacmap")
JUDGED = 1500  # objects on which a map is judged: ranks of all pairs are needed


@dataclass(frozen=True)
class Map:
    coordinates: np.ndarray
    """[N, 2], NaN where the object has no vector."""
    method: str
    fitted: int
    """Objects that the map was fitted to; the others were placed."""
    trustworthiness: float
    continuity: float
    stability: float
    """NaN where only one seed was tried."""
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)


def draw_map(
    x: Rows,
    present: np.ndarray,
    method: str = "umap",
    preset: str = "standard",
    fit_objects: int = 50_000,
    seeds: int = 1,
    seed: int = 42,
    judge_neighbours: int = 15,
    **settings: Any,
) -> Map:
    """Map the objects `present` of x [N, D], which are principal components.

    Arguments:
        method: `pca` (the first two columns), `umap`, `tsne`, `pacmap`.
        preset: Of UMAP, see `PRESETS`; `settings` override it and are passed to the method.
        fit_objects: At most so many are fitted, drawn at random.
        seeds: How many maps to make for the stability; the first is kept.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is no way to make a map.{nearest(method, METHODS)}")
    if preset not in PRESETS:
        raise ConfigError(f"preset={preset!r} is none of UMAP's.{nearest(preset, PRESETS)}")
    began = time.monotonic()
    rows = np.flatnonzero(present)
    chosen = rows
    if method != "pca" and len(rows) > fit_objects:
        chosen = np.sort(numpy_generator(seed, "map objects").choice(rows, fit_objects, replace=False))
    settings = {**(PRESETS[preset] if method == "umap" else {}), **settings}
    with one_thread():
        vectors = np.ascontiguousarray(np.asarray(x[chosen], dtype=np.float32))
        fits = [_FITS[method](vectors, seed if k == 0 else derive(seed, k) % 2**31, settings) for k in range(max(seeds, 1))]
        coordinates = np.full((len(x), 2), np.nan)
        coordinates[chosen] = fits[0]
        rest = np.setdiff1d(rows, chosen)
        if len(rest):
            coordinates[rest] = _placed(Some(x, rest), vectors, fits[0])
        trusted, continued = _judged(x, rows, coordinates, judge_neighbours, seed)
    apart = [1 - rotation_fit(_centred(fits[0]), _centred(other)) for other in fits[1:]]
    return Map(
        coordinates, method, len(chosen), trusted, continued, float(np.mean(apart)) if apart else float("nan"),
        time.monotonic() - began, settings,
    )  # fmt: skip


def trustworthiness(x: np.ndarray, y: np.ndarray, k: int = 15) -> float:
    """1 where the k neighbours of every object in y are neighbours in x too."""
    from sklearn.manifold import trustworthiness as score

    return float(score(x, y, n_neighbors=min(k, (len(x) - 1) // 2)))


def continuity(x: np.ndarray, y: np.ndarray, k: int = 15) -> float:
    """1 where the k neighbours of every object in x are neighbours in y too."""
    return trustworthiness(y, x, k)


def _judged(x: Rows, rows: np.ndarray, coordinates: np.ndarray, k: int, seed: int) -> tuple[float, float]:
    some = rows
    if len(rows) > JUDGED:
        some = np.sort(numpy_generator(seed, "judged objects").choice(rows, JUDGED, replace=False))
    a, b = np.asarray(x[some], dtype=np.float64), coordinates[some]
    return (trustworthiness(a, b, k), continuity(a, b, k)) if len(some) > 4 else (float("nan"), float("nan"))


def _placed(rest: Rows, fitted: np.ndarray, coordinates: np.ndarray, k: int = 5) -> np.ndarray:
    near, distance = nearest_rows(rest, fitted, min(k, len(fitted)))
    weight = 1.0 / np.maximum(distance, 1e-9 * max(float(distance.max(initial=0.0)), 1e-300))
    return (coordinates[near] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)


def _start(x: np.ndarray) -> np.ndarray:
    """The first two components, ten units wide."""
    return (10.0 * x[:, :2] / max(float(np.abs(x[:, :2]).max()), 1e-12)).astype(np.float32)


def _fit_pca(x: np.ndarray, seed: int, settings: dict[str, Any]) -> np.ndarray:
    return x[:, :2].astype(np.float64) if x.shape[1] > 1 else np.hstack([x, np.zeros_like(x)])


def _fit_umap(x: np.ndarray, seed: int, settings: dict[str, Any]) -> np.ndarray:
    try:
        import umap
    except ImportError as error:
        raise ConfigError("maps by UMAP need umap-learn: pip install 'skyloom-embeddings[maps]'.") from error
    k = min(settings["n_neighbors"], len(x) - 1)
    near, distance = nearest_rows(x, x, k - 1, itself=np.arange(len(x)))
    itself = np.arange(len(x))[:, None]
    known = (np.hstack([itself, near]), np.hstack([np.zeros((len(x), 1)), distance]).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = umap.UMAP(
            **{**settings, "n_neighbors": k}, n_components=2, metric="euclidean", random_state=seed, n_jobs=1, init=_start(x),
            precomputed_knn=(*known, None), force_approximation_algorithm=True, low_memory=True,
        )  # fmt: skip
        found = model.fit_transform(x)
    return np.asarray(found[0] if isinstance(found, tuple) else found, dtype=np.float64)


def _fit_tsne(x: np.ndarray, seed: int, settings: dict[str, Any]) -> np.ndarray:
    from sklearn.manifold import TSNE

    usual = {"perplexity": min(30.0, (len(x) - 1) / 3), "learning_rate": 200.0, "max_iter": 1000}
    start = 1e-4 * _start(x) / max(float(_start(x).std()), 1e-12)
    return np.asarray(TSNE(**{**usual, **settings}, init=start, random_state=seed).fit_transform(x), dtype=np.float64)


def _fit_pacmap(x: np.ndarray, seed: int, settings: dict[str, Any]) -> np.ndarray:
    try:
        import pacmap
    except ImportError as error:
        raise ConfigError("maps by PaCMAP need pacmap: pip install 'skyloom-embeddings[maps]'.") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pacmap.PaCMAP(n_components=2, random_state=seed % 2**31, **settings)
        return np.asarray(model.fit_transform(x, init="pca"), dtype=np.float64)


_FITS = {"pca": _fit_pca, "umap": _fit_umap, "tsne": _fit_tsne, "pacmap": _fit_pacmap}


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)
