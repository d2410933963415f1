"""The second question, how do models and modalities compare: alike, complementary, from one to the other."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.comparing.compared import Compared, Comparing
    from embeddings.comparing.modalities import modality_cosines
    from embeddings.comparing.similarity import Similarity, compare
    from embeddings.comparing.together import joint_gain

_HOMES = {
    "compared": ("Compared", "Comparing"),
    "modalities": ("modality_cosines",),
    "similarity": ("Similarity", "compare"),
    "together": ("joint_gain",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Compared",
    "Comparing",
    "Similarity",
    "compare",
    "joint_gain",
    "modality_cosines",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
