"""Every network: logits [B], gradients everywhere, rows that do not see each other; and what each part claims."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from lensfind.models import (
    Bags,
    Block,
    ConditionedResNet,
    DropPath,
    EvidenceAttention,
    GatedPooling,
    HeteroscedasticHead,
    LightTransformer,
    LinearHead,
    MultiScaleAttention,
    OrientedRidges,
    PlainAttention,
    RadiusHead,
    StructureTensor,
    attention,
    finder,
    sampled_probability,
    structure_evidence,
    tiles,
)
from skyloom.backbones import image_encoder
from skyloom.errors import ConfigError

SMALL = partial(LightTransformer, width=32, depth=2, heads=2)
ARCHITECTURES = {
    "resnet18": partial(image_encoder, "resnet18", outputs=0),
    "vit": partial(image_encoder, "vit_tiny_patch16_224", outputs=0, patch_size=8, embed_dim=32, depth=1, num_heads=2),
    "light": SMALL,
    "light_class": partial(SMALL, pooling="class"),
    "light_query": partial(SMALL, pooling="attention", patch=2, stage="layer1", min_tokens=25),
    "evidence": partial(SMALL, attention="evidence", evidence="structure_tensor", pooling="class"),
    "ridges": partial(SMALL, attention="evidence", evidence="ridges"),
    "multi_scale": partial(SMALL, attention="multi_scale"),
    "adaptive": partial(SMALL, attention="adaptive", evidence="ridges"),
    "bags": partial(Bags, encoder=partial(image_encoder, "resnet10t", outputs=0), tile=20, step=10),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("bands", "size"), [(1, 40), (4, 40)])
def test_every_architecture_is_whole(name, bands, size):
    """Earlier ones raised at the first forward pass, attended across the batch, left parameters without gradient, or came out
    of their factory in evaluation mode."""
    torch.manual_seed(0)
    model = finder(bands, size, ARCHITECTURES[name])
    assert all(module.training for module in model.modules())
    for block in (m for m in model.modules() if isinstance(m, EvidenceAttention)):
        nn.init.normal_(block.beta)  # at their start of zero the evidence has no gradient yet
    images = torch.randn(3, bands, size, size)
    loss = (model(images) ** 2).sum() + (model.penalty() if model.penalty() is not None else 0)
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    model.eval()
    logits = model(images)
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    assert torch.equal(model(images), logits)
    changed = images.clone()
    changed[1] += 1.0
    assert torch.allclose(model(changed)[[0, 2]], logits[[0, 2]], atol=1e-5)
    assert torch.allclose(model(images[:1]), logits[:1], atol=1e-5)
    other = finder(bands, size, ARCHITECTURES[name]).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), logits)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "convnext_atto", "efficientnet_lite0", "swin_tiny_patch4_window7_224"]
)
def test_other_families_of_timm_are_a_name_away(name):
    options = {"convnext_atto": {}, "efficientnet_lite0": {}}.get(name, {"embed_dim": 24, "patch_size": 4})
    options |= {"swin_tiny_patch4_window7_224": {"depths": (1, 1), "num_heads": (2, 2), "window_size": 4}}.get(name, {})
    options |= {"vit_tiny_patch16_224": {"depth": 1, "num_heads": 2}}.get(name, {})
    model = finder(5, 64, partial(image_encoder, name, outputs=0, **options))
    assert model(torch.randn(2, 5, 64, 64)).shape == (2,)


# ---------------------------------------------------------------- Light Transformer


def test_parameters_of_the_light_transformer_are_those_of_its_parts():
    trunk = {"layer1": 9_536 + 147_968, "layer2": 9_536 + 147_968 + 525_568, "layer3": 2_782_784}
    options = {"bands": 3, "size": 112, "patch": 2, "min_tokens": 1}
    balanced = LightTransformer(**options, stage="layer3")
    assert _count(balanced) == trunk["layer3"] + 262_400 + 512 + 16_384 + 4 * 527_104 + 512 == 5_171_008
    assert _count(balanced.trunk) == trunk["layer3"]
    fast = LightTransformer(**options, stage="layer2", width=128, depth=3)
    assert _count(fast) == 1_154_880
    quality = LightTransformer(3, 112, stage="layer3", patch=1, width=384, depth=6, min_tokens=1)
    assert _count(quality) == 10_010_816
    assert _count(image_encoder("resnet18", 3, 64)) == 11_177_025
    assert _count(image_encoder("resnet34", 3, 64)) == 21_285_185
    assert _count(image_encoder("resnet18", 5, 64)) == 11_177_025 + 6_272


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("size", "stage", "tokens"), [(40, "layer1", 100), (64, "layer2", 64), (112, "layer3", 49)])
def test_there_are_enough_tokens_to_see_an_arc(size, stage, tokens):
    model = SMALL(3, size)
    assert model.stage == stage
    assert model.tokens(torch.zeros(1, 3, size, size))[0].shape[1] == tokens


def test_too_few_or_too_many_tokens_are_explained():
    with pytest.raises(ConfigError, match=r"9 tokens at stage=layer3.*layer1 gives 100"):
        SMALL(3, 40, stage="layer3")
    with pytest.raises(ConfigError, match=r"outside \[49, 256\]"):
        SMALL(3, 112, stage="layer1")
    with pytest.raises(ConfigError, match=r"layer2"):
        SMALL(3, 40, stage="layr2")


def test_every_pixel_reaches_a_token():
    """A patch that does not divide the map once cut off its last row and column."""
    model = SMALL(2, 112, stage="layer3", patch=2, min_tokens=16).eval()
    for norm in (m for m in model.trunk.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # some start at zero, and with them whole branches
    images = torch.randn(1, 2, 112, 112, requires_grad=True)
    tokens = model.tokens(images)[0]
    (gradient,) = torch.autograd.grad((tokens * torch.randn_like(tokens)).sum(), images)
    assert (gradient[0].abs().amax(dim=(0, 1)) > 0).all()
    assert (gradient[0].abs().amax(dim=(0, 2)) > 0).all()


def test_frozen_stages_include_the_named_one_and_keep_their_statistics():
    model = SMALL(3, 112, freeze="layer2").train()
    frozen = {name for name, p in model.trunk.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1", "layer2"}
    before = {name: b.clone() for name, b in model.trunk.named_buffers() if not name.startswith("layer3")}
    model(torch.randn(4, 3, 112, 112))
    assert all(torch.equal(dict(model.trunk.named_buffers())[name], b) for name, b in before.items())
    assert model.trunk["layer3"].training
    assert not model.trunk["layer2"].training


def test_dropping_paths_keeps_the_mean():
    drop = DropPath(0.25)
    x = torch.ones(20_000, 2)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out[:, 0] == out[:, 1]).all()  # whole samples
    assert float(out.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(ConfigError, match="drop_path"):
        DropPath(1.0)


# ---------------------------------------------------------------- attention


@pytest.mark.parametrize("name", ["plain", "evidence", "multi_scale", "adaptive"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_attention_knows_grids_that_are_not_square_and_class_tokens(name, prefix):
    attend = attention(name, width=16, heads=2, evidence=1)
    tokens, evidence = torch.randn(2, 15 + prefix, 16), torch.rand(2, 1, 15)
    assert attend(tokens, (3, 5), evidence, prefix).shape == tokens.shape
    weights = attend.weights(tokens, evidence, prefix)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(()), atol=1e-5)


def test_evidence_begins_as_plain_attention_and_can_end_at_the_arc():
    torch.manual_seed(1)
    leaning, plain = EvidenceAttention(16, 2, evidence=1), PlainAttention(16, 2)
    plain.load_state_dict({k: v for k, v in leaning.state_dict().items() if k != "beta"})
    tokens = torch.randn(2, 26, 16)
    evidence = torch.zeros(2, 1, 25)
    evidence[:, :, 7:9] = 5.0
    assert torch.allclose(leaning(tokens, (5, 5), evidence, 1), plain(tokens, (5, 5), None, 1), atol=1e-6)
    leaning.beta.data.fill_(5.0)
    mass = leaning.weights(tokens, evidence, 1)[..., 1:].mean(dim=2)
    assert (mass[..., 7:9].sum(dim=-1) / mass.sum(dim=-1) > 0.99).all()
    with pytest.raises(ConfigError, match="given none"):
        leaning(tokens, (5, 5), None, 1)


def test_one_scale_is_plain_attention():
    torch.manual_seed(1)
    many, plain = MultiScaleAttention(16, 2, scales=(1,)), PlainAttention(16, 2)
    plain.load_state_dict({k: v for k, v in many.state_dict().items() if k != "share"})
    tokens = torch.randn(2, 12, 16)
    assert torch.allclose(many(tokens, (3, 4)), plain(tokens, (3, 4)), atol=1e-6)
    repeated = MultiScaleAttention(16, 2, scales=(1, 8, 16))  # both larger scales are one token
    assert repeated(tokens, (3, 4)).shape == tokens.shape


def test_permuting_tokens_permutes_what_a_block_says():
    block = Block(16, PlainAttention(16, 2), 2.0, 0.0, 0.0).eval()
    tokens, order = torch.randn(2, 9, 16), torch.randperm(9)
    assert torch.allclose(block(tokens[:, order], (3, 3), None, 0), block(tokens, (3, 3), None, 0)[:, order], atol=1e-5)


# ---------------------------------------------------------------- evidence for arcs


def _ring(size=129, radius=35.0, width=3.0):
    r, phi = _frame(size)
    return torch.exp(-0.5 * ((r - radius) / width) ** 2)[None], (r - radius).abs() < width, phi


def _frame(size):
    line = torch.arange(size) - (size - 1) / 2
    return torch.hypot(line[:, None], line[None]), torch.atan2(line[:, None], line[None].expand(size, -1))


def test_rings_are_tangential_and_spokes_radial():
    ring, on_ring, phi = _ring()
    t, r, _ = structure_evidence(ring, 1.5, 2.5)
    assert float(t[0][on_ring].mean()) == pytest.approx(0.98, abs=0.01)
    assert float(r[0][on_ring].mean()) < 1e-3
    radius, _ = _frame(129)
    spokes = (torch.cos(6 * phi) > 0).float()[None]
    t, r, _ = structure_evidence(spokes, 1.5, 2.5)
    edge = (radius > 20) & (radius < 50) & (torch.cos(6 * phi).abs() < 0.1)
    assert float(t[0][edge].mean()) < 0.01
    assert float(r[0][edge].mean()) > 0.9


@pytest.mark.parametrize("evidence", [StructureTensor((1.5,)), OrientedRidges(2, 9, 8)])
def test_evidence_turns_with_the_image(evidence):
    images = torch.randn(1, 2, 41, 41)
    for turns in (1, 2, 3):
        turned = evidence(torch.rot90(images, turns, (-2, -1)))
        assert torch.allclose(turned, torch.rot90(evidence(images), turns, (-2, -1)), atol=2e-4)


def test_learned_ridges_answer_to_circles_and_not_to_spokes_at_any_angle():
    radius, phi = _frame(61)
    at = (radius > 12) & (radius < 22)
    ridges = OrientedRidges(1, 9, 16)
    ring = torch.exp(-0.5 * ((radius - 17) / 1.2) ** 2)[None, None]
    for angle in torch.linspace(-3, 3, 13):  # a piece of circle, and a piece of spoke, about this polar angle
        away = torch.atan2(torch.sin(phi - angle), torch.cos(phi - angle))
        arc = ring * (away.abs() < 0.5)
        spoke = torch.exp(-0.5 * (away * radius / 1.2) ** 2)[None, None] * at
        middle = ((radius - 17).abs() < 1.5) & (away.abs() < 0.15)
        with torch.no_grad():
            strengths = [float(ridges.response(image)[0, 0][middle].mean()) for image in (arc, spoke)]
        assert strengths[0] > 5 * strengths[1]


def test_learned_ridges_keep_to_their_templates():
    """The regulariser at the start is the sparsity term alone; without data it brings strayed kernels back; templates move with
    the module."""
    ridges = OrientedRidges(2, 9, 8, strength=1.0, sparsity=1e-3)
    assert torch.allclose(ridges.templates.sum(dim=(1, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(ridges.penalty(), 1e-3 * ridges.templates.abs().sum(), atol=1e-5)
    assert "templates" in dict(ridges.named_buffers())
    ridges.kernels.data += 0.2 * torch.randn_like(ridges.kernels)
    ridges.sparsity = 0.0
    optimizer = torch.optim.Adam(ridges.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        ridges.penalty().backward()
        optimizer.step()
    assert (ridges.alignment() > 0.999).all()


# ---------------------------------------------------------------- heads, bags, conditions


def test_dropout_variance_in_closed_form_is_what_sampling_finds():
    torch.manual_seed(2)
    head, features = LinearHead(64, 0.3), torch.randn(1, 64)
    with torch.no_grad():
        exact = head.eval()(features)
        draws = head.train()(features.expand(40_000, -1))["logit"]
    assert float(draws.var()) == pytest.approx(float(exact["dropout_variance"]), rel=0.03)
    assert float(draws.mean()) == pytest.approx(float(exact["logit"]), abs=0.02)
    assert "dropout_variance" not in LinearHead(4, 0.0)(torch.randn(2, 4))


def test_the_uncertainty_of_dropout_is_no_function_of_the_logit():
    """Dropout on the logit itself, as once done, gives sqrt(p/(1-p)) |z|: the surest are then the most uncertain."""
    torch.manual_seed(3)
    out = {k: v.detach() for k, v in LinearHead(64, 0.2).eval()(torch.randn(400, 64)).items()}
    assert abs(float(torch.corrcoef(torch.stack([out["logit"].abs(), out["dropout_variance"].sqrt()]))[0, 1])) < 0.5


def test_a_logit_with_variance_is_the_mean_probability():
    generator = torch.Generator().manual_seed(0)
    mean, variance = torch.tensor([2.0]), torch.tensor([0.5])
    assert float(sampled_probability(mean, variance, 400_000, generator)) == pytest.approx(0.8617, abs=1e-3)


def test_variance_is_learned_where_labels_are_noise():
    torch.manual_seed(0)
    head = HeteroscedasticHead(2, dropout=0.0)
    noisy = torch.rand(3000) < 0.5
    truth = torch.rand(3000) < 0.5
    labels = torch.where(noisy & (torch.rand(3000) < 0.4), ~truth, truth).float()
    features = torch.stack([6.0 * (truth.float() - 0.5), noisy.float()], dim=1)
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(head(features)["logit"], labels).backward()
        optimizer.step()
    variance = head(features)["aleatoric_variance"].detach()
    assert float(variance[noisy].mean()) > 2 * float(variance[~noisy].mean())


def test_radii_are_learned_only_where_they_are_known():
    head = RadiusHead(8)
    out = head(torch.randn(3, 8))
    theta_e = torch.tensor([1.2, math.nan, 0.9])
    loss = head.loss(out["log_theta_E"], theta_e, torch.tensor([True, False, True]))
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, out["log_theta_E"])
    assert (gradient != 0).tolist() == [True, False, True]
    assert float(head.loss(torch.log(theta_e.nan_to_num(1.0)), theta_e, torch.tensor([True, False, False]))) == 0
    assert float(head.loss(out["log_theta_E"].detach(), theta_e, torch.zeros(3, dtype=torch.bool))) == 0


def test_bags_do_not_know_the_order_of_their_tiles_nor_what_is_masked():
    pool = GatedPooling(8)
    bag, order = torch.randn(2, 5, 8), torch.randperm(5)
    pooled, weights = pool(bag)
    assert torch.allclose(pool(bag[:, order])[0], pooled, atol=1e-6)
    assert torch.allclose(weights.sum(dim=1), torch.ones(2))
    padded = torch.cat([bag, torch.randn(2, 3, 8)], dim=1)
    mask = torch.arange(8).expand(2, -1) < 5
    assert torch.allclose(pool(padded, mask)[0], pooled, atol=1e-6)
    with pytest.raises(ConfigError, match="do not cover"):
        Bags(3, 41, partial(image_encoder, "resnet10t", outputs=0), tile=20, step=10)


def test_tiles_cover_the_image():
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    cut = tiles(image, 2, 2)
    assert cut.shape == (1, 9, 1, 2, 2)
    assert sorted(cut.flatten().tolist()) == sorted(image.flatten().tolist())
    assert cut[0, 1, 0].tolist() == [[2.0, 3.0], [8.0, 9.0]]


def test_conditions_begin_without_effect_and_can_have_one():
    torch.manual_seed(0)
    model = finder(3, 40, partial(ConditionedResNet, conditions=2)).eval()
    plain = image_encoder("resnet18", 3, 40, outputs=0).eval()
    plain.network.load_state_dict(model.backbone.network.state_dict())
    images, conditions = torch.randn(2, 3, 40, 40), torch.randn(2, 2)
    assert torch.allclose(model.features(images, conditions), plain(images), atol=1e-5)
    for modulation in model.backbone.modulations:
        nn.init.normal_(modulation.net[-1].weight)
    assert not torch.allclose(model(images, conditions), model(images, conditions.flip(0)))
