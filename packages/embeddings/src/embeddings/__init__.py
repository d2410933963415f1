"""What foundation-model embeddings of galaxies know, and which model knows it better.

>>> import numpy as np
>>> from embeddings import EmbeddingSet, compare, probe
>>> x = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
>>> s = EmbeddingSet("toy", {"object_id": np.arange(400)}, {"image": x})
>>> bool(probe(s["image"], {"first axis": x[:, 0]}).r2["first axis"] > 0.99)
True
>>> turned = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
>>> round(compare(x, turned)["cka"].value, 6)
1.0

Names and modules are loaded on first use, so that importing the package is quick.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.comparing import Similarity, compare
    from embeddings.objects import Catalogue, read_catalogue
    from embeddings.probes import Probe, probe
    from embeddings.readers import read
    from embeddings.samples import Sample, from_files, join
    from embeddings.vectors import EmbeddingSet, principal_components

_HOMES = {
    "comparing": ("Similarity", "compare"),
    "objects": ("Catalogue", "read_catalogue"),
    "probes": ("Probe", "probe"),
    "readers": ("read",),
    "samples": ("Sample", "from_files", "join"),
    "vectors": ("EmbeddingSet", "principal_components"),
}
_HOME = {name: room for room, names in _HOMES.items() for name in names}
_MODULES = (
    "analysis", "comparing", "extract", "figures", "finding", "machine", "objects", "predict", "probes", "readers", "samples",
    "vectors",
)  # fmt: skip

__all__ = [
    "Catalogue",
    "EmbeddingSet",
    "Probe",
    "Sample",
    "Similarity",
    "compare",
    "from_files",
    "join",
    "principal_components",
    "probe",
    "read",
    "read_catalogue",
]

__getattr__, __dir__ = lazily(__name__, _HOME, _MODULES)
