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
    from dodo_closure.boosts import four_velocity, from_comoving, to_comoving
    from dodo_closure.box3d import Adaptive, asymptotic_state
    from dodo_closure.closure import Closure
    from dodo_closure.conserve import limit, project
    from dodo_closure.data import prepared, synthetic
    from dodo_closure.discs import Discs
    from dodo_closure.fluxes import conservation_error, flux_factor, total_density
    from dodo_closure.invariants import invariants27
    from dodo_closure.minerbo import crossing_discriminant, inverse_langevin, langevin, maximum_entropy
    from dodo_closure.model import EquivariantResidual
    from dodo_closure.qke import Box
    from dodo_closure.quadrature import CrossingAware, Lebedev, Product, Ring
    from dodo_closure.reference import kinetic_final_state
    from dodo_closure.states import draw_states
    from dodo_closure.task import ClosureTask

_HOME = {
    "Adaptive": "box3d",
    "asymptotic_state": "box3d",
    "four_velocity": "boosts",
    "from_comoving": "boosts",
    "to_comoving": "boosts",
    "Closure": "closure",
    "limit": "conserve",
    "project": "conserve",
    "prepared": "data",
    "synthetic": "data",
    "Discs": "discs",
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
    "Ring": "quadrature",
    "Box": "qke",
    "kinetic_final_state": "reference",
    "draw_states": "states",
    "ClosureTask": "task",
}
_MODULES = (
    *("boosts", "box3d", "caps", "closure", "conserve", "conversion", "data", "discs", "emu", "figures"),
    *("fluxes", "golden", "inspect", "invariants", "layout", "losses", "minerbo", "mlp", "model", "predict"),
    *("prepare", "qke", "quadrature", "readers", "reference", "rows", "sky", "states", "steerable", "tables"),
    *("task", "tiers", "truth"),
)

__all__ = [
    "Adaptive",
    "Box",
    "Closure",
    "ClosureTask",
    "CrossingAware",
    "Discs",
    "EquivariantResidual",
    "Lebedev",
    "Product",
    "Ring",
    "asymptotic_state",
    "conservation_error",
    "crossing_discriminant",
    "draw_states",
    "flux_factor",
    "four_velocity",
    "from_comoving",
    "invariants27",
    "inverse_langevin",
    "kinetic_final_state",
    "langevin",
    "limit",
    "maximum_entropy",
    "prepared",
    "project",
    "synthetic",
    "to_comoving",
    "total_density",
]

__getattr__, __dir__ = lazily(__name__, _HOME, _MODULES)
