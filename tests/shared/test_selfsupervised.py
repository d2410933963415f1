"""Losses of learning without labels: their values where these are known, who gets gradients, and what collapse looks like."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skyloom.selfsupervised import agreement, collapse, contrast, distillation, follow, projector, queue_contrast


def test_contrast_is_cross_entropy_over_all_other_views_written_out():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 4, generator=g), torch.randn(5, 4, generator=g)
    z = F.normalize(torch.cat([a, b]), dim=1)
    total = 0.0
    for i in range(10):
        partner, others = (i + 5) % 10, [j for j in range(10) if j != i]
        total -= math.log(math.exp(z[i] @ z[partner] / 0.5) / sum(math.exp(z[i] @ z[j] / 0.5) for j in others))
    assert float(contrast(a, b, 0.5)) == pytest.approx(total / 10, rel=1e-5)


def test_contrast_with_a_queue_begins_at_its_logarithm_and_ends_at_nothing():
    one = F.normalize(torch.randn(3, 8), dim=1)
    assert float(queue_contrast(one, one, torch.zeros(31, 8), 1e6)) == pytest.approx(math.log(32), abs=1e-4)
    assert float(queue_contrast(one, one, -one, 0.01)) < 1e-6


def test_the_target_of_an_agreement_gets_no_gradient_and_its_length_does_not_matter():
    p, z = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    agreement(p, z).backward()
    assert z.grad is None and p.grad.abs().sum() > 0
    torch.testing.assert_close(agreement(p, 7 * z), agreement(p, z))


def test_distillation_is_least_where_the_student_is_the_teacher_and_entropy_there():
    torch.manual_seed(0)
    teacher, centre = torch.randn(9, 5), torch.randn(5)
    same = (teacher - centre) / 0.04 * 0.1
    probability = torch.softmax((teacher - centre) / 0.04, 1)
    entropy = -(probability * probability.clamp(min=1e-30).log()).sum(1).mean()
    least = distillation(same, teacher, centre)
    torch.testing.assert_close(least, entropy, rtol=1e-5, atol=1e-6)
    for _ in range(5):
        assert distillation(same + 0.1 * torch.randn(9, 5), teacher, centre) > least


def test_a_slow_copy_follows_by_its_momentum():
    slow, quick = nn.Linear(3, 2), nn.Linear(3, 2)
    before = slow.weight.clone()
    follow(slow, quick, 0.9)
    torch.testing.assert_close(slow.weight, 0.9 * before + 0.1 * quick.weight)


def test_collapse_is_seen():
    assert float(collapse(torch.randn(2000, 16))) == pytest.approx(1.0, abs=0.05)
    assert float(collapse(torch.ones(50, 16))) == 0.0


def test_a_projector_ends_without_scale_where_it_is_asked_to():
    features = 5 + 3 * torch.randn(400, 6)
    out = projector([6, 10, 4], last_norm=True)(features)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(4), rtol=0, atol=1e-2)
