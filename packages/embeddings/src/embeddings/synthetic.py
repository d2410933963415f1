r"""A synthetic sample of galaxies with embeddings of which it is known how much they encode.

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

from embeddings.catalogue import Catalogue
from embeddings.properties import LOWEST_LOG_SFR
from embeddings.sets import EmbeddingSet
from skyloom.run.seeds import numpy_generator

__all__ = ["GAINS", "LATENTS", "catalogue_and_embeddings", "latent_correlation", "population_cka", "population_r2"]

LATENTS = ("z", "log_mass", "log_sfr", "dn4000", "g_minus_r", "size", "concentration", "sersic", "ellipticity", "snr")

_PAIRS = {
    ("z", "log_mass"): 0.55, ("log_mass", "dn4000"): 0.5, ("dn4000", "g_minus_r"): 0.6, ("log_mass", "g_minus_r"): 0.45,
    ("log_sfr", "dn4000"): -0.6, ("log_sfr", "g_minus_r"): -0.45, ("concentration", "sersic"): 0.75, ("sersic", "dn4000"): 0.45,
    ("concentration", "dn4000"): 0.4, ("z", "size"): -0.45, ("z", "snr"): -0.5, ("concentration", "g_minus_r"): 0.35,
    ("sersic", "g_minus_r"): 0.4,
}  # fmt: skip

_SPECTRUM = np.array([6, 2.2, 1.4, 2.5, 2, 0.1, 0.3, 0.3, 0, 2])
_IMAGE = np.array([1, 1.1, 0.6, 0.5, 1, 2.5, 2, 1.6, 1.5, 0.5])

GAINS: dict[str, dict[str, np.ndarray]] = {
    "alpha": {"image": _IMAGE, "spectrum": _SPECTRUM, "fused": np.hypot(_IMAGE, _SPECTRUM)},
    # the second model sees morphology worse and stellar populations in images better
    "beta": {
        "image": (beta_image := np.array([1.4, 1.6, 0.9, 0.9, 1.5, 1.6, 1.2, 1.0, 0.8, 0.5])),
        "spectrum": (beta_spectrum := np.array([4, 1.5, 1.0, 1.8, 1.4, 0.1, 0.2, 0.2, 0, 3])),
        "fused": np.hypot(beta_image, beta_spectrum),
    },
}
"""Model -> modality -> gain of each latent."""

NUISANCE, ISOTROPIC, NUISANCE_DIMENSIONS = 0.6, 0.02, 24
TYPES, TYPE_SHARES, TYPE_SHIFT = ("GALAXY", "QSO", "STAR"), (0.96, 0.03, 0.01), 4.0
QUENCHED = 0.25  # share whose star formation rate is only an upper limit
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
class _Made:
    """A property as made from latents: f of one latent, or a weighted sum of several."""

    weights: dict[str, float]
    function: Callable[[np.ndarray], np.ndarray] | None = None


def redshift(s: np.ndarray) -> np.ndarray:
    return np.clip(np.exp(0.29 + 0.155 * s) - 1.0, 0.009, 1.8)


def sersic_index(s: np.ndarray) -> np.ndarray:
    return np.clip(np.exp(0.7 + 0.6 * s), 0.3, 5.5)


def ellipticity(s: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(0.8 - s))


_MADE = {
    "redshift": _Made({"z": 1}, redshift),
    "log_mass": _Made({"log_mass": 1}),
    "log_sfr": _Made({"log_sfr": 1}),
    "log_ssfr": _Made({"log_sfr": 0.7, "log_mass": -0.6}),
    "dn4000": _Made({"dn4000": 1}),
    "g_minus_r": _Made({"g_minus_r": 1}),
    "log_kron_radius": _Made({"size": 1}),
    "concentration": _Made({"concentration": 1}),
    "sersic_index": _Made({"sersic": 1}, sersic_index),
    "ellipticity": _Made({"ellipticity": 1}, ellipticity),
    "log_snr": _Made({"snr": 1}),
}


def population_r2(gains: np.ndarray) -> dict[str, float]:
    """Property -> R2 of the best linear prediction from an embedding with these gains, for an infinite sample."""
    c, g = latent_correlation(), np.diag(gains)
    v = g @ c @ g + (1 + ISOTROPIC**2) * np.eye(len(LATENTS))
    explained = c @ g @ np.linalg.solve(v, g @ c)  # covariance of the best linear prediction of s
    known = {}
    for name, made in _MADE.items():
        a = np.array([made.weights.get(latent, 0.0) for latent in LATENTS])
        share = 1.0 if made.function is None else _linear_share(made.function)
        known[name] = float(share * (a @ explained @ a) / (a @ c @ a))
    return known


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


# ------------------------------------------------------------------------------------------------------------------- drawing


def catalogue_and_embeddings(objects: int, dimension: int = 768, seed: int = 0) -> tuple[Catalogue, list[EmbeddingSet]]:
    """A catalogue of `objects` rows and the embeddings of models alpha and beta, synthetic, as their files would be:
    rows in different orders, alpha with Euclid's identifiers, beta with DESI's, some vectors and objects missing.
    """
    if dimension < SMALLEST_DIMENSION:
        raise ValueError(f"dimension={dimension}: at least {SMALLEST_DIMENSION} are needed.")
    rng = numpy_generator(seed, "synthetic catalogue")
    s = rng.standard_normal((objects, len(LATENTS))) @ np.linalg.cholesky(latent_correlation()).T
    kind = rng.choice(len(TYPES), objects, p=TYPE_SHARES)
    ids = {
        "object_id": 2_700_000_000_000_000_000 + np.cumsum(rng.integers(1, 1_000, objects)),
        "TARGETID": rng.permutation(39_600_000_000_000_000 + np.cumsum(rng.integers(1, 200, objects))),
    }
    catalogue = Catalogue(ids, _columns(s, rng), {"SPECTYPE": np.array(TYPES)[kind]}, synthetic=True)
    sets = []
    for model, key, kept in (("alpha", "object_id", 1.0), ("beta", "TARGETID", 0.95)):
        own = numpy_generator(seed, "synthetic model", model)
        rows = own.permutation(objects)[: round(kept * objects)]
        vectors = {m: _vectors(s[rows], kind[rows], gains, dimension, own) for m, gains in GAINS[model].items()}
        no_spectrum = own.random(len(rows)) < 0.1
        for modality in ("spectrum", "fused"):
            vectors[modality][no_spectrum] = np.nan
        sets.append(EmbeddingSet(model, {key: ids[key][rows]}, vectors, z=catalogue.numbers["Z"][rows], synthetic=True))
    return catalogue, sets


def _columns(s: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Catalogue columns, under the names and in the units of the Euclid-DESI catalogue."""
    latent = dict(zip(LATENTS, s.T, strict=True))
    quenched = rng.random(len(s)) < QUENCHED
    upper_limit = rng.uniform(-8.0, LOWEST_LOG_SFR - 0.01, len(s))
    return {
        "Z": redshift(latent["z"]),
        "LOGM": 10.2 + 0.6 * latent["log_mass"],  # log10(Msun)
        "LOGSFR": np.where(quenched, upper_limit, 0.2 + 0.7 * latent["log_sfr"]),  # log10(Msun/yr)
        "DN4000": 1.45 + 0.25 * latent["dn4000"],
        "GR": 0.9 + 0.3 * latent["g_minus_r"],  # mag
        "kron_radius": 10 ** (1.2 + 0.2 * latent["size"]),  # pixel
        "concentration": 3.2 + 0.6 * latent["concentration"],
        "sersic_sersic_vis_index": sersic_index(latent["sersic"]),
        "ellipticity": ellipticity(latent["ellipticity"]),
        "SNR_R": 10 ** (0.4 + 0.3 * latent["snr"]),
        "right_ascension": 265.0 + 14.0 * rng.random(len(s)),  # deg
        "declination": np.rad2deg(np.arcsin(rng.uniform(np.sin(np.deg2rad(62.0)), np.sin(np.deg2rad(69.0)), len(s)))),  # deg
    }


def _vectors(s: np.ndarray, kind: np.ndarray, gains: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """[N, D] float32: the formula at the head of this file."""
    frame, triangle = np.linalg.qr(rng.standard_normal((dimension, SMALLEST_DIMENSION)))
    frame = frame * np.sign(np.diag(triangle))
    offset = 3.0 * rng.standard_normal(dimension)
    shift = TYPE_SHIFT * (kind[:, None] == np.array([1, 2]))
    seen = s * gains + rng.standard_normal(s.shape)
    inner = np.hstack([seen, NUISANCE * rng.standard_normal((len(s), NUISANCE_DIMENSIONS)), shift])
    return (inner @ frame.T + ISOTROPIC * rng.standard_normal((len(s), dimension)) + offset).astype(np.float32)
