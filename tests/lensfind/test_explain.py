"""Maps must point at what the score comes from: a finder that reads one known patch is explained by that patch."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lensfind.evaluate.explaining import attention, deletion, randomised, saliency
from lensfind.models import Bags, LightTransformer, finder
from lensfind.training.task import LensFinder
from skyloom.backbones import image_encoder
from skyloom.errors import ConfigError
from skyloom.pu import nnpu


class Corner(nn.Module):
    """Its logit is the brightness of an 8 x 8 corner, less two."""

    def __init__(self, bands, size):
        super().__init__()
        self.scale = nn.Linear(1, 1)
        nn.init.ones_(self.scale.weight)
        nn.init.constant_(self.scale.bias, -2.0)

    def forward(self, seen):
        return self.scale(seen[:, :, 2:10, 2:10].mean(dim=(1, 2, 3))[:, None])[:, 0]


@pytest.fixture
def bright(small):
    made = LensFinder(small.about, Corner, nnpu).eval()
    images = small.test["image"][:4].clone()
    images[:, :, 2:10, 2:10] += 400.0
    return made, {"image": images}


def test_saliency_lies_where_the_score_comes_from(bright):
    found = saliency(*bright)
    inside = found[:, 1:11, 1:11].sum(dim=(1, 2)) / found.sum(dim=(1, 2))
    assert (inside > 0.95).all()


def test_deleting_what_matters_first_brings_the_score_down_faster(bright):
    made, batch = bright
    curve = deletion(made, batch, saliency(made, batch), steps=8)
    assert curve.shape == (4, 9)
    chance = deletion(made, batch, torch.rand(4, 40, 40), steps=8)
    assert torch.equal(curve[:, 0], chance[:, 0])
    assert (curve[:, 1] < 0.2 * curve[:, 0]).all()  # 64 of 1600 pixels are among the first 6%
    assert (chance[:, 1] > 0.6 * chance[:, 0]).all()


def test_drawing_the_last_layer_anew_changes_the_maps(small):
    torch.manual_seed(0)
    made = LensFinder(small.about, partial(image_encoder, "resnet10t"), nnpu).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    batch = {"image": small.test["image"][:3]}
    a, b = saliency(made, batch), saliency(randomised(made), batch)
    assert float(torch.corrcoef(torch.stack([a[0].flatten(), b[0].flatten()]))[0, 1]) < 0.99
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    "backbone",
    [
        partial(LightTransformer, width=16, depth=2, heads=2, pooling="class"),
        partial(LightTransformer, width=16, depth=1, heads=2, attention="adaptive", evidence="structure_tensor"),
        partial(Bags, encoder=partial(image_encoder, "resnet10t", outputs=0)),
    ],
)
def test_attention_is_a_share_per_image_at_its_size(small, backbone):
    made = LensFinder(small.about, partial(finder, backbone=backbone), nnpu).eval()
    batch = {"image": small.test["image"][:3]}
    found = attention(made, batch)
    assert found.shape == (3, 40, 40)
    assert (found >= 0).all()
    alone = attention(made, {"image": batch["image"][1:2]})
    assert torch.allclose(alone[0], found[1], atol=1e-5)  # not a mean over the batch
    maps = made.encoder.attention_maps(made.stretch(batch["image"]))
    total = maps.sum(dim=(1, 2)).detach().numpy()
    assert (total < 1.001).all()
    assert np.all(total > 0.5)


def test_a_network_without_places_says_so(small):
    made = LensFinder(small.about, partial(image_encoder, "resnet10t"), nnpu)
    with pytest.raises(ConfigError, match="saliency"):
        attention(made, {"image": small.test["image"][:2]})
