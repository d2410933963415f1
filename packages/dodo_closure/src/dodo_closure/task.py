"""What is minimized, predicted and scored: final four-fluxes in units of the row's own N."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dodo_closure.closure import GraphClosure, example_input
from dodo_closure.conserve import limit
from dodo_closure.data import SETS
from dodo_closure.fluxes import SPECIES, conservation_error, density, flux
from dodo_closure.losses import expected_error_loss, loss_named
from dodo_closure.model import combined

__all__ = ["ClosureTask", "row_error"]


def row_error(F: Tensor, truth: Tensor) -> Tensor:
    """Mean over the 24 components of |F - truth| [B], in units of N."""
    return (F - truth).abs().mean(dim=(1, 2, 3))


class ClosureTask(nn.Module):
    """Box3D plus a learned residual, by members that are each trained without one fold of the training blocks.

    On that fold each member learns what error to expect of itself, and of Box3D. Where the expected error exceeds Box3D's, the
    prediction is Box3D's own. The loss sees predictions before they are limited to physical states.

    Args:
        model: a correction with members, called as model(about=about)
        loss: weighted_l2 or source_composite
        terms: its weights
    """

    def __init__(
        self,
        about: dict[str, Any],
        model: Callable[..., nn.Module],
        loss: str = "weighted_l2",
        terms: dict[str, float] | None = None,
    ):
        super().__init__()
        self.about = about
        self.residual = model(about=about)
        self.scale = float(about["residual_rms"])
        self.loss, self.terms = loss_named(loss), terms or {}

    def _correct(self, batch: dict[str, Tensor]) -> Any:
        return self.residual(batch["initial"], batch["box"], batch["smaller"], batch["larger"])

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found, truth = self._correct(batch), batch["final"]
        members = len(found.final)
        own = torch.arange(members, device=truth.device)[:, None]
        left_out = (batch["block"] % members == own).to(truth) if members > 1 else torch.zeros_like(found.final[..., 0, 0, 0])
        terms = self.loss(found.final, truth, 1 - left_out, self.scale, **self.terms)
        judged = left_out if members > 1 else 1 - left_out
        error = (found.final - truth).detach()
        bars = expected_error_loss(found.error, error, judged, self.scale)
        bars = bars + expected_error_loss(found.box_error, batch["box"] - truth, torch.ones_like(judged), self.scale)
        total = (terms["loss"] + bars).float()
        parts = {name: value.detach().float() for name, value in terms.items() if name != "loss"}
        return {"loss": total, **parts, "bars": bars.detach().float()}

    def predict(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`predicted` [B, 2, 3, 4], physical and conserving, its `error`, and whether it is `limited` or `fallen_back`."""
        found = self._correct(batch)
        mean, bar, trusted = combined(*found)
        learned = limit(batch["box"], mean)
        final = torch.where(trusted[:, None, None, None], learned, batch["box"])
        trace, lepton = conservation_error(batch["initial"], final)
        return {
            "predicted": final,
            "learned": learned,
            "error": torch.where(trusted[:, None, None, None], bar, found.box_error.mean(dim=0)),
            "spread": found.final.std(dim=0, correction=0).mean(dim=(1, 2, 3)),
            "limited": (learned != mean).flatten(1).any(dim=1),
            "fallen_back": ~trusted,
            "conservation": torch.maximum(trace, lepton),
        }

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        """Errors beside identity, Box3D and the smooth variant on the same rows; `heldout_…` on the family never trained on,
        `t3_…` on three-flavor truth."""
        scores: dict[str, float] = {}
        for k, name in enumerate(SETS):
            rows = predictions["set"] == k
            if bool(rows.any()):
                part = _scores({key: predictions[key][rows] for key in _READ if key in predictions})
                scores |= {f"{name}_{key}" if name else key: value for key, value in part.items()}
        if "mean_error" in scores and "heldout_mean_error" in scores:
            scores["heldout_error_ratio"] = scores["heldout_mean_error"] / scores["mean_error"]
        return scores

    def example(self) -> dict[str, Tensor]:
        return example_input()

    def exportable(self) -> nn.Module:
        return GraphClosure(self)


_READ = (
    *("initial", "final", "box", "smooth", "predicted", "learned", "error", "spread", "limited", "fallen_back", "conservation"),
    "smaller",
)


def _scores(p: dict[str, Tensor]) -> dict[str, float]:
    truth = p["final"].double()
    columns = {"": "predicted", "_identity": "initial", "_box3d": "box", "_smooth": "smooth"}
    errors = {name: row_error(p[column].double(), truth) for name, column in columns.items()}
    scores = {f"mae{name}": float(error.mean()) for name, error in errors.items()}
    mine, box = errors[""], errors["_box3d"]
    F, bar = p["predicted"].double(), p["error"].double()
    n, size = density(F), torch.linalg.vector_norm(flux(F), dim=-1)
    within = (F - truth).abs() <= bar
    return {
        **scores,
        "skill": 1 - scores["mae"] / scores["mae_box3d"],
        "skill_smooth": 1 - scores["mae"] / scores["mae_smooth"],
        "improved": float((mine < box - 1e-7).double().mean()),
        "p95_vs_box3d": float(mine.quantile(0.95) / box.quantile(0.95)),
        "density_skill": _part_skill(density, p, truth),
        "flux_skill": _part_skill(flux, p, truth),
        **{f"mae_{name}": float((F - truth).abs().flatten(1, 2)[:, k].mean()) for k, name in enumerate(SPECIES) if k % 3 < 2},
        "coverage68": float(within.double().mean()),
        "mean_error": float(bar.mean()),
        "spread": float(p["spread"].mean()),
        "fallen_back": float(p["fallen_back"].double().mean()),
        "limited": float(p["limited"].double().mean()),
        "conservation": float(p["conservation"].max()),
        "unphysical": float(((n < -1e-7) | (size > n + 1e-7)).flatten(1).any(dim=1).double().mean()),
    }


def _part_skill(part: Callable[[Tensor], Tensor], p: dict[str, Tensor], truth: Tensor) -> float:
    """1 - error / Box3D's error of densities or fluxes; not a number where Box3D makes none."""
    mine, box = (float((part(p[name].double()) - part(truth)).abs().mean()) for name in ("predicted", "box"))
    return 1 - mine / box if box > 0 else math.nan
