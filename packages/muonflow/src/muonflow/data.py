"""Bundles as three splits by shower: made on the spot (synthetic), or read from Parquet."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muonflow import showers
from muonflow.coordinates import FEATURES, derived_features, to_flow
from muonflow.events import CONDITIONS, MUONS, Events
from muonflow.marginal import fit_marginal
from muonflow.tables import read_events
from skyloom.data import Data, Standardise, fingerprint, group_split
from skyloom.errors import DataError
from skyloom.flows import fit, hill
from skyloom.run.seeds import derive

CARRIED = ("condition", "count", "shower", "kept")
FITTED = 400_000  # muons that data transforms are fitted on, at most

__all__ = ["check", "check_conditions", "from_parquet", "split", "synthetic"]


def synthetic(
    n_showers: int = 400_000,
    depths: int = 3,
    index: float = 2.6,
    keep_empty: float = 0.01,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    lateral: str = "elbert",
    rules: None = None,
) -> Data:
    """Synthetic showers with a known exact density (`muonflow.showers`), split by shower.

    Args:
        n_showers: primaries; about 1.3% (index 2.6) or 3.8% (2.0) of their visits to a depth hold a muon
        depths: at which each shower is seen
        index: of the primaries' spectrum E^-index
        keep_empty: share of the events without muons that is kept where none is expected; more where they are
        lateral: "elbert", or "heavy": power-law tails of ln r, which no physics has and a Gaussian base cannot follow
        rules: what `muonflow.rules.check` said of the model before any data was made: nothing
    """
    events = showers.simulate(n_showers, depths, index, keep_empty, seed, lateral)
    more = {"synthetic": True, "oracle": lateral}
    return split(events, more, fractions, seed)


def from_parquet(path: str, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0, rules: None = None) -> Data:
    """Events of a Parquet file in the schema of `muonflow.tables`, split by the shower part of `event_id`.

    Args:
        path: the file; events without muons belong in it. Where its writer kept only some of them, the column `kept` says
            which share, for every event
        rules: as for `synthetic`
    """
    events, about = read_events(Path(path))
    if events.muons is None:
        raise DataError(f"{path} has no column muons: there is nothing to learn from.")
    more = {"synthetic": bool(about.get("synthetic", False)), "oracle": about.get("oracle")}
    return split(events, more, fractions, seed)


def split(events: Events, more: dict[str, Any], fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0) -> Data:
    """Train, validation and test by shower, with scalers and marginal density of the training split in `about`."""
    check(events)
    assert events.muons is not None
    train, val, test = (events.take(rows) for rows in group_split(events.columns["shower"].numpy(), fractions, seed))
    about = {
        **more,
        **statistics(train, seed),
        "conditions": list(CONDITIONS),
        "muons": list(MUONS),
        "fingerprint": fingerprint(
            {"condition": events.condition, "count": events.count, "muons": events.muons, **events.columns}
        ),
    }
    return Data(train, val, test, about, carry=CARRIED, group="shower")


def statistics(train: Events, seed: int = 0) -> dict[str, Any]:
    """Scalers of features and coordinates, marginal density and support, of the events that hold muons."""
    filled = train.where(train.count > 0)
    where, owner = filled.rows_of_muons(torch.arange(len(filled)))
    if filled.muons is None or len(owner) < 100:
        raise DataError(f"the training split holds {len(owner)} muons, at least 100 are needed: give more showers.")
    muons, condition = filled.muons[where], filled.condition.double()
    y, _ = to_flow(muons.double(), (condition[:, 0] / condition[:, 2])[owner])
    return {
        "features": Standardise.fit(derived_features(condition), FEATURES).to_json(),
        "targets": {name: fit(y[:FITTED], name).to_json() for name in ("standardise", "quantile", "yeo_johnson")},
        "tail_index": hill(y, 0.05).tolist(),
        "marginal": fit_marginal(muons, seed=derive(seed, "marginal")),
        "support": {
            "low": train.condition.min(0).values.tolist(),
            "high": train.condition.max(0).values.tolist(),
            "mass_numbers": train.condition[:, 2].unique().tolist(),
        },
    }


def check(events: Events) -> None:
    """Refuse what no bundle can be, naming the event."""
    muons, condition = events.muons, events.condition
    assert muons is not None
    check_conditions(condition)
    owner = torch.repeat_interleave(torch.arange(len(events)), events.count)
    _refuse("a muon's energy is not positive", ~(muons[:, 0] > 0), owner)
    _refuse("a muon's distance from the axis is not positive", ~(muons[:, 1] > 0), owner)
    nucleon = (condition[:, 0] / condition[:, 2])[owner]
    _refuse("a muon has more energy than a nucleon of its primary", muons[:, 0] >= nucleon, owner)


def check_conditions(condition: Tensor) -> None:
    """Refuse primaries that cannot be (GeV, rad, A, m), naming the event."""
    energy, zenith, mass, depth = condition.unbind(1)
    event = torch.arange(len(condition))
    _refuse("the primary energy is not positive", ~((energy > 0) & torch.isfinite(energy)), event)
    _refuse("the zenith is outside [0, pi/2] rad", ~((zenith >= 0) & (zenith <= torch.pi / 2)), event)
    _refuse("the mass number is not a whole number from 1", ~((mass >= 1) & (mass == mass.round())), event)
    _refuse("the depth is not below the firn (200 m)", ~((depth > 200) & torch.isfinite(depth)), event)


def _refuse(complaint: str, bad: Tensor, event: Tensor) -> None:
    rows = event[torch.nonzero(bad).flatten().cpu()]
    if len(rows):
        raise DataError(f"event {int(rows[0])}: {complaint} ({len(rows)} such in all). Drop or mend those rows first.")
