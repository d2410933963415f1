"""What is measured of a cutout by hand: its colours, and what an eye would say of its shape."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from lensfind.features.appearance import features
    from lensfind.features.colours import ARC_COLOURS, arc_colours, blue_excess, colour_chi2, sector_fluxes

_HOMES = {
    "appearance": ("features",),
    "colours": ("ARC_COLOURS", "arc_colours", "blue_excess", "colour_chi2", "sector_fluxes"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ARC_COLOURS",
    "arc_colours",
    "blue_excess",
    "colour_chi2",
    "features",
    "sector_fluxes",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
