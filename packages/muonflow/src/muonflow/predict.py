"""From a table of primaries to a table of bundles, in pieces, so that memory does not grow with the table."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muonflow.coordinates import ceilings
from muonflow.events import Events
from muonflow.generate import BundleGenerator
from muonflow.tables import stream_conditions, write_events
from skyloom.run.seeds import derive

__all__ = ["predict"]

PIECE = 16_384  # events generated at once; part of what the seed means, so it is not to be chosen


def predict(
    task: Any,
    about: dict[str, Any],
    input: Path,
    output: Path,
    apply: Callable[[Any], dict[str, np.ndarray]],
    seed: int = 0,
    extrapolate: bool = False,
) -> dict[str, Any]:
    """One bundle for each row of `input`, to Parquet; tables of any length pass through in pieces.

    No muon has more energy than a nucleon of its primary, by the coordinates of the flow (`above_ceiling_rate` is
    counted all the same); bundles with more energy than their primary are drawn anew, and
    `drawn_anew_rate` is their share among those with muons.

    Args:
        input: CSV or Parquet with E0_GeV, zenith_rad, A, depth_m, and event_id if there are names
        output: the same rows with n_mu and muons (E_GeV, r_m, phi_rad)
        apply: not needed: bundles are ragged and are generated piece by piece
        seed: the same seed and table give the same bundles
        extrapolate: allow primaries outside the training range
    """
    generator = BundleGenerator(task)
    sums = dict.fromkeys(("events", "muons", "empty", "drawn_anew", "outside_training_range"), 0)

    above = 0

    def pieces() -> Iterator[tuple[Events, Sequence[str]]]:
        nonlocal above
        for part, names in stream_conditions(input, PIECE):
            energy, zenith, mass, depth = part.unbind(1)
            bundles = generator(energy, zenith, mass, depth, derive(seed, "piece", sums["events"]), extrapolate)
            sums["events"] += len(part)
            above += int((bundles.energy >= ceilings(bundles.condition)[bundles.owner]).sum())
            sums["muons"] += len(bundles.energy)
            sums["empty"] += int((bundles.count == 0).sum())
            sums["drawn_anew"] += bundles.redrawn
            sums["outside_training_range"] += int(bundles.extrapolated.sum())
            yield bundles.events().cpu(), names

    trained_on = "synthetic showers" if about["synthetic"] else about["fingerprint"]
    written = {"content": "generated muon bundles", "trained_on": trained_on, "seed": seed, "synthetic": True}
    write_events(output, pieces(), written)
    filled = max(sums["events"] - sums["empty"], 1)
    rates = {"drawn_anew_rate": sums["drawn_anew"] / filled, "above_ceiling_rate": above / max(sums["muons"], 1)}
    return {**sums, **rates}
