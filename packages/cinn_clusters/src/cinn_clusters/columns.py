"""The columns of the merger catalogue: what each is, its label, its unit, its physical support.

Every axis label, every table header and every file's metadata reads this one table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INPUTS", "INPUT_NAMES", "KEY", "LOOKBACK", "TARGETS", "TARGET_NAMES", "Column"]

KEY = ("HaloID", "Snapshot")


@dataclass(frozen=True)
class Column:
    """One column; `low` and `high` bound its physical support (see `tables`), in its own unit."""

    name: str
    label: str
    unit: str  # as stored; "" for a pure number
    symbol: str  # short name in metrics
    low: float = -float("inf")
    high: float = float("inf")
    logarithmic: bool = False  # drawn on a logarithmic axis

    @property
    def axis(self) -> str:
        """The axis label, its unit typeset.

        >>> Column("m", "Mass", "1e14 Msun", "M").axis
        'Mass [$10^{14}\\,M_\\odot$]'
        """
        return self.label + self.bracketed_unit

    @property
    def bracketed_unit(self) -> str:
        """The typeset unit alone, to be put behind any word; nothing for a pure number."""
        return f" [{_TYPESET.get(self.unit, self.unit)}]" if self.unit else ""


_TYPESET = {
    "1e14 Msun": r"$10^{14}\,M_\odot$",
    "log10(km/s)": r"$\log_{10}$ km/s",
    "log10(kpc)": r"$\log_{10}$ kpc",
}

INPUTS = (
    Column("bcg_SubhaloBHMass", "Black-hole mass of the central subhalo", "1e10 Msun/h", "black_hole", low=0.0),
    Column("bcg_SubhaloMass", "Bound mass of the central subhalo", "1e10 Msun/h", "subhalo", low=0.0),
    Column("bcg_StellarMass", "Stellar mass of the central galaxy", "1e10 Msun/h", "stars", low=0.0),
    Column("Group_M_Crit500", "M500c", "1e10 Msun/h", "m500", low=0.0),
    Column("Group_R_Crit500", "R500c", "ckpc/h", "r500", low=0.0),
    Column("lookback_time_Gyr", "Lookback time of the snapshot", "Gyr", "lookback"),
    Column("GroupGasMass", "Gas mass of the group", "1e10 Msun/h", "gas", low=0.0),
)
"""What is known of a cluster, in the order the flow reads it: scalars of the simulation's catalogue."""

TARGETS = (
    Column("last_T_coll", "Age at collision", "Gyr", "T", low=0.0),
    Column("last_V_coll", "Collision velocity", "log10(km/s)", "logV"),
    Column("last_M_Crit500_coll", "Main halo $M_{500c}$", "1e14 Msun", "M", low=0.0, logarithmic=True),
    Column("last_Subcluster_mass", "Subcluster mass", "1e14 Msun", "m_sub", low=0.1 * (1 - 1e-6), logarithmic=True),
    Column("last_Mass_ratio", "Mass ratio", "", "q", low=0.0, high=1.0),
    Column("last_d_peri", "Pericentre distance", "log10(kpc)", "logd"),
)
"""What is to be inferred: the last merger of the cluster. The third and fifth are not independent of the fourth."""

INPUT_NAMES = tuple(column.name for column in INPUTS)
TARGET_NAMES = tuple(column.name for column in TARGETS)
LOOKBACK = INPUT_NAMES.index("lookback_time_Gyr")
