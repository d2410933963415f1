"""Objects of the sky: their identifiers, what catalogues know of them, and which of them belong together."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.objects.catalogue import Catalogue, merged, read_catalogue
    from embeddings.objects.folds import grouped_folds, sky_cells
    from embeddings.objects.halos import HALO_SNAPSHOT, halo_snapshots
    from embeddings.objects.identifiers import NO_IDENTIFIER, as_identifiers
    from embeddings.objects.properties import NUISANCES, PROPERTIES, Property, property_named

_HOMES = {
    "catalogue": ("Catalogue", "merged", "read_catalogue"),
    "folds": ("grouped_folds", "sky_cells"),
    "halos": ("HALO_SNAPSHOT", "halo_snapshots"),
    "identifiers": ("NO_IDENTIFIER", "as_identifiers"),
    "properties": ("NUISANCES", "PROPERTIES", "Property", "property_named"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "HALO_SNAPSHOT",
    "NO_IDENTIFIER",
    "NUISANCES",
    "PROPERTIES",
    "Catalogue",
    "Property",
    "as_identifiers",
    "grouped_folds",
    "halo_snapshots",
    "merged",
    "property_named",
    "read_catalogue",
    "sky_cells",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
