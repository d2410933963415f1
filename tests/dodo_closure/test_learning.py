"""States, the synthetic truth, the network's symmetries, and the scores."""

from functools import partial
from typing import Any

import pytest
import torch

from dodo_closure import ClosureTask, asymptotic_state, conservation_error, draw_states, invariants27, synthetic
from dodo_closure.data import analytic_columns, training_statistics
from dodo_closure.fluxes import density, flux_factor, four_flux, heavy_average, is_physical, total_density
from dodo_closure.model import EquivariantResidual
from dodo_closure.quadrature import CrossingAware, Lebedev
from dodo_closure.states import FAMILIES, NSM, random_rotations, rotate, state
from dodo_closure.truth import perturbed_distributions, perturbed_final_state
from skyloom.data import Columns
from skyloom.errors import ConfigError, DataError

RULE = CrossingAware(16, 12, 16)


@pytest.fixture(scope="module")
def data():
    return synthetic(tier="t1", rows=240, heldout_rows=20, processes=1, seed=3)


# ------------------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_physical_and_repeat_by_the_byte(family):
    F = draw_states(family, 500, seed=4)
    assert bool(is_physical(F, 1e-15).all())
    assert flux_factor(F).max() <= 0.95
    assert torch.equal(F, draw_states(family, 500, seed=4))
    assert not torch.equal(F, draw_states(family, 500, seed=5))
    assert total_density(F).log10().quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)).diff() > 2


def test_states_prefer_no_direction():
    F = draw_states("nsm_like", 10_000, seed=0)
    direction = torch.nn.functional.normalize(F[:, 1, 0, :3], dim=1)
    assert direction.mean(dim=0).abs().max() < 0.03


@pytest.mark.parametrize("family", ["merger", "random"])
def test_most_states_have_a_crossing_worth_learning(family):
    found = asymptotic_state(draw_states(family, 300, seed=6), RULE)[1]
    share = ((found.smaller > 0.03 * found.larger) & (found.growth > 0.01)).double().mean()
    assert 0.75 < share < 0.95


def test_unknown_family_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match="merger"):
        draw_states("mergers", 1)


# -------------------------------------------------------------------------------------------------------------------- truth


def test_perturbed_distributions_keep_their_moments_and_stay_positive():
    moments = heavy_average(draw_states("merger", 20, seed=2))
    moments = moments / 1e33
    angles = perturbed_distributions(moments, 0.3, torch.Generator().manual_seed(0))
    directions, weights = Lebedev(47)(lambda n: n, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    value, plain = angles.along(directions), angles.closure.along(directions)
    assert bool((value >= 0).all())
    assert ((value - plain).abs().amax(dim=2) > 0.05 * plain.amax(dim=2)).double().mean() > 0.5
    ones = torch.cat([directions, torch.ones_like(directions[..., :1])], dim=-1)
    torch.testing.assert_close((value * weights[:, None]) @ ones, moments, rtol=0, atol=1e-12 * moments.max().item())
    torch.testing.assert_close(value[:, 2], value[:, 3])  # equal heavy species stay equal


def test_truth_is_neither_box3d_nor_a_function_of_its_invariants(data):
    residual = (data.train["final"] - data.train["box"]).abs().mean(dim=(1, 2, 3))
    assert 1e-3 < residual.mean() < 1e-2
    scatter = (data.train["final"] - data.train["smooth"]).abs().mean(dim=(1, 2, 3))
    assert residual.mean() > 3 * scatter.mean()
    coarse = asymptotic_state(data.train["initial"], CrossingAware(48, 24))[0] - data.train["box"]
    assert coarse.abs().mean() < 0.1 * residual.mean()  # the rule's own error is no part of what is learned
    x = invariants27(data.train["initial"])
    x = torch.cat([(x - x.mean(0)) / x.std(0).clamp(min=1e-6), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = density(data.train["final"] - data.train["box"])[:, 0, :1]
    ridge = torch.linalg.solve(x.T @ x + torch.eye(28, dtype=x.dtype), x.T @ y)
    explained = 1 - ((y - x @ ridge) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert 0.1 < explained < 0.9


def test_truth_conserves_and_is_physical(data):
    for split in (data.train, data.test):
        assert max(part.max() for part in conservation_error(split["initial"], split["final"])) < 1e-13
        assert bool(is_physical(split["final"], 1e-13).all())


def test_truth_without_perturbation_is_the_smooth_variant():
    F = draw_states("merger", 10, seed=1)
    smooth = asymptotic_state(F, RULE, variant="smooth")[0]
    torch.testing.assert_close(
        perturbed_final_state(F, 0.0, 0, RULE), smooth, rtol=0, atol=1e-12 * total_density(F).max().item()
    )


# --------------------------------------------------------------------------------------------------------------------- data


def test_split_no_leakage(data):
    blocks = [set(split["block"].tolist()) for split in (data.train, data.val, data.test)]
    assert not (blocks[0] & blocks[1] or blocks[0] & blocks[2] or blocks[1] & blocks[2])
    assert [int(split["set"].sum()) for split in (data.train, data.val, data.test)] == [0, 0, 20]
    assert data.about["synthetic"] is True


def test_rows_are_scaled_by_their_own_density(data):
    torch.testing.assert_close(total_density(data.train["initial"]), torch.ones(len(data.train), dtype=torch.float64))
    assert data.train["total"].max() / data.train["total"].min() > 100


def test_target_scale_not_double(data):
    columns = dict(data.train.columns)
    columns["final"] = columns["box"] + (columns["final"] - columns["box"]) * 1e-33
    with pytest.raises(DataError, match="units"):
        training_statistics(Columns(columns))


def test_cached_rows_are_the_rows(tmp_path):
    options: dict[str, Any] = {"tier": "t1", "rows": 160, "heldout_rows": 20, "processes": 1}
    prints = {synthetic(**options, cache_dir=cache).about["fingerprint"] for cache in (None, str(tmp_path), str(tmp_path))}
    assert len(prints) == 1
    assert len(list(tmp_path.rglob("*.h5"))) == 1


def test_invariants_order_golden_invariance():
    F = state(*NSM["NSM1"])
    found = invariants27(F)
    golden = {0: -0.0698411468, 1: -0.0230384485, 3: -0.0915827815, 6: -0.0060710705, 8: -0.0272604470, 15: -0.1141366550}
    for place, value in golden.items():
        assert found[place].item() == pytest.approx(value, abs=1e-9)
    s = [-0.2682366319, -0.0926474620, -0.0926474620, -0.3611735199, -0.0926474620, -0.0926474620]
    assert found[21:].tolist() == pytest.approx(s, abs=1e-9)
    assert found[21:].sum().item() == pytest.approx(-1, abs=1e-14)
    torch.testing.assert_close(invariants27(7.3 * F), found, rtol=1e-14, atol=0)
    R = -random_rotations(1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(invariants27(rotate(F[None], R))[0], found, rtol=0, atol=1e-13)
    rapidity = torch.tensor(0.7, dtype=torch.float64)
    boost = torch.eye(4, dtype=torch.float64)
    boost[2, 2] = boost[3, 3] = torch.cosh(rapidity)
    boost[2, 3] = boost[3, 2] = torch.sinh(rapidity)
    torch.testing.assert_close(invariants27(F @ boost.T, boost[:, 3]), found, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------------- model


def head(task: ClosureTask) -> list[torch.nn.Parameter]:
    """The last weights and biases of the coefficients: zero before training."""
    assert isinstance(task.residual, EquivariantResidual)
    return [task.residual.coefficients.weights[-1], task.residual.coefficients.biases[-1]]


def closure(data, trained: bool) -> ClosureTask:
    torch.manual_seed(0)
    task = ClosureTask(data.about, partial(EquivariantResidual, hidden=32, depth=2))
    if trained:
        for parameter in head(task):
            torch.nn.init.normal_(parameter, std=0.3)
        with torch.no_grad():  # members trust themselves more than Box3D
            task.residual.spreads.biases[-1][..., 2:] = 6.0
    return task


def corrected(task: ClosureTask, F: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return task.predict(analytic_columns(F, RULE))["predicted"]


def test_model_zero_init_equals_box3d(data):
    task = closure(data, trained=False)
    with torch.no_grad():
        out = task.predict(data.test.columns)
        losses = task.losses(data.train.columns)
    assert torch.equal(out["predicted"], data.test["box"])
    assert losses["squared"].item() == pytest.approx(1, abs=0.05)  # each member leaves out a quarter of the rows
    scores = task.score({**out, **{name: data.test[name] for name in data.carry}})
    assert scores["skill"] == 0
    assert scores["improved"] == 0
    assert scores["p95_vs_box3d"] == 1
    assert scores["mae_identity"] > 3 * scores["mae_box3d"] > 6 * scores["mae_smooth"] > 0


def test_loss_zero_at_truth(data):
    task = closure(data, trained=False)
    columns = {**data.test.columns, "box": data.test["final"]}
    with torch.no_grad():
        losses = task.losses(columns)
        assert max(losses[name] for name in ("squared", "absolute", "unphysical")) < 1e-12
        out = task.predict(columns)
    assert task.score({**out, **{name: data.test[name] for name in data.carry}})["skill"] == pytest.approx(1, abs=1e-12)


def test_any_weights_conserve_stay_physical_and_differ_from_box3d(data):
    task = closure(data, trained=True)
    with torch.no_grad():
        out = task.predict(data.train.columns)
    trace, lepton = conservation_error(data.train["initial"], out["predicted"])
    assert max(trace.max(), lepton.max()) < 1e-13
    assert bool(is_physical(out["predicted"], 1e-12).all())
    assert (out["predicted"] - data.train["box"]).abs().mean() > 1e-4


def test_model_equivariance(data):
    task, F = closure(data, trained=True), draw_states("random", 30, seed=9)
    F = F / total_density(F)[:, None, None, None]
    F[:, :, 2] = F[:, :, 2].flip(0)  # tau unlike mu
    after = corrected(task, F)
    for sign in (1, -1):
        R = sign * random_rotations(30, torch.Generator().manual_seed(2))
        torch.testing.assert_close(corrected(task, rotate(F, R)), rotate(after, R), rtol=0, atol=1e-6)
    torch.testing.assert_close(corrected(task, F.flip(1)), after.flip(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(corrected(task, F[:, :, [0, 2, 1]]), after[:, :, [0, 2, 1]], rtol=0, atol=1e-6)
    torch.testing.assert_close(corrected(task, F * 1e33), after, rtol=0, atol=1e-6)


def test_model_identity_on_stable(data):
    task = closure(data, trained=True)
    for family in ("isotropic", "one_flavor"):
        F = draw_states(family, 50, seed=0)
        torch.testing.assert_close(corrected(task, F), F / total_density(F)[:, None, None, None], rtol=0, atol=1e-15)


def test_an_odd_state_is_limited_and_said_to_be(data):
    task = closure(data, trained=True)
    n = torch.tensor([[1.0, 0, 0], [0.9, 0, 0]], dtype=torch.float64)
    factors = torch.zeros(2, 3, 3, dtype=torch.float64)
    factors[0, 0, 2], factors[1, 0, 2] = 0.97, -0.97
    columns = analytic_columns(four_flux(n, n[..., None] * factors)[None], RULE)
    for parameter in head(task):
        parameter.data *= 30
    with torch.no_grad():
        out = task.predict(columns)
    assert out["limited"].all()
    assert bool(is_physical(out["predicted"], 1e-12).all())
