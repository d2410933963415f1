"""Likeness of embeddings: identities, the shuffled null, and the formula with whole kernels."""

import numpy as np
import pytest

from embeddings import compare
from embeddings.comparing.similarity import linear_cka, neighbour_overlap, shuffled_cka, unbiased_cka
from skyloom.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 8)) @ RNG.normal(size=(8, 8))
Y = X[:, :5] + RNG.normal(size=(300, 5))
TURN = np.linalg.qr(RNG.normal(size=(8, 8)))[0]


@pytest.mark.parametrize("measure", [linear_cka, unbiased_cka, neighbour_overlap])
def test_axes_offsets_and_a_common_scale_do_not_matter(measure):
    assert measure(X, 3.0 * X @ TURN + 7.0) == pytest.approx(1.0, abs=1e-9)
    assert measure(X, Y) == pytest.approx(measure(X @ TURN, Y), abs=1e-9)
    assert measure(X, Y) == pytest.approx(measure(Y, X), abs=1e-9)
    assert measure(X, Y) < 1


def test_the_closed_form_null_is_the_mean_over_orders():
    orders = [RNG.permutation(300) for _ in range(400)]
    null = np.array([linear_cka(X, Y[o]) for o in orders])
    assert shuffled_cka(X, Y) == pytest.approx(null.mean(), abs=4 * null.std() / 20)


def test_unbiased_cka_is_the_formula_with_whole_kernels():
    def hsic(k, ll):
        n = len(k)
        k, ll = k - np.diag(np.diag(k)), ll - np.diag(np.diag(ll))
        one = np.ones(n)
        cross = (one @ k @ one) * (one @ ll @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ ll @ one)
        return (np.trace(k @ ll) + cross) / (n * (n - 3))

    k, ll = X @ X.T, Y @ Y.T
    assert unbiased_cka(X, Y) == pytest.approx(hsic(k, ll) / np.sqrt(hsic(k, k) * hsic(ll, ll)), abs=1e-10)


def test_plain_cka_of_strangers_grows_with_dimension_and_the_unbiased_one_stays_zero():
    a, b = RNG.normal(size=(2, 1000, 400))
    assert linear_cka(a, b) == pytest.approx(shuffled_cka(a, b), abs=0.01)
    assert linear_cka(a, b) > 0.25
    assert abs(unbiased_cka(a, b)) < 0.01


def test_comparing_comes_with_what_shuffled_objects_give():
    found = compare(X, Y, k=10, permutations=49)
    for measure in found.values():
        assert measure.p == pytest.approx(1 / 50)
        if np.isfinite(measure.expected):
            assert measure.null_mean == pytest.approx(measure.expected, abs=5 * measure.null_sd / np.sqrt(49) + 1e-9)
        assert measure.value > measure.null_mean + 10 * measure.null_sd
    strangers = compare(X, RNG.normal(size=(300, 4)), permutations=49)
    for measure in strangers.values():
        assert abs(measure.value - measure.null_mean) < 5 * measure.null_sd
    assert compare(X, X @ TURN, permutations=2)["overlap"].value == 1.0
    with pytest.raises(DataError, match="same objects"):
        compare(X, Y[:-1])
