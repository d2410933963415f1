"""Encoders for any number of bands and any size, on a machine whose torchvision operators do not load."""

import subprocess
import sys

import pytest
import torch

from skyloom.backbones import ImageEncoder, ensure_torchvision, image_encoder, read_weights, spread_kernels
from skyloom.errors import ConfigError, DataError, MissingFile, UserError

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


@pytest.mark.parametrize("how", ["averaged", "cyclic"])
@pytest.mark.parametrize("bands", [1, 2, 4, 5, 7])
def test_a_grey_image_looks_the_same_through_any_number_of_bands(how, bands):
    """An earlier finder grew its activations as bands/3."""
    kernels = torch.randn(6, 3, 7, 7)
    grey = torch.randn(2, 1, 20, 20)
    seen = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernels)
    spread = torch.nn.functional.conv2d(grey.expand(-1, bands, -1, -1), spread_kernels(kernels, bands, how))
    assert torch.allclose(spread, seen, atol=1e-4)


def test_spread_kernels_tell_bands_apart_only_when_cyclic():
    kernels = torch.randn(6, 3, 7, 7)
    assert not torch.equal(*spread_kernels(kernels, 5, "cyclic")[:, 1:3].unbind(1))
    assert torch.equal(*spread_kernels(kernels, 5, "averaged")[:, 1:3].unbind(1))


@pytest.mark.parametrize("prefix", ["", "model.", "model.encoder.", "module."])
def test_weights_of_another_number_of_bands_and_another_size_come_from_a_file(prefix, tmp_path):
    """As Zoobot's encoders and Lightning's checkpoints store them; the classifier is left behind."""
    torch.manual_seed(0)
    old = image_encoder("vit_tiny_patch16_224", 3, 40, outputs=5, **TINY).eval()
    path = tmp_path / "encoder.ckpt"
    torch.save({"state_dict": {prefix + name: value for name, value in old.network.state_dict().items()}, "epoch": 3}, path)
    same = image_encoder("vit_tiny_patch16_224", 3, 40, outputs=0, weights=str(path), **TINY).eval()
    images = torch.randn(2, 3, 40, 40)
    assert torch.allclose(same(images), old.features(images), atol=1e-5)
    wider = image_encoder("vit_tiny_patch16_224", 5, 40, outputs=0, weights=str(path), **TINY).eval()
    grey = torch.randn(2, 1, 40, 40)
    assert torch.allclose(wider(grey.expand(-1, 5, -1, -1)), same(grey.expand(-1, 3, -1, -1)), atol=1e-4)
    larger = image_encoder("vit_tiny_patch16_224", 5, 64, outputs=0, weights=str(path), **TINY)
    assert larger.network.pos_embed.shape[1] == 65


def test_a_convolutional_network_takes_weights_and_a_finer_first_layer(tmp_path):
    old = image_encoder("resnet10t", 3, 64)
    torch.save(old.network.state_dict(), tmp_path / "resnet.pth")
    new = image_encoder("resnet10t", 4, 40, outputs=0, weights=str(tmp_path / "resnet.pth"), first_stride=1, any_size=True)
    assert torch.equal(new.network.layer2[0].conv1.weight, old.network.layer2[0].conv1.weight)
    assert new(torch.zeros(2, 4, 40, 40)).shape == new(torch.zeros(2, 4, 56, 56)).shape == (2, new.width)
    fresh = image_encoder("resnet10t", 4, 40, outputs=0, weights=str(tmp_path / "resnet.pth"), first_layer="new")
    assert not torch.equal(fresh.network.conv1[0].weight[:, :3], old.network.conv1[0].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(image_encoder("resnet10t", 3, 64).network.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(DataError, match="another network"):
        image_encoder("vit_tiny_patch16_224", 3, 40, weights=str(tmp_path / "resnet.pth"), **TINY)
    with pytest.raises(MissingFile, match="do not exist"):
        image_encoder("resnet10t", 3, 40, weights=str(tmp_path / "none.pth"))
    torch.save({"state_dict": Pickled()}, tmp_path / "pickled.pt")
    with pytest.raises(DataError, match="Nothing is unpickled"):
        read_weights(tmp_path / "pickled.pt", torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="choose one"):
        image_encoder("resnet10t", 3, 40, pretrained=True, weights="x.pt")


class Pickled:
    """An object that only unpickling could read."""
