"""Several finders as one: trained together (`members`), fused and judged without a certified non-lens (`fusing`)."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.ensembles.fusing import RULES, Fusion, fuse
    from lensfind.ensembles.members import Ensemble, compared, train

_HOMES = {
    "fusing": ("RULES", "Fusion", "fuse"),
    "members": ("Ensemble", "compared", "train"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "RULES",
    "Ensemble",
    "Fusion",
    "compared",
    "fuse",
    "train",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
