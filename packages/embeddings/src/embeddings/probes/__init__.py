"""The first question, what does an embedding know: probes, their nulls, nuisances, labels needed, classes."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.probes.classes import Separation, separate
    from embeddings.probes.encoded import Encoded, Probing
    from embeddings.probes.held_out import KINDS, Probe, held_out_scores, probe
    from embeddings.probes.readout import Readout
    from embeddings.probes.ridge import RidgeFit, cross_validated_ridge

_HOMES = {
    "classes": ("Separation", "separate"),
    "encoded": ("Encoded", "Probing"),
    "held_out": ("KINDS", "Probe", "held_out_scores", "probe"),
    "readout": ("Readout",),
    "ridge": ("RidgeFit", "cross_validated_ridge"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "KINDS",
    "Encoded",
    "Probe",
    "Probing",
    "Readout",
    "RidgeFit",
    "Separation",
    "cross_validated_ridge",
    "held_out_scores",
    "probe",
    "separate",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
