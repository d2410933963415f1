"""The ensemble of perceptrons, trained in one batched pass, and what each model loses without a column."""

import math

import numpy as np
import pytest
import torch

from cinn_clusters.columns import TARGETS
from cinn_clusters.ensemble import BatchedPerceptron, Phase, fit_ensemble
from cinn_clusters.sensitivity import ablation, permutation
from cinn_clusters.sensitivity_map import sensitivity_map
from skyloom.errors import ConfigError
from skyloom.plots import style


def test_members_are_the_perceptrons_of_torch():
    """One member against `Linear(bias=False), BatchNorm1d, ReLU` with the same weights, in training and in evaluation."""
    net, x = BatchedPerceptron(4, 2, members=3, width=8, layers=2, seed=1), torch.randn(16, 4)
    layers: list[torch.nn.Module] = []
    for k, (a, b) in enumerate(((4, 8), (8, 8))):
        linear = torch.nn.Linear(a, b, bias=False)
        linear.weight.data = net.hidden[k][1].T.clone()
        layers += [linear, torch.nn.BatchNorm1d(b), torch.nn.ReLU()]
    out = torch.nn.Linear(8, 2)
    out.weight.data, out.bias.data = net.out[1].T.clone(), net.bias[1, 0].clone()
    one = torch.nn.Sequential(*layers, out)
    for training in (True, True, False):
        net.train(training), one.train(training)
        torch.testing.assert_close(net(x)[1], one(x), atol=1e-5, rtol=1e-4)


def line(n, seed, noise=0.5):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    laplace = torch.distributions.Laplace(0.0, noise)
    torch.manual_seed(seed)
    return x, (x @ torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.0, 0.0]])) + laplace.sample((n, 2))


@pytest.fixture(scope="module")
def fitted():
    (x, y), (xv, yv) = line(1500, 0), line(600, 1)
    phases = (Phase("mse", 12, 3e-3), Phase("mae", 8, 1e-3))
    first, _ = fit_ensemble(x, y, xv, yv, members=7, width=32, phases=phases[:1], batch=128)
    both, history = fit_ensemble(x, y, xv, yv, members=7, width=32, phases=phases, batch=128)
    return first, both, history


def test_the_second_phase_lowers_the_absolute_error_and_the_median_beats_the_members(fitted):
    first, both, history = fitted
    xv, yv = line(600, 1)  # what the phases select on: the second starts from the first's best and keeps the better
    mae = [(net(xv) - yv).abs().mean((1, 2)) for net in (first, both)]
    assert (mae[1] <= mae[0] + 1e-3).all()
    torch.testing.assert_close(mae[1].detach(), history.best[1], atol=1e-4, rtol=1e-4)
    x, y = line(3000, 2)
    assert (both.median(x) - y).abs().mean() < (both(x) - y).abs().mean()
    assert (both.median(x) - y).abs().mean().item() == pytest.approx(0.5, abs=0.04)  # the noise alone costs its scale
    assert both(x).std(0).min() > 0


def test_each_member_has_its_own_bootstrap_of_whole_groups():
    from cinn_clusters.ensemble import _bootstrap

    groups, g = torch.arange(60) // 3, torch.Generator().manual_seed(0)
    rows = _bootstrap(groups, 60, g)
    counts = torch.bincount(rows, minlength=60).view(20, 3)
    assert (counts == counts[:, :1]).all()
    assert (counts[:, 0] == 0).any()
    assert not torch.equal(rows, _bootstrap(groups, 60, g))


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="not 'huber'"):
        Phase("huber", 1, 1e-3)


def catalogue(n=600):
    """Six targets of which the first follows columns 0 and 1, copies of each other; column 2 is noise; so are the others."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(n, 1, generator=g)
    context = torch.cat([a, a, torch.randn(n, 1, generator=g)], 1)
    truth = torch.cat([a, torch.randn(n, 5, generator=g)], 1) + 0.1 * torch.randn(n, 6, generator=g)
    return context, truth, torch.zeros(n, 6), torch.arange(n) // 3


GROUPS = {"one copy": (0,), "noise": (2,), "both copies": (0, 1)}


def test_a_duplicate_halves_its_permutation_and_costs_nothing_when_left_out():
    context, truth, constant, clusters = catalogue()

    def estimate(c):
        return torch.cat([c[:, :2].mean(1, keepdim=True), torch.zeros(len(c), 5)], 1)

    def fit(columns):
        seen = [k for k in columns if k < 2]
        return lambda c: torch.cat(
            [c[:, seen].mean(1, keepdim=True) if seen else torch.zeros(len(c), 1), torch.zeros(len(c), 5)], 1
        )

    snapshots = torch.arange(len(context)) % 4
    shuffled = permutation(estimate, context, truth, constant, clusters, snapshots, lookback=9, groups=GROUPS)
    without = ablation(fit, context, truth, constant, clusters, groups=GROUPS)
    one, noise, both = shuffled.delta[:, 0]
    assert abs(noise) < 1e-6
    assert both > 1.6 * one > 0.5
    assert without.delta[0, 0] == pytest.approx(0, abs=1e-6)
    assert without.delta[2, 0] == pytest.approx(1 - without.base[0], abs=1e-5)
    assert (np.abs(shuffled.delta[:, 1:]) <= 2 * shuffled.error[:, 1:] + 1e-9).all()
    assert math.isclose(sum(len(row) for row in without.rows()), 3 * (1 + 2 * len(TARGETS)))


def test_the_heat_map_shows_every_cell():
    context, truth, constant, clusters = catalogue()
    snapshots = torch.zeros(len(context))
    table = permutation(lambda c: c[:, :1].expand(-1, 6), context, truth, constant, clusters, snapshots, 9, 2, GROUPS)
    with style():
        figure, shown = sensitivity_map(table, "ensemble", synthetic=True)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert len(texts) == table.delta.size
    assert texts[0].startswith(f"{shown['delta'][0, 0]:.3f}")
    assert "synthetic" in figure.axes[0].get_title()


@pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")
def test_the_comparison_of_a_run_is_written_beside_it(tmp_path, monkeypatch):
    """On an untrained flow that starts as the linear regression, and a short ensemble: both beat the best constant."""
    from functools import partial

    from cinn_clusters import compare, data
    from cinn_clusters.task import MergerPosterior
    from skyloom.flows import GlowCoupling
    from skyloom.run.files import read_json

    clusters = data.synthetic(60, seed=0)
    task = MergerPosterior(clusters.about, partial(GlowCoupling, blocks=1, hidden=8, identity_start=True), draws=50).eval()
    monkeypatch.setattr("skyloom.training.saved.load_task", lambda run: (task, clusters.about))

    class Finished:
        directory = tmp_path
        config = {"data": {"_target_": "cinn_clusters.data.synthetic", "n_clusters": 60, "seed": 0}}  # noqa: RUF012

    said = compare.compare(Finished(), width=16, epochs=(8, 4), repeats=2, draws=20, ablation_width=None)
    errors = read_json(tmp_path / "compare" / "errors.json")
    assert errors["synthetic"]
    assert errors["relative mean absolute error"]["flow median"]["M"] < 0.7
    assert said["ensemble"] < 1.1
    assert said["true median"] < said["true map"]
    assert 0.4 < errors["coverage of the true posterior"]["68%"]["M"] < 0.95
    for name in ("ensemble_permutation", "flow_permutation"):
        assert (tmp_path / "compare" / f"sensitivity_{name}.png").stat().st_size > 10_000
        assert len((tmp_path / "compare" / f"sensitivity_{name}.csv").read_text().splitlines()) == 9


def test_a_flow_for_missing_inputs_is_ablated_by_not_being_told():
    from cinn_clusters.compare import _seeing

    told = torch.arange(14.0).reshape(2, 7)
    found = _seeing(lambda context: context, [0, 2, 5])(told)
    assert torch.equal(found[:, [0, 2, 5]], told[:, [0, 2, 5]])
    assert torch.isnan(found[:, [1, 3, 4, 6]]).all()
