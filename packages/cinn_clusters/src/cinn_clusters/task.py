"""Learning the posterior of the last merger: what is minimised, what is predicted, how it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from cinn_clusters.columns import LOOKBACK, TARGET_NAMES, TARGETS
from cinn_clusters.cosmology import AGE_TODAY
from cinn_clusters.data import RATIO_CEILING
from cinn_clusters.posteriors import interval_coverage, kde_modes, summary
from cinn_clusters.scores import independent_p_values
from skyloom.calibration import density_credibility, pit, tarp_credibility
from skyloom.errors import ConfigError
from skyloom.flows import AroundRegression, InUserUnits, from_json, hide
from skyloom.metrics.posterior import crps, energy_score
from skyloom.metrics.regression import explained_variance

__all__ = ["MergerPosterior"]

RATIO = TARGET_NAMES.index("last_Mass_ratio")
MEDIAN = 2  # place of the median among posteriors.QUANTILES


class MergerPosterior(nn.Module):
    """`p(targets | inputs)` by a conditional flow, beside the baselines that it must beat.

    Arguments:
        about: What the data says of itself: transforms, baselines, spread of the targets (see `cinn_clusters.data`).
        model: Builds the flow of the scaled columns, `model(features=6, context=7)`.
        start: "regression": the flow models the residuals of a linear regression, and starts as that baseline;
            "standardised": it models the targets, each of zero mean and unit variance.
        draws: Posterior draws per object.
        context_noise: Spread of the Gaussian noise added to the scaled inputs in training.
        target_noise: The same for the scaled targets; a smoothing that keeps the flow from growing spikes on single rows
            (Rothfuss et al. 2019, arXiv 1907.08982).
        row_budget: Draws pushed through the flow at once, to bound memory.
        hidden: Mean share of the inputs withheld in training, at random, all but the lookback time; above 0, inputs may be
            missing (NaN) at prediction, the model needs `embed=MaskedContext`, and `start` is "standardised".
        map_steps: Steps of the climb to the maximum of the joint density; 0 keeps the likeliest of the draws.
    """

    spread: Tensor

    def __init__(
        self,
        about: Mapping[str, Any],
        model: Callable[..., Any],
        start: str = "regression",
        draws: int = 300,
        context_noise: float = 0.0,
        target_noise: float = 0.0,
        row_budget: int = 200_000,
        hidden: float = 0.0,
        map_steps: int = 30,
    ) -> None:
        super().__init__()
        if start not in ("regression", "standardised"):
            raise ConfigError(f"task.start={start!r} must be 'regression' or 'standardised'.")
        if hidden and start != "standardised":
            raise ConfigError("a regression needs every input: with task.hidden above 0, set task.start=standardised.")
        flow = model(features=len(about["targets"]), context=len(about["inputs"]))
        self.posterior = InUserUnits(
            AroundRegression(flow, **about["baselines"]["linear"]) if start == "regression" else flow,
            target=from_json(about["target_transform"]),
            context=from_json(about["context_columns" if hidden else "context_transform"]),
        )
        self.whitened = from_json(about["context_transform"])
        self.linear = _Gaussian(about["baselines"]["linear"])
        self.population = _Gaussian(about["baselines"]["population"])
        self.lookback = dict(about["baselines"]["lookback"])
        self.register_buffer("spread", torch.tensor(about["target_sd"], dtype=torch.float32), persistent=False)
        self.hidden = hidden
        self.draws, self.row_budget, self.map_steps = draws, row_budget, map_steps
        self.context_noise, self.target_noise = context_noise, target_noise

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean `-ln p(z | w)` of the scaled targets; `nll_no_constant` leaves out `D/2 ln(2 pi)`.

        On standardised targets the identity flow has `nll_no_constant` of D/2 = 3.
        """
        context, target = batch["context"], batch["target"]
        with torch.autocast(context.device.type, enabled=False):
            w, _ = self.posterior.context(context.float())
            z, _ = self.posterior.target(_uncapped(target.float()), context.float())
            if self.training:
                w = w + self.context_noise * torch.randn_like(w)
                w = hide(w, self.hidden, always_seen=(LOOKBACK,)) if self.hidden else w
                z = z + self.target_noise * torch.randn_like(z)
            nll = -self.posterior.flow(w).log_prob(z).mean()
        return {"loss": nll, "nll_no_constant": nll - z.shape[-1] / 2 * math.log(2 * math.pi)}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draws `[B, S, 6]` in the catalogue's units, their summaries and the most probable merger; with a `target` in the
        batch, also their scores."""
        context = batch["context"].float()
        with torch.autocast(context.device.type, enabled=False):
            samples, density = self.sample_and_log_prob(context)
            out = {"samples": samples, **summary(samples), "outside": self.outside(samples, context)}
            out["now"] = AGE_TODAY - context[:, LOOKBACK]
            out["map"] = self.map_estimate(context)
            if "target" in batch:
                out |= self._against(batch["target"].float(), context, samples, density)
        return out

    def map_estimate(self, context: Tensor) -> Tensor:
        """The most probable merger `[B, 6]`: the maximum of the joint density in the coordinates that the flow models.

        A maximum depends on the coordinates. In the catalogue's own it sits on the edges of the support (subclusters at the
        cut, mergers at the snapshot, ratios at the cap), which says nothing of the cluster.
        """
        posterior = self.posterior(context)
        best = posterior.scaled.map_estimate(min(self.draws, 100), self.map_steps)
        with torch.no_grad():
            return _capped(posterior.from_scaled(best))

    def sample(self, context: Tensor) -> Tensor:
        """Posterior draws `[B, S, 6]` for inputs `[B, 7]`, both in the catalogue's units.

        The catalogue caps the mass ratio at 1, where a share of its mergers sit; so does this, for draws beyond.
        """
        return self.sample_and_log_prob(context)[0]

    def sample_and_log_prob(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The draws, and their log density `[B, S]` where the cap is spread out (see `_uncapped`)."""
        rows = max(1, self.row_budget // self.draws)
        parts = [self.posterior(part).sample_and_log_prob((self.draws,)) for part in context.split(rows)]
        draws, density = (torch.cat(pieces, dim=1).transpose(0, 1) for pieces in zip(*parts, strict=True))
        return _capped(draws), density

    def outside(self, samples: Tensor, context: Tensor) -> Tensor:
        """Share of each object's draws that lie outside the physical support, per target `[B, 6]`."""
        low = samples.new_tensor([column.low for column in TARGETS])
        high = samples.new_tensor([column.high for column in TARGETS]).expand(len(samples), -1).clone()
        high[:, 0] = AGE_TODAY - context[:, LOOKBACK]
        within = (samples > low) & (samples <= high.unsqueeze(1))
        return (~within).to(samples.dtype).mean(1)

    def _against(self, target: Tensor, context: Tensor, samples: Tensor, density: Tensor) -> dict[str, Tensor]:
        """How well each object's posterior, and each baseline, fits its true merger."""
        posterior, spread_out = self.posterior(context), _uncapped(target)
        log_prob, log_prob_scaled = posterior.log_probs(spread_out)
        w, _ = self.posterior.context(context)
        z, ladj = self.posterior.target(spread_out, context)
        order = torch.randperm(len(context), device=context.device)
        strangers = self.posterior.flow(w[order]).log_prob(z)  # the same mergers, given the inputs of other clusters
        volume = ladj.sum(-1)
        white, _ = self.whitened(context)
        scaled = self.linear.sample(white, self.draws)
        straight = _capped(self.posterior.target.inverse(scaled, context).transpose(0, 1))
        return {
            "log_prob": log_prob,
            "log_prob_scaled": log_prob_scaled,
            "log_prob_shuffled": strangers + volume,
            "log_prob_linear": self.linear.log_prob(z, white) + volume,
            "log_prob_population": self.population.log_prob(z, white) + volume,
            "rank": pit(samples, target),
            "credibility": density_credibility(density, log_prob),
            "tarp": tarp_credibility(_even(samples), _even(target)),
            "crps": crps(samples, target),
            "energy": energy_score(samples, target, self.spread),
            "mode_kde": kde_modes(samples[:, :100]),
            "mode_fixed": kde_modes(samples[:, :100], bandwidth=0.5),
            "linear_mean": straight.mean(1),
            "linear_crps": crps(straight, target),
        }

    def score(self, predictions: Mapping[str, Tensor]) -> dict[str, float]:
        """Averages of the per-object columns: likelihoods (nat per object), explained variances, coverage, CRPS.

        `r2_*` is of the posterior median, `r2_mean_*` of its mean, `r2_linear_*` of the linear-Gaussian baseline's mean.
        `crps` averages the targets, each in units of its spread in the training split.
        """
        p = predictions
        truth, median = p["target"], p["quantiles"][..., MEDIAN]
        scores = {name: float(-p[column].mean()) for name, column in _LIKELIHOODS.items()}
        scores["nll_scaled_no_constant"] = scores["nll_scaled"] - truth.shape[-1] / 2 * math.log(2 * math.pi)
        scores["nll_gain_linear"] = scores["nll_linear"] - scores["nll"]
        scores["nll_gain_population"] = scores["nll_population"] - scores["nll"]
        scores |= self._explained(truth, median, p)
        for level, name in ((0.68, "coverage68"), (0.95, "coverage95")):
            scores |= _per_target(name, interval_coverage(p["rank"], level))
            scores[name] = sum(scores[f"{name}_{column.symbol}"] for column in TARGETS) / len(TARGETS)
        spread = self.spread.cpu()  # so that targets of different units can be averaged
        error = p["crps"].mean(0)
        scores |= _per_target("crps", error)
        scores["crps"] = float((error / spread).mean())
        scores["crps_linear"] = float((p["linear_crps"] / spread).mean())
        scores["energy_score"] = float(p["energy"].mean())
        scores |= self._estimates(truth, p)
        scores["coverage68_joint"], scores["coverage95_joint"] = (
            float((p["credibility"] <= level).double().mean()) for level in (0.68, 0.95)
        )
        if "log_prob_true" in p:
            scores["nll_true"] = -float(p["log_prob_true"].mean())
            scores["nll_excess"] = (scores["nll"] - scores["nll_true"]) / truth.shape[-1]
        if isinstance(p, dict):  # not for a resample: its rows repeat, and no repeated ranks are uniform
            scores |= independent_p_values(p)
        outside = p["outside"].mean(0)
        return scores | _per_target("outside", outside) | {"outside": float(outside.max())}

    def _estimates(self, truth: Tensor, p: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean absolute errors, each in units of its target's spread and averaged: of the maximum of the joint density, of the
        modes of the marginals (Silverman's width; one width of 0.5 for all), and of the medians."""
        estimates = {"map": p["map"], "mode_kde": p["mode_kde"], "mode_fixed": p["mode_fixed"]}
        estimates["median"] = p["quantiles"][..., MEDIAN]
        errors = {name: (estimate - truth).abs().mean(0) for name, estimate in estimates.items()}
        scores = {f"mae_{name}": float((error / self.spread.cpu()).mean()) for name, error in errors.items()}
        return scores | _per_target("mae_map", errors["map"]) | _per_target("mae_median", errors["median"])

    def _explained(self, truth: Tensor, median: Tensor, p: Mapping[str, Tensor]) -> dict[str, float]:
        scores = _per_target("r2", explained_variance(truth, median))
        scores |= _per_target("r2_mean", explained_variance(truth, p["mean"]))
        scores |= _per_target("r2_linear", explained_variance(truth, p["linear_mean"]))
        # most of an age's R2 is the epoch of observation: the time since the merger is the honest number
        since, estimate = p["now"] - truth[:, 0], p["now"] - median[:, 0]
        scores["r2_tau"] = float(explained_variance(since[:, None], estimate[:, None]))
        line = self.lookback["intercept"] + self.lookback["slope"] * (AGE_TODAY - p["now"])
        scores["r2_T_lookback_only"] = float(explained_variance(truth[:, :1], line[:, None]))
        return scores

    def example(self) -> dict[str, Tensor]:
        """Two rows of inputs at the middle of the training split, and latent noise, for `exportable`."""
        middle = self.posterior.context.inverse(torch.zeros(2, self.linear.coefficients.shape[0]))
        return {"context": middle, "noise": torch.zeros(2, len(self.spread))}

    def exportable(self) -> nn.Module:
        """The part without chance: from inputs `[B, 7]` and Gaussian noise `[B, 6]` to one posterior draw each `[B, 6]`."""
        return _DrawFromNoise(self.posterior)


_LIKELIHOODS = {
    "nll": "log_prob",
    "nll_scaled": "log_prob_scaled",
    "nll_shuffled": "log_prob_shuffled",
    "nll_linear": "log_prob_linear",
    "nll_population": "log_prob_population",
}


def _capped(samples: Tensor) -> Tensor:
    """No mass ratio above 1."""
    capped = samples[..., RATIO].clamp(max=TARGETS[RATIO].high)
    return torch.cat([samples[..., :RATIO], capped.unsqueeze(-1), samples[..., RATIO + 1 :]], -1)


def _uncapped(target: Tensor) -> Tensor:
    """Mass ratios at the cap of 1, where a share of the mergers sit, spread evenly over `[1, ceiling)`.

    A density cannot describe a share at one point: it grows a spike there, and its draws miss the cap. Spread out, the share
    has a density; draws beyond 1 are capped again.
    """
    ratio = target[..., RATIO]
    beyond = 1 + (RATIO_CEILING - 1) * 0.9999 * torch.rand_like(ratio)
    ratio = torch.where(ratio >= TARGETS[RATIO].high, beyond, ratio)
    return torch.cat([target[..., :RATIO], ratio.unsqueeze(-1), target[..., RATIO + 1 :]], -1)


def _even(target: Tensor) -> Tensor:
    """Masses as their logarithms, so that no distance is one of the largest mass alone."""
    columns = [target[..., d].log10() if column.logarithmic else target[..., d] for d, column in enumerate(TARGETS)]
    return torch.stack(columns, -1)


def _per_target(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}_{column.symbol}": value for column, value in zip(TARGETS, values.tolist(), strict=True)}


class _Gaussian(nn.Module):
    """`z ~ N(coefficients^T w + intercept, covariance)`."""

    coefficients: Tensor
    intercept: Tensor
    scale: Tensor

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        super().__init__()
        covariance = torch.tensor(fitted["covariance"], dtype=torch.float64)
        numbers = {
            "coefficients": torch.tensor(fitted["coefficients"], dtype=torch.float64),
            "intercept": torch.tensor(fitted["intercept"], dtype=torch.float64),
            "scale": torch.linalg.cholesky(covariance),
        }
        for name, value in numbers.items():
            self.register_buffer(name, value.float(), persistent=False)

    def mean(self, w: Tensor) -> Tensor:
        return w @ self.coefficients.to(w.dtype) + self.intercept.to(w.dtype)

    def sample(self, w: Tensor, n: int) -> Tensor:
        return MultivariateNormal(self.mean(w), scale_tril=self.scale.to(w.dtype)).sample((n,))

    def log_prob(self, z: Tensor, w: Tensor) -> Tensor:
        return MultivariateNormal(self.mean(w), scale_tril=self.scale.to(z.dtype)).log_prob(z)


class _DrawFromNoise(nn.Module):
    def __init__(self, posterior: InUserUnits) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = batch["context"]
        scaled = self.posterior.flow(self.posterior.context(context)[0]).transform.inv(batch["noise"])
        return {"draw": _capped(self.posterior.target.inverse(scaled, context))}
