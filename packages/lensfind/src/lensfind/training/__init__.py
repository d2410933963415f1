"""How a finder learns: the task, batches with enough lenses, pretraining without labels, and boosted trees."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.training.balancing import balanced, simulated_balanced
    from lensfind.training.lens_pairs import LensPairs
    from lensfind.training.selfsupervised import MaskedImages, MomentumContrast, SimSiam
    from lensfind.training.task import LensFinder, Scored
    from lensfind.training.trees import TreeFinder

_HOMES = {
    "balancing": ("balanced", "simulated_balanced"),
    "lens_pairs": ("LensPairs",),
    "selfsupervised": ("MaskedImages", "MomentumContrast", "SimSiam"),
    "task": ("LensFinder", "Scored"),
    "trees": ("TreeFinder",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "LensFinder",
    "LensPairs",
    "MaskedImages",
    "MomentumContrast",
    "Scored",
    "SimSiam",
    "TreeFinder",
    "balanced",
    "simulated_balanced",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
