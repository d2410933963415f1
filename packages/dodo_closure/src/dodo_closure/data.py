"""Rows to learn from: states, their final states, and what Box3D and its smooth variant say of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodo_closure.box3d import asymptotic_state
from dodo_closure.fluxes import total_density
from dodo_closure.invariants import sector_basis, sector_features
from dodo_closure.quadrature import CrossingAware
from dodo_closure.states import draw_states
from dodo_closure.truth import perturbed_final_state
from skyloom.data import Columns, Data, fingerprint, group_split
from skyloom.errors import DataError
from skyloom.run.files import write_whole
from skyloom.run.seeds import derive

__all__ = ["analytic_columns", "family_rows", "synthetic_t1"]

CARRY = ("initial", "final", "box", "smooth", "smaller", "larger", "total", "heldout", "block")


def analytic_columns(F: Tensor, rule: CrossingAware) -> dict[str, Tensor]:
    """What the model reads of four-fluxes [B, 2, 3, 4] in any unit: everything in units of the row's own N, but `total`."""
    total = total_density(F)
    unit = F / total[:, None, None, None]
    box, found = asymptotic_state(unit, rule)
    return {"initial": unit, "box": box, "smaller": found.smaller, "larger": found.larger, "total": total}


def family_rows(
    family: str, rows: int, amplitude: float, least_ratio: float, rule: CrossingAware, seed: int
) -> tuple[dict[str, Tensor], float]:
    """`rows` unstable states of a family with I_< / I_> > `least_ratio`, and the share of all states that are such."""
    found, drawn, kept = [], 0, 0
    while kept < rows:
        F = draw_states(family, max(int(1.3 * (rows - kept)), 32), derive(seed, "draw", drawn))
        columns = analytic_columns(F, rule)
        good = columns["smaller"] > least_ratio * columns["larger"]
        found.append({name: value[good] for name, value in columns.items()})
        drawn, kept = drawn + len(F), kept + int(good.sum())
        if drawn > 100 * rows:
            raise DataError(f"hardly any state of {family!r} has I_</I_> > {least_ratio}: lower data.least_ratio.")
    table = {name: torch.cat([part[name] for part in found])[:rows] for name in found[0]}
    table["smooth"] = asymptotic_state(table["initial"], rule, smooth=True)[0]
    table["final"] = perturbed_final_state(table["initial"], amplitude, derive(seed, family), rule)
    return table, kept / drawn


def synthetic_t1(
    rows: int = 2000,
    heldout_rows: int = 300,
    families: Sequence[str] = ("merger", "random"),
    heldout_family: str = "nsm_like",
    amplitude: float = 0.05,
    least_ratio: float = 0.03,
    block: int = 10,
    azimuths: int = 32,
    panel: int = 16,
    samples: int = 32,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    cache_dir: str | None = None,
) -> Data:
    """Unstable synthetic states with final states of tier T1 (`dodo_closure.truth`): no evidence about physics.

    Blocks of rows, never single rows, go to train, validation and test; one family is seen in the test split alone.

    Args:
        rows: of `families` together, in equal shares
        heldout_rows: of `heldout_family`, added to the test split
        amplitude: rms deviation of the angular distributions from maximum entropy
        least_ratio: smallest I_< / I_> of a row
        block: rows drawn together and never split
        azimuths, panel, samples: of the sphere rule
    """
    rule = CrossingAware(azimuths, panel, samples)
    settings = {
        "heldout_rows": heldout_rows,
        "families": [*families, heldout_family],
        "rows": rows // len(families),
        "amplitude": amplitude,
        "least_ratio": least_ratio,
        "rule": [azimuths, panel, samples],
        "seed": seed,
    }
    table = _cached(settings, rule, cache_dir)
    shares = table.pop("shares")
    table["block"] = torch.arange(len(table["total"])) // block
    own, heldout = (Columns(table).take(np.flatnonzero(table["heldout"].numpy() == k)) for k in (0, 1))
    train, val, test = (own.take(part) for part in group_split(own["block"].numpy(), fractions, seed))
    test = Columns({name: torch.cat([test[name], heldout[name]]) for name in test.columns})
    about: dict[str, Any] = {
        "fingerprint": fingerprint(table),
        "synthetic": True,
        "tier": "T1",
        "truth": "smooth Box3D on randomly perturbed angular distributions (synthetic)",
        "families": list(families),
        "heldout_family": heldout_family,
        "amplitude": amplitude,
        "unstable_share": dict(zip([*families, heldout_family], shares.tolist(), strict=True)),
        "rule": {"azimuths": azimuths, "panel": panel, "samples": samples},
        **training_statistics(train),
    }
    return Data(train, val, test, about, carry=CARRY, group="block")


def training_statistics(train: Columns) -> dict[str, Any]:
    """Scales of the network's inputs and outputs, over the training rows and both sectors together."""
    batch = [train[name] for name in ("initial", "box", "smaller", "larger")]
    features = sector_features(*batch).flatten(0, 1)
    basis = sector_basis(*batch[:2]).flatten(0, 1)
    residual = train["final"] - train["box"]
    rms = float((residual**2).mean().sqrt())
    if not 1e-4 < rms < 0.1:
        raise DataError(f"the residual final - Box3D has an rms of {rms:.2g} N where 1e-4 to 0.1 is expected: check the units.")
    return {
        "features": {
            "mean": features.mean(dim=0).tolist(),
            "scale": features.std(dim=0, correction=0).clamp(min=1e-6).tolist(),
        },
        "basis_rms": (basis**2).mean(dim=(0, 2)).sqrt().clamp(min=1e-6).tolist(),
        "residual_rms": rms,
    }


def _cached(settings: dict[str, Any], rule: CrossingAware, cache_dir: str | None) -> dict[str, Tensor]:
    """The rows of all families, kept in a file named for the settings and for the code that made them."""
    if cache_dir is None:
        return _generate(settings, rule)
    folder = Path(__file__).parent
    sources = ("minerbo", "quadrature", "conserve", "box3d", "states", "truth", "data")
    code = b"".join((folder / f"{name}.py").read_bytes() for name in sources)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + code).hexdigest()[:16]
    path = Path(cache_dir) / "dodo_closure" / f"synthetic-t1-{key}.npz"
    if not path.is_file():
        table = _generate(settings, rule)
        with write_whole(path) as temporary:
            np.savez(temporary, allow_pickle=False, **{name: value.numpy() for name, value in table.items()})
    with np.load(path) as saved:
        return {name: torch.as_tensor(saved[name]) for name in saved.files}


def _generate(settings: dict[str, Any], rule: CrossingAware) -> dict[str, Tensor]:
    tables, shares = [], []
    *families, heldout = settings["families"]
    for family in (*families, heldout):
        rows = settings["heldout_rows"] if family == heldout else settings["rows"]
        options = (settings["amplitude"], settings["least_ratio"], rule, settings["seed"])
        table, share = family_rows(family, rows, *options)
        tables.append({**table, "heldout": torch.full((rows,), int(family == heldout))})
        shares.append(share)
    joined = {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
    return {**joined, "shares": torch.tensor(shares)}
