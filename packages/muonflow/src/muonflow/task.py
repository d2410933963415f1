"""What is minimized, predicted and scored: the joint likelihood of a bundle, beside the best and the ignorant answer."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonflow import showers
from muonflow.coordinates import derived_features, from_flow, source_log_jacobian, to_flow
from muonflow.counts import Hurdle
from muonflow.marginal import Marginal
from muonflow.model import SplineBundle
from muonflow.scores import multiplicity_distance, muon_distances, per_muon

__all__ = ["LARGEST_COUNT", "SLOTS", "MuonBundles"]

SLOTS = 32  # muons of an event that travel with the predictions; the first ones, of which order means nothing
LARGEST_COUNT = 40  # multiplicities are compared one by one below, together from here on


class MuonBundles(nn.Module):
    """p(N, muons | primary, depth) = P(N | c) prod_i p(E_i, r_i | c); muons are independent given the condition.

    Args:
        about: what the data says of itself: scalers, marginal density, support (see `muonflow.data`)
        model: builds the network, `model(features=7)`
    """

    features_mean: Tensor
    features_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, about: Mapping[str, Any], model: Callable[..., SplineBundle] = SplineBundle) -> None:
        super().__init__()
        self.about = dict(about)
        self.network = model(features=len(about["features"]["mean"]))
        self.marginal = Marginal(about["marginal"])
        for name in ("features", "target"):
            for key in ("mean", "scale"):
                self.register_buffer(f"{name}_{key}", torch.tensor(about[name][key]), persistent=False)
        self.volume = float(sum(math.log(s) for s in about["target"]["scale"]))

    # ---------------------------------------------------------------- the distribution

    def features(self, condition: Tensor) -> Tensor:
        """Standardised derived quantities [B, 7] of conditions [B, 4]."""
        return (derived_features(condition) - self.features_mean) / self.features_scale

    def embed(self, condition: Tensor) -> Tensor:
        """Context of each event [B, D]: embed first, then index by owner."""
        return self.network.embed(self.features(condition))

    def log_prob(self, muons: Tensor, context: Tensor, ceiling: Tensor) -> Tensor:
        """ln p(E, r | c) per GeV and m [M], for muons [M, 2] with contexts [M, D] and ceilings E0 / A [M]."""
        y, log_jacobian = to_flow(muons, ceiling)
        z = (y - self.target_mean) / self.target_scale
        return self.network.log_prob(z, context) + log_jacobian - self.volume

    def sample_muons(self, context: Tensor, ceiling: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One muon [M, 2] (GeV, m) for each context [M, D]; none at or above its ceiling."""
        z = self.network.sample(context, generator)
        return from_flow(z * self.target_scale + self.target_mean, ceiling)

    def counts(self, condition: Tensor) -> Hurdle:
        """Distribution of the number of muons in nature, for conditions [B, 4]."""
        return self.network.counts(self.features(condition))

    # ---------------------------------------------------------------- what the loop calls

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over events of -ln p(N, muons | c), per unit of (e, v): its parts are nats both, and need no weight."""
        condition, owner, muons = batch["condition"].float(), batch["owner"], batch["muons"].float()
        with torch.autocast(condition.device.type, enabled=False):
            features = self.features(condition)
            context = self.network.embed(features)
            log_prob = self.log_prob(muons, context[owner], ceilings(condition)[owner]) + source_log_jacobian(muons)
            count = self.network.counts(features).among_kept(batch["kept"].float()).log_prob(batch["count"])
        return {
            "loss": -(log_prob.sum() + count.sum()) / max(len(condition), 1),
            "nll": -log_prob.detach().sum() / max(len(muons), 1),
            "nll_count": -count.detach().mean(),
        }

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiplicities for every event; where the batch holds muons, also how well they are described.

        `log_prob…` are sums over ALL muons of an event, in the coordinates (e, v); `observed` and `generated` [B, 32, 2] hold
        its first 32 muons and as many generated ones (GeV, m), NaN where there are fewer.
        """
        condition = batch["condition"].float()
        with torch.autocast(condition.device.type, enabled=False):
            counts = self.counts(condition)
            out = {
                "survival": torch.sigmoid(counts.logit),
                "multiplicity": counts.mass_of_positive(LARGEST_COUNT),
                "generated_count": counts.sample().float(),
            }
            if self._has_oracle:
                out |= true_counts(condition)
            if "muons" in batch:
                out |= self._against(condition, batch["count"], batch["owner"], batch["muons"].float())
                kept = batch["kept"].float()
                out["log_prob_count"] = counts.among_kept(kept).log_prob(batch["count"])
                if self._has_oracle:
                    out["log_prob_count_oracle"] = true_count_log_prob(batch["count"], condition, kept)
        return out

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        """Nats per muon in (e, v), over all muons at once, beside oracle, marginal and shuffled conditions; nats per event of
        the count; distances of one-dimensional distributions."""
        p = predictions
        nll = per_muon(p["log_prob"], p["count"])
        marginal, shuffled = per_muon(p["log_prob_marginal"], p["count"]), per_muon(p["log_prob_shuffled"], p["count"])
        scores = {
            "nll": nll,
            "nll_marginal": marginal,
            "nll_shuffled": shuffled,
            "gain": marginal - nll,
            "cond_gain": shuffled - nll,
            "nll_count": -float(p["log_prob_count"].mean()),
            "nll_event": -float((p["log_prob"] + p["log_prob_count"]).mean()),
            **muon_distances(p),
        }
        if "log_prob_oracle" in p:
            scores["nll_oracle"] = per_muon(p["log_prob_oracle"], p["count"])
            scores["nll_excess"] = nll - scores["nll_oracle"]
            scores["nll_count_excess"] = scores["nll_count"] + float(p["log_prob_count_oracle"].mean())
            scores["multiplicity_tv"] = multiplicity_distance(p)
        return scores

    # ---------------------------------------------------------------- pieces

    @property
    def _has_oracle(self) -> bool:
        return self.about.get("oracle") == "elbert"

    def _against(self, condition: Tensor, count: Tensor, owner: Tensor, muons: Tensor) -> dict[str, Tensor]:
        """Every event's muons under the model, the truth where it is known, the marginal, and a stranger's condition."""
        events, ceiling = len(condition), ceilings(condition)[owner]
        context = self.embed(condition)
        quoted = source_log_jacobian(muons)
        strangers = context[_derangement(count)][owner]
        terms = {
            "log_prob": self.log_prob(muons, context[owner], ceiling) + quoted,
            "log_prob_shuffled": self.log_prob(muons, strangers, ceiling) + quoted,
            "log_prob_marginal": self.marginal.log_prob(muons),
        }
        generated = self.sample_muons(context[owner], ceiling)
        if self._has_oracle:
            exact = showers.log_density(muons, condition[owner]) + quoted.double()
            terms["log_prob_oracle"] = exact.to(muons.dtype)
        zeros = muons.new_zeros(events)
        out = {name: zeros.index_add(0, owner, value) for name, value in terms.items()}
        out["generated_energy"] = zeros.index_add(0, owner, generated[:, 0])
        return out | {"observed": pack(muons, count, owner), "generated": pack(generated, count, owner)}


def ceilings(condition: Tensor) -> Tensor:
    """E0 / A [B], GeV: what a nucleon of the primary has, and no muon can exceed."""
    return condition[:, 0] / condition[:, 2]


def pack(muons: Tensor, count: Tensor, owner: Tensor) -> Tensor:
    """The first `SLOTS` muons of every event [B, SLOTS, 2], NaN beyond its count."""
    packed = muons.new_full((len(count), SLOTS, muons.shape[1]), torch.nan)
    place = torch.arange(len(owner), device=owner.device) - (torch.cumsum(count, 0) - count)[owner]
    fits = place < SLOTS
    packed[owner[fits], place[fits]] = muons[fits]
    return packed


def true_counts(condition: Tensor) -> dict[str, Tensor]:
    """Survival probability [B] and P(N | N >= 1) [B, LARGEST_COUNT] of the synthetic showers."""
    n = torch.arange(LARGEST_COUNT, device=condition.device)[:, None]
    mass = showers.log_probability_of_count(n, condition).exp().T
    survival = (-torch.expm1(showers.log_probability_of_count(torch.zeros_like(n[0]), condition))).clamp(min=0.0)
    positive = mass[:, 1:] / survival[:, None].clamp(min=1e-300)
    rest = (1 - positive.sum(1, keepdim=True)).clamp(min=0.0)
    return {"survival_oracle": survival, "multiplicity_oracle": torch.cat([positive, rest], 1)}


def true_count_log_prob(count: Tensor, condition: Tensor, kept: Tensor) -> Tensor:
    """Exact ln P(N | c) [B] among events of which a share `kept` [B] of the empty ones was kept."""
    log_mass = showers.log_probability_of_count(count, condition)
    empty = showers.log_probability_of_count(torch.zeros_like(count), condition).exp()
    return log_mass + torch.where(count == 0, kept.double().log(), 0.0) - (1 - empty + empty * kept).log()


def _derangement(count: Tensor) -> Tensor:
    """For every event another one's number, at random among the events that have muons [B]."""
    own = torch.arange(len(count), device=count.device)
    some = torch.nonzero(count > 0).flatten()
    order = some[torch.randperm(len(some), device=count.device)]
    own[order] = order.roll(1)
    return own
