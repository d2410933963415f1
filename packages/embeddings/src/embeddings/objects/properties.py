"""The physical quantities that probes predict: their names in different catalogues, units, labels and colour maps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["NUISANCES", "PROPERTIES", "Property", "column_of", "property_named", "values"]

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Property:
    """A quantity, and how it is had from a catalogue's columns [N] (NaN where it is missing)."""

    name: str
    label: str
    unit: str
    columns: tuple[str, ...]
    """Names it goes by, the first that exists is read (upper and lower case alike). Several for a derived one: see `needs`."""
    colours: str = "viridis"
    derive: Callable[..., np.ndarray] | None = None
    """Function of the columns, where the quantity is not one of them as it stands."""
    needs: tuple[str, ...] = ()
    """Names of other properties that `derive` takes, in order."""
    support: tuple[float, float] = (-np.inf, np.inf)
    """What a measurement can be, in the catalogue's own unit; anything else is a code for "missing"."""

    @property
    def axis(self) -> str:
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _measured_rate(log_sfr: np.ndarray) -> np.ndarray:
    """Rates below 10^-4 Msun/yr come from fits that found no star formation: upper limits, not measurements."""
    return np.where(log_sfr < LOWEST_LOG_SFR, np.nan, log_sfr)


def _positive_log10(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, np.log10(np.where(x > 0, x, 1.0)), np.nan)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b where both are positive."""
    usable = (a > 0) & (b > 0)
    return np.where(usable, np.where(usable, a, 1.0) / np.where(usable, b, 1.0), np.nan)


LOWEST_LOG_SFR = -4.0  # log10(Msun/yr)

PROPERTIES: tuple[Property, ...] = (
    Property(
        "redshift", "redshift $z$", "", ("REDSHIFT", "Z", "Z_SPEC", "REDSHIFT_MEDIAN"), "viridis", support=(-0.02, 20.0)
    ),  # a star's may be slightly below zero
    Property(
        "log_mass", "log stellar mass", "$M_\\odot$", ("LOGM", "LOG_M", "MSTAR_LOG", "LOG_MSTAR"), "plasma", support=(1.0, 15.0)
    ),
    Property(
        "log_sfr", "log star formation rate", "$M_\\odot$/yr", ("LOGSFR", "SFR_LOG", "LOG_SFR"), "coolwarm", _measured_rate,
        support=(-98.0, 6.0),
    ),
    Property("log_ssfr", "log specific SFR", "1/yr", (), "coolwarm", lambda sfr, mass: sfr - mass, ("log_sfr", "log_mass")),
    Property("dn4000", "$D_n4000$", "", ("DN4000",), "RdYlBu_r", support=(0.1, 5.0)),
    Property("g_minus_r", "$g-r$", "mag", ("GR", "G_R", "GMINUSR", "G_MINUS_R"), "RdBu_r", support=(-20.0, 20.0)),
    Property(
        "balmer_decrement", "H$\\alpha$/H$\\beta$", "", (), "magma", _ratio, ("halpha_flux", "hbeta_flux")
    ),
    Property("log_kron_radius", "log Kron radius", "pixel", ("kron_radius",), "plasma", _positive_log10, support=(0.0, 1e5)),
    Property("concentration", "concentration", "", ("concentration",), "cividis", support=(-50.0, 50.0)),
    Property("asymmetry", "asymmetry", "", ("asymmetry",), "RdYlBu", support=(-50.0, 50.0)),
    Property("smoothness", "smoothness", "", ("smoothness",), "RdYlGn", support=(-50.0, 50.0)),
    Property("gini", "Gini coefficient", "", ("gini",), "magma", support=(-1.0, 1.0)),
    Property("sersic_index", "Sérsic index", "", ("sersic_sersic_vis_index", "sersic_index"), "coolwarm", support=(0.05, 20.0)),
    Property(
        "log_sersic_radius", "log Sérsic radius", "pixel", ("sersic_sersic_vis_radius", "sersic_radius"), "plasma",
        _positive_log10, support=(0.0, 1e5),
    ),
    Property(
        "axis_ratio", "Sérsic axis ratio", "", ("sersic_sersic_vis_axis_ratio", "axis_ratio"), "viridis", support=(0.0, 1.0)
    ),
    Property("ellipticity", "ellipticity", "", ("ellipticity",), "viridis", support=(0.0, 1.0)),
    Property("spiral_arms", "votes for spiral arms", "", ("has_spiral_arms_yes",), "viridis", support=(0.0, 1.0)),
    Property("edge_on", "votes for edge-on", "", ("disk_edge_on_yes",), "viridis", support=(0.0, 1.0)),
    Property("log_snr_b", "log S/N (blue arm)", "", ("SNR_B",), "viridis", _positive_log10, support=(0.0, 1e5)),
    Property("log_snr", "log S/N (red arm)", "", ("SNR_R",), "viridis", _positive_log10, support=(0.0, 1e5)),
    Property("log_snr_z", "log S/N (infrared arm)", "", ("SNR_Z",), "viridis", _positive_log10, support=(0.0, 1e5)),
    # of galaxy clusters in simulations
    Property(
        "log_m500", "log $M_{500}$", "$10^{10}M_\\odot/h$", ("Group_M_Crit500",), "plasma", _positive_log10, support=(0.0, 9e5)
    ),
    Property("collision_time", "cosmic age at the last collision", "Gyr", ("last_T_coll",), "viridis", support=(0.0, 14.0)),
    Property("log_collision_velocity", "log collision velocity", "km/s", ("last_V_coll",), "viridis", support=(0.0, 5.0)),
    Property(
        "log_collision_mass", "log $M_{500}$ at the collision", "$10^{14}M_\\odot$", ("last_M_Crit500_coll",), "plasma",
        _positive_log10, support=(0.0, 9e5),
    ),
    Property(
        "log_subcluster_mass", "log subcluster mass", "$10^{14}M_\\odot$", ("last_Subcluster_mass",), "plasma", _positive_log10,
        support=(0.0, 9e5),
    ),
    Property("log_mass_ratio", "log mass ratio", "", ("last_Mass_ratio",), "coolwarm", _positive_log10, support=(0.0, 1.0)),
    Property("log_pericentre", "log pericentre distance", "kpc", ("last_d_peri",), "viridis", support=(-1.0, 5.0)),
    Property("lookback_time", "lookback time of the snapshot", "Gyr", ("lookback_time_Gyr",), "cividis", support=(0.0, 14.0)),
    Property("det_quality_flag", "detection quality flag", "", ("det_quality_flag",), "viridis", support=(0.0, 9e5)),
)  # fmt: skip

NUISANCES = ("log_snr_b", "log_snr", "log_snr_z", "det_quality_flag")
"""What the observation was like, not the object: probes ask what is left of a property once these are known."""

_PARTS = (  # of other properties and classes
    Property(
        "log_sfr_or_limit", "log star formation rate", "$M_\\odot$/yr", ("LOGSFR", "SFR_LOG", "LOG_SFR"), support=(-98.0, 6.0)
    ),
    Property("halpha_flux", "H$\\alpha$ flux", "", ("HALPHA_FLUX",)),
    Property("hbeta_flux", "H$\\beta$ flux", "", ("HBETA_FLUX",)),
)
_BY_NAME = {p.name: p for p in (*PROPERTIES, *_PARTS)}


def property_named(name: str) -> Property:
    """The known property of that name, or a plain one for any column of a catalogue."""
    return _BY_NAME.get(name) or Property(name, name, "", (name,))


def column_of(wanted: Property, columns: Iterable[str]) -> str | None:
    """The catalogue's column that holds a property: the first of its names, in this case or another.

    A column `z` beside `g` and `r` is a magnitude, not a redshift.

    >>> column_of(property_named("redshift"), ["u", "g", "r", "i", "z"]) is None
    True
    """
    names = list(columns)
    lower = {name.lower(): name for name in names}
    bands = {"g", "r"} <= lower.keys()
    for name in wanted.columns:
        found = name if name in names else lower.get(name.lower())
        if found is not None and not (bands and found.lower() == "z" and wanted.name == "redshift"):
            return found
    return None


def values(wanted: Property, columns: Columns) -> np.ndarray | None:
    """[N] float64 with NaN where missing, or None where the catalogue has no such column."""
    if wanted.needs:
        parts = [values(property_named(need), columns) for need in wanted.needs]
        return None if any(part is None for part in parts) or wanted.derive is None else wanted.derive(*parts)
    name = column_of(wanted, columns)
    if name is None:
        return None
    found = np.asarray(columns[name], dtype=np.float64)
    low, high = wanted.support
    found = np.where(np.isfinite(found) & (found >= low) & (found <= high), found, np.nan)
    return wanted.derive(found) if wanted.derive is not None else found
