"""Count heads, latents, contexts, transforms and tails: each is the distribution that it says it is."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from muonflow import BundleFlow, showers
from muonflow.context import ContextFiLM
from muonflow.data import split
from muonflow.heads import HurdleHead, MeanHead, Poisson, PoissonHead, Rounded, Truncated
from muonflow.latent import EventLatent, divergence, log_normal
from muonflow.scores import auc_of_two_samples, pit_distances, wasserstein, wasserstein_in_bins
from muonflow.task import MuonBundles
from muonflow.trends import slopes, smoothed
from skyloom.flows import AffineAutoregressive, ContextResidual, SplineAutoregressive


@pytest.fixture(scope="module")
def data():
    events = showers.simulate(40_000, depths=1, index=2.0, keep_empty=0.01, seed=8)
    return split(events, {"synthetic": True, "oracle": "elbert"}, (0.8, 0.1, 0.1), seed=1)


def test_a_poisson_count_agrees_with_scipy_also_among_the_kept():
    from scipy.stats import poisson

    n = torch.arange(0, 60)
    p = Poisson(torch.tensor([0.7]).double())
    assert torch.allclose(p.log_prob(n), torch.as_tensor(poisson.logpmf(n.numpy(), math.exp(0.7))), atol=1e-12)
    table = torch.where(n == 0, 0.2, 1.0) * p.log_prob(n).exp()
    assert torch.allclose(p.among_kept(torch.tensor([0.2]).double()).log_prob(n).exp(), table / table.sum(), atol=1e-12)
    positive = p.log_prob(n)[1:20].exp() / p.survival
    assert torch.allclose(p.mass_of_positive(20)[0, :-1], positive, atol=1e-12)
    drawn = Poisson(torch.full((200_000,), 0.7)).sample(torch.Generator().manual_seed(1)).double()
    assert float(drawn.mean()) == pytest.approx(math.exp(0.7), rel=0.01)


def test_a_truncated_count_never_is_zero_and_its_masses_sum_to_one():
    p = Truncated(torch.tensor([-1.0]).double(), torch.tensor([0.4]).double())
    assert float(p.log_prob(torch.arange(1, 2000)).exp().sum()) == pytest.approx(1, abs=1e-9)
    assert float(p.log_prob(torch.tensor([0]))) == 0
    assert float(p.mass_of_positive(30).sum()) == pytest.approx(1, abs=1e-9)
    assert int(Truncated(*(v.expand(5000) for v in p)).sample().min()) == 1


def test_least_squares_give_one_count_for_all_and_the_loss_of_earlier_work():
    p = Rounded(torch.full((1000,), math.log1p(2.4)))
    assert torch.equal(p.sample().unique(), torch.tensor([2]))
    count = torch.arange(1000) % 7
    mse = torch.nn.functional.mse_loss(p.prediction, torch.log1p(count.float()))
    assert float(-p.log_prob(count).mean()) == pytest.approx(0.1 * float(mse), rel=1e-5)


def fitted(head, events, steps=250):
    from muonflow.coordinates import derived_features

    torch.manual_seed(0)
    x = derived_features(events.condition)
    x = (x - x.mean(0)) / x.std(0)
    module = head(7)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(steps):
        rows = torch.randint(len(x), (1024,))
        loss = -module(x[rows]).among_kept(events.columns["kept"][rows]).log_prob(events.count[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return module(x)


def test_a_negative_binomial_beats_poisson_and_least_squares_on_showers_that_fluctuate(data):
    from muonflow.scores import multiplicity_distance
    from muonflow.task import LARGEST_COUNT, true_counts

    events = data.train
    nll, distance = {}, {}
    truth = true_counts(events.condition)["multiplicity_oracle"]
    for head in (HurdleHead, PoissonHead, MeanHead):
        counts = fitted(head, events)
        nll[head] = -float(counts.among_kept(events.columns["kept"]).log_prob(events.count).mean())
        predictions = {"condition": events.condition, "count": events.count, "multiplicity_oracle": truth}
        distance[head] = multiplicity_distance({**predictions, "multiplicity": counts.mass_of_positive(LARGEST_COUNT)})
    assert nll[HurdleHead] < nll[PoissonHead] - 0.03
    assert distance[HurdleHead] < 0.5 * distance[PoissonHead], distance
    assert distance[HurdleHead] < 0.5 * distance[MeanHead], distance
    assert distance[MeanHead] > 0.15


@pytest.mark.parametrize("transform", ["standardise", "quantile", "yeo_johnson"])
def test_the_density_per_gev_and_metre_integrates_to_one_whatever_the_transform(data, transform):
    torch.manual_seed(1)
    task = MuonBundles(data.about, partial(BundleFlow, transform=transform))
    condition = torch.tensor([[3e5, 0.3, 4.0, 1500.0]])
    log_e, log_r = torch.linspace(-12, 11.2, 400), torch.linspace(-9, 10, 300)
    muons = torch.cartesian_prod(log_e.exp(), log_r.exp())
    muons = muons[muons[:, 0] < 3e5 / 4]
    with torch.no_grad():
        shared = task.shared(condition).expand(len(muons), -1)
        density = task.log_prob(muons, shared, torch.full((len(muons),), 3e5 / 4)).exp() * muons.prod(1)
    assert float(density.double().sum() * log_e.diff()[0] * log_r.diff()[0]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("embed", [ContextFiLM, partial(ContextResidual, outputs=16, width=24)])
@pytest.mark.parametrize("flow", [AffineAutoregressive, SplineAutoregressive])
def test_every_parameter_learns_and_each_event_is_embedded_alone(data, embed, flow):
    torch.manual_seed(0)
    task = MuonBundles(data.about, partial(BundleFlow, embed=embed, flow=partial(flow, transforms=2)), weigh="muons")
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch = data.train.__getitems__(torch.nonzero(data.train.count > 0).flatten()[:64])
    task.losses(batch)["loss"].backward()
    assert all(bool((p.grad != 0).any()) for p in task.parameters())
    alone = torch.cat([task.embed(batch["condition"][k : k + 1]) for k in range(8)])
    assert torch.allclose(task.embed(batch["condition"])[:8], alone, atol=1e-5)


def test_a_latent_that_knows_nothing_is_the_prior_and_its_bound_the_likelihood(data):
    torch.manual_seed(0)
    task = MuonBundles(data.about, partial(BundleFlow, latent=EventLatent)).eval()
    batch = data.test.__getitems__(torch.nonzero(data.test.count > 1).flatten()[:32])
    with torch.no_grad():
        mean, log_scale = task.network.latent(torch.zeros(3, 7), torch.zeros(4, 2), torch.tensor([0, 0, 2, 2]))
        assert float(divergence(mean, log_scale).abs().max()) == 0
        width = task.network.embed.outputs
        for step in task.network.flow.steps:  # a flow that does not look at the latent
            step._layers()[0].weight[:, 2 + width :] = 0
        blind = task.event_log_prob(batch["condition"], batch["owner"], batch["muons"])
        shared = task.shared(batch["condition"])
        limit = (batch["condition"][:, 0] / batch["condition"][:, 2])[batch["owner"]]
        each = task.log_prob(batch["muons"], shared[batch["owner"]], limit)
    assert torch.allclose(blind, torch.zeros(32).index_add(0, batch["owner"], each), atol=2e-3)
    u = torch.randn(50_000, 2)
    shifted = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.2, -0.3]])
    x = shifted[0] + u * shifted[1].exp()
    assert float((log_normal(x, *shifted) - log_normal(x)).mean()) == pytest.approx(float(divergence(*shifted)), abs=0.02)


def test_the_heavy_variant_has_its_exact_density_and_its_tails():
    from skyloom.flows import hill

    events = showers.simulate(150_000, depths=1, index=2.0, keep_empty=0.01, seed=3, lateral="heavy")
    where, owner = events.rows_of_muons(torch.arange(len(events)))
    condition, muons = events.condition[owner], events.muons[where].double()
    here = showers.arrival(condition)
    scale = showers.radius_scale(showers.physics.surface_energy(muons[:, 0], here.column), here.height)
    t = torch.log(muons[:, 1] / (2 * scale))
    assert hill(t[:, None], 0.01)[:, 0].tolist() == pytest.approx([1 / 3, 1 / 3], rel=0.25)
    r = torch.linspace(-40, 40, 8001, dtype=torch.float64).exp()
    mass = torch.trapezoid(showers.LATERAL["heavy"](r, torch.tensor(3.0).double()).exp() * r, r.log())
    assert float(mass) == pytest.approx(1, abs=1e-4)


def test_ranks_of_equal_distributions_are_uniform_and_of_shifted_ones_are_not():
    torch.manual_seed(0)
    rivals, muon = torch.randn(20_000, 9, 2), torch.randn(20_000, 2)
    muon[:, 1] += 0.3
    ranks = (rivals < muon[:, None]).float().mean(1)
    found = pit_distances({"pit": ranks[:, None]})
    assert found["pit_energy"] < 0.015 < 0.08 < found["pit_radius"]


def test_the_area_under_the_roc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    torch.manual_seed(0)
    scores = torch.randint(0, 7, (500, 1, 2)).float()
    scores[..., 1] += torch.randint(0, 3, (500, 1)).float()
    y = torch.cat([torch.zeros(500), torch.ones(500)]).numpy()
    assert auc_of_two_samples({"told_apart": scores}) == pytest.approx(roc_auc_score(y, scores[:, 0].T.flatten().numpy()))


def test_a_wasserstein_distance_is_the_shift_and_that_of_scipy():
    from scipy import stats

    g = torch.Generator().manual_seed(3)
    a, b = torch.randn(500, generator=g), 1.3 * torch.randn(700, generator=g) + 0.4
    weights = torch.rand(500, generator=g), torch.rand(700, generator=g)
    expected = stats.wasserstein_distance(a.numpy(), b.numpy(), weights[0].numpy(), weights[1].numpy())
    assert wasserstein(a, b, *weights) == pytest.approx(expected, rel=1e-5)
    assert wasserstein(a, a + 0.25, weights[0], weights[0]) == pytest.approx(0.25, rel=1e-5)


def test_bins_of_the_condition_tell_what_the_marginal_hides():
    """Muons handed to the wrong events: no histogram of all of them changes, the worst bin does."""
    g = torch.Generator().manual_seed(4)
    energy = torch.exp(7 + 3 * torch.rand(3000, generator=g))
    condition = torch.stack([energy, torch.zeros(3000), torch.ones(3000), 1000 + 1800 * torch.rand(3000, generator=g)], 1)
    draw = lambda: (energy / 10)[:, None, None] * torch.exp(0.3 * torch.randn(3000, 1, 2, generator=g))  # noqa: E731
    p = {"condition": condition, "count": torch.ones(3000), "observed": draw(), "generated": draw()}
    right = wasserstein_in_bins(p)
    torn = wasserstein_in_bins({**p, "generated": p["generated"][torch.randperm(3000, generator=g)]})
    assert max(wasserstein_in_bins({**p, "generated": 1.3 * p["observed"]}).values()) == pytest.approx(np.log(1.3), abs=0.011)
    assert max(right.values()) < 0.15 and min(torn.values()) > 0.8


def test_the_slope_of_a_line_is_its_step_and_a_constant_stays():
    steps = np.arange(1, 401) * 50
    values = 3.0 - 0.002 * steps
    assert slopes(steps, values) == {100: -2.0, 5000: -2.0, 10000: -2.0}
    assert smoothed(np.arange(30), np.full(30, 1.7)).tolist() == pytest.approx([1.7] * 30)
    assert smoothed([7, 8], [0.0, 1.0])[1] == pytest.approx(0.05)
    assert smoothed([0, 50, 100], [0.0, 1.0, 1.0])[2] == pytest.approx(1 - 0.95**100)
    assert np.isnan(slopes([50], [1.0])[100])
