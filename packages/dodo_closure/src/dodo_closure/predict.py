"""New states, from a file of any kind that `dodo_closure.readers` knows: final four-fluxes with error bars, row by row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dodo_closure.box3d import STEEPEST
from dodo_closure.closure import Answer, Closure
from dodo_closure.fluxes import flux_factor, to_public
from dodo_closure.readers import open_source
from dodo_closure.rows import REASONS, cleaned, reasons
from skyloom.data.tables import write_columns
from skyloom.errors import DataError

__all__ = ["predict"]

_ROWS = 65536


def predict(
    task: Any,
    about: dict[str, Any],
    input: Path,
    output: Path,
    apply: Callable[[Any], dict[str, np.ndarray]],
    layout: str | None = None,
) -> dict[str, Any]:
    """Final four-fluxes `F4_final` and their `F4_error` [N, 4, 2, 3] in 1/cm^3 to Parquet, in the fluid's rest frame.

    Rows that no state can have are NaN, with the reason in `rejected`; stable rows are as they came.
    """
    source = open_source(input, layout)
    if source.kind == "emu":
        raise DataError(f"{input} is a simulation over time, which has its final state: see make prepare pkg=dodo_closure.")
    closure = Closure(task, about)
    parts: list[Answer] = []
    why, steep = [], []
    for start in range(0, source.rows, _ROWS):
        F = cleaned(torch.as_tensor(source.read(start, min(start + _ROWS, source.rows)).initial))
        reason = reasons(F)
        F[reason > 0] = torch.nan
        device = next(task.parameters()).device
        found = closure.answer(F.to(device) if device.type != "mps" else F.float().to(device))
        parts.append(Answer._make(column.cpu() for column in found))
        why.append(reason)
        steep.append((flux_factor(F).amax(dim=(1, 2)) > STEEPEST).numpy() & (reason == 0))
    reason = np.concatenate(why)
    if (reason > 0).all():
        raise DataError(f"{input}: no row is a physical state; row 0 has: {REASONS[reason[0]]}.")
    whole = Answer._make(torch.cat(columns) for columns in zip(*parts, strict=True))
    table = {
        "F4_final": to_public(whole.final).numpy(),
        "F4_error": to_public(whole.error).numpy(),
        "unstable": whole.unstable.numpy(),
        "growth_rate": whole.growth.numpy(),
        "fallen_back": whole.fallen_back.numpy(),
        "flux_factor_above_0.98": np.concatenate(steep),
        "rejected": np.array(REASONS)[reason],
    }
    write_columns(output, table, about)
    counts = {f"rejected, {name}": int((reason == k).sum()) for k, name in enumerate(REASONS) if k and (reason == k).any()}
    summary = {"rows": len(reason), "unstable": closure.unstable, "fallen back to Box3D": closure.fallen_back}
    return {**summary, **counts}
