"""Posteriors of a galaxy cluster's merger history by conditional invertible networks.

>>> from cinn_clusters import data
>>> clusters = data.synthetic(n_clusters=60, seed=0)
>>> clusters.about["synthetic"], clusters.test["context"].shape[1], clusters.test["target"].shape[1]
(True, 7, 6)

Names and modules are loaded on first use, so that importing the package is quick.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from cinn_clusters.columns import INPUTS, TARGETS
    from cinn_clusters.data import from_csv, from_tables
    from cinn_clusters.synthetic import merger_catalogue
    from cinn_clusters.task import MergerPosterior

_HOME = {
    "INPUTS": "columns",
    "TARGETS": "columns",
    "from_csv": "data",
    "from_tables": "data",
    "merger_catalogue": "synthetic",
    "MergerPosterior": "task",
}
_MODULES = (
    "beside",
    "columns",
    "combined",
    "compare",
    "cosmology",
    "data",
    "embeddings",
    "encoder",
    "ensemble",
    "figures",
    "map_figures",
    "maps",
    "optimum",
    "posteriors",
    "predict",
    "readout",
    "rings",
    "scores",
    "sensitivity",
    "synthetic",
    "tables",
    "task",
    "truth",
)

__all__ = [
    "INPUTS",
    "TARGETS",
    "MergerPosterior",
    "from_csv",
    "from_tables",
    "merger_catalogue",
]

__getattr__, __dir__ = lazily(__name__, _HOME, _MODULES)
