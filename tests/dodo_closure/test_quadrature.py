"""Rules over the sphere: positive, exact on low harmonics, and exact where a function jumps."""

import math

import pytest
import torch

from dodo_closure.fluxes import four_flux
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.quadrature import CrossingAware, Lebedev, Product, frames
from dodo_closure.states import random_rotations
from skyloom.errors import ConfigError

RULES = [Lebedev(17), Lebedev(29), Product(16, 32), CrossingAware(16, 16)]


def rotations(rows: int = 3) -> torch.Tensor:
    return random_rotations(rows, torch.Generator().manual_seed(5))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_low_harmonics_are_exact_and_weights_positive(rule):
    tilt = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64)
    directions, weights = rule(lambda n: n @ tilt + 0.2, rotations())
    assert bool((weights >= 0).all())
    norm = torch.full((3,), 4 * math.pi, dtype=torch.float64)
    torch.testing.assert_close(weights.sum(dim=1), norm, rtol=1e-14, atol=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones_like(weights), rtol=0, atol=1e-14)
    first = torch.einsum("bk,bki->bi", weights, directions)
    second = torch.einsum("bk,bki,bkj->bij", weights, directions, directions)
    assert first.abs().max() < 1e-8  # meridians cut at places that depend on the azimuth converge fast, but not at once
    unit = torch.eye(3, dtype=torch.float64) * 4 * math.pi / 3
    torch.testing.assert_close(second, unit.expand(3, 3, 3), rtol=0, atol=1e-8)


@pytest.mark.parametrize("order", [13, 25, 27])
def test_lebedev_positive_weights(order):
    with pytest.raises(ConfigError, match="negative weights"):
        Lebedev(order)(lambda n: n, rotations())


@pytest.mark.parametrize(
    ("order", "f", "error"),
    [(17, 0.8, 6.3e-10), (17, 0.95, 1.3e-3), (29, 0.95, 6.9e-9), (29, 0.98, 4.4e-4), (47, 0.98, 1.1e-9)],
)
def test_quadrature_table(order, f, error):
    h = rotations(200)[:, :, 2]
    directions, weights = (part[0] for part in Lebedev(order)(lambda n: n, rotations(1)))
    n = maximum_entropy(four_flux(torch.ones(200, dtype=torch.float64), f * h)).along(directions) @ weights
    assert error / 3 < (n - 1).abs().max() < 3 * error


@pytest.mark.parametrize("cosine", [-0.9, 0.0, 0.37])
def test_cap_about_the_axis_is_exact(cosine):
    frame = rotations()
    axis = frame[:, :, 2]

    def excess(n):
        return (n @ axis[:, :, None])[..., 0] - cosine

    directions, weights = CrossingAware(8, 16)(excess, frame)
    cap = (weights * (excess(directions) > 0)).sum(dim=1)
    torch.testing.assert_close(cap, torch.full_like(cap, 2 * math.pi * (1 - cosine)), rtol=1e-13, atol=0)


def test_frames_are_rotations_even_where_nothing_points_anywhere():
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    seconds = torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)
    axis[0], seconds[0] = 0, 0  # no vector at all
    axis[1] = 0  # no axis
    seconds[2] = axis[2]  # all parallel
    found = frames(axis, seconds)
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(found[2:, :, 2], torch.nn.functional.normalize(axis[2:], dim=1))
