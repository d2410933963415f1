"""The third question, what is like what and what like none: search, outliers, maps in two dimensions, the interactive page."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.finding.found import Finding, Found
    from embeddings.finding.grid import similar
    from embeddings.finding.mapped import Mapping2D
    from embeddings.finding.maps import Map, draw_map
    from embeddings.finding.page import explore, write_page
    from embeddings.finding.search import Index

_HOMES = {
    "found": ("Finding", "Found"),
    "grid": ("similar",),
    "mapped": ("Mapping2D",),
    "maps": ("Map", "draw_map"),
    "page": ("explore", "write_page"),
    "search": ("Index",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Finding",
    "Found",
    "Index",
    "Map",
    "Mapping2D",
    "draw_map",
    "explore",
    "similar",
    "write_page",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
