"""A synthetic sample of galaxies with embeddings of which it is known how much they encode: see `latents` for the model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from embeddings.objects.catalogue import Catalogue
from embeddings.objects.properties import LOWEST_LOG_SFR
from embeddings.samples.joining import join
from embeddings.samples.latents import (
    GAINS,
    ISOTROPIC,
    LATENTS,
    MADE,
    NUISANCE,
    NUISANCE_DIMENSIONS,
    SMALLEST_DIMENSION,
    TYPE_SHARES,
    TYPE_SHIFT,
    TYPES,
    balmer_decrement,
    ellipticity,
    latent_correlation,
    population_cka,
    population_r2,
    redshift,
    sersic_index,
)
from embeddings.samples.sample import Known, Sample
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import numpy_generator

__all__ = ["catalogue_and_embeddings", "synthetic"]

_FILES = {"alpha": ("object_id", 1.0), "beta": ("TARGETID", 0.95), "aion": ("object_id", 1.0), "astropt": ("TARGETID", 0.95),
          "astroclip": ("TARGETID", 0.97)}  # fmt: skip
"""Model -> the identifier that its file carries, and the share of the objects that it has."""
QUENCHED = 0.25  # share whose star formation rate is only an upper limit


def synthetic(
    objects: int = 12_000,
    dimension: int = 768,
    cell: float = 0.5,
    seed: int = 0,
    models: Sequence[str] = ("alpha", "beta"),
    properties: Sequence[str] | None = None,
) -> Sample:
    """A synthetic sample of galaxies, joined as files would be, with everything that is known of it.

    >>> sample = synthetic(objects=400, dimension=48)
    >>> [e.name for e in sample.embeddings][:2], round(sample.known.r2["alpha/spectrum"]["log_mass"], 2)
    (['alpha/image', 'alpha/spectrum'], 0.86)
    """
    catalogue, sets = catalogue_and_embeddings(objects, dimension, seed, models)
    sample = join(sets, catalogue, properties, cell)
    gains = {e.name: GAINS[e.model][e.modality] for e in sample.embeddings}
    pairs = [(a.name, b.name) for a, b in (*sample.pairs(), *sample.within())]
    known = Known(
        {name: population_r2(g) for name, g in gains.items()},
        {name: population_r2(g, ("snr",)) for name, g in gains.items()},
        {f"{a} ~ {b}": population_r2(np.hypot(gains[a], gains[b])) for a, b in pairs},
        {f"{a} ~ {b}": population_cka(gains[a], gains[b], dimension) for a, b in pairs},
    )
    return replace(sample, known=known)


def catalogue_and_embeddings(
    objects: int, dimension: int = 768, seed: int = 0, models: Sequence[str] = ("alpha", "beta")
) -> tuple[Catalogue, list[EmbeddingSet]]:
    """A catalogue of `objects` rows and the embeddings of invented models, synthetic, as their files would be: rows in
    different orders, some with Euclid's identifiers, some with DESI's, some vectors and objects missing.
    """
    unknown = [model for model in models if model not in GAINS]
    if unknown:
        raise ConfigError(f"there is no invented model {unknown[0]!r}.{nearest(unknown[0], GAINS)}")
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
    for model in models:
        key, kept = _FILES[model]
        own = numpy_generator(seed, "synthetic model", model)
        rows = own.permutation(objects)[: round(kept * objects)]
        vectors = {m: _vectors(s[rows], kind[rows], gains, dimension, own) for m, gains in GAINS[model].items()}
        no_spectrum = own.random(len(rows)) < 0.1
        for modality in ("spectrum", "fused"):
            if modality in vectors:
                vectors[modality][no_spectrum] = np.nan
        sets.append(EmbeddingSet(model, {key: ids[key][rows]}, vectors, z=catalogue.numbers["Z"][rows], synthetic=True))
    return catalogue, sets


def _columns(s: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Catalogue columns, under the names and in the units of the Euclid-DESI catalogue."""
    latent = dict(zip(LATENTS, s.T, strict=True))
    quenched = rng.random(len(s)) < QUENCHED
    upper_limit = rng.uniform(-8.0, LOWEST_LOG_SFR - 0.01, len(s))
    columns = {
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
    made = {name: MADE[name].normal(s, rng) for name in _COLUMNS}
    shapes = {name: MADE[name].function or (lambda u: u) for name in _COLUMNS}
    columns |= {column: to_column(shapes[name](made[name])) for name, (column, to_column) in _COLUMNS.items()}
    lines = rng.random(len(s)) < 0.7  # the others have no measured emission lines
    flux = 10 ** (1.0 + 0.4 * latent["log_sfr"])
    return columns | {
        "HALPHA_FLUX": np.where(lines, flux, -1.0),  # 1e-17 erg/s/cm2
        "HBETA_FLUX": np.where(lines, flux / balmer_decrement(MADE["balmer_decrement"].normal(s, rng)), 0.0),
    }


_COLUMNS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "asymmetry": ("asymmetry", lambda u: 0.1 + 0.08 * u),
    "smoothness": ("smoothness", lambda u: 0.05 + 0.04 * u),
    "gini": ("gini", lambda u: 0.5 + 0.06 * u),
    "log_sersic_radius": ("sersic_sersic_vis_radius", lambda u: 10 ** (0.9 + 0.2 * u)),  # pixel
    "axis_ratio": ("sersic_sersic_vis_axis_ratio", lambda u: u),
    "spiral_arms": ("has_spiral_arms_yes", lambda u: u),
    "edge_on": ("disk_edge_on_yes", lambda u: u),
    "log_snr_b": ("SNR_B", lambda u: 10 ** (0.2 + 0.3 * u)),
    "log_snr_z": ("SNR_Z", lambda u: 10 ** (0.5 + 0.3 * u)),
    "det_quality_flag": ("det_quality_flag", lambda u: u),
}
"""Property -> its column in the catalogue, and the column's value for f(u)."""


def _vectors(s: np.ndarray, kind: np.ndarray, gains: np.ndarray, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """[N, D] float32: the formula of `latents`."""
    frame, triangle = np.linalg.qr(rng.standard_normal((dimension, SMALLEST_DIMENSION)))
    frame = frame * np.sign(np.diag(triangle))
    offset = 3.0 * rng.standard_normal(dimension)
    shift = TYPE_SHIFT * (kind[:, None] == np.array([1, 2]))
    seen = s * gains + rng.standard_normal(s.shape)
    inner = np.hstack([seen, NUISANCE * rng.standard_normal((len(s), NUISANCE_DIMENSIONS)), shift])
    return (inner @ frame.T + ISOTROPIC * rng.standard_normal((len(s), dimension)) + offset).astype(np.float32)
