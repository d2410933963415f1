"""Encoders for any number of bands and any size, on a machine whose torchvision operators do not load."""

import subprocess
import sys

import pytest
import torch

from skyloom.backbones import ImageEncoder, ensure_torchvision, image_encoder
from skyloom.errors import ConfigError, DataError, UserError

TINY = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


def test_torchvision_imports_in_a_fresh_process_without_a_warning():
    program = (
        "import skyloom.backbones as b; how = b.ensure_torchvision(); again = b.ensure_torchvision();"
        "import torchvision.ops, torchvision.transforms; assert how == again and how in ('stub', 'native'), (how, again)"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], check=True, capture_output=True)


def test_boxes_still_fail_where_the_operators_are_declared_only():
    if ensure_torchvision() == "native":
        pytest.skip("the compiled operators are there")
    from torchvision.ops import nms

    with pytest.raises((RuntimeError, NotImplementedError)):
        nms(torch.rand(3, 4), torch.rand(3), 0.5)


@pytest.mark.parametrize(("name", "options"), [("vit_tiny_patch16_224", TINY), ("resnet10t", {})])
@pytest.mark.parametrize(("bands", "size"), [(1, 32), (3, 40), (5, 64)])
def test_any_bands_and_size_give_one_logit_per_image(name, options, bands, size):
    encoder = image_encoder(name, bands, size, **options).eval()
    images = torch.randn(3, bands, size, size)
    logits = encoder(images)
    assert logits.shape == (3,)
    assert torch.allclose(encoder(images[1:2]), logits[1:2], atol=1e-5)  # a batch of one keeps its axis
    assert encoder.features(images).shape[0] == 3
    assert image_encoder(name, bands, size, outputs=4, **options)(images).shape == (3, 4)


def test_every_band_and_every_pixel_of_a_patch_is_read():
    encoder = image_encoder("vit_tiny_patch16_224", 4, 32, stem="convolutional", **TINY).eval()
    images = torch.randn(1, 4, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(images).sum(), images)
    assert (gradient[0].abs().sum(dim=(1, 2)) > 0).all()
    assert (gradient[0].abs().sum(dim=0) > 0).float().mean() > 0.99


def test_convolutional_stem_makes_as_many_tokens_as_patches():
    plain = image_encoder("vit_tiny_patch16_224", 3, 48, **TINY)
    stem = image_encoder("vit_tiny_patch16_224", 3, 48, stem="convolutional", **TINY)
    images = torch.randn(2, 3, 48, 48)
    tokens = [e.network.patch_embed(images).shape for e in (plain, stem)]
    assert tokens[0] == tokens[1] == (2, 36, 48)


def test_known_parameter_count():
    """The 64-pixel, patch 8, one-band, one-logit ViT-Small has 21.345025 million parameters."""
    encoder = image_encoder("vit_small_patch16_224", 1, 64, patch_size=8)
    assert sum(p.numel() for p in encoder.parameters()) == 21_345_025


def test_mistakes_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="resnet18"):
        image_encoder("resnet_18", 3, 40)
    with pytest.raises(ConfigError, match="divisor of 40"):
        image_encoder("vit_tiny_patch16_224", 3, 40, patch_size=7)
    with pytest.raises(ConfigError, match="does not take these options"):
        image_encoder("vit_tiny_patch16_224", 3, 40, patch_size=8, dpeth=3)
    with pytest.raises(ConfigError, match="2, 4, 8"):
        image_encoder("vit_tiny_patch16_224", 3, 40, stem="convolutional", patch_size=5)
    encoder = image_encoder("vit_tiny_patch16_224", 3, 40, **TINY)
    for wrong in (torch.zeros(2, 1, 40, 40), torch.zeros(2, 3, 32, 40), torch.zeros(3, 40, 40)):
        with pytest.raises(DataError, match=r"expected images \[B, 3, 40, 40\]"):
            encoder(wrong)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"skyloom\[vision\]"):
        image_encoder("resnet18", 3, 40)


def test_weights_that_cannot_be_fetched_are_explained(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="pretrained=false"):
        image_encoder("resnet18", 3, 40, pretrained=True)


def test_the_encoder_is_a_plain_module():
    assert isinstance(image_encoder("vit_tiny_patch16_224", 3, 40, **TINY), ImageEncoder)
    state = image_encoder("vit_tiny_patch16_224", 3, 40, **TINY).state_dict()
    image_encoder("vit_tiny_patch16_224", 3, 40, **TINY).load_state_dict(state)
