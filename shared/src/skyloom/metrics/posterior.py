"""How good posteriors are, not only whether they are calibrated: proper scores, sharpness, and errors against their own spread.

Pure functions on draws `[B, S, D]` and truths `[B, D]`; `posterior_scores` gathers them with intervals.

References: Gneiting and Raftery 2007 (doi:10.1198/016214506000001437); Ferro 2014 (doi:10.1002/qj.2270).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyloom.metrics.bootstrap import Estimate, bootstrap

__all__ = ["crps", "energy_score", "posterior_scores", "sharpness", "spread_against_error", "standardised_error"]


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score `E|Y - y| - E|Y - Y'| / 2` `[B, D]`, in the unit of the column; 0 is perfect.

    The second term is taken over pairs of different draws (Ferro's fair estimator), so that the score does not depend on how
    many draws were taken. Of `N(m, s)` it is `s (w (2 F(w) - 1) + 2 f(w) - 1 / sqrt pi)`, `w = (y - m) / s`.
    """
    n = draws.shape[1]
    out = torch.empty_like(truth)
    weight = 2 * torch.arange(1, n + 1, dtype=draws.dtype, device=draws.device) - n - 1
    for rows in _pieces(draws):
        part = draws[rows].transpose(1, 2).contiguous()
        error = (part - truth[rows].unsqueeze(2)).abs().mean(2)
        out[rows] = error - (part.sort(2).values * weight).sum(2) / (n * (n - 1))
    return out


def energy_score(draws: Tensor, truth: Tensor, scale: Tensor | None = None, pairings: int = 8) -> Tensor:
    """`E|Y - y| - E|Y - Y'| / 2` `[B]` with Euclid's distance: the score of the joint posterior, as CRPS is of one column's.

    Columns are divided by `scale` `[D]` (their deviation in the training split), so that units do not decide. The second term
    is taken over `pairings` pairings of each draw with another (draws are independent: all pairs are exact when they are as
    few).
    """
    n = draws.shape[1]
    shifts = range(1, n) if n - 1 <= pairings else [round((k + 1) * n / (pairings + 1)) for k in range(pairings)]
    unit = torch.ones(draws.shape[2], dtype=draws.dtype, device=draws.device) if scale is None else scale.to(draws)
    out = torch.empty(len(truth), dtype=draws.dtype, device=draws.device)
    for rows in _pieces(draws):
        part = draws[rows] / unit
        error = (part - (truth[rows] / unit).unsqueeze(1)).norm(dim=2).mean(1)
        spread = torch.stack([(part - part.roll(k, 1)).norm(dim=2).mean(1) for k in shifts]).mean(0)
        out[rows] = error - spread / 2
    return out


def sharpness(draws: Tensor) -> dict[str, Tensor]:
    """How narrow: deviation, and widths of the central 68 and 95 percent intervals, each `[B, D]`."""
    levels = torch.tensor([0.025, 0.16, 0.84, 0.975], dtype=draws.dtype, device=draws.device)
    parts = [torch.quantile(draws[rows].transpose(1, 2), levels, dim=2) for rows in _pieces(draws, 4_000_000)]
    q = torch.cat(parts, 1)
    return {"sd": draws.std(1), "width68": q[2] - q[1], "width95": q[3] - q[0]}


def standardised_error(draws: Tensor, truth: Tensor) -> Tensor:
    """`(truth - mean) / deviation` `[B, D]`: of mean 0 and deviation 1 if exact; normal only for Gaussians."""
    spread = draws.std(1)
    return (truth - draws.mean(1)) / torch.where(spread > 0, spread, torch.full_like(spread, math.nan))


def spread_against_error(draws: Tensor, truth: Tensor, bins: int = 5) -> dict[str, Tensor]:
    """Do wide posteriors err more? In bins of equal count of the deviation, for each column `[bins, D]`.

    `spread` (root mean square deviation) and `error` (root mean square error of the mean) of each bin are equal if exact;
    `within1`, `within2` are the shares of errors below one and two deviations, 0.683 and 0.954 for Gaussians.
    `rank_correlation` `[D]` is Spearman's of deviation and absolute error.
    """
    spread, error = draws.std(1), truth - draws.mean(1)
    order = spread.argsort(0)
    s, e = torch.take_along_dim(spread, order, 0), torch.take_along_dim(error, order, 0)
    cells = list(zip(s.tensor_split(bins), e.tensor_split(bins), strict=True))
    place = [x.argsort(0).argsort(0).to(spread.dtype) for x in (spread, error.abs())]
    centred = [p - p.mean(0) for p in place]
    return {
        "spread": torch.stack([a.square().mean(0).sqrt() for a, _ in cells]),
        "error": torch.stack([b.square().mean(0).sqrt() for _, b in cells]),
        "within1": torch.stack([(b.abs() <= a).to(a.dtype).mean(0) for a, b in cells]),
        "within2": torch.stack([(b.abs() <= 2 * a).to(a.dtype).mean(0) for a, b in cells]),
        "rank_correlation": (centred[0] * centred[1]).sum(0) / (centred[0].norm(dim=0) * centred[1].norm(dim=0)),
    }


def posterior_scores(
    draws: Tensor,
    truth: Tensor,
    names: Sequence[str],
    log_prob: Tensor | None = None,
    scale: Tensor | None = None,
    groups: Tensor | None = None,
    rng: np.random.Generator | None = None,
    resamples: int = 200,
) -> dict[str, Estimate]:
    """The scores of a split, each with its 95 percent interval.

    `nll` (nats per object, in the user's units: `log_prob` `[B]` of the truths), `energy_score`; and for each column `crps_*`,
    `sd_*`, `width68_*`, `width95_*`, `bias_*` (mean of truth less posterior mean), `rmse_*`, `z_mean_*` and `z_sd_*` (0 and 1
    if exact). Everything is computed once per object; the bootstrap resamples objects (or `groups`).
    """
    columns: dict[str, Tensor] = {"energy_score": energy_score(draws, truth, scale)}
    if log_prob is not None:
        columns["nll"] = -log_prob
    each = {"crps": crps(draws, truth), **sharpness(draws), "bias": truth - draws.mean(1)}
    z = standardised_error(draws, truth)
    for d, name in enumerate(names):
        columns |= {f"{score}_{name}": values[:, d] for score, values in each.items()}
        columns[f"z_{name}"] = z[:, d]

    def score(of: Mapping[str, Tensor]) -> dict[str, float]:
        out = {}
        for name in columns:
            values = of[name]
            if name.startswith("z_"):
                out[f"z_mean_{name[2:]}"], out[f"z_sd_{name[2:]}"] = float(values.nanmean()), float(np.nanstd(values.numpy()))
                continue
            out[name] = float(values.mean())
            if name.startswith("bias_"):
                out[f"rmse_{name[5:]}"] = float(values.square().mean().sqrt())
        return out

    kept = {name: values.detach().cpu() for name, values in columns.items()}
    return bootstrap(score, kept, groups, rng or np.random.default_rng(0), resamples)


def _pieces(draws: Tensor, numbers: int = 8_000_000) -> list[Any]:
    height = max(1, numbers // max(1, draws[0].numel()))
    return [slice(k, k + height) for k in range(0, len(draws), height)]
