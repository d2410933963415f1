"""Splits without leaks, densities in the catalogue's units, scores that mean what they say."""

import json
import math
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm, skewnorm

from cinn_clusters import data as cluster_data
from cinn_clusters.baselines import linear_gaussian
from cinn_clusters.columns import LOOKBACK, TARGETS
from cinn_clusters.cosmology import AGE_TODAY
from cinn_clusters.data import repeated_mergers
from cinn_clusters.posteriors import interval_coverage, kde_modes, marginal_density, summary
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.task import MergerPosterior, _uncapped
from cinn_clusters.truth import log_posterior, posterior_draws
from skyloom.calibration import pit as rank
from skyloom.errors import DataError
from skyloom.flows import GlowCoupling, MaskedContext, from_json
from skyloom.metrics.posterior import crps
from skyloom.metrics.regression import explained_variance

pytestmark = pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")


@pytest.fixture(scope="module")
def clusters():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cluster_data.synthetic(352, seed=0)


def posterior(clusters, seed=0, **options):
    torch.manual_seed(seed)
    options.setdefault("draws", 100)
    model = partial(GlowCoupling, blocks=3, hidden=32, clamp=1.0, identity_start=options.pop("identity_start", True))
    return MergerPosterior(clusters.about, model, start=options.pop("start", "standardised"), **options).eval()


def predicted(task, split, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        out = task.predict(split.columns)
    return out | {name: split[name] for name in ("target", "halo_id", "snapshot", "cluster_id")}


# ------------------------------------------------------------------ splits and scalers


def test_no_cluster_stands_on_two_sides(clusters):
    sides = [set(getattr(clusters, name)["cluster_id"].tolist()) for name in ("train", "val", "test")]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert clusters.group == "cluster_id"
    assert [sorted(side) for side in sides] == [clusters.about["split"][name] for name in ("train", "val", "test")]


def test_a_random_split_would_repeat_most_mergers_and_ours_repeats_none(clusters):
    """80 percent of the rows for training, 10 for testing: 64 percent of the test rows find their own merger in training."""
    everything = torch.cat([getattr(clusters, name)["target"] for name in ("train", "val", "test")])
    n = len(everything) // 10
    shares = []
    for seed in range(5):
        order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
        shares.append(repeated_mergers(everything[order[2 * n :]], everything[order[:n]]))
    assert np.mean(shares) == pytest.approx(0.64, abs=0.06)
    assert repeated_mergers(clusters.train["target"], clusters.test["target"]) == 0


def test_scalers_know_the_training_split_only(clusters):
    to_context, to_target = (from_json(clusters.about[f"{name}_transform"]) for name in ("context", "target"))
    for name, tight in (("train", True), ("val", False)):
        context, target = (getattr(clusters, name)[column].double() for column in ("context", "target"))
        for z in (to_context(context)[0], to_target(target, context)[0]):
            far = max((z.mean(0)).abs().max().item(), (z.std(0, correction=0) - 1).abs().max().item())
            assert (far < 1e-6) == tight


def test_about_is_plain_json_and_rebuilds_the_task(clusters):
    task = posterior(clusters)
    again = posterior(cluster_data.Data(*[clusters.train] * 3, about=json.loads(json.dumps(clusters.about))), seed=1)
    again.load_state_dict(task.state_dict())
    rows = {name: clusters.test[name][:5] for name in ("context", "target")}
    with torch.no_grad():
        torch.manual_seed(0)
        first = task.predict(rows)
        torch.manual_seed(0)
        second = again.predict(rows)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ------------------------------------------------------------------ likelihoods


def test_an_identity_flow_costs_three_nats_without_the_constant(clusters):
    terms = posterior(clusters).losses(clusters.train.columns)
    assert terms["nll_no_constant"].item() == pytest.approx(3.0, abs=0.05)
    assert terms["loss"].item() - terms["nll_no_constant"].item() == pytest.approx(5.5136, abs=1e-4)


def test_a_flow_around_the_regression_starts_as_the_linear_baseline(clusters):
    p = predicted(posterior(clusters, start="regression"), clusters.test)
    torch.testing.assert_close(p["log_prob"], p["log_prob_linear"], atol=2e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="regression"):
        posterior(clusters, start="nowhere")


def test_user_units_differ_from_scaled_units_by_the_jacobian(clusters):
    """ln p(y) by hand: the scaled density, less ln sd, less the derivatives of ln tau, ln M, ln(m_sub - floor) and of
    ln r for the mass ratio, r = u / (1 - u^8)^(1/8), whose factor M / m_sub does not change d ln r / dq."""
    p = predicted(posterior(clusters), clusters.test)
    steps = clusters.about["target_transform"]["steps"]
    sd = torch.tensor(steps[-1]["scale"]).log().sum()
    y, now = clusters.test["target"].double(), AGE_TODAY - clusters.test["context"][:, LOOKBACK].double()
    by_hand = -(now - y[:, 0]).log() - y[:, 2].log() - (y[:, 3] - 0.0999).log()
    by_hand -= y[:, 4].log() + (1 - (y[:, 4] / steps[0]["columns"][4]["ceiling"]) ** 8).log()
    below = y[:, 4] < 1  # the cap is spread out beyond itself
    volume = (p["log_prob"] - p["log_prob_scaled"]).double()
    torch.testing.assert_close(volume[below], (by_hand - sd)[below], atol=2e-3, rtol=0)


def test_the_linear_baseline_is_the_exact_density_of_a_linear_gaussian():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4000, 2))
    z = w @ [[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]] + 3 + rng.normal(size=(4000, 3)) @ np.diag([0.1, 0.5, 1.0])
    fitted = linear_gaussian(w, z)
    np.testing.assert_allclose(fitted["coefficients"], [[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], atol=0.06)
    np.testing.assert_allclose(np.sqrt(np.diag(fitted["covariance"])), [0.1, 0.5, 1.0], rtol=0.05)


def test_a_flow_without_context_gains_nothing_from_it_and_a_shuffled_one_loses(clusters):
    """An identity flow ignores its context, so giving it other clusters' inputs changes nothing."""
    p = predicted(posterior(clusters), clusters.test)
    torch.testing.assert_close(p["log_prob"], p["log_prob_shuffled"], atol=1e-4, rtol=1e-5)
    scores = posterior(clusters).score(p)
    assert scores["nll_linear"] < scores["nll_population"] - 1


# ------------------------------------------------------------------ draws


def test_draws_stay_in_their_support_and_a_seed_repeats_them(clusters):
    task = posterior(clusters, identity_start=False, draws=50)
    first, again = predicted(task, clusters.test, 3), predicted(task, clusters.test, 3)
    assert torch.equal(first["samples"], again["samples"])
    assert first["samples"].shape == (len(clusters.test), 50, 6)
    now = AGE_TODAY - clusters.test["context"][:, LOOKBACK]
    assert (first["samples"][..., 0] < now[:, None]).all()
    assert (first["samples"][..., 2] > 0).all()
    assert (first["samples"][..., 3] > 0.0999).all()
    assert first["samples"][..., 4].min() > 0
    assert first["outside"].mean() < 0.05


def test_draws_outside_the_support_are_counted(clusters):
    task = posterior(clusters)
    context = clusters.test["context"][:1]
    inside = clusters.test["target"][:1].expand(4, 6).clone()
    inside[1, 0], inside[2, 4], inside[3, 3] = 20.0, 1.01, 0.05  # after its snapshot, above one, below the cut
    outside = task.outside(inside[None], context)
    assert outside.tolist() == [[0.25, 0.0, 0.0, 0.25, 0.25, 0.0]]


def test_chunks_bound_memory_and_change_no_shape(clusters):
    task = posterior(clusters, draws=30, row_budget=100)
    assert task.sample(clusters.test["context"][:7]).shape == (7, 30, 6)


def test_prediction_needs_no_truth(clusters):
    out = posterior(clusters).predict({"context": clusters.test["context"][:3]})
    assert "rank" not in out
    assert out["quantiles"].shape == (3, 6, 5)


def test_two_seeds_agree_on_a_posterior_mean(clusters):
    task = posterior(clusters, identity_start=False, draws=10_000)
    rows = cluster_data.Columns(clusters.test.columns).take(np.arange(3))
    a, b = predicted(task, rows, 1), predicted(task, rows, 2)
    assert ((a["mean"] - b["mean"]).abs() < 4 * math.sqrt(2 / 10_000) * a["sd"]).all()


# ------------------------------------------------------------------ scores


def test_crps_of_gaussian_draws_is_the_closed_form():
    g = torch.Generator().manual_seed(0)
    draws, truth = 2 * torch.randn(200, 2000, 1, generator=g).double() + 1, torch.linspace(-3, 5, 200)[:, None].double()
    u = ((truth - 1) / 2).numpy()
    exact = 2 * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - 1 / math.sqrt(math.pi))
    np.testing.assert_allclose(crps(draws, truth).numpy(), exact, atol=0.15)
    assert float((crps(draws, truth).numpy() - exact).mean()) == pytest.approx(0, abs=0.01)


def test_crps_does_not_depend_on_the_number_of_draws():
    g = torch.Generator().manual_seed(1)
    truth = torch.randn(20_000, 1, generator=g)
    few, many = (crps(torch.randn(20_000, n, 1, generator=g), truth).mean().item() for n in (3, 30))
    assert few == pytest.approx(many, abs=0.02)
    assert many == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)


def test_ranks_are_uniform_and_coverage_nominal_for_an_exact_posterior():
    g = torch.Generator().manual_seed(2)
    centre = torch.randn(4000, 1, generator=g)
    draws = centre[:, None] + torch.randn(4000, 300, 1, generator=g)
    truth = centre + torch.randn(4000, 1, generator=g)
    ranks = rank(draws, truth)
    for level in (0.5, 0.68, 0.9, 0.95):
        assert interval_coverage(ranks, level).item() == pytest.approx(level, abs=0.025)
    too_narrow = rank(centre[:, None] + 0.5 * (draws - centre[:, None]), truth)
    assert interval_coverage(too_narrow, 0.68).item() < 0.45


def test_quantiles_and_explained_variance_are_those_of_numpy():
    draws = torch.randn(5, 101, 2, generator=torch.Generator().manual_seed(0))
    expected = np.quantile(draws.numpy(), [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).transpose(1, 2, 0)
    np.testing.assert_allclose(summary(draws)["quantiles"].numpy(), expected, atol=1e-6)
    y = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    r2 = explained_variance(y, y + torch.tensor([1.0, 0.0]))
    assert r2[0].item() == pytest.approx(-0.5)
    assert math.isnan(r2[1])


def test_the_mode_of_a_skewed_sample_is_found_where_a_fixed_bandwidth_fails():
    grid = np.linspace(-0.5, 1.0, 512)
    law = skewnorm(6, loc=0.0, scale=0.25)  # sd about 0.15
    mode, sd = grid[law.pdf(grid).argmax()], law.std()
    sample = law.rvs(2000, random_state=0)
    ours = grid[marginal_density(sample, grid).argmax()]
    fixed = grid[np.exp(-0.5 * ((grid[:, None] - sample) / 0.5) ** 2).sum(1).argmax()]
    assert abs(ours - mode) < 0.25 * sd
    assert abs(fixed - mode) > 0.4 * sd


def test_a_marginal_density_integrates_to_one_within_its_bounds():
    sample = np.random.default_rng(0).uniform(0, 1, 1500)
    grid = np.linspace(-0.5, 1.5, 801)
    density = marginal_density(sample, grid, 0.0, 1.0)
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.01)
    assert density[(grid < 0) | (grid > 1)].max() == 0
    assert density[np.abs(grid - 0.01).argmin()] == pytest.approx(1.0, abs=0.15)  # no dip at the edge


def test_scoring_is_quick_enough_to_bootstrap(clusters):
    task = posterior(clusters)
    p = predicted(task, clusters.test)
    task.score(p)
    elapsed = []
    for _ in range(5):
        start = time.perf_counter()
        task.score(p)
        elapsed.append(time.perf_counter() - start)
    assert min(elapsed) < 0.05


def test_a_perfect_posterior_scores_perfectly(clusters):
    """Draws made of the truth: no error, all variance explained, for the age and for the time since."""
    task = posterior(clusters)
    p = predicted(task, clusters.test)
    truth = p["target"]
    p |= {"map": truth, "mean": truth, "quantiles": truth[..., None].expand(-1, -1, 5), "crps": torch.zeros_like(truth)}
    scores = task.score(p)
    for column in TARGETS:
        assert scores[f"r2_{column.symbol}"] == pytest.approx(1.0)
    assert scores["r2_tau"] == pytest.approx(1.0, abs=1e-5)
    assert scores["crps"] == scores["mae_map"] == scores["mae_median"] == 0
    assert 0.5 < scores["r2_T_lookback_only"] < 0.85


def test_a_few_steps_of_training_beat_the_population_and_use_the_context(clusters):
    task = posterior(clusters, target_noise=0.1).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-3)
    for _ in range(50):
        terms = task.losses(clusters.train.columns)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    scores = task.eval().score(predicted(task, clusters.val))
    assert scores["nll"] < scores["nll_population"] - 0.7
    assert scores["nll"] < scores["nll_shuffled"] - 1
    assert scores["r2_mean_M"] > 0.5


@pytest.mark.slow
def test_the_published_recipe_explodes_and_the_bounded_one_does_not(clusters):
    """Unbounded targets, twelve blocks, clamp 2, no early stop: impossible draws, a likelihood worse than the prior."""
    from skyloom.flows import Chain, Identity, PerColumn, Standardise

    train = clusters.train.columns
    raw = Standardise.fit(train["target"])
    identity = PerColumn([Identity()] * 6)
    about = clusters.about | {
        "target_transform": Chain(identity, raw).to_json(),
        "context_transform": Standardise.fit(train["context"]).to_json(),
    }
    torch.manual_seed(0)
    task = MergerPosterior(about, partial(GlowCoupling, blocks=12, hidden=128, clamp=2.0), start="standardised")
    optimizer = torch.optim.Adam(task.parameters(), lr=2e-3)
    for _ in range(200):
        for rows in torch.randperm(len(train["target"])).split(512):
            loss = task.losses({name: train[name][rows] for name in ("context", "target")})["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    scores = task.eval().score(predicted(task, clusters.test))
    # the population's own density is fitted in the bounded coordinates, so that a bounded task scores it
    bounded = posterior(clusters)
    sound = bounded.score(predicted(bounded, clusters.test))
    assert scores["outside"] > 0.02 > sound["outside"]
    assert scores["nll"] > sound["nll_population"]


def test_a_masked_flow_knows_less_and_is_wider_without_the_masses(clusters):
    torch.manual_seed(0)
    model = partial(GlowCoupling, blocks=3, hidden=32, clamp=1.0, identity_start=True, embed=MaskedContext)
    task = MergerPosterior(clusters.about, model, start="standardised", hidden=0.3, target_noise=0.1, draws=100).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    for _ in range(80):
        terms = task.losses(clusters.train.columns)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    context, target = clusters.test["context"], clusters.test["target"]
    less = context.clone()
    less[:, [0, 1, 2, 3, 4, 6]] = torch.nan
    with torch.no_grad():
        full, blind = (-task.eval().posterior(c).log_prob(_uncapped(target)).mean() for c in (context, less))
        spread = [task.sample(c)[..., 2].log().std(1).mean() for c in (context, less)]
    assert blind > full + 0.4
    assert spread[1] > 1.3 * spread[0]


# ------------------------------------------------------------------ the true posterior of the synthetic catalogue


def test_the_true_posterior_is_calibrated_on_its_own_catalogue(clusters):
    """Draws of the exact posterior rank the truths uniformly; of a posterior with 30 percent less spread they do not."""
    from skyloom.calibration import one_per_group, pit, uniformity

    everything = cluster_data.from_tables(*merger_catalogue(450, seed=4)).train
    rows = one_per_group(everything["cluster_id"].numpy(), np.random.default_rng(0))
    context, target = (everything[name][rows].double() for name in ("context", "target"))
    draws = torch.as_tensor(posterior_draws(context.numpy(), 200, proposals=1500))
    generator = torch.Generator().manual_seed(0)
    assert uniformity(pit(draws, target, generator).numpy()).passed()
    middle = draws.median(1, keepdim=True).values
    assert not uniformity(pit(middle + 0.7 * (draws - middle), target, generator).numpy()).passed()


def test_the_true_density_is_that_of_its_draws(clusters):
    """The mean of ln p over its own draws is its mean over the catalogue's mergers, which are draws too. A density that
    missed a factor, or put its mass elsewhere, would differ."""
    context = clusters.test["context"].double().numpy()
    own = np.stack([log_posterior(context, posterior_draws(context, 1, seed=k)[:, 0], 1.05, draws=1000) for k in range(2)])
    real = clusters.test["log_prob_true"].double().numpy()
    assert np.isfinite(own).all()
    scatter = math.hypot(
        own.std() / math.sqrt(own.size), real.std() / math.sqrt(len(np.unique(clusters.test["cluster_id"])) * 3)
    )
    assert abs(own.mean() - real.mean()) < 4 * scatter


def test_nothing_beats_the_true_posterior(clusters):
    scores = posterior(clusters).score(predicted(posterior(clusters), clusters.test) | _truths(clusters.test))
    assert 0 < scores["nll_excess"] < 0.5
    assert scores["nll_excess"] == pytest.approx((scores["nll"] - scores["nll_true"]) / 6)
    assert scores["nll_linear"] > scores["nll_true"]


def _truths(split):
    return {"log_prob_true": split["log_prob_true"]}


def test_the_cap_of_the_ratio_is_spread_out_for_the_density_and_kept_by_the_draws(clusters):
    task = posterior(clusters)
    target = clusters.test["target"][:40].clone()
    target[:, 4] = 1.0
    first, second = (task._against(target, clusters.test["context"][:40], *_drawn(task, clusters)) for _ in range(2))
    assert torch.isfinite(first["log_prob"]).all()
    assert not torch.equal(first["log_prob"], second["log_prob"])
    assert _drawn(task, clusters)[0][..., 4].max() <= 1


def _drawn(task, clusters):
    with torch.no_grad():
        return task.sample_and_log_prob(clusters.test["context"][:40])


# ------------------------------------------------------------------ calibration, and the most probable merger


def test_p_values_pass_exact_posteriors_and_reject_planted_faults():
    """Uniform ranks pass; ranks of a posterior 40 percent too narrow, or shifted by half its spread, do not."""
    from cinn_clusters.scores import independent_p_values

    g = torch.Generator().manual_seed(0)
    z = torch.randn(800, 6, generator=g)
    normal = torch.distributions.Normal(0.0, 1.0)
    clusters_of = torch.arange(800) // 2
    joint = {"tarp": torch.rand(800, generator=g), "credibility": torch.rand(800, generator=g), "cluster_id": clusters_of}
    exact = independent_p_values({"rank": normal.cdf(z), **joint})
    narrow = independent_p_values({"rank": normal.cdf(z / 0.6), **joint})
    shifted = independent_p_values({"rank": normal.cdf(z + 0.5), **joint})
    assert exact["sbc_least_p"] > 0.01
    assert narrow["sbc_least_p"] < 1e-3
    assert max(narrow[f"sbc_{c.symbol}_p"] for c in TARGETS) < 0.01
    assert max(shifted[f"sbc_{c.symbol}_p"] for c in TARGETS) < 0.01
    assert exact["tarp_p"] > 0.01


def test_the_map_is_more_probable_than_any_draw_and_inside_the_support(clusters):
    task = posterior(clusters, identity_start=False, draws=80)
    context = clusters.test["context"][:20]
    p = predicted(task, cluster_data.Columns(clusters.test.columns).take(np.arange(20)))
    below = p["map"][:, 4] < 1  # at the cap the estimate is of what lies beyond
    assert below.float().mean() > 0.5
    with torch.no_grad():
        best = task.posterior(context).log_probs(p["map"])[1]
        draws = task.posterior(context).log_probs(p["samples"].transpose(0, 1))[1].max(0).values
    assert (best > draws - 0.01)[below].all()
    assert (task.outside(p["map"][:, None], context) == 0).all()


def test_a_fixed_bandwidth_gives_means_for_modes_where_silvermans_finds_them():
    """At a spread of 0.15, a width of 0.5 misses the mode of a skewed law by nearly half its spread."""
    law = skewnorm(6, loc=0.0, scale=0.25)
    grid = np.linspace(-0.5, 1.0, 4001)
    mode, sd = grid[law.pdf(grid).argmax()], law.std()
    draws = torch.as_tensor(law.rvs((40, 2000, 1), random_state=0))
    assert abs(kde_modes(draws).mean().item() - mode) < 0.15 * sd
    assert abs(kde_modes(draws, bandwidth=0.5).mean().item() - mode) > 0.4 * sd


def test_two_runs_are_compared_on_the_rows_that_both_have():
    """A shift of every density by a constant is found exactly, in nats per target, whatever the order of the rows."""
    from cinn_clusters.beside import paired_scores

    rng = np.random.default_rng(0)
    n = 300
    first = {
        "halo_id": np.arange(n), "snapshot": np.full(n, 50), "cluster_id": np.arange(n) // 3,
        "target": rng.normal(size=(n, 6)), "log_prob": rng.normal(size=n), "crps": rng.random((n, 6)),
    }  # fmt: skip
    second = {name: values[::-1][: n - 20] for name, values in first.items()}
    same = paired_scores(first, second, resamples=50)
    assert same["nll"].difference == 0 and same["crps"].p_value == 1
    worse = paired_scores(first, second | {"log_prob": second["log_prob"] - 0.6}, resamples=50)["nll"]
    assert worse.difference == pytest.approx(-0.1) and worse.difference.high == pytest.approx(-0.1)
    noisy = second | {"log_prob": second["log_prob"] + rng.normal(size=n - 20)}
    found = paired_scores(first, noisy, resamples=400)["nll"].difference
    assert found.low < 0 < found.high
    with pytest.raises(DataError, match="no test row in common"):
        paired_scores(first, second | {"snapshot": second["snapshot"] + 1})
    with pytest.raises(DataError, match="different mergers"):
        paired_scores(first, second | {"target": second["target"] + 1})
