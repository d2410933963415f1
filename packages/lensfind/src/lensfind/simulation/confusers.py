"""What is mistaken for a lens: the light that non-lenses have where lenses have arcs.

All of it has the colours, sizes and indices of the sources, and the flux that the source would have if it were magnified as
sources are, so that only its shape tells.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lensfind.simulation.draws import Uniforms
from lensfind.simulation.population import KINDS, Population
from lensfind.simulation.scene import Galaxies, Scene

__all__ = ["Shape", "extra_galaxies", "extra_shapes"]


@dataclass
class Shape:
    """Arms, rings or tails of some rows: parameters [M], fluxes [M, bands]."""

    kind: str
    row: Tensor
    x: Tensor
    y: Tensor
    parameters: dict[str, Tensor]
    flux: Tensor


def _of(scene: Scene, name: str) -> Tensor:
    return torch.nonzero(scene.kind == KINDS.index(name))[:, 0]


def _boost(u: Uniforms, population: Population) -> Tensor:
    """A factor distributed as the magnifications of lenses: 2 theta_E/beta of a sphere, softened as by extended sources."""
    beta = population.source_offset * torch.sqrt(u("boost offset"))
    return (2 / torch.sqrt(beta**2 + 0.25**2)).float()


def extra_galaxies(scene: Scene, population: Population, half: float) -> list[Galaxies]:
    """Companions, mergers, unlensed projections and edge-on discs, as Sersic profiles."""
    parts = [
        _companions(scene, population), _mergers(scene), _projected(scene, population, half), _edge_on(scene, population),
    ]  # fmt: skip
    return [part for part in parts if len(part.row)]


def _companions(scene: Scene, population: Population) -> Galaxies:
    """One to three galaxies at the radii and with the flux of lensed images, placed and turned at random."""
    rows = _of(scene, "companions")
    u = Uniforms(scene.seed[rows])
    count = 1 + torch.floor(u("companions") * 3)
    slot = torch.arange(3, device=rows.device)
    which, k = torch.nonzero(slot < count[:, None], as_tuple=True)

    def pick(name: str, low: float, high: float) -> Tensor:
        return (low + (high - low) * u(f"companion {name}", 3)[which, k]).float()

    row = rows[which]
    share = (0.4 + u("companion light", 3)) * (slot < count[:, None])
    share = (share / share.sum(dim=1, keepdim=True))[which, k].float() * _boost(u, population)[which]
    radius, phi = scene.theta_e[row] * pick("radius", 0.6, 1.8), pick("place", 0, 2 * math.pi)
    return Galaxies(
        row, scene.x[row] + radius * torch.cos(phi), scene.y[row] + radius * torch.sin(phi),
        scene.source_radius[row] * pick("size", 0.8, 1.6), scene.source_index[row], pick("q", 0.3, 1.0),
        pick("angle", 0, math.pi), scene.source_flux[row] * share[:, None],
    )  # fmt: skip


def _mergers(scene: Scene) -> Galaxies:
    """A second early type of the colour of the first, a tenth to nine tenths as bright, 1 to 2.5 theta_E away."""
    rows = _of(scene, "merger")
    u = Uniforms(scene.seed[rows])

    def pick(name: str, low: float, high: float) -> Tensor:
        return u.between(f"merger {name}", low, high).float()

    radius, phi = scene.theta_e[rows] * pick("radius", 1.0, 2.5), pick("place", 0, 2 * math.pi)
    return Galaxies(
        rows, scene.x[rows] + radius * torch.cos(phi), scene.y[rows] + radius * torch.sin(phi), pick("size", 0.3, 1.0),
        pick("index", 2.0, 4.0), pick("q", 0.5, 1.0), pick("angle", 0, math.pi),
        scene.lens_flux[rows] * pick("light", 0.1, 0.9)[:, None],
    )  # fmt: skip


def _projected(scene: Scene, population: Population, half: float) -> Galaxies:
    """The source, not lensed, seen 2 to 3 theta_E from the galaxy (nearer the edge than that it would be cut off).

    A source that were as faint as those of lenses would hardly be seen: half of them are brighter by the usual magnification.
    """
    rows = _of(scene, "projected")
    u = Uniforms(scene.seed[rows])
    offset = torch.minimum(
        scene.theta_e[rows] * u.between("projected", 2, 3).float(), torch.full_like(scene.x[rows], 0.85 * half)
    )
    boost = torch.where(u("projected bright") < 0.5, torch.ones_like(offset), _boost(u, population))
    phi = scene.offset_angle[rows]
    return Galaxies(
        rows, scene.x[rows] + offset * torch.cos(phi), scene.y[rows] + offset * torch.sin(phi), scene.source_radius[rows],
        scene.source_index[rows], scene.source_q[rows], scene.source_angle[rows], scene.source_flux[rows] * boost[:, None],
    )  # fmt: skip


def _edge_on(scene: Scene, population: Population) -> Galaxies:
    """A thin blue disc at about theta_E, tangential within half a radian: what looks most like a single arc."""
    rows = _of(scene, "edge_on")
    u = Uniforms(scene.seed[rows])

    def pick(name: str, low: float, high: float) -> Tensor:
        return u.between(f"edge-on {name}", low, high).float()

    radius, phi = scene.theta_e[rows] * pick("radius", 0.9, 1.8), pick("place", 0, 2 * math.pi)
    turn = phi + math.pi / 2 + pick("tilt", -0.5, 0.5)
    return Galaxies(
        rows, scene.x[rows] + radius * torch.cos(phi), scene.y[rows] + radius * torch.sin(phi),
        scene.source_radius[rows] * pick("size", 1.0, 2.0), torch.ones_like(radius), pick("q", 0.12, 0.25), turn,
        scene.source_flux[rows] * _boost(u, population)[:, None],
    )  # fmt: skip


def extra_shapes(scene: Scene, population: Population) -> list[Shape]:
    """Spiral arms, rings and tidal tails."""
    shapes = [_spirals(scene, population), _rings(scene, population), _tails(scene)]
    return [shape for shape in shapes if len(shape.row)]


def _spirals(scene: Scene, population: Population) -> Shape:
    """Blue arms about the galaxy as a bulge."""
    rows = _of(scene, "spiral")
    u = Uniforms(scene.seed[rows])
    parameters = {
        "scale": scene.theta_e[rows] * u.between("arm scale", 0.5, 0.8).float(),
        "pitch": u.between("pitch", math.radians(12), math.radians(30)).float(),
        "q": u.between("disc q", 0.4, 1.0).float(),
        "angle": scene.angle[rows],
        "phase": u.between("phase", 0, 2 * math.pi).float(),
    }
    flux = scene.source_flux[rows] * (1.5 * _boost(u, population))[:, None]
    return Shape("spiral", rows, scene.x[rows], scene.y[rows], parameters, flux)


def _rings(scene: Scene, population: Population) -> Shape:
    """A whole blue ring with the radius of an Einstein ring, somewhat lopsided, as Hoag's object and collisional rings are."""
    rows = _of(scene, "ring")
    u = Uniforms(scene.seed[rows])
    parameters = {
        "radius": scene.theta_e[rows],
        "width": u.between("ring width", 0.1, 0.3).float(),
        "q": u.between("ring q", 0.6, 1.0).float(),
        "angle": u.between("ring angle", 0, 2 * math.pi).float(),
        "lopsided": u.between("lopsided", 0, 0.5).float(),
    }
    return Shape(
        "ring", rows, scene.x[rows], scene.y[rows], parameters, scene.source_flux[rows] * _boost(u, population)[:, None]
    )


def _tails(scene: Scene) -> Shape:
    """The tidal tail of half of the mergers, of the colour of the galaxy, with 5 to 15 per cent of its light."""
    rows = _of(scene, "merger")
    rows = rows[Uniforms(scene.seed[rows])("tail") < 0.5]
    u = Uniforms(scene.seed[rows])
    parameters = {
        "radius": scene.theta_e[rows] * u.between("tail radius", 0.8, 1.4).float(),
        "width": u.between("tail width", 0.12, 0.3).float(),
        "angle": u.between("tail angle", 0, 2 * math.pi).float(),
        "length": u.between("tail length", 0.8, 2.5).float(),
    }
    flux = scene.lens_flux[rows] * u.between("tail light", 0.05, 0.15).float()[:, None]
    return Shape("tail", rows, scene.x[rows], scene.y[rows], parameters, flux)
