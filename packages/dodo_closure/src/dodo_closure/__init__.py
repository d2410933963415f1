"""What becomes of a cell's neutrinos after the fast flavor instability: Box3D, and a learned residual on it.

>>> from dodo_closure import asymptotic_state, conservation_error, draw_states
>>> before = draw_states("merger", 3, seed=0)        # synthetic four-fluxes [3, 2, 3, 4] in 1/cm^3
>>> after, found = asymptotic_state(before)
>>> trace, lepton = conservation_error(before, after)
>>> bool(trace.max() < 1e-12), bool(lepton.max() < 1e-12)
(True, True)

Names and modules are loaded on first use, so that importing the package is quick.
"""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from dodo_closure.box3d import asymptotic_state
    from dodo_closure.conserve import limit, project
    from dodo_closure.data import synthetic_t1
    from dodo_closure.fluxes import conservation_error, flux_factor, total_density
    from dodo_closure.invariants import invariants27
    from dodo_closure.minerbo import crossing_discriminant, inverse_langevin, langevin, maximum_entropy
    from dodo_closure.model import EquivariantResidual
    from dodo_closure.quadrature import CrossingAware, Lebedev, Product
    from dodo_closure.states import draw_states
    from dodo_closure.task import Closure

_HOME = {
    "asymptotic_state": "box3d",
    "limit": "conserve",
    "project": "conserve",
    "synthetic_t1": "data",
    "conservation_error": "fluxes",
    "flux_factor": "fluxes",
    "total_density": "fluxes",
    "invariants27": "invariants",
    "crossing_discriminant": "minerbo",
    "inverse_langevin": "minerbo",
    "langevin": "minerbo",
    "maximum_entropy": "minerbo",
    "EquivariantResidual": "model",
    "CrossingAware": "quadrature",
    "Lebedev": "quadrature",
    "Product": "quadrature",
    "draw_states": "states",
    "Closure": "task",
}
_MODULES = (
    *("box3d", "conserve", "data", "figures", "fluxes", "invariants", "minerbo", "model"),
    *("predict", "quadrature", "states", "task", "truth"),
)

__all__ = [
    "Closure",
    "CrossingAware",
    "EquivariantResidual",
    "Lebedev",
    "Product",
    "asymptotic_state",
    "conservation_error",
    "crossing_discriminant",
    "draw_states",
    "flux_factor",
    "invariants27",
    "inverse_langevin",
    "langevin",
    "limit",
    "maximum_entropy",
    "project",
    "synthetic_t1",
    "total_density",
]

__getattr__, __dir__ = lazily(__name__, _HOME, _MODULES)
