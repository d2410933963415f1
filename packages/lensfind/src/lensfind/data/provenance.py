"""Where a label comes from, and what it may be used for.

>>> usage_problems(["obs:castles", "obs:castles"], [1, 1], [1.0, 1.0])
([], ['obs:castles has lenses only: pair it with non-lenses of the same instrument, bands, PSF and pixel scale'])
>>> usage_problems(["pretrain:galaxiesml"], [0], [0.0])
(['row 0: pretrain:galaxiesml has no lens labels, so that label must be -1, not 0'], [])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skyloom.errors import DataError, nearest

__all__ = ["SOURCES", "Provenance", "allow", "provenance", "sample_weights"]


@dataclass(frozen=True)
class Provenance:
    """What the labels of one source are worth."""

    labels: frozenset[int]  # labels that its rows may carry: 1 lens, 0 no lens, -1 unlabeled
    confidence: tuple[float, float]  # allowed range
    use: Literal["train", "positives", "negatives", "unlabeled", "pretrain"]
    note: str
    synthetic: bool = False


def _labels(*values: int) -> frozenset[int]:
    return frozenset(values)


SOURCES: dict[str, Provenance] = {
    "sim:lensfind": Provenance(_labels(-1, 0, 1), (0.0, 1.0), "train", "our ray tracer", True),
    "sim:bologna": Provenance(_labels(-1, 0, 1), (0.0, 1.0), "train", "Metcalf et al. 2019, A&A 625, A119", True),
    "sim:deeplens": Provenance(_labels(-1, 0, 1), (0.0, 1.0), "train", "deeplenstronomy", True),
    "sim:injected": Provenance(_labels(1), (1.0, 1.0), "positives", "arcs painted on survey cutouts", True),
    "obs:castles": Provenance(_labels(1), (0.9, 1.0), "positives", "confirmed lenses, HST"),
    "obs:lenscat": Provenance(_labels(-1, 1), (0.0, 1.0), "positives", "catalogue of known lenses and candidates"),
    "obs:relics": Provenance(_labels(0), (0.5, 1.0), "negatives", "cores without arcs: hard negatives"),
    "obs:negatives": Provenance(_labels(0), (0.5, 1.0), "negatives", "curated or mined non-lenses"),
    "obs:graded": Provenance(_labels(-1, 0, 1), (0.0, 1.0), "train", "graded by experts"),
    "survey": Provenance(_labels(-1), (0.0, 0.0), "unlabeled", "a sample of the sky nobody has looked at"),
    "weak:gzoo": Provenance(_labels(-1), (0.0, 0.5), "pretrain", "Galaxy Zoo votes are of morphology: no lens labels"),
    "pretrain:galaxiesml": Provenance(_labels(-1), (0.0, 0.0), "pretrain", "Do et al. 2024, arXiv:2410.00271: no lens labels"),
}


def provenance(source: str) -> Provenance:
    if source not in SOURCES:
        raise DataError(f"there is no label source {source!r}.{nearest(source, SOURCES)}")
    return SOURCES[source]


def usage_problems(sources: Sequence[str], labels: Sequence[int], confidences: Sequence[float]) -> tuple[list[str], list[str]]:
    """What is wrong row by row, and warnings about a source as a whole."""
    wrong = []
    for row, (source, label, confidence) in enumerate(zip(sources, labels, confidences, strict=True)):
        known = SOURCES.get(source)
        if known is None:
            continue
        allowed = sorted(known.labels)
        if label in (-1, 0, 1) and label not in known.labels:
            must = f"must be {allowed[0]}" if len(allowed) == 1 else f"must be one of {', '.join(map(str, allowed))}"
            why = "has no lens labels, so that label" if known.use in ("pretrain", "unlabeled") else f"({known.note}): label"
            wrong.append(f"row {row}: {source} {why} {must}, not {label}")
        low, high = known.confidence
        if 0 <= confidence <= 1 and not low <= confidence <= high:
            wrong.append(f"row {row}: {source} allows label_confidence {low:g} to {high:g}, not {confidence:g}")
    warnings = []
    present = set(sources)
    if not any(SOURCES[s].use in ("train", "negatives") or 0 in SOURCES[s].labels for s in present if s in SOURCES):
        warnings = [
            f"{source} has lenses only: pair it with non-lenses of the same instrument, bands, PSF and pixel scale"
            for source in sorted(present)
            if source in SOURCES and SOURCES[source].use == "positives"
        ]
    return wrong, warnings


def allow(
    sources: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    learning: Literal["supervised", "pu", "pretrain"],
    where: str = "the training split",
) -> list[str]:
    """Refuse training data whose labels do not carry that kind of learning; gives back warnings.

    Supervised learning needs both classes and no unlabeled row; learning from positives and unlabeled needs labelled lenses and
    something beside them; sources for pretraining enter neither as labels.
    """
    labels = np.asarray(labels)
    kinds = {source: provenance(source) for source in set(sources)}
    if learning == "pretrain":
        return []
    pretraining = sorted(source for source, kind in kinds.items() if kind.use == "pretrain")
    if pretraining and learning == "supervised":
        raise DataError(
            f"{where} holds rows of {', '.join(pretraining)}, which has no lens labels and serves pretraining only: "
            "leave those rows out, or learn from positives and unlabeled."
        )
    if learning == "supervised" and (labels == -1).any():
        raise DataError(
            f"{where} holds {int((labels == -1).sum())} unlabeled rows (label -1), which a supervised loss would take for a "
            "class: leave them out, or learn from positives and unlabeled (task=lensfind/nnpu)."
        )
    if not (labels == 1).any():
        raise DataError(f"{where} holds no lens (label 1): nothing can be learned of them.")
    if (labels == 1).all():
        raise DataError(
            f"{where} holds lenses only: a network would learn nothing, or the telescope. Add non-lenses or an unlabeled "
            "sample of the same instrument, bands, PSF and pixel scale."
        )
    return usage_problems(list(sources), labels.tolist(), [kinds[s].confidence[1] for s in sources])[1]


def sample_weights(sources: Sequence[str], labels: Sequence[int], confidences: Sequence[float]) -> np.ndarray:
    """w = confidence / (classes of the source x rows of the class in the source), scaled to mean 1.

    Each source weighs the same, and within it each class; a doubtful label weighs less.

    >>> sample_weights(["a", "a", "a", "b"], [1, 0, 0, 1], [1, 1, 1, 1]).round(3).tolist()
    [1.0, 0.5, 0.5, 2.0]
    """
    of, label_of = np.asarray(sources), np.asarray(labels)
    weights = np.asarray(confidences, dtype=float).copy()
    for source in np.unique(of):
        of_source = of == source
        classes = np.unique(label_of[of_source])
        for label in classes:
            rows = of_source & (label_of == label)
            weights[rows] /= len(classes) * rows.sum()
    if not weights.sum() > 0:
        raise DataError("all labels have confidence 0: no row would weigh anything.")
    return weights * len(weights) / weights.sum()
