"""Synthetic sky: what is in it (`population`), one row of numbers per cutout (`scene`, with `confusers` and `artefacts`), its
image (`simulator`, `noise`), fields of clusters, and arcs painted on given images (`injection`).
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.simulation.artefacts import ARTEFACTS, add_artefacts
    from lensfind.simulation.clusters import Cluster, ClusterPopulation, draw_cluster, simulate_cluster
    from lensfind.simulation.draws import Uniforms
    from lensfind.simulation.injection import inject, inject_cluster
    from lensfind.simulation.noise import observe
    from lensfind.simulation.population import KINDS, LENS, Population, draw_kinds, row_seeds
    from lensfind.simulation.scene import Scene, draw_scenes
    from lensfind.simulation.simulator import RECIPE, render, simulate

_HOMES = {
    "artefacts": ("ARTEFACTS", "add_artefacts"),
    "clusters": ("Cluster", "ClusterPopulation", "draw_cluster", "simulate_cluster"),
    "draws": ("Uniforms",),
    "injection": ("inject", "inject_cluster"),
    "noise": ("observe",),
    "population": ("KINDS", "LENS", "Population", "draw_kinds", "row_seeds"),
    "scene": ("Scene", "draw_scenes"),
    "simulator": ("RECIPE", "render", "simulate"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ARTEFACTS",
    "KINDS",
    "LENS",
    "RECIPE",
    "Cluster",
    "ClusterPopulation",
    "Population",
    "Scene",
    "Uniforms",
    "add_artefacts",
    "draw_cluster",
    "draw_kinds",
    "draw_scenes",
    "inject",
    "inject_cluster",
    "observe",
    "render",
    "row_seeds",
    "simulate",
    "simulate_cluster",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
