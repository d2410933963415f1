"""From a table of primaries to a table of bundles, in pieces, so that memory does not grow with the table."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muonflow.events import Events
from muonflow.generate import BundleGenerator
from muonflow.tables import read_conditions, write_events
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
    """One bundle for each row of `input`, to Parquet.

    Args:
        input: CSV or Parquet with E0_GeV, zenith_rad, A, depth_m, and event_id if there are names
        output: the same rows with n_mu and muons (E_GeV, r_m, phi_rad)
        apply: not needed: bundles are ragged and are generated piece by piece
        seed: the same seed and table give the same bundles
        extrapolate: allow primaries outside the training range
    """
    condition, names = read_conditions(input)
    generator = BundleGenerator(task)
    sums = {"events": len(condition), "muons": 0, "empty": 0, "drawn_anew": 0, "outside_training_range": 0}

    def pieces() -> Iterator[tuple[Events, Sequence[str]]]:
        for start in range(0, len(condition), PIECE):
            part = condition[start : start + PIECE]
            energy, zenith, mass, depth = part.unbind(1)
            bundles = generator(energy, zenith, mass, depth, derive(seed, "piece", start), extrapolate)
            sums["muons"] += len(bundles.energy)
            sums["empty"] += int((bundles.count == 0).sum())
            sums["drawn_anew"] += bundles.redrawn
            sums["outside_training_range"] += int(bundles.extrapolated.sum())
            yield bundles.events().cpu(), names[start : start + PIECE]

    trained_on = "synthetic showers" if about["synthetic"] else about["fingerprint"]
    written = {"content": "generated muon bundles", "trained_on": trained_on, "seed": seed, "synthetic": True}
    write_events(output, pieces(), written)
    return sums
