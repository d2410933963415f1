"""Lens or not: one logit per cutout, learned from labelled lenses and unlabeled cutouts, or from full labels."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensfind.calibration.merit import scores
from lensfind.features.colours import ARC_COLOURS, arc_colours, blue_excess
from lensfind.models.heads import RadiusHead
from skyloom.data import Batch
from skyloom.errors import ConfigError, DataError
from skyloom.pu import prior_shift

__all__ = ["LensFinder", "Scored", "arcsinh", "bernoulli_divergence"]

_ANNULUS = (0.5, 2.6)  # arcsec: where the colours of arcs are measured


class Scored(nn.Module):
    """What every finder has in common: a class prior, scores over a split, and a calibration that travels with its weights."""

    slope: Tensor
    offset: Tensor
    conformal: Tensor

    def __init__(self, prior: float):
        super().__init__()
        self.prior = prior
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("conformal", torch.tensor([-torch.inf, torch.inf]))

    def calibrated(self, logit: Tensor) -> dict[str, Tensor]:
        """`calibrated`, a logit too, and `conformal_set`: 0 neither, 1 lens, 2 no lens, 3 both."""
        lens, other = logit >= self.conformal[0], logit <= self.conformal[1]
        return {"calibrated": self.slope * logit + self.offset, "conformal_set": lens.float() + 2 * other.float()}

    def score(self, predictions: Mapping[str, Tensor]) -> dict[str, float]:
        """Figures of merit over a whole split (`lensfind.calibration.scores`)."""
        names = [name for name in ("logit", "calibrated", "labelled", "lens") if name in predictions]
        return scores({name: predictions[name].numpy() for name in names}, self.prior)

    def calibrate(self, values: Mapping[str, float]) -> None:
        """Take slope, offset and conformal thresholds as `lensfind.calibration.calibration` found them."""
        self.slope.fill_(values["slope"])
        self.offset.fill_(values["offset"])
        self.conformal.copy_(torch.tensor([values["lens_above"], values["other_below"]]))


class LensFinder(Scored):
    """An image encoder under a risk.

    `about` is that of `lensfind.data`: bands, size, class prior and the statistics of the training split. `model(bands, size)`
    gives the encoder, logits [B], or what `lensfind.models.finder` makes; `risk(logits, labels, prior)` one of `skyloom.pu`.
    `target` is the column that the risk reads: `labelled` for positive-unlabeled learning, `lens` for the supervised oracle
    that knows the truth. With a `target_prior` the network learns as if lenses had that share; predicted logits are always
    those at the class prior. `class_prior` overrides the data's, to see what a wrong one does.

    The encoder sees (arcsinh(flux / noise) - mean) / deviation per band, with constants of the survey and not of the image,
    so that brightness and colour survive; and, given a `colour_aperture` in arcsec and more than one band, a further channel:
    the arcsinh of the `blue_excess` over the colour within that radius.

    Args:
        arc_colours: give the model the numbers of `lensfind.arc_colours` too (it must be a `finder`)
        colour_prior: subtract softplus(a) ln(1 + chi^2 per degree of freedom) from the logit, a learned: a soft prior
            against arcs of different colours; needs arc_colours
        conditions: {column: [centre, scale]} that a conditioned model gets, from the batch
        radius_weight: of the Einstein radius among the losses, learned from labelled lenses (head RadiusHead)
        scales: sizes relative to the image at which every batch is seen in training; predictions are means over them
        consistency: weight of the divergence between the scales' probabilities
        views: 1, or 8 to predict the mean logit over the symmetries of the square, with its spread
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
        class_prior: float | None = None,
        colour_aperture: float | None = None,
        arc_colours: bool = False,
        colour_prior: bool = False,
        conditions: Mapping[str, list[float]] | None = None,
        radius_weight: float = 0.0,
        scales: list[float] | None = None,
        consistency: float = 0.0,
        views: int = 1,
    ):
        super().__init__(float(class_prior if class_prior is not None else about["class_prior"]))
        if views not in (1, 8):
            raise ConfigError(f"task.views={views}: 1, or the 8 symmetries of the square.")
        self.bands, self.size = len(about["bands"]), int(about["size"])
        self.pixel = float(about["survey"]["pixel_scale"])
        self.aperture = colour_aperture / self.pixel if colour_aperture is not None and self.bands > 1 else None
        self.extras = ARC_COLOURS + 2 * (self.bands - 1) if arc_colours and self.bands > 1 else 0
        if colour_prior and not self.extras:
            raise ConfigError("task.colour_prior=true needs task.arc_colours=true and more than one band.")
        self.conditions = dict(conditions or {})
        self.encoder = model(bands=self.bands + (self.aperture is not None), size=self.size, **self._asked(model))
        self.risk, self.target, self.target_prior = risk, target, target_prior
        self.radius_weight, self.scales, self.consistency, self.views = radius_weight, scales or [1.0], consistency, views
        self.shift = prior_shift(self.prior, target_prior)
        self.against = nn.Parameter(torch.tensor(-1.0)) if colour_prior else None
        wavelengths = [float(band["wavelength"]) for band in about["survey"]["bands"].values()]
        self.register_buffer("wavelengths", torch.tensor(wavelengths), persistent=False)
        for name, values in about["statistics"].items():
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def _asked(self, model: Callable[..., nn.Module]) -> dict[str, int]:
        """`extras`, where the model can take numbers beside the image."""
        if not self.extras:
            return {}
        takes = inspect.signature(model).parameters
        if "extras" not in takes:
            raise ConfigError(
                "task.arc_colours=true needs a model of lensfind.models.finder, which takes numbers beside images."
            )
        return {"extras": self.extras}

    # ---------------------------------------------------------------- what the network sees

    def stretch(self, images: Tensor) -> Tensor:
        """What the encoder sees of images [B, bands, H, W] in the survey's flux unit."""
        seen = (arcsinh(images / self.noise) - self.mean) / self.deviation
        if self.aperture is None:
            return seen
        return torch.cat([seen, arcsinh(blue_excess(images, self.noise, self.aperture))], dim=1)

    def beside(self, batch: Batch) -> dict[str, Tensor]:
        """Numbers beside the image that the encoder takes: colours of arcs, conditions of the exposure."""
        given = {}
        if self.extras:
            inner, outer = (r / self.pixel for r in _ANNULUS)
            outer = min(outer, self.size / 2 - 1)
            images = batch["image"].float()
            given["extras"] = arc_colours(images, self.noise, self.wavelengths, inner, outer).to(batch["image"].dtype)  # type: ignore[arg-type]
        if self.conditions:
            missing = [name for name in self.conditions if name not in batch]
            if missing:
                raise DataError(f"this model is conditioned on {', '.join(missing)}, which the data do not hold.")
            columns = [(batch[name].float() - centre) / scale for name, (centre, scale) in self.conditions.items()]
            given["conditions"] = torch.stack(columns, dim=1).to(batch["image"].dtype)
        return given

    def outputs(self, seen: Tensor, beside: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that the encoder says of stretched images; `logit` is at the prior that it learned at."""
        found = self.encoder.outputs(seen, **beside) if hasattr(self.encoder, "outputs") else {"logit": self.encoder(seen)}  # type: ignore[operator]
        if self.against is not None:
            found["logit"] = found["logit"] - F.softplus(self.against) * beside["extras"][:, 0]
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(self.stretch(images), self.beside({"image": images}))["logit"]

    # ---------------------------------------------------------------- the loop's three questions

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        seen, beside, labels = self.stretch(batch["image"]), self.beside(batch), batch[self.target].float()
        every = [self.outputs(_resized(seen, scale), beside) for scale in self.scales]
        each = [self.risk(out["logit"], labels, self.prior, target_prior=self.target_prior) for out in every]
        terms = {name: torch.stack([risk[name] for risk in each]).mean(dim=0) for name in each[0]}
        if self.consistency and len(every) > 1:
            terms["divergence"] = bernoulli_divergence([out["logit"] for out in every]).mean()
            terms["loss"] = terms["loss"] + self.consistency * terms["divergence"]
        if self.radius_weight:
            known = (batch["labelled"] > 0) & torch.isfinite(batch["theta_E"])
            radius = torch.stack([RadiusHead.loss(out["log_theta_E"], batch["theta_E"], known) for out in every]).mean()
            terms["radius"] = radius.detach()
            terms["loss"] = terms["loss"] + self.radius_weight * radius
        penalty = self.encoder.penalty() if hasattr(self.encoder, "penalty") else None  # type: ignore[operator]
        if penalty is not None:
            terms["penalty"] = penalty.detach()
            terms["loss"] = terms["loss"] + penalty
        return terms

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """logit at the class prior, what else the head knows, `calibrated` (a logit too), and, with views, their spread."""
        images, beside = batch["image"], self.beside(batch)
        seen = [_resized(self.stretch(view), scale) for view in self._views(images) for scale in self.scales]
        every = [self.outputs(view, beside) for view in seen]
        found = {name: torch.stack([out[name].float() for out in every]).mean(dim=0) for name in every[0]}
        found["logit"] = found["logit"] + self.shift
        if len(every) > 1:
            found["view_spread"] = torch.stack([out["logit"].float() for out in every]).std(dim=0)
        return found | self.calibrated(found["logit"])

    def _views(self, images: Tensor) -> list[Tensor]:
        if self.views == 1:
            return [images]
        turned = [torch.rot90(images, k, (-2, -1)) for k in range(4)]
        return turned + [view.flip(-1) for view in turned]

    def example(self) -> Batch:
        given = {name: torch.full((2,), float(centre)) for name, (centre, _) in self.conditions.items()}
        return {"image": self.noise.expand(2, self.bands, self.size, self.size).clone(), **given}


def arcsinh(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + sqrt(x^2 + 1)): torch.asinh to an absolute error of 1e-6, at a fourth of its time on a CPU."""
    size = x.abs()
    return torch.copysign(torch.log(size + torch.sqrt(size * size + 1)), x)


def _resized(seen: Tensor, scale: float) -> Tensor:
    """Stretched images at another size; 1 leaves them."""
    if scale == 1:
        return seen
    side = max(8, round(seen.shape[-1] * scale))
    return F.interpolate(seen, size=(side, side), mode="bilinear", align_corners=False, antialias=scale < 1)


def bernoulli_divergence(logits: list[Tensor]) -> Tensor:
    """Mean over pairs of the symmetric Kullback-Leibler divergence of Bernoulli laws, per row: [B].

    KL(p||q) + KL(q||p) = (p - q)(logit p - logit q).
    """
    pairs = [(torch.sigmoid(a) - torch.sigmoid(b)) * (a - b) for k, a in enumerate(logits) for b in logits[k + 1 :]]
    return torch.stack(pairs).mean(dim=0)
