"""What is minimized, predicted and scored: final four-fluxes in units of the row's own N."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dodo_closure.conserve import limit
from dodo_closure.fluxes import conservation_error, density, flux

__all__ = ["Closure", "row_error"]


def row_error(F: Tensor, truth: Tensor) -> Tensor:
    """Mean over the 24 components of |F - truth| [B], in units of N."""
    return (F - truth).abs().mean(dim=(1, 2, 3))


class Closure(nn.Module):
    r"""Box3D plus a learned residual, trained on L = <(F - F_true)^2> / D + w <|F - F_true|> / sqrt(D).

    D is the mean square of F_true - F_Box3D over the training rows, so that Box3D itself scores 1 in the first term. Means
    run over rows and components. The loss sees the prediction before it is limited to physical states.
    """

    def __init__(self, about: dict[str, Any], model: Callable[..., nn.Module], l1_weight: float = 1.0):
        super().__init__()
        self.about = about
        self.residual = model(about=about)
        self.scale = float(about["residual_rms"])
        self.l1_weight = l1_weight

    def _raw(self, batch: dict[str, Tensor]) -> Tensor:
        return self.residual(batch["initial"], batch["box"], batch["smaller"], batch["larger"])

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        error = (self._raw(batch) - batch["final"]) / self.scale
        squared, absolute = (error**2).mean(), error.abs().mean()
        loss = (squared + self.l1_weight * absolute).float()
        return {"loss": loss, "squared": squared.detach().float(), "absolute": absolute.detach().float()}

    def predict(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`predicted` [B, 2, 3, 4], physical and conserving; `limited` [B]: whether the limiter had to act."""
        raw = self._raw(batch)
        final = limit(batch["box"], raw)
        trace, lepton = conservation_error(batch["initial"], final)
        moved = (final != raw).flatten(1).any(dim=1)
        return {"predicted": final, "limited": moved, "conservation": torch.maximum(trace, lepton)}

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        """Errors beside identity, Box3D and the smooth variant on the same rows; `heldout_…` on the family never trained on."""
        apart = predictions["heldout"] > 0
        scores = _scores({k: v[~apart] for k, v in predictions.items()})
        if bool(apart.any()):
            scores |= {f"heldout_{k}": v for k, v in _scores({k: v[apart] for k, v in predictions.items()}).items()}
        return scores

    def example(self) -> dict[str, Tensor]:
        initial = torch.zeros(2, 2, 3, 4, dtype=torch.float64)
        initial[..., 3] = 1 / 6
        zero = torch.zeros(2, dtype=torch.float64)
        return {"initial": initial, "box": initial.clone(), "smaller": zero, "larger": zero + 0.1}


def _scores(p: dict[str, Tensor]) -> dict[str, float]:
    truth = p["final"]
    if len(truth) == 0:
        return {}
    columns = {"": "predicted", "_identity": "initial", "_box3d": "box", "_smooth": "smooth"}
    errors = {name: row_error(p[column].double(), truth) for name, column in columns.items()}
    scores = {f"mae{name}": float(error.mean()) for name, error in errors.items()}
    mine, box = errors[""], errors["_box3d"]
    n, size = density(p["predicted"].double()), torch.linalg.vector_norm(flux(p["predicted"].double()), dim=-1)
    return {
        **scores,
        "skill": 1 - scores["mae"] / scores["mae_box3d"],
        "skill_smooth": 1 - scores["mae"] / scores["mae_smooth"],
        "improved": float((mine < box - 1e-7).double().mean()),
        "p95_vs_box3d": float(mine.quantile(0.95) / box.quantile(0.95)),
        "density_skill": 1 - _density_error(p["predicted"], truth) / _density_error(p["box"], truth),
        "limited": float(p["limited"].double().mean()),
        "conservation": float(p["conservation"].max()),
        "unphysical": float(((n < -1e-7) | (size > n + 1e-7)).flatten(1).any(dim=1).double().mean()),
    }


def _density_error(F: Tensor, truth: Tensor) -> float:
    return float((density(F.double()) - density(truth)).abs().mean())
