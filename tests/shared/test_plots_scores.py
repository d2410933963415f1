"""What the panels of scores show is what the numbers say."""

import numpy as np
import pytest
from scipy.special import expit

from skyloom.calibration import reliability_table
from skyloom.metrics import Ranking, budget_curve
from skyloom.plots import draw_budget, draw_reliability, draw_risk_coverage, draw_roc, panels, style
from skyloom.uncertainty import risk_coverage


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    z = rng.normal(-2, 2, 3000)
    return z, (rng.random(3000) < expit(z)).astype(int)


def words(axis):
    return [t.get_text() for t in axis.texts]


def test_a_roc_curve_keeps_every_vertex_and_shades_what_is_not_measured(sample):
    r = Ranking(*sample)
    with style():
        _, axis = panels()
        draw_roc(axis, {"finder": r})
    fpr, tpr, _ = r.roc()
    line = axis.lines[0]
    assert (line.get_ydata() == tpr).all() and line.get_xdata()[-1] == 1 and (line.get_xdata() >= fpr).all()
    assert axis.lines[1].get_ydata().tolist() == [r.tpr0, r.tpr10]
    assert axis.patches[0].get_x() + axis.patches[0].get_width() == pytest.approx(10 / r.n_negative)
    assert words(axis) == ["fewer than ten false positives"] and axis.get_xscale() == "log"


def test_a_reliability_panel_has_the_bins_that_have_rows_and_their_counts(sample):
    z, y = sample
    table = reliability_table(np.clip(expit(z), 0, 0.55), y, 10)
    with style():
        _, (axis, counts) = panels(1, 2)
        draw_reliability(axis, {"finder": table}, counts)
    points = axis.containers[0].lines[0]
    assert len(points.get_xdata()) == (table.n > 0).sum() == 6 and (points.get_ydata() == table.frequency[:6]).all()
    assert (counts.patches[0].get_data().values == np.maximum(table.n, 0.5)).all()


def test_risk_and_budget_panels_draw_their_curves(sample):
    z, y = sample
    curve = risk_coverage((z > 0) != y, -np.abs(z))
    budget = budget_curve(Ranking(z, y), 1000, 0.01, np.random.default_rng(0), points=30)
    with style():
        _, (left, right) = panels(1, 2)
        draw_risk_coverage(left, {"margin": curve})
        draw_budget(right, budget)
    assert (left.lines[0].get_ydata() == curve.risk).all() and (left.lines[1].get_ydata() <= curve.risk + 1e-12).all()
    assert (right.lines[0].get_ydata() == budget.completeness).all() and (right.lines[1].get_ydata() == budget.purity).all()
