"""One list of objects with their properties, sky groups and the embeddings of one or several models: what is analysed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from skyloom.errors import DataError, nearest

__all__ = ["Embedding", "Known", "Sample"]


@dataclass(frozen=True)
class Embedding:
    """One modality of one model, and where the sample's objects are in it."""

    model: str
    modality: str
    vectors: np.ndarray
    """[n, D] in the file's own order; may be a memory map."""
    row: np.ndarray
    """[N] row of each object of the sample, -1 where it has no vector."""
    standardise: bool = False
    """Whether the dimensions are quantities with units of their own."""

    @property
    def name(self) -> str:
        return f"{self.model}/{self.modality}"

    @property
    def present(self) -> np.ndarray:
        return self.row >= 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.row), self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, objects: np.ndarray) -> np.ndarray:
        """[len(objects), D]: the vectors of these objects of the sample, all of which must have one."""
        return np.asarray(self.vectors[self.row[objects]])


@dataclass(frozen=True)
class Sample:
    """N objects in the order of the catalogue's identifiers; the order of rows in the files is forgotten."""

    ids: Mapping[str, np.ndarray]
    properties: Mapping[str, np.ndarray]
    """Property -> [N] float64, NaN where unknown."""
    groups: np.ndarray
    """[N]: objects of one group stand in the same fold and are resampled together."""
    embeddings: Sequence[Embedding]
    text: Mapping[str, np.ndarray] = field(default_factory=dict)
    classes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Kind of class (`spectral type`, `star formation`) -> [N] text, "" where unknown."""
    join_report: Sequence[Mapping[str, Any]] = ()
    degraded: Sequence[str] = ()
    """Why less than was asked for can be said: models whose objects are in no catalogue, models without a common object."""
    known: "Known" = field(default_factory=lambda: Known())
    """What can be said in closed form, where the sample is synthetic."""
    columns: Sequence[str] = ()
    """Catalogue columns that make up the vector, where it is one of plain measurements."""
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.groups)

    def pairs(self) -> Iterator[tuple[Embedding, Embedding]]:
        """Embeddings of different models that are of the same modality, or all of them where no modality is shared."""
        for first, second in combinations(self.models, 2):
            every = [(a, b) for a in self.of(first) for b in self.of(second)]
            yield from [(a, b) for a, b in every if a.modality == b.modality] or every

    def within(self) -> Iterator[tuple[Embedding, Embedding]]:
        """Pairs of modalities of one model."""
        for model in self.models:
            yield from combinations(self.of(model), 2)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(e.model for e in self.embeddings))

    def of(self, model: str) -> list[Embedding]:
        return [e for e in self.embeddings if e.model == model]

    def one_each(self) -> list[Embedding]:
        """The fullest embedding of each model: the fused one, or the only one, or the first."""
        return [next((e for e in own if e.modality in ("fused", "embedding")), own[0]) for own in map(self.of, self.models)]

    def named(self, name: str) -> Embedding:
        for e in self.embeddings:
            if e.name == name:
                return e
        raise DataError(f"there is no embedding {name!r}.{nearest(name, [e.name for e in self.embeddings])}")


@dataclass(frozen=True)
class Known:
    """Closed forms, all for an infinite sample and the best linear prediction."""

    r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Embedding -> property -> R2."""
    partial_r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same given the signal-to-noise ratio."""
    joint_r2: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`first ~ second` -> property -> R2 of both embeddings together."""
    cka: Mapping[str, float] = field(default_factory=dict)
    """`first ~ second` -> linear CKA."""
