"""Vectors that give a few rows at a time, and views of them: centred, scaled, of unit length, projected, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embeddings.vectors.sets import BLOCK

__all__ = ["Linear", "Rows", "SideBySide", "Some", "Unit", "mean_and_variance"]


class Rows(Protocol):
    """[N, D] vectors: an array, a memory map, a modality of a `Sample`, or one of the views below."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


class _View:
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.shape[0])


@dataclass
class Some(_View):
    """The rows `places` of x."""

    x: Rows
    places: np.ndarray

    def __post_init__(self) -> None:
        self.shape = (len(self.places), self.x.shape[1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.x[self.places[rows]])


@dataclass
class Linear(_View):
    """(x - mean) @ axes / scale, in float64."""

    x: Rows
    mean: np.ndarray | float = 0.0
    axes: np.ndarray | None = None
    scale: np.ndarray | float = 1.0

    def __post_init__(self) -> None:
        self.shape = (len(self.x), self.x.shape[1] if self.axes is None else self.axes.shape[1])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        moved = np.asarray(self.x[rows], dtype=np.float64) - self.mean
        return (moved if self.axes is None else moved @ self.axes) / self.scale


@dataclass
class Unit(_View):
    """Vectors of length one: Euclidean neighbours of these are neighbours by cosine, |a - b|^2 = 2 (1 - cos)."""

    x: Rows

    def __post_init__(self) -> None:
        self.shape = self.x.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.asarray(self.x[rows], dtype=np.float64)
        length = np.linalg.norm(found, axis=-1, keepdims=True)
        return found / np.where(length > 0, length, 1.0)


@dataclass
class SideBySide(_View):
    """Several vectors of the same objects as one."""

    parts: Sequence[Rows]

    def __post_init__(self) -> None:
        self.shape = (len(self.parts[0]), sum(part.shape[1] for part in self.parts))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(part[rows], dtype=np.float64) for part in self.parts], axis=-1)


def mean_and_variance(x: Rows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[D] each, over the given rows, a block at a time."""
    parts = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    mean = np.sum([np.asarray(x[part], dtype=np.float64).sum(axis=0) for part in parts], axis=0) / len(rows)
    square = np.sum([((np.asarray(x[part], dtype=np.float64) - mean) ** 2).sum(axis=0) for part in parts], axis=0)
    return mean, square / len(rows)
