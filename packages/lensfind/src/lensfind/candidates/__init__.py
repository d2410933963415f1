"""From cutouts, wherever they lie, to scores, to a ranked list of objects, and to what people should label next."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.candidates.predicting import predict
    from lensfind.candidates.selecting import select
    from lensfind.candidates.shortlists import Shortlist, candidates, shortlist
    from lensfind.candidates.sources import Source, open_source, read_cutouts

_HOMES = {
    "predicting": ("predict",),
    "selecting": ("select",),
    "shortlists": ("Shortlist", "candidates", "shortlist"),
    "sources": ("Source", "open_source", "read_cutouts"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Shortlist",
    "Source",
    "candidates",
    "open_source",
    "predict",
    "read_cutouts",
    "select",
    "shortlist",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
