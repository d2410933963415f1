"""Probabilities and sets from labelled and unlabeled rows: against known truth, and against the fit that sees every label."""

import numpy as np
import pytest
from scipy.optimize import minimize

from lensfind.calibration.calibrating import calibration, conformal_sets, conformal_thresholds, platt
from lensfind.calibration.merit import calibration_error, scores, sigmoid
from skyloom.errors import ConfigError, DataError


def sample(prior, labelled=4000, unlabeled=40_000, seed=0):
    """Two unit Gaussians two apart: logits, labels, truth. The true logit is 2 x - 2 + logit(prior) for x ~ N(2 y, 1)."""
    rng = np.random.default_rng(seed)
    lens = np.concatenate([np.ones(labelled, bool), rng.random(unlabeled) < prior])
    x = rng.normal(2.0 * lens)
    return 2 * x - 2 + np.log(prior / (1 - prior)), np.arange(len(lens)) < labelled, lens


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.4])
def test_a_stretched_and_shifted_logit_is_set_right_without_a_single_negative(prior):
    logit, labelled, _ = sample(prior)
    slope, offset = platt((logit - 1.5) / 0.4, labelled, prior)
    assert slope == pytest.approx(0.4, rel=0.08)
    assert offset == pytest.approx(1.5, abs=0.12)


def test_it_is_nearly_the_fit_that_knows_every_label():
    logit, labelled, lens = sample(0.1)
    z, y = 3 * logit[~labelled] + 1, lens[~labelled]
    full = minimize(lambda v: np.mean(np.logaddexp(0, v[0] * z + v[1]) - y * (v[0] * z + v[1])), [1.0, 0.0]).x
    assert platt(3 * logit + 1, labelled, 0.1) == pytest.approx(tuple(full), abs=0.06)


def test_calibrated_probabilities_sum_to_the_expected_lenses():
    """At the minimum of the risk the mean probability is the prior: how far the stretch went does not matter."""
    logit, labelled, lens = sample(0.05, seed=3)
    slope, offset = platt(5 * logit - 7, labelled, 0.05, ridge=0.0)
    p = sigmoid(slope * (5 * logit[~labelled] - 7) + offset)
    assert p.mean() == pytest.approx(0.05, rel=1e-6)
    assert calibration_error(p, lens[~labelled]) < 0.005


def test_with_little_to_go_by_the_logit_is_left_alone():
    slope, offset = platt(np.array([0.1, -0.1, 0.0]), np.array([1, 0, 0]), 0.5, ridge=10.0)
    assert abs(np.log(slope)) < 0.05
    assert abs(offset) < 0.05
    with pytest.raises(DataError, match="labelled and unlabeled"):
        platt(np.zeros(3), np.ones(3), 0.1)


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_sets_cover_each_class_as_often_as_promised(prior):
    logit, labelled, _ = sample(prior, labelled=20_000)
    above, below = conformal_thresholds(logit, labelled, prior, alpha=0.1)
    fresh, _, lens = sample(prior, labelled=20_000, seed=9)
    sets = conformal_sets(fresh, above, below)
    assert ((sets[lens] & 1) > 0).mean() == pytest.approx(0.9, abs=0.01)
    assert ((sets[~lens] & 2) > 0).mean() == pytest.approx(0.9, abs=0.01)
    assert set(np.unique(sets)) <= {0, 1, 2, 3}


def test_too_few_labelled_lenses_rule_nothing_out():
    above, _ = conformal_thresholds(np.arange(20.0), np.arange(20) < 5, 0.1, alpha=0.1)
    assert above == -np.inf
    values = calibration(np.arange(20.0), np.arange(20) < 5, 0.1)
    assert set(values) == {"slope", "offset", "lens_above", "other_below", "alpha"}


def test_calibration_error_of_calibrated_and_of_squared_probabilities():
    rng = np.random.default_rng(1)
    p = rng.random(100_000)
    lens = rng.random(100_000) < p
    assert calibration_error(p, lens) < 0.01
    assert calibration_error(p**2, lens) == pytest.approx(1 / 6, abs=0.01)
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0)))


def test_the_sum_of_probabilities_is_compared_with_the_lenses_there_are():
    logit, labelled, lens = sample(0.1)
    columns = {"logit": logit, "calibrated": logit, "labelled": labelled, "lens": lens.astype(int)}
    found = scores(columns, 0.1)
    assert found["lenses_ratio"] == pytest.approx(1, abs=0.05)
    assert found["auroc"] == pytest.approx(0.921, abs=0.01)  # Phi(sqrt 2)
    assert found["tpr_at_fpr_1e-2"] == pytest.approx(0.372, abs=0.03)


def test_an_estimated_prior_calibrates_where_the_stated_one_is_wrong(tmp_path):
    """A finder that believes in half as many lenses as there are: the estimate puts the sum of its probabilities right."""
    import torch

    from lensfind.calibration.calibrating import CalibratedTrainer
    from lensfind.training.task import Scored
    from skyloom.data import Columns, Data
    from skyloom.run import Run
    from skyloom.run.files import read_json

    class Given(Scored):
        def __init__(self):
            super().__init__(0.1)
            self.free = torch.nn.Parameter(torch.zeros(()))

        def losses(self, batch):
            return {"loss": self.free**2}

        def predict(self, batch):
            return {"logit": batch["x"] + 0 * self.free}

    logit, labelled, lens = sample(0.2, labelled=2000, unlabeled=10_000)
    rows = Columns({"x": torch.from_numpy(logit).float(), "labelled": torch.from_numpy(labelled)})
    about = {"fingerprint": "given", "synthetic": True}
    goal = [{"metric": "val/auroc_pu", "direction": "maximize"}]
    ratios = {}
    for prior in ("stated", "estimated"):
        run = Run.create(tmp_path, {"pkg": "lensfind"}, directory=tmp_path / prior)
        task = Given()
        loop = CalibratedTrainer(epochs=1, batch_size=12_000, objective=goal, quiet=True, prior=prior)
        loop.fit(task, Data(rows, rows, rows, about=about, carry=("labelled",)), run=run)
        p = sigmoid(float(task.slope) * logit[~labelled] + float(task.offset))
        ratios[prior] = p.sum() / lens[~labelled].sum()
        noted = read_json(run.directory / "calibration.json")
        assert noted["estimated_prior"]["value"] == pytest.approx(0.2, rel=0.15)
    few = Columns({name: rows[name][:1000] for name in ("x", "labelled")})  # the labelled come first
    with pytest.warns(UserWarning, match="not calibrated"):
        CalibratedTrainer(epochs=1, batch_size=1000, objective=goal, quiet=True).fit(
            task := Given(), Data(rows, few, rows, about=about, carry=("labelled",))
        )
    assert float(task.slope) == 1.0
    assert ratios["stated"] == pytest.approx(0.5, abs=0.05)
    assert ratios["estimated"] == pytest.approx(1.0, abs=0.15)
    with pytest.raises(ConfigError, match="stated or estimated"):
        CalibratedTrainer(prior="guessed")
