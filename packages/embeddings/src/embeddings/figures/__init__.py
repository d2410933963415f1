"""Figures, from what a run has saved: held-out predictions, maps and the tables in their metadata."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.figures.drawing import draw
    from embeddings.figures.named import NAMES, SETS

_HOMES = {
    "drawing": ("draw",),
    "named": ("NAMES", "SETS"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "NAMES",
    "SETS",
    "draw",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
