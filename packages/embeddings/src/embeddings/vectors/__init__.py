"""Vectors of objects: sets of them, a few rows at a time, pooled, projected, and which are near one another."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.vectors.neighbours import nearest_rows
    from embeddings.vectors.pooling import POOLINGS, pool
    from embeddings.vectors.projection import Components, principal_components
    from embeddings.vectors.rows import Rows
    from embeddings.vectors.sets import EmbeddingSet

_HOMES = {
    "neighbours": ("nearest_rows",),
    "pooling": ("POOLINGS", "pool"),
    "projection": ("Components", "principal_components"),
    "rows": ("Rows",),
    "sets": ("EmbeddingSet",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "POOLINGS",
    "Components",
    "EmbeddingSet",
    "Rows",
    "nearest_rows",
    "pool",
    "principal_components",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
