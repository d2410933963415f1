"""What is in the sky: how lens galaxies, the sources behind them and what is mistaken for lenses are distributed.

Lenses and non-lenses are drawn from the same distributions: of the galaxy in the middle, of its neighbours, of the light of the
source, of seeing and noise. Only what bends light, or only looks as if it did, differs.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import ConfigError, nearest
from skyloom.run.seeds import derive, numpy_generator

__all__ = ["KINDS", "LENS", "Population", "colour_magnitudes", "draw_kinds", "row_seeds"]

KINDS = ("lens", "elliptical", "companions", "merger", "spiral", "ring", "projected", "edge_on", "artefact")
LENS = 0
_NEGATIVES = {
    "elliptical": 0.1, "companions": 0.2, "merger": 0.1, "spiral": 0.15, "ring": 0.15, "projected": 0.15, "edge_on": 0.1,
    "artefact": 0.05,
}  # fmt: skip

# Colours of an early type at z = 0.4 and of a star-forming galaxy at z = 1 to 2 against wavelength: differences to the i
# band (755 nm), straight lines between the filters' wavelengths, level beyond H. Scatter is added per galaxy.
_WAVELENGTHS = (370.0, 485.0, 625.0, 755.0, 870.0, 970.0, 1250.0, 1650.0)  # nm: u, g, r, i, z, y, J, H
RED = (3.9, 2.15, 0.65, 0.0, -0.3, -0.45, -0.75, -1.1)  # mag
BLUE = (0.9, 0.5, 0.2, 0.0, -0.1, -0.15, -0.3, -0.5)  # mag
STAR = (2.6, 1.3, 0.4, 0.0, -0.15, -0.25, -0.2, 0.0)  # mag, a K dwarf


@dataclass(frozen=True)
class Population:
    """Ranges are uniform unless a comment says otherwise; angles on the sky in arcsec, magnitudes AB in the i band."""

    einstein_radius: tuple[float, float] = (0.8, 2.0)  # arcsec
    axis_ratio: tuple[float, float] = (0.5, 1.0)  # of the lens, mass and light alike
    shear: tuple[float, float] = (0.0, 0.1)
    slope: tuple[float, float] = (2.0, 2.0)  # of the density r^-slope; 2 is isothermal, and faster
    source_offset: float = 0.8  # largest |beta| / theta_E of a lens, uniform over the disc
    lens_magnitude: float = 20.0  # at theta_E = 1 arcsec; follows theta_E as L ~ sigma^4 ~ theta_E^2 (Faber and Jackson 1976)
    lens_magnitude_scatter: float = 0.6  # mag, half range
    lens_radius: tuple[float, float] = (0.5, 1.2)  # half-light radius, arcsec
    lens_index: tuple[float, float] = (3.0, 5.0)  # Sersic
    envelope: tuple[float, float] = (0.0, 0.3)  # share of the lens light in an exponential envelope, 2.2 times as wide
    source_magnitude: tuple[float, float] = (22.0, 24.5)  # before magnification; density rises linearly to the faint end
    faint_sources: float = 0.1  # share of sources beyond that end, so that some arcs drown in the noise, as in a survey
    faint_reach: float = 3.5  # mag, how far beyond, uniform
    source_radius: tuple[float, float] = (0.1, 0.5)  # half-light radius, arcsec
    source_index: tuple[float, float] = (0.5, 2.0)  # Sersic
    clumpy: float = 0.3  # share of sources with star-forming clumps
    clump_light: tuple[float, float] = (0.1, 0.4)  # share of a clumpy source's light that is in clumps
    field_galaxies: float = 30.0  # per square arcmin, of 20 < i < 25, N ~ 10^(0.3 i)
    field_stars: float = 3.0  # per square arcmin, of 19 < i < 24
    artefacts: float = 0.02  # share of all cutouts with a cosmic ray, trail, bad column, bleeding star or ghost
    negatives: dict[str, float] = field(default_factory=lambda: dict(_NEGATIVES))  # shares among the non-lenses
    stamps: str | None = None  # .npy or FITS cube [K, N, N] of source images to be lensed instead of Sersic profiles
    stamp_size: float = 2.0  # arcsec, side of a stamp on the sky

    def __post_init__(self) -> None:
        for name in self.negatives:
            if name not in KINDS[1:]:
                raise ConfigError(f"there is no kind of non-lens {name!r}.{nearest(name, KINDS[1:])}")
        if not self.negatives or min(self.negatives.values()) < 0 or sum(self.negatives.values()) <= 0:
            raise ConfigError(f"shares of non-lenses must be positive, not {self.negatives}.")
        for name in ("einstein_radius", "axis_ratio", "lens_radius", "source_radius", "lens_index", "source_index", "slope"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"population.{name} must be 0 < low <= high, not {[low, high]}.")
        if not 0 <= self.faint_sources <= 1 or self.faint_reach < 0:
            raise ConfigError(
                f"population.faint_sources is a share, not {self.faint_sources}, faint_reach >= 0, not {self.faint_reach}."
            )
        if self.axis_ratio[1] > 1 or self.axis_ratio[0] < 0.2:
            raise ConfigError(f"population.axis_ratio lies between 0.2 and 1, not at {list(self.axis_ratio)}.")
        if not 1 < self.slope[0] <= self.slope[1] < 3:
            raise ConfigError(f"population.slope lies between 1 and 3, not at {list(self.slope)}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def row_seeds(seed: int, split: str, part: str, count: int) -> Tensor:
    """One 63-bit seed per row; a row keeps its seed whatever the number of rows."""
    return torch.tensor([derive(seed, split, part, row) for row in range(count)], dtype=torch.int64)


def draw_kinds(seed: int, split: str, part: str, count: int, lens_share: float, population: Population) -> Tensor:
    """[count] indices into KINDS: each row is a lens with probability `lens_share`, else a non-lens of the given shares."""
    u = numpy_generator(seed, split, part, "kinds").random((count, 2))
    names = list(population.negatives)
    edges = np.cumsum([population.negatives[name] for name in names])
    which = np.minimum(np.searchsorted(edges, u[:, 1] * edges[-1], side="right"), len(names) - 1)
    negative = np.array([KINDS.index(name) for name in names])[which]
    return torch.from_numpy(np.where(u[:, 0] < lens_share, LENS, negative))


def colour_magnitudes(i_magnitude: Tensor, colour: tuple[float, ...], tilt: Tensor, wavelengths: Tensor) -> Tensor:
    """[B, bands] from the i magnitude [B], a colour curve, and a tilt [B] in mag per 100 nm (level beyond 1000 nm)."""
    curve = torch.from_numpy(np.interp(wavelengths.cpu().numpy(), _WAVELENGTHS, colour)).to(i_magnitude)
    blueward = ((755.0 - wavelengths.clamp(max=1000.0)) / 100).to(i_magnitude)
    return i_magnitude[:, None] + curve + tilt[:, None] * blueward
