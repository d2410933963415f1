"""Posteriors of a galaxy cluster's merger history by conditional invertible networks.

>>> from cinn_clusters import data
>>> clusters = data.synthetic(n_clusters=60, seed=0)
>>> clusters.about["synthetic"], clusters.test["context"].shape[1], clusters.test["target"].shape[1]
(True, 7, 6)

Names and modules are loaded on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_MODULES = ("columns", "cosmology", "data", "figures", "posteriors", "predict", "synthetic", "tables", "task")

__all__ = [
    "INPUTS",
    "TARGETS",
    "MergerPosterior",
    "from_csv",
    "from_tables",
    "merger_catalogue",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"cinn_clusters.{name}")
    if name in _HOME:
        return getattr(import_module(f"cinn_clusters.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cinn_clusters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
