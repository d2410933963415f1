"""What is minimized, predicted and scored: the joint likelihood of a bundle, beside the best and the ignorant answer."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muonflow import showers
from muonflow.coordinates import ceilings, derived_features, from_flow, source_log_jacobian, to_flow
from muonflow.latent import divergence, log_normal
from muonflow.marginal import Marginal
from muonflow.model import BundleFlow
from muonflow.scores import (
    Held,
    auc_of_two_samples,
    multiplicity_distance,
    muon_distances,
    per_muon,
    pit_distances,
    tail_indices,
    wasserstein_in_bins,
)
from skyloom.errors import ConfigError

__all__ = ["LARGEST_COUNT", "SLOTS", "MuonBundles"]

SLOTS = 16  # muons of an event that travel with the predictions; the first ones, of which order means nothing
LARGEST_COUNT = 40  # multiplicities are compared one by one below, together from here on
RANKED, RIVALS = 4, 9  # muons of an event that are ranked, and the generated ones among which they are
BOX = 5.0  # deviations; a spline is the identity beyond
IRON = 56.0


class MuonBundles(nn.Module):
    """p(N, muons | primary, depth) = P(N | c) prod_i p(E_i, r_i | c); muons are independent given the condition, or given
    it and a latent of the event where the model has one.

    Args:
        about: what the data says of itself: scalers, marginal density, support (see `muonflow.data`)
        model: builds the network, `model(features=7, targets=…, tail_index=…)`
        weigh: what the muons' part of the loss is a mean over: "events", the likelihood of whole bundles, or "muons", in which
            a bundle counts for its own size only
    """

    features_mean: Tensor
    features_scale: Tensor

    def __init__(self, about: Mapping[str, Any], model: Callable[..., BundleFlow] = BundleFlow, weigh: str = "events") -> None:
        super().__init__()
        if weigh not in ("events", "muons"):
            raise ConfigError(f"task.weigh={weigh!r}: events or muons is wanted.")
        self.about, self.weigh = dict(about), weigh
        self.network = model(features=len(about["features"]["mean"]), targets=about["targets"], tail_index=about["tail_index"])
        self.marginal = Marginal(about["marginal"])
        for key in ("mean", "scale"):
            self.register_buffer(f"features_{key}", torch.tensor(about["features"][key]), persistent=False)

    # ---------------------------------------------------------------- the distribution

    def features(self, condition: Tensor) -> Tensor:
        """Standardised derived quantities [B, 7] of conditions [B, 4]."""
        return (derived_features(condition) - self.features_mean) / self.features_scale

    def embed(self, condition: Tensor) -> Tensor:
        """Context of each event [B, D]: embed first, then index by owner."""
        return self.network.embed(self.features(condition))

    def shared(self, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the muons of each event share [B, D]: the context, and a draw of the event's latent where there is one."""
        context = self.embed(condition)
        if self.network.latent is None:
            return context
        return torch.cat([context, self.network.latent.prior(len(context), context, generator)], 1)

    def log_prob(self, muons: Tensor, shared: Tensor, ceiling: Tensor) -> Tensor:
        """ln p(E, r | c) per GeV and m [M], for muons [M, 2] with contexts [M, D] and ceilings E0 / A [M]."""
        y, log_jacobian = to_flow(muons, ceiling)
        return self.network.log_prob(y, shared) + log_jacobian

    def sample_muons(self, shared: Tensor, ceiling: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One muon [M, 2] (GeV, m) for each context [M, D]; none at or above its ceiling."""
        return from_flow(self.network.sample(shared, generator), ceiling)

    def counts(self, condition: Tensor) -> Any:
        """Distribution of the number of muons in nature, for conditions [B, 4]."""
        return self.network.counts(self.features(condition))

    def event_log_prob(self, condition: Tensor, owner: Tensor, muons: Tensor, context: Tensor | None = None) -> Tensor:
        """Sum over each event's muons of ln p(E, r | c) per GeV and m [B]; with a latent, a bound from weighted draws.

        `context` [B, D] takes the place of the events' own.
        """
        context = self.embed(condition) if context is None else context
        ceiling, nothing = ceilings(condition)[owner], muons.new_zeros(len(condition))
        latent = self.network.latent
        if latent is None:
            return nothing.index_add(0, owner, self.log_prob(muons, context[owner], ceiling))
        mean, log_scale = latent(self.features(condition), self.network.target(to_flow(muons, ceiling)[0])[0], owner)
        weights = []
        for _ in range(latent.draws):
            u = mean + torch.exp(log_scale) * torch.randn_like(mean)
            each = self.log_prob(muons, torch.cat([context, u], 1)[owner], ceiling)
            weights.append(nothing.index_add(0, owner, each) + log_normal(u) - log_normal(u, mean, log_scale))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(latent.draws)

    # ---------------------------------------------------------------- what the loop calls

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over events of -ln p(N, muons | c), per unit of (e, v): its parts are nats both, and need no weight."""
        condition, owner, muons = batch["condition"].float(), batch["owner"], batch["muons"].float()
        events, many = max(len(condition), 1), max(len(muons), 1)
        with torch.autocast(condition.device.type, enabled=False):
            features = self.features(condition)
            context = shared = self.network.embed(features)
            ceiling, cost = ceilings(condition)[owner], features.new_zeros(())
            y, log_jacobian = to_flow(muons, ceiling)
            z, log_target = self.network.target(y)
            if self.network.latent is not None:
                mean, log_scale = self.network.latent(features, z, owner)
                shared = torch.cat([context, mean + torch.exp(log_scale) * torch.randn_like(mean)], 1)
                cost = divergence(mean, log_scale).sum()
            inner = self.network.flow(shared.index_select(0, owner)).log_prob(z)
            log_prob = inner + log_target.sum(-1) + log_jacobian + source_log_jacobian(muons)
            count = self.network.counts(features).among_kept(batch["kept"].float()).log_prob(batch["count"])
        muon_part = (cost - log_prob.sum()) / (events if self.weigh == "events" else many)
        return {
            "loss": muon_part - count.sum() / events,
            "nll": (cost - log_prob.sum()).detach() / many,
            "nll_count": -count.detach().mean(),
            "latent_cost": cost.detach() / events,
            **monitors(context.detach(), z.detach(), len(muons) / events),
        }

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiplicities for every event; where the batch holds muons, also how well they are described.

        `log_prob…` are sums over ALL muons of an event, in the coordinates (e, v); `observed` and `generated` [B, 16, 2] hold
        its first 16 muons and as many generated ones (GeV, m), NaN where there are fewer; `pit` [B, 4, 2] is where an observed
        muon stands among generated ones of its own condition. `as_proton` and `as_iron` [B, 2] are one muon generated as if
        the primary had been that, and `log_weight` [B] what turns the first into the second.
        """
        condition = batch["condition"].float()
        with torch.autocast(condition.device.type, enabled=False):
            counts = self.counts(condition)
            out = {
                "survival": counts.survival,
                "multiplicity": counts.mass_of_positive(LARGEST_COUNT),
                "generated_count": counts.sample().float(),
            }
            if self._has_oracle:
                out |= true_counts(condition)
            if "muons" in batch:
                out |= self._against(condition, batch["count"], batch["owner"], batch["muons"].float())
                out |= self._as_another_mass(condition)
                kept = batch["kept"].float()
                out["log_prob_count"] = counts.among_kept(kept).log_prob(batch["count"])
                if self._has_oracle:
                    out["log_prob_count_oracle"] = true_count_log_prob(batch["count"], condition, kept)
        return out

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        """Nats per muon in (e, v), over all muons at once, beside oracle, marginal and shuffled conditions; nats per event of
        the count; distances of one-dimensional distributions."""
        p, held = predictions, Held.of(predictions)
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
            **muon_distances(p, held),
            **pit_distances(p),
            **tail_indices(p, held),
            **wasserstein_in_bins(p, held),
            "cond_gradient": float(p["condition_gradient"].nanmean()),
        }
        if "told_apart" in p:
            scores["two_sample_auc"] = auc_of_two_samples(p)
        if "log_prob_oracle" in p:
            scores["nll_oracle"] = per_muon(p["log_prob_oracle"], p["count"])
            scores["nll_excess"] = nll - scores["nll_oracle"]
            scores["nll_count_excess"] = scores["nll_count"] + float(p["log_prob_count_oracle"].mean())
            scores["multiplicity_tv"] = multiplicity_distance(p)
        return scores

    # ---------------------------------------------------------------- one graph for other programs

    def example(self) -> dict[str, Tensor]:
        """A batch of conditions and standard normal noise, for `exportable`."""
        low, high = (torch.tensor(self.about["support"][end]) for end in ("low", "high"))
        shares = torch.linspace(0.2, 0.8, 7)[:, None]
        condition = low + (high - low) * shares
        condition[:, 2] = float(self.about["support"]["mass_numbers"][0])
        noise = torch.linspace(-1.5, 1.5, 14).view(7, 2)
        return {"condition": condition, "noise": noise}

    def exportable(self) -> nn.Module:
        """conditions [B, 4] and noise [B, 2] to one muon each and the numbers of the count distribution."""
        from muonflow.graph import BundleGraph

        return BundleGraph(self)

    # ---------------------------------------------------------------- pieces

    @property
    def _has_oracle(self) -> bool:
        return self.about.get("oracle") in showers.LATERAL

    def _against(self, condition: Tensor, count: Tensor, owner: Tensor, muons: Tensor) -> dict[str, Tensor]:
        """Every event's muons under the model, the truth where it is known, the marginal, and a stranger's condition."""
        ceiling = ceilings(condition)[owner]
        context, nothing = self.embed(condition), muons.new_zeros(len(condition))
        quoted = nothing.index_add(0, owner, source_log_jacobian(muons))
        shared = self.shared(condition)
        generated = self.sample_muons(shared.index_select(0, owner), ceiling)
        out = {
            "log_prob": self.event_log_prob(condition, owner, muons, context) + quoted,
            "log_prob_shuffled": self.event_log_prob(condition, owner, muons, context[_derangement(count)]) + quoted,
            "condition_gradient": self._gradient(condition, count, owner, muons),
            "log_prob_marginal": nothing.index_add(0, owner, self.marginal.log_prob(muons)),
            "generated_energy": nothing.index_add(0, owner, generated[:, 0]),
            "observed": pack(muons, count, owner),
            "generated": pack(generated, count, owner),
        }
        if self._has_oracle:
            exact = showers.log_density(muons, condition[owner], self.about["oracle"]).to(muons.dtype)
            out["log_prob_oracle"] = nothing.index_add(0, owner, exact) + quoted
        return out | {"pit": self._ranks(condition, out["observed"][:, :RANKED])}

    def _gradient(self, condition: Tensor, count: Tensor, owner: Tensor, muons: Tensor) -> Tensor:
        """|d ln p / d features| per muon of each event [B], the features in their standard deviations; NaN without muons."""
        with torch.enable_grad():
            features = self.features(condition).requires_grad_()
            log_prob = self.event_log_prob(condition, owner, muons, self.network.embed(features))
            (slope,) = torch.autograd.grad(log_prob.sum(), features, materialize_grads=True)
        return torch.where(count > 0, slope.norm(dim=1) / count.clamp(min=1), torch.nan)

    def _ranks(self, condition: Tensor, observed: Tensor) -> Tensor:
        """Share of `RIVALS` generated muons below each observed one [B, RANKED, 2]; uniform on 0 … 1 if all is right."""
        there = ~torch.isnan(observed[..., 0])
        event = torch.nonzero(there)[:, 0].repeat_interleave(RIVALS)
        shared, limit = self.shared(condition), ceilings(condition)
        rivals = self.sample_muons(shared[event], limit[event]).view(-1, RIVALS, 2)
        ranks = torch.full_like(observed, torch.nan)
        ranks[there] = (rivals < observed[there][:, None]).float().mean(1)
        return ranks

    def _as_another_mass(self, condition: Tensor) -> dict[str, Tensor]:
        proton, iron = condition.clone(), condition.clone()
        proton[:, 2], iron[:, 2] = 1.0, IRON
        shared = self.shared(proton), self.shared(iron)
        limits = ceilings(proton), ceilings(iron)
        light, heavy = (self.sample_muons(c, limit) for c, limit in zip(shared, limits, strict=True))
        below = light[:, 0] < limits[1]
        inside = torch.where(below[:, None], light, heavy)
        ratio = self.log_prob(inside, shared[1], limits[1]) - self.log_prob(inside, shared[0], limits[0])
        return {"as_proton": light, "as_iron": heavy, "log_weight": torch.where(below, ratio, -torch.inf)}


def monitors(context: Tensor, z: Tensor, muons_per_event: float) -> dict[str, Tensor]:
    """What is watched while training. `ctx_std` is the spread over events of each unit of the context, averaged over units:
    kept for continuity, since it says nothing of whether the flow listens (`cond_gain` does)."""
    spread = context.std(0, correction=0).mean() if len(context) else context.sum()
    outside = (z.abs() > BOX).any(-1).float()
    return {
        "ctx_std": spread,
        "outside_box": outside.mean() if len(z) else outside.sum(),
        "muons_per_event": context.new_tensor(muons_per_event),
    }


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
