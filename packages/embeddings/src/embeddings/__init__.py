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
    from embeddings.catalogue import Catalogue, read_catalogue
    from embeddings.probes import Probe, probe
    from embeddings.projection import principal_components
    from embeddings.readers import read
    from embeddings.sample import Sample, from_files, join
    from embeddings.sets import EmbeddingSet
    from embeddings.similarity import Similarity, compare

_HOME = {
    "Catalogue": "catalogue",
    "read_catalogue": "catalogue",
    "Probe": "probes",
    "probe": "probes",
    "principal_components": "projection",
    "read": "readers",
    "Sample": "sample",
    "from_files": "sample",
    "join": "sample",
    "EmbeddingSet": "sets",
    "Similarity": "similarity",
    "compare": "similarity",
}
_MODULES = (
    "analysis", "anchors", "catalogue", "classes", "compared", "controlled", "density", "encoded", "figures", "folds",
    "found", "halos", "identifiers", "labels", "legacy", "maps", "matching", "memory", "mlp", "modalities", "neighbours",
    "outliers", "page", "pooling", "predict", "prepared", "probes", "projection", "properties", "readers", "readout",
    "retrieval", "ridge", "rows", "sample", "search", "sets", "similarity", "subspaces", "synthetic", "synthetic_clusters",
    "threads", "together", "trees",
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
