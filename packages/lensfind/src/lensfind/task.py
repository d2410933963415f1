"""Lens or not: one logit per cutout, learned from labelled lenses and unlabeled cutouts, or from full labels."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn

from lensfind.colours import blue_excess
from skyloom.data import Batch
from skyloom.pu import auroc_pu, error_pu, prior_shift

__all__ = ["LensFinder", "completeness_at"]


class LensFinder(nn.Module):
    """An image encoder under a risk.

    `about` is that of `lensfind.data`: bands, size, class prior and the statistics of the training split. `model(bands, size)`
    gives the encoder, logits [B]; `risk(logits, labels, prior)` one of `skyloom.pu`. `target` is the column that the risk
    reads: `labelled` for positive-unlabeled learning, `lens` for the supervised oracle that knows the truth. With a
    `target_prior` the network learns as if lenses had that share; predicted logits are always those at the class prior.

    The encoder sees (arcsinh(flux / noise) - mean) / deviation per band, with constants of the survey and not of the image,
    so that brightness and colour survive; and, given a `colour_aperture` in arcsec and more than one band, a further channel:
    the arcsinh of the `blue_excess` over the colour within that radius.
    """

    noise: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        about: dict[str, Any],
        model: Callable[..., nn.Module],
        risk: Callable[..., dict[str, Tensor]],
        target: Literal["labelled", "lens"] = "labelled",
        target_prior: float | None = None,
        colour_aperture: float | None = None,
    ):
        super().__init__()
        self.bands, self.size, self.prior = len(about["bands"]), int(about["size"]), float(about["class_prior"])
        self.aperture = None
        if colour_aperture is not None and self.bands > 1:
            self.aperture = colour_aperture / float(about["survey"]["pixel_scale"])
        self.encoder = model(bands=self.bands + (self.aperture is not None), size=self.size)
        self.risk, self.target, self.target_prior = risk, target, target_prior
        self.shift = prior_shift(self.prior, target_prior)
        for name, values in about["statistics"].items():
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def stretch(self, images: Tensor) -> Tensor:
        """What the encoder sees of images [B, bands, H, W] in the survey's flux unit."""
        seen = (torch.asinh(images / self.noise) - self.mean) / self.deviation
        if self.aperture is None:
            return seen
        return torch.cat([seen, torch.asinh(blue_excess(images, self.noise, self.aperture))], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(self.stretch(images))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.risk(self(batch["image"]), batch[self.target].float(), self.prior, target_prior=self.target_prior)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"logit": self(batch["image"]).float() + self.shift}

    def score(self, predictions: Batch) -> dict[str, float]:
        """Figures of merit over a whole split.

        auroc_pu and error_pu need labels alone, and choose the model. The others are of the unlabeled sample against the truth,
        at the natural share of lenses, where the truth is carried: auroc, average_precision, completeness at a false-positive
        rate of 1e-2, and the misclassification rate at logit 0.
        """
        logit, labelled = predictions["logit"].numpy(), predictions["labelled"].numpy() > 0
        scores = {"auroc_pu": auroc_pu(logit, labelled, self.prior), "error_pu": error_pu(logit, labelled, self.prior)}
        if "lens" in predictions:
            lens = predictions["lens"].numpy()[~labelled] > 0
            scores |= _against_truth(logit[~labelled], lens)
        return scores

    def example(self) -> Batch:
        return {"image": self.noise.expand(2, self.bands, self.size, self.size).clone()}


def _against_truth(logit: np.ndarray, lens: np.ndarray) -> dict[str, float]:
    if len(lens) == 0 or lens.all() or not lens.any() or not np.isfinite(logit).all():
        return dict.fromkeys(("auroc", "average_precision", "tpr_at_fpr_1e-2", "error"), float("nan"))
    return {
        "auroc": float(roc_auc_score(lens, logit)),
        "average_precision": float(average_precision_score(lens, logit)),
        "tpr_at_fpr_1e-2": completeness_at(1e-2, logit, lens),
        "error": float(((logit > 0) != lens).mean()),
    }


def completeness_at(false_positive_rate: float, logit: np.ndarray, lens: np.ndarray) -> float:
    """The largest share of lenses found by a threshold that lets through at most this share of non-lenses."""
    fpr, tpr, _ = roc_curve(lens, logit, drop_intermediate=False)
    return float(tpr[fpr <= false_positive_rate].max())
