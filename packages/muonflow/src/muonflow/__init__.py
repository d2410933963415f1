"""Muon bundles deep in ice from a primary cosmic ray, by conditional spline flows.

>>> from muonflow import physics, simulate
>>> round(float(physics.elbert_mean(1e6, 1, 1e3, 1.0)), 3)   # muons above 1 TeV from a vertical 1 PeV proton
2.692
>>> events = simulate(n_showers=2000, index=2.0, keep_empty=0.1, seed=0)   # synthetic
>>> events.condition.shape[1], bool((events.count > 0).any())
(4, True)

Names and modules are loaded on first use, so that importing the package is quick.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from muonflow.data import from_parquet, synthetic
    from muonflow.events import Events
    from muonflow.generate import BundleGenerator, Bundles
    from muonflow.model import BundleFlow
    from muonflow.showers import simulate
    from muonflow.tables import read_events, write_events
    from muonflow.task import MuonBundles

_HOME = {
    "BundleGenerator": "generate",
    "Bundles": "generate",
    "Events": "events",
    "MuonBundles": "task",
    "BundleFlow": "model",
    "from_parquet": "data",
    "read_events": "tables",
    "simulate": "showers",
    "synthetic": "data",
    "write_events": "tables",
}
_MODULES = (
    *("captions", "checks", "comparing", "context", "coordinates", "counts", "data", "events", "figures", "generate", "graph"),
    "heads",
    *("latent", "layouts", "marginal", "model", "physics", "plateau", "predict", "prepare", "profiles", "published"),
    *("rules", "scores", "showers", "streaming", "tables", "task", "trends"),
)

__all__ = [
    "BundleFlow",
    "BundleGenerator",
    "Bundles",
    "Events",
    "MuonBundles",
    "from_parquet",
    "read_events",
    "simulate",
    "synthetic",
    "write_events",
]

__getattr__, __dir__ = lazily(__name__, _HOME, _MODULES)
