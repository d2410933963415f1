r"""Latents of synthetic galaxies, what invented models see of them, and how much that is in closed form.

Ten correlated standard-normal latents s (covariance C) make a catalogue of physical properties, and the embeddings of two
invented models, each with an image, a spectrum and a fused vector:

.. math:: e = W\,(\mathrm{diag}(g)\,s + n_1) + 0.6\,B\,n_2 + 0.02\,n_3 + S\,t + o,

with orthonormal columns [W B S] in R^D (10 + 24 + 2), independent standard-normal n, gains g that say how well the modality
sees each latent, a shift t of quasars and stars along directions of their own, and a large offset o common to all objects, as
averaged transformer outputs have. The best linear prediction of s_i from e then explains the share

.. math:: R^2_i = c_i^T G V^{-1} G c_i, \qquad V = G C G + (1 + 0.02^2)\,I, \quad G = \mathrm{diag}(g),

of its variance, where c_i is column i of C. For a property y = f(s_i) Stein's lemma multiplies this by corr(f(s), s)^2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["GAINS", "LATENTS", "MADE", "latent_correlation", "population_cka", "population_r2"]

LATENTS = ("z", "log_mass", "log_sfr", "dn4000", "g_minus_r", "size", "concentration", "sersic", "ellipticity", "snr")

_PAIRS = {
    ("z", "log_mass"): 0.55, ("log_mass", "dn4000"): 0.5, ("dn4000", "g_minus_r"): 0.6, ("log_mass", "g_minus_r"): 0.45,
    ("log_sfr", "dn4000"): -0.6, ("log_sfr", "g_minus_r"): -0.45, ("concentration", "sersic"): 0.75, ("sersic", "dn4000"): 0.45,
    ("concentration", "dn4000"): 0.4, ("z", "size"): -0.45, ("z", "snr"): -0.5, ("concentration", "g_minus_r"): 0.35,
    ("sersic", "g_minus_r"): 0.4,
}  # fmt: skip

_SPECTRUM = np.array([6, 2.2, 1.4, 2.5, 2, 0.1, 0.3, 0.3, 0, 2])
_IMAGE = np.array([1, 1.1, 0.6, 0.5, 1, 2.5, 2, 1.6, 1.5, 0.5])

_BETA_IMAGE = np.array([1.4, 1.6, 0.9, 0.9, 1.5, 1.6, 1.2, 1.0, 0.8, 0.5])
_BETA_SPECTRUM = np.array([4, 1.5, 1.0, 1.8, 1.4, 0.1, 0.2, 0.2, 0, 3])

GAINS: dict[str, dict[str, np.ndarray]] = {
    "alpha": {"image": _IMAGE, "spectrum": _SPECTRUM, "fused": np.hypot(_IMAGE, _SPECTRUM)},
    # the second model sees morphology worse and stellar populations in images better
    "beta": {"image": _BETA_IMAGE, "spectrum": _BETA_SPECTRUM, "fused": np.hypot(_BETA_IMAGE, _BETA_SPECTRUM)},
    # stand-ins, in the form of three published models' files; their numbers say nothing of those models
    "aion": {"image": _IMAGE, "spectrum": _SPECTRUM, "fused": np.hypot(_IMAGE, _SPECTRUM)},
    "astropt": {"embedding": np.hypot(_BETA_IMAGE, _BETA_SPECTRUM)},
    "astroclip": {"image": 0.8 * _IMAGE, "spectrum": 0.8 * _SPECTRUM},
}
"""Model -> modality -> gain of each latent."""

NUISANCE, ISOTROPIC, NUISANCE_DIMENSIONS = 0.6, 0.02, 24
TYPES, TYPE_SHARES, TYPE_SHIFT = ("GALAXY", "QSO", "STAR"), (0.96, 0.03, 0.01), 4.0
SMALLEST_DIMENSION = len(LATENTS) + NUISANCE_DIMENSIONS + 2


def latent_correlation() -> np.ndarray:
    """C [10, 10]: the stated correlations, made positive definite (eigenvalues at least 0.02, unit diagonal again)."""
    c = np.eye(len(LATENTS))
    for (a, b), value in _PAIRS.items():
        i, j = LATENTS.index(a), LATENTS.index(b)
        c[i, j] = c[j, i] = value
    values, vectors = np.linalg.eigh(c)
    c = (vectors * np.maximum(values, 0.02)) @ vectors.T
    scale = np.sqrt(np.diag(c))
    return c / np.outer(scale, scale)


# ------------------------------------------------------------------------------------- properties and what is known of them


@dataclass(frozen=True)
class Made:
    """A property as made from latents: f(u) of one standard normal u, a weighted sum of latents and of noise of its own."""

    weights: dict[str, float]
    function: Callable[[np.ndarray], np.ndarray] | None = None
    noise: float = 0.0

    def vector(self) -> np.ndarray:
        return np.array([self.weights.get(latent, 0.0) for latent in LATENTS])

    def variance(self) -> float:
        a = self.vector()
        return float(a @ latent_correlation() @ a + self.noise**2)

    def normal(self, s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[N] of variance one, from latents [N, 10]."""
        return (s @ self.vector() + self.noise * rng.standard_normal(len(s))) / np.sqrt(self.variance())


def redshift(s: np.ndarray) -> np.ndarray:
    return np.clip(np.exp(0.29 + 0.155 * s) - 1.0, 0.009, 1.8)


def sersic_index(s: np.ndarray) -> np.ndarray:
    return np.clip(np.exp(0.7 + 0.6 * s), 0.3, 5.5)


def ellipticity(s: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(0.8 - s))


def vote_fraction(u: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(1.0 - 1.5 * u))


def balmer_decrement(u: np.ndarray) -> np.ndarray:
    return 3.4 * 10 ** (0.08 * u)


MADE = {
    "redshift": Made({"z": 1}, redshift),
    "log_mass": Made({"log_mass": 1}),
    "log_sfr": Made({"log_sfr": 1}),
    "log_ssfr": Made({"log_sfr": 0.7, "log_mass": -0.6}),
    "dn4000": Made({"dn4000": 1}),
    "g_minus_r": Made({"g_minus_r": 1}),
    "log_kron_radius": Made({"size": 1}),
    "concentration": Made({"concentration": 1}),
    "sersic_index": Made({"sersic": 1}, sersic_index),
    "ellipticity": Made({"ellipticity": 1}, ellipticity),
    "log_snr": Made({"snr": 1}),
    "asymmetry": Made({"log_sfr": 0.6, "concentration": -0.4}, noise=0.7),
    "smoothness": Made({"sersic": 0.7, "g_minus_r": 0.3}, noise=0.6),
    "gini": Made({"concentration": 0.8, "snr": 0.2}, noise=0.5),
    "log_sersic_radius": Made({"size": 0.9}, noise=0.4),
    "axis_ratio": Made({"ellipticity": -0.9}, ellipticity, noise=0.4),
    "spiral_arms": Made({"log_sfr": 0.5, "size": 0.5}, vote_fraction, noise=0.8),
    "edge_on": Made({"ellipticity": 0.8}, vote_fraction, noise=0.6),
    "balmer_decrement": Made({"log_sfr": 0.5, "g_minus_r": 0.6}, balmer_decrement, noise=0.6),
    "log_snr_b": Made({"snr": 0.9}, noise=0.3),
    "log_snr_z": Made({"snr": 0.8}, noise=0.5),
    "det_quality_flag": Made({}, lambda u: np.searchsorted([1.0, 1.8], u).astype(float), noise=1.0),
}


def population_r2(gains: np.ndarray, given: tuple[str, ...] = ()) -> dict[str, float]:
    """Property -> R2 of the best linear prediction from an embedding with these gains, for an infinite sample.

    With `given` latents it is the partial R2: the share of what those leave unexplained. Exact for properties that are linear
    in the latents; others are left out then, as are those that the given latents make up.
    """
    c, g = _conditional(given), np.diag(gains)
    v = g @ c @ g + (1 + ISOTROPIC**2) * np.eye(len(LATENTS))
    explained = c @ g @ np.linalg.solve(v, g @ c)  # covariance of the best linear prediction of s
    known = {}
    for name, made in MADE.items():
        a = made.vector()
        left = float(a @ c @ a + made.noise**2)
        if given and (made.function is not None or left < 1e-9):
            continue
        share = 1.0 if made.function is None else _linear_share(made.function)
        known[name] = float(share * (a @ explained @ a) / left)
    return known


def _conditional(given: tuple[str, ...]) -> np.ndarray:
    """Covariance of the latents where some are known."""
    c = latent_correlation()
    k = [LATENTS.index(name) for name in given]
    return c - c[:, k] @ np.linalg.solve(c[np.ix_(k, k)], c[k]) if k else c


def _linear_share(f: Callable[[np.ndarray], np.ndarray]) -> float:
    """corr(f(s), s)^2 for a standard normal s."""
    s = np.linspace(-9, 9, 20001)
    p = np.exp(-(s**2) / 2)
    p /= p.sum()
    deviation = f(s) - p @ f(s)
    return float((p @ (deviation * s)) ** 2 / (p @ deviation**2))


def population_cka(first: np.ndarray, second: np.ndarray, dimension: int) -> float:
    """Linear CKA of two embeddings with these gains, of the same objects, for an infinite sample."""
    c = latent_correlation()
    shares = np.array(TYPE_SHARES[1:])
    types = TYPE_SHIFT**2 * (np.diag(shares) - np.outer(shares, shares))
    common = np.sum((np.diag(first) @ c @ np.diag(second)) ** 2) + np.sum(types**2)
    return float(common / np.sqrt(_square_norm(first, c, types, dimension) * _square_norm(second, c, types, dimension)))


def _square_norm(gains: np.ndarray, c: np.ndarray, types: np.ndarray, dimension: int) -> float:
    """Squared Frobenius norm of an embedding's covariance."""
    g, noise = np.diag(gains), ISOTROPIC**2
    seen = np.sum((g @ c @ g + (1 + noise) * np.eye(len(LATENTS))) ** 2)
    nuisance = NUISANCE_DIMENSIONS * (NUISANCE**2 + noise) ** 2
    return seen + nuisance + np.sum((types + noise * np.eye(2)) ** 2) + (dimension - SMALLEST_DIMENSION) * noise**2
