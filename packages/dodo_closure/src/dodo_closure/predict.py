"""New states: HDF5 with `F4_initial(1|ccm)` [N, 4, 2, 3] = (state, xyzt, nu/nubar, flavor), as in published databases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodo_closure.box3d import STEEPEST
from dodo_closure.data import analytic_columns
from dodo_closure.fluxes import density, flux, flux_factor, from_public, is_physical, length, to_public, total_density
from dodo_closure.quadrature import CrossingAware
from skyloom.data import Columns
from skyloom.data.tables import write_columns
from skyloom.errors import DataError, MissingFile

__all__ = ["predict", "read_initial", "reasons"]

DATASET = "F4_initial(1|ccm)"
_REASONS = ("", "not finite", "no neutrinos", "negative density", "flux factor above one")


def read_initial(path: Path) -> Tensor:
    """Four-fluxes [N, 2, 3, 4] in 1/cm^3."""
    import h5py

    if not path.is_file():
        raise MissingFile(f"there is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            if DATASET not in file:
                raise DataError(f"{path}: no dataset {DATASET!r}; it has {', '.join(map(repr, file)) or 'none'}.")
            values = np.asarray(file[DATASET], dtype=np.float64)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({error}). Is it cut short?") from error
    if values.ndim != 4 or values.shape[1:] != (4, 2, 3):
        raise DataError(
            f"{path}: {DATASET!r} has shape {values.shape}; (N, 4, 2, 3) = (state, xyzt, nu/nubar, flavor) is needed."
        )
    if len(values) == 0:
        raise DataError(f"{path}: {DATASET!r} has no row.")
    return from_public(torch.as_tensor(values)).contiguous()


def reasons(F: Tensor) -> np.ndarray:
    """Why each row cannot be a state: an index into `_REASONS`, 0 where it can."""
    total = total_density(F)
    slack = 1e-6 * total.clamp(min=0)[:, None, None]
    tests = [
        (length(flux(F)) > density(F) + slack).flatten(1).any(dim=1),
        (density(F) < -slack).flatten(1).any(dim=1),
        ~(total > 0),
        ~torch.isfinite(F).flatten(1).all(dim=1),
    ]
    reason = torch.zeros(len(F), dtype=torch.long)
    for number, bad in zip((4, 3, 2, 1), tests, strict=True):
        reason = torch.where(bad, torch.full_like(reason, number), reason)
    return torch.where(is_physical(F), torch.zeros_like(reason), reason).numpy()


def predict(
    task: Any, about: dict[str, Any], input: Path, output: Path, apply: Callable[[Any], dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Final four-fluxes `F4_final` [N, 4, 2, 3] in 1/cm^3 to Parquet; rows that no state can have are NaN, with the reason."""
    F = read_initial(input)
    reason = reasons(F)
    good = np.flatnonzero(reason == 0)
    if len(good) == 0:
        raise DataError(f"{input}: no row is a physical state; row 0 has: {_REASONS[reason[0]]}.")
    columns = analytic_columns(F[good], CrossingAware(**about["rule"]))
    predictions = apply(Columns(columns))
    final = torch.full_like(F, torch.nan)
    unit = torch.as_tensor(predictions["predicted"]).double()
    stable = columns["smaller"] == 0
    unit = torch.where(stable[:, None, None, None], columns["initial"], unit)
    final[good] = unit * columns["total"][:, None, None, None]
    final[good[stable.numpy()]] = F[good[stable.numpy()]]
    unstable, limited = np.zeros(len(F), dtype=bool), np.zeros(len(F), dtype=bool)
    unstable[good], limited[good] = ~stable.numpy(), predictions["limited"] > 0.5
    steep = (flux_factor(F).amax(dim=(1, 2)) > STEEPEST).numpy() & (reason == 0)
    table = {
        "F4_final": to_public(final).numpy(),
        "unstable": unstable,
        "limited": limited,
        "flux_factor_above_0.98": steep,
        "rejected": np.array(_REASONS)[reason],
    }
    write_columns(output, table, about)
    counts = {name: int((reason == k).sum()) for k, name in enumerate(_REASONS) if k}
    summary = {"rows": len(F), "unstable": int(unstable.sum()), "limited": int(limited.sum())}
    return {**summary, **{f"rejected, {name}": count for name, count in counts.items() if count}}
