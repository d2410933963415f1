"""Rows to learn from: a prepared table, or synthetic states prepared on first use and kept."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodo_closure.box3d import Integrator, asymptotic_state
from dodo_closure.fluxes import total_density
from dodo_closure.invariants import sector_basis, sector_features
from dodo_closure.tables import read_table
from skyloom.data import Columns, Data, fingerprint, group_split
from skyloom.errors import DataError, nearest

__all__ = ["analytic_columns", "prepared", "synthetic", "training_statistics"]

CARRY = ("initial", "final", "box", "smooth", "smaller", "larger", "total", "set", "block")
SETS = ("", "heldout", "t3")  # of a test row: families trained on, the family left out, three-flavor truth


def analytic_columns(F: Tensor, rule: Integrator | None = None) -> dict[str, Tensor]:
    """What the model reads of four-fluxes [B, 2, 3, 4] in any unit: everything in units of the row's own N, but `total`."""
    total = total_density(F)
    unit = F / total[:, None, None, None]
    box, found = asymptotic_state(unit, rule)
    return {"initial": unit, "box": box, "smaller": found.smaller, "larger": found.larger, "total": total}


def prepared(
    path: str,
    heldout: str | None = None,
    three_flavor: str | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    max_rows: int | None = None,
) -> Data:
    """The table that `make prepare` wrote. Groups of rows, never single rows, go to train, validation and test.

    Args:
        heldout: sim_id seen in the test split alone; null takes the one that a synthetic table names
        three_flavor: another table (tier t3), added to the test split and scored apart
        fractions: of groups: training, validation, test
        max_rows: take the first of the table only
    """
    names = ("F_init", "F_true", "F_box", "F_smooth", "ntot", "box_diag", "split_group", "sim_id")
    columns, known = read_table(path, names)
    if max_rows is not None:
        columns = {name: value[:max_rows] for name, value in columns.items()}
    heldout = heldout or known["heldout_family"]
    sims = sorted(set(columns["sim_id"].tolist()))
    if heldout is not None and heldout not in sims:
        raise DataError(f"{path}: no row has sim_id {heldout!r}.{nearest(heldout, sims)}")
    table = _unit_rows(columns, path)
    table["set"] = torch.as_tensor((columns["sim_id"] == heldout).astype(np.int64))
    own, other = (Columns(table).take(np.flatnonzero(table["set"].numpy() == k)) for k in (0, 1))
    if len(own) == 0:
        raise DataError(f"{path}: every row has sim_id {heldout!r}, which is held out: nothing is left to train on.")
    train, val, test = (own.take(part) for part in group_split(own["block"].numpy(), fractions, seed))
    tested = [test, other]
    if three_flavor is not None:
        extra, more = read_table(three_flavor, names)
        third = _unit_rows(extra, three_flavor)
        third["block"] = third["block"] + (1 << 48)
        third["set"] = torch.full_like(third["block"], 2)
        tested.append(Columns(third))
        if more["synthetic"] != known["synthetic"]:
            raise DataError(f"{three_flavor} and {path} are not both synthetic.")
    joined = Columns({name: torch.cat([part[name] for part in tested]) for name in test.columns})
    about: dict[str, Any] = {
        "fingerprint": fingerprint({**table, **{f"test {k}": v for k, v in joined.columns.items()}}),
        "synthetic": bool(known["synthetic"]),
        "tier": known["tier"],
        "truth": _TRUTH[known["tier"]],
        "families": [sim for sim in sims if sim != heldout],
        "heldout_family": heldout,
        "quadrature": known["settings"]["quadrature"],
        "variant": known["settings"]["variant"],
        **training_statistics(train),
    }
    return Data(train, val, joined, about, carry=CARRY, group="block")


_TRUTH = {
    "t0": "the initial state (synthetic)",
    "t1": "smooth Box3D on randomly perturbed angular distributions (synthetic)",
    "t2": "two-flavor quantum kinetics in one dimension, mapped to three flavors (synthetic)",
    "t3": "three-flavor quantum kinetics in one dimension (synthetic)",
    "box": "Box3D itself (synthetic)",
    "files": "simulations read from files",
}


def synthetic(
    tier: str = "t2",
    rows: int = 1200,
    heldout_rows: int = 200,
    three_flavor_rows: int = 0,
    families: Sequence[str] = ("merger", "random"),
    heldout_family: str = "nsm_like",
    least_ratio: float = 0.03,
    amplitude: float = 0.05,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    processes: int | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
) -> Data:
    """Unstable synthetic states with final states of a tier (see `dodo_closure.tiers`), made on first use.

    Args:
        tier: t1 (analytic, seconds), t2 (two-flavor kinetics, a fifth of a second a row) or t3 (three-flavor, 2 s a row)
        rows: of `families` together, in equal shares
        heldout_rows: of `heldout_family`, in the test split alone
        three_flavor_rows: of `families`, with a t3 truth, in the test split alone
        least_ratio: smallest I_< / I_> of a row
        amplitude: of t1: rms deviation of angular distributions from maximum entropy
        processes: that make rows; null is one per core
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(cache_dir or scratch) / "dodo_closure"
        options: dict[str, Any] = {"least_ratio": least_ratio, "amplitude": amplitude, "families": list(families)}
        options |= {"processes": processes, "quiet": cache_dir is None}
        own = {"tier": tier, "n": rows, "heldout_family": heldout_family, "heldout_n": heldout_rows, "seed": seed}
        path = _kept(folder, {**options, **own})
        third = None
        if three_flavor_rows:
            own = {"tier": "t3", "n": three_flavor_rows, "heldout_family": None, "heldout_n": 0, "seed": seed + 1}
            third = _kept(folder, {**options, **own})
        return prepared(str(path), heldout_family, None if third is None else str(third), fractions, seed)


def _kept(folder: Path, options: dict[str, Any]) -> Path:
    """A table named for its settings and for the code that makes it."""
    from dodo_closure.prepare import prepare

    sources = (
        *("box3d", "caps", "conserve", "conversion", "discs", "fluxes", "invariants", "minerbo", "prepare"),
        *("qke", "quadrature", "reference", "rows", "states", "tables", "tiers", "truth"),
    )
    code = b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in sources)
    settings = {k: v for k, v in options.items() if k not in ("processes", "quiet")}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + code).hexdigest()[:16]
    path = folder / f"synthetic-{options['tier']}-{key}.h5"
    if not path.is_file():
        prepare(source="synthetic", output=str(path), **options)
    return path


def _unit_rows(columns: dict[str, np.ndarray], path: str) -> dict[str, Tensor]:
    """Columns of a table in units of the rows' own N."""
    total = torch.as_tensor(columns["ntot"])
    own = ("init", "true", "box", "smooth")
    four = {name: torch.as_tensor(columns[f"F_{name}"]) / total[:, None, None, None] for name in own}
    bad = np.flatnonzero(~torch.isfinite(four["true"]).flatten(1).all(dim=1).numpy())
    if len(bad):
        raise DataError(f"{path}: 'F_true', row {bad[0]} and {len(bad) - 1} more have no final state to learn.")
    sides = torch.as_tensor(columns["box_diag"][:, :2])
    names = {"init": "initial", "true": "final"}
    return {
        **{names.get(name, name): value for name, value in four.items()},
        "smaller": sides.amin(dim=1),
        "larger": sides.amax(dim=1),
        "total": total,
        "block": torch.as_tensor(columns["split_group"]).long(),
    }


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
