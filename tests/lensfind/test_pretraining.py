"""Self-supervised tasks: what each loss is at the start, who gets gradients, and where the second stage begins."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from lensfind.models import LightTransformer, finder
from lensfind.training.selfsupervised import MaskedImages, MomentumContrast, SimSiam, backbone_of, collapse, patch_mask, views
from lensfind.training.task import LensFinder
from skyloom.backbones import image_encoder
from skyloom.errors import ConfigError
from skyloom.pu import nnpu

LIGHT = partial(finder, backbone=partial(LightTransformer, width=32, depth=1, heads=2))
VIT = partial(
    finder,
    backbone=partial(image_encoder, "vit_tiny_patch16_224", outputs=0, patch_size=8, embed_dim=32, depth=1, num_heads=2),
)


def made(small, model=LIGHT):
    torch.manual_seed(0)
    return LensFinder(small.about, model, nnpu, colour_aperture=0.6)


@pytest.fixture
def batch(small):
    return small.train.__getitems__(np.arange(24))


@pytest.mark.parametrize("model", [LIGHT, VIT])
@pytest.mark.parametrize("method", [SimSiam, partial(MomentumContrast, keys=64), partial(MaskedImages, patch=8)])
def test_every_method_teaches_every_part_of_the_backbone(small, batch, method, model):
    learner = method(finder=made(small, model))
    loss = learner.losses(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    without = [name for name, p in learner.backbone.named_parameters() if p.grad is None]
    assert not [name for name in without if "norm" not in name], without  # a masked image has no pooled features
    assert learner.finder.encoder.head.linear.weight.grad is None


def test_labels_are_not_read(small, batch):
    learner = SimSiam(made(small))
    assert torch.isfinite(learner.losses({"image": batch["image"]})["loss"])


def test_contrast_begins_at_the_logarithm_of_the_queue_and_keys_follow_slowly(small, batch):
    learner = MomentumContrast(made(small), keys=256, temperature=1e4, momentum=0.9)
    assert float(learner.losses(batch)["loss"]) == pytest.approx(math.log(257), abs=1e-2)
    assert int(learner.place) == 24
    assert torch.allclose(learner.queue.norm(dim=1), torch.ones(256), atol=1e-5)
    assert not any(p.requires_grad for p in learner.slow.parameters())
    slow, quick = next(iter(learner.slow.parameters())), next(iter(learner.backbone.parameters()))
    before, target = slow.clone(), quick.detach() + 1.0
    quick.data.copy_(target)
    learner.follow()
    assert torch.allclose(slow, 0.9 * before + 0.1 * target, atol=1e-6)


def test_a_queue_wraps_around(small):
    learner = MomentumContrast(made(small), dimensions=4, keys=6)
    for start in (0, 4):
        learner.remember(torch.arange(start, start + 4.0)[:, None].expand(-1, 4))
    assert learner.queue[:, 0].tolist() == [6.0, 7.0, 2.0, 3.0, 4.0, 5.0]


def test_the_two_views_of_simsiam_stop_each_others_gradient(small, batch):
    """Without the stopped gradient the loss has a second path, through z: its gradient would be another."""
    learner = SimSiam(made(small)).eval()
    z = [learner.project(learner.embed(view)) for view in learner.pair(batch)]
    loss = -torch.nn.functional.cosine_similarity(learner.guess(z[0]), z[1].detach()).mean()
    assert all(g is None for g in torch.autograd.grad(loss, [z[1]], allow_unused=True))


def test_collapse_is_seen():
    assert float(collapse(torch.randn(4000, 64))) == pytest.approx(1, abs=0.05)
    assert float(collapse(torch.ones(100, 64) + 1e-4 * torch.randn(100, 64))) < 0.01


def test_only_hidden_pixels_are_scored_and_they_are_hidden(small, batch):
    learner = MaskedImages(made(small), patch=8, share=0.5).eval()
    seen = {}
    learner.backbone.register_forward_pre_hook(lambda module, inputs: None)
    original = learner.backbone.tokens

    def spy(images):
        seen["images"] = images
        return original(images)

    learner.backbone.tokens = spy
    torch.manual_seed(5)
    loss = learner.losses(batch)["loss"]
    hidden = (seen["images"] == 0).all(dim=1)
    assert float(hidden.float().mean()) == pytest.approx(0.5, abs=0.05)
    stretched = learner.finder.stretch(batch["image"])
    assert torch.equal(seen["images"][:, 0][~hidden], stretched[:, 0][~hidden])
    assert float(loss) > 0
    assert patch_mask(5, 4, 0.6, "cpu").sum(dim=(1, 2)).tolist() == [10] * 5


def test_views_keep_flux_but_for_noise_and_edges(small):
    images = torch.zeros(64, 3, 40, 40)
    images[:, :, 18:22, 17:21] = 10.0
    noise = torch.ones(3, 1, 1)
    assert torch.allclose(views(images, noise, extra_noise=0.0, blur=0.0).sum(dim=(2, 3)), images.sum(dim=(2, 3)))
    blurred = views(images, noise, extra_noise=0.0, blur=0.8)
    assert torch.allclose(blurred.sum(dim=(2, 3)), images.sum(dim=(2, 3)), rtol=1e-3)
    noisy = views(torch.zeros(512, 3, 16, 16), noise, extra_noise=1.0, blur=0.0).std(dim=(1, 2, 3))
    assert float(noisy.max()) < 1.15
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.06)


def test_a_model_without_a_backbone_is_told_so(small):
    plain = LensFinder(small.about, partial(image_encoder, "resnet10t"), nnpu)
    with pytest.raises(ConfigError, match="finder"):
        backbone_of(plain)


def test_the_second_stage_begins_where_the_first_ended(small, tmp_path):
    from lensfind.calibration.calibrating import CalibratedTrainer
    from lensfind.training.pretraining import train
    from skyloom.run import Run
    from skyloom.training.hardware import fabric as make_fabric
    from skyloom.training.optimizers import optimizer
    from skyloom.training.schedules import Cosine

    run = Run.create(tmp_path, {"pkg": "lensfind", "experiment": "two"}, directory=tmp_path / "run")
    fabric = make_fabric(devices=1, accelerator="cpu")
    fabric.launch()
    goal = [{"metric": "val/auroc_pu", "direction": "maximize"}]
    begun = []

    def task(about):
        made = LensFinder(about, LIGHT, partial(nnpu, surrogate="logistic"), target_prior=0.5)
        begun.append(made)
        return made

    metrics = train(
        run, fabric, small, task, partial(optimizer, lr=0.0), Cosine(),
        partial(CalibratedTrainer, epochs=1, objective=goal, quiet=True),
        method=SimSiam, pretrain_epochs=1, pretrain_batch=32, threads=1,
    )  # fmt: skip
    weights = torch.load(run.directory / "pretrained.pt", weights_only=True)
    first, second = begun
    assert first is not second
    for name, value in backbone_of(second).named_parameters():
        assert torch.equal(value, weights[name]), name
    assert not torch.equal(weights["embed.weight"], backbone_of(task(small.about)).state_dict()["embed.weight"])
    assert "test/auroc" in metrics
    assert (run.directory / "pretraining" / "checkpoints" / "best.pt").exists()


def test_two_pictures_of_a_lens_share_the_lens_and_not_the_source(small):
    from lensfind.simulation.population import LENS
    from lensfind.simulation.scene import draw_scenes
    from lensfind.training.lens_pairs import LensPairs, another_source

    learner = LensPairs(made(small), small.about)
    lenses = np.flatnonzero(small.train["kind"].numpy() == LENS)[:12]
    batch = small.train.__getitems__(lenses)
    scene, other = (
        draw_scenes(s, batch["kind"].long(), learner.population, learner.survey, 40) for s in (batch["seed"], batch["seed"] ^ 1)
    )
    mixed = another_source(scene, other)
    assert torch.equal(mixed.theta_e, scene.theta_e)
    assert torch.equal(mixed.lens_flux, scene.lens_flux)
    assert torch.equal(mixed.offset, other.offset)
    second = learner.second(batch)
    assert second.shape == batch["image"].shape
    core = slice(18, 22)
    ratio = second[:, 2, core, core].sum(dim=(1, 2)) / batch["image"][:, 2, core, core].sum(dim=(1, 2))
    assert float((ratio.log().abs() < 0.35).float().mean()) > 0.7  # the galaxy in the middle is the same
    apart = (second - batch["image"])[:, 0].abs().amax(dim=(1, 2)) / learner.finder.noise[0, 0, 0]
    assert (apart > 6).float().mean() > 0.7  # and the arcs are not
    loss = learner.losses(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    with pytest.raises(ConfigError, match="simulated"):
        LensPairs(made(small), {k: v for k, v in small.about.items() if k != "population"})
