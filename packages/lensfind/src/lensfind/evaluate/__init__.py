"""What a finder is worth: tables and figures of its test split, where it looks, how far it carries to other surveys, and the
documentation's numbers.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.evaluate.explaining import explain
    from lensfind.evaluate.figures import draw
    from lensfind.evaluate.tables import evaluation

_HOMES = {
    "explaining": ("explain",),
    "figures": ("draw",),
    "tables": ("evaluation",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "draw",
    "evaluation",
    "explain",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
