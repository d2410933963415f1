"""Cutouts of the sky, what is labelled, and, where it is known, the truth.

Three ways to the same `skyloom.data.Data` for `lensfind.LensFinder`: `simulated` draws a synthetic data set once and keeps it,
`fresh` draws every training batch anew, and `stored` opens what `make prepare` wrote or a user's own manifest.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.data.augment import Augment, dihedral
    from lensfind.data.datasets import stored
    from lensfind.data.fits_files import write_cube, write_cutout
    from lensfind.data.manifest import SCHEMA, problems, read_manifest, validate, write_manifest
    from lensfind.data.provenance import SOURCES, allow, sample_weights
    from lensfind.data.splits import assign_splits, balance, groups
    from lensfind.data.storage import Store, write_store
    from lensfind.data.streams import Stream
    from lensfind.data.synthetic import CARRIED, fresh, simulated

_HOMES = {
    "augment": ("Augment", "dihedral"),
    "fits_files": ("write_cube", "write_cutout"),
    "manifest": ("SCHEMA", "problems", "read_manifest", "validate", "write_manifest"),
    "provenance": ("SOURCES", "allow", "sample_weights"),
    "synthetic": ("CARRIED", "fresh", "simulated"),
    "splits": ("assign_splits", "balance", "groups"),
    "storage": ("Store", "write_store"),
    "datasets": ("stored",),
    "streams": ("Stream",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CARRIED",
    "SCHEMA",
    "SOURCES",
    "Augment",
    "Store",
    "Stream",
    "allow",
    "assign_splits",
    "balance",
    "dihedral",
    "fresh",
    "groups",
    "problems",
    "read_manifest",
    "sample_weights",
    "simulated",
    "stored",
    "validate",
    "write_cube",
    "write_cutout",
    "write_manifest",
    "write_store",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
