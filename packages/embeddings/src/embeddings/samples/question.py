"""A question put to a sample: of what it is asked, how, and the answers, as tables and as columns with a value per object."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from embeddings.samples.prepared import Prepared
from embeddings.samples.sample import Sample
from skyloom.run.seeds import numpy_generator

__all__ = ["Question", "Table"]

Table = list[dict[str, Any]]


@dataclass
class Question:
    """What `embeddings.probes.Encoded`, `comparing.Compared` and `finding.Found` have in common."""

    data: Sample
    prepared: Mapping[str, Prepared]
    fold: np.ndarray
    """[N]: objects of one number are held out together."""
    how: Any
    """The settings."""
    seed: int
    tables: dict[str, Table] = field(init=False)
    columns: dict[str, np.ndarray] = field(init=False, default_factory=dict)
    TABLES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.tables = {name: [] for name in self.TABLES}

    def some(self, rows: np.ndarray, most: int, why: str) -> np.ndarray:
        """At most so many of the rows, in their order; `why` names the draw."""
        if len(rows) <= most:
            return rows
        return np.sort(numpy_generator(self.seed, why).choice(rows, most, replace=False))
