"""The vectors that one model gave to a list of objects, one array per modality, and which objects have which."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from embeddings.objects.identifiers import as_identifiers, null_mask
from skyloom.errors import DataError, nearest

__all__ = ["BLOCK", "EmbeddingSet", "blocks"]

BLOCK = 8192  # rows held in memory at once where a pass over all rows is made


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@dataclass(frozen=True)
class EmbeddingSet:
    """Frozen embeddings of N objects by one model.

    Arrays may be memory maps: nothing here copies a whole one.

    >>> vectors = np.eye(3, dtype=np.float32)
    >>> s = EmbeddingSet("toy", {"object_id": np.array([11, 12, 13])}, {"image": vectors})
    >>> len(s), s.modalities, s.present["image"].tolist()
    (3, ('image',), [True, True, True])
    """

    model: str
    ids: Mapping[str, np.ndarray]
    """Name of the identifier -> [N] int64 or text. Several kinds may stand side by side (`object_id`, `TARGETID`)."""
    vectors: Mapping[str, np.ndarray]
    """Modality (`image`, `spectrum`, `fused`, ...) -> [N, D] float."""
    present: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Modality -> [N] bool. Where false the vector is not to be read. Made from the finite rows where it is not given."""
    z: np.ndarray | None = None
    """[N] redshift, NaN where unknown."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modality -> names of its D dimensions, where they are measured quantities of a catalogue: those have units of their
    own, so distances and penalties need them standardised."""
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError(f"{self.model}: no identifiers; without them vectors cannot be joined to anything.")
        ids = {name: as_identifiers(values, f"{self.model}, {name}") for name, values in self.ids.items()}
        if not self.vectors:
            raise DataError(f"{self.model}: no vectors.")
        lengths = {name: len(values) for name, values in {**ids, **self.vectors, **self.present}.items()}
        if self.z is not None:
            lengths["z"] = len(self.z)
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.model}: arrays differ in length: {lengths}.")
        for name, array in self.vectors.items():
            if array.ndim != 2 or array.dtype.kind != "f":
                raise DataError(
                    f"{self.model}/{name}: vectors must be [N, D] of floating point, not {array.dtype} of shape {array.shape}."
                )
        seen = {name: _finite_rows(array) & self._given(name) for name, array in self.vectors.items()}
        flags = {name: np.asarray(mask, dtype=bool) for name, mask in self.present.items() if name not in seen}
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "present", {**flags, **seen})

    def _given(self, modality: str) -> np.ndarray:
        given = self.present.get(modality)
        return np.ones(len(self.vectors[modality]), dtype=bool) if given is None else np.asarray(given, dtype=bool)

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def __getitem__(self, modality: str) -> np.ndarray:
        if modality not in self.vectors:
            raise DataError(f"{self.model} has no modality {modality!r}.{nearest(modality, self.vectors)}")
        return self.vectors[modality]

    def named(self, modality: str) -> str:
        """`model/modality`: how an embedding is called in tables and figures."""
        return f"{self.model}/{modality}"

    def take(self, rows: np.ndarray) -> "EmbeddingSet":
        """The objects `rows`, in that order (copies them)."""
        return replace(
            self,
            ids={name: values[rows] for name, values in self.ids.items()},
            vectors={name: np.asarray(values[rows]) for name, values in self.vectors.items()},
            present={name: values[rows] for name, values in self.present.items()},
            z=None if self.z is None else self.z[rows],
        )

    def describe(self) -> dict[str, object]:
        """Counts that a report prints: objects, dimensions, missing vectors, nulls and repeats among identifiers."""
        return {
            "model": self.model,
            "objects": len(self),
            "modalities": {
                name: {"dimension": int(v.shape[1]), "present": int(self.present[name].sum())}
                for name, v in self.vectors.items()
            },
            "identifiers": {
                name: {"null": int(null_mask(v).sum()), "distinct": len(np.unique(v[~null_mask(v)]))}
                for name, v in self.ids.items()
            },
        }


def _finite_rows(array: np.ndarray) -> np.ndarray:
    """[N] bool, one block of rows at a time."""
    finite = np.empty(len(array), dtype=bool)
    for rows in blocks(len(array)):
        finite[rows] = np.isfinite(array[rows]).all(axis=1)
    return finite
