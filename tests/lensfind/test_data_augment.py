"""Augmentation keeps geometry and colours: contracts that each allowed transform must meet, and forbidden ones would break."""

import math

import pytest
import torch

from lensfind.data.augment import FORBIDDEN, TRANSFORMS, Augment, gaussian_blur, resampled, wide_enough
from skyloom.data import SampleDraws
from skyloom.errors import ConfigError

SIZE, SCALE = 64, 0.2
RADIUS = 15.0  # pixels
COLOURS = torch.tensor([0.5, 0.9, 1.2])
NOISE = torch.tensor([1.0, 1.5, 2.0])
ABOUT = {"size": SIZE, "survey": {"pixel_scale": SCALE}, "statistics": {"noise": NOISE.tolist()}}


def ring(count: int, size: int = SIZE, flux: float = 1000.0) -> torch.Tensor:
    """A noiseless ring of radius 15 pixels about the centre, in three bands of known colours."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    r = torch.hypot(axis[:, None], axis[None, :])
    shape = torch.exp(-0.5 * ((r - RADIUS) / 2.0) ** 2)
    shape = flux * shape / shape.sum()
    return (COLOURS[:, None, None] * shape).expand(count, 3, size, size).float().clone()


def apply(spec: dict, batch: dict, epoch: int = 0) -> dict:
    count = len(batch["image"])
    return Augment.of(spec, ABOUT)(batch, SampleDraws(7, epoch, torch.arange(count)))


def radius(images: torch.Tensor) -> torch.Tensor:
    """Flux-weighted radius [B] about the flux-weighted centre, inside an annulus: the geometry of a ring."""
    total = images.double().sum(dim=1)
    axis = torch.arange(images.shape[-1], dtype=torch.float64)
    norm = total.sum(dim=(1, 2))
    cy, cx = (total.sum(2) * axis).sum(1) / norm, (total.sum(1) * axis).sum(1) / norm
    r = torch.hypot(axis[None, :, None] - cy[:, None, None], axis[None, None, :] - cx[:, None, None])
    weight = total * ((r > 0.5 * RADIUS) & (r < 1.5 * RADIUS))
    return (weight * r).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def magnitudes(images: torch.Tensor) -> torch.Tensor:
    """Colours [B, 2] in mag, from the flux of the central 48 pixels."""
    edge = (images.shape[-1] - 48) // 2
    flux = images.double()[..., edge : edge + 48, edge : edge + 48].sum(dim=(2, 3))
    return -2.5 * torch.log10(flux[:, :-1] / flux[:, 1:])


ALLOWED = {
    "dihedral": ({"dihedral": True}, 1e-12, 1e-6),
    "shift": ({"shift": 2.0}, 2e-3, 1e-4),
    "rotate": ({"rotate": True}, 2e-3, 1e-4),
    "brightness": ({"brightness": 0.05}, 1e-6, 1e-6),
    "psf": ({"psf": 0.6}, 0.01, 0.03),
    "zero_point": ({"zero_point": 0.01}, 1e-6, 0.06),
    "all geometry": ({"rotate": True, "dihedral": True, "shift": 1.5, "brightness": 0.05}, 4e-3, 1e-4),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_transforms_keep_radii_and_colours(name):
    """The largest change over 100 draws, not the mean, which hides a symmetric jitter."""
    spec, geometry, photometry = ALLOWED[name]
    images = ring(100)
    batch = {"image": images}
    if "rotate" in spec:
        batch["wide"] = ring(100, wide_enough(SIZE), flux=float(images[0, 0].sum() / COLOURS[0]))
    quiet = {**ABOUT, "statistics": {"noise": [1e-9, 1e-9, 1e-9]}}
    after = Augment.of(spec, quiet)(batch, SampleDraws(3, 0, torch.arange(100)))["image"]
    change = radius(after) / radius(images) - 1
    if "psf" in spec:  # a PSF adds in quadrature to the width, hardly to the radius
        assert change.abs().max() < 0.03
    else:
        assert change.abs().max() < geometry
    assert (magnitudes(after) - magnitudes(images)).abs().max() < photometry
    assert name == "dihedral" or not torch.equal(after, images)  # a ring is the same turned


def test_flux_differences_are_not_the_invariant_but_ratios_are():
    """The test of the source compared g - r of fluxes, which a common factor changes."""
    images = ring(100)
    after = apply({"brightness": 0.1}, {"image": images})["image"]
    flux = after.sum(dim=(2, 3))
    ratio = torch.log(flux[:, :-1] / flux[:, 1:])
    assert torch.allclose(ratio, torch.log(COLOURS[:-1] / COLOURS[1:]).expand_as(ratio), atol=1e-6)
    assert (flux[:, 0] - flux[:, 1]).std() > 1


@pytest.mark.parametrize(
    "images",
    [torch.rand(16, 2, 21, 21), torch.randn(16, 3, 32, 32), torch.rand(16, 1, 8, 8) * 1e4],
    ids=["odd", "signed", "small"],
)
def test_symmetries_keep_every_pixel(images):
    about = {**ABOUT, "size": images.shape[-1], "statistics": {"noise": [1.0] * images.shape[1]}}
    turned = Augment.of({"dihedral": True}, about)({"image": images}, SampleDraws(0, 0, torch.arange(16)))["image"]
    assert torch.equal(turned.flatten(2).sort(-1).values, images.flatten(2).sort(-1).values)


def test_mask_and_variance_turn_with_the_image():
    images = torch.rand(32, 2, 15, 15)
    about = {**ABOUT, "size": 15, "statistics": {"noise": [1.0, 1.0]}}
    batch = {"image": images, "mask": (images > 0.5).to(torch.uint8), "variance": images**2, "label": torch.arange(32)}
    turned = Augment.of(None, about)(batch, SampleDraws(0, 0, torch.arange(32)))
    assert torch.equal(turned["mask"], (turned["image"] > 0.5).to(torch.uint8))
    assert torch.equal(turned["variance"], turned["image"] ** 2)
    assert torch.equal(turned["label"], torch.arange(32))


def test_resampling_is_exact_for_quarter_turns_whole_shifts_and_nothing():
    images = torch.randn(4, 2, 20, 20, dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    assert torch.allclose(resampled(images, zero, zero, zero, 20), images, atol=1e-10)
    turned = resampled(images, zero + math.pi / 2, zero, zero, 20)
    expected = torch.rot90(images, 1, (-2, -1)), torch.rot90(images, -1, (-2, -1))
    assert min((turned - e).abs().max() for e in expected) < 1e-9
    moved = resampled(images, zero, zero + 3, zero - 2, 20)
    assert torch.allclose(moved[..., 2:-4, 5:-2], torch.roll(images, (-2, 3), (-2, -1))[..., 2:-4, 5:-2], atol=1e-9)
    cut = resampled(images, zero, zero, zero, 12)
    assert torch.allclose(cut, images[..., 4:16, 4:16], atol=1e-10)


def test_subpixel_shifts_move_the_centroid_by_what_was_drawn():
    axis = torch.arange(40, dtype=torch.float64) - 19.5
    star = torch.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2.5**2)[None, None]
    dx, dy = torch.tensor([0.37], dtype=torch.float64), torch.tensor([-0.81], dtype=torch.float64)
    moved = resampled(star, 0 * dx, dx, dy, 40)[0, 0]
    assert float((moved * axis[None, :]).sum() / moved.sum()) == pytest.approx(0.37, abs=2e-3)
    assert float((moved * axis[:, None]).sum() / moved.sum()) == pytest.approx(-0.81, abs=2e-3)
    assert float(moved.sum() / star.sum()) == pytest.approx(1, abs=1e-4)


def test_no_corner_is_empty_after_turning():
    """Turning by ten degrees filled corners with zeros: a mark of augmented rows."""
    wide = torch.full((64, 3, wide_enough(SIZE), wide_enough(SIZE)), 7.0)
    after = apply({"rotate": True}, {"image": torch.full((64, 3, SIZE, SIZE), 7.0), "wide": wide})["image"]
    assert torch.allclose(after, torch.full_like(after, 7.0), atol=1e-4)
    with pytest.raises(ConfigError, match="needs cutouts wider"):
        apply({"rotate": True}, {"image": ring(2)})


def test_noise_deepens_to_the_drawn_depth_and_a_blur_keeps_the_noise_level():
    sky = torch.randn(400, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * NOISE[:, None, None]
    deeper = apply({"depth": 1.0}, {"image": sky})["image"]
    growth = deeper.std(dim=(2, 3)) / NOISE
    assert growth.min() > 0.95 and growth.max() < 10**0.4 * 1.05
    assert torch.allclose(growth[:, 0], growth[:, 2], rtol=0.15)  # the same depth in all bands
    assert growth.mean() == pytest.approx((10**0.4 - 1) / (0.4 * math.log(10)), rel=0.03)
    blurred = apply({"psf": 0.5}, {"image": sky})["image"]
    assert (blurred.std(dim=(2, 3)) / NOISE).mean() == pytest.approx(1, abs=0.08)


def test_extra_psf_is_as_wide_as_stated_and_keeps_flux():
    axis = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    star = torch.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2.0**2)[None, None]
    blurred = gaussian_blur(star, torch.tensor([1.5], dtype=torch.float64), reach=8)[0, 0]
    assert float(blurred.sum() / star.sum()) == pytest.approx(1, abs=1e-6)
    second = float((blurred * axis[None, :] ** 2).sum() / blurred.sum())
    assert second == pytest.approx(2.0**2 + 1.5**2, rel=1e-4)


def test_masked_stars_stay_off_the_middle_and_are_marked():
    images = ring(300)
    after = apply({"stars": 1.0}, {"image": images})
    covered = after["mask"] == 0
    assert covered.flatten(1).any(1).all()
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    assert not (covered & (torch.hypot(axis[:, None], axis[None, :]) < 0.2 * SIZE)).any()
    assert torch.equal(after["image"][~covered], images[~covered])
    assert after["image"][covered].std() == pytest.approx(1.55, rel=0.2)  # sky noise, not zeros


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_forbidden_transforms_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"'{name}' is refused"):
        Augment.of({"dihedral": True, name: 0.2}, ABOUT)


def test_what_is_forbidden_breaks_a_contract():
    images = ring(20)
    shuffled = images.flip(1)
    assert (magnitudes(shuffled) - magnitudes(images)).abs().max() > 0.03
    scaled = torch.nn.functional.interpolate(images, scale_factor=1.2, mode="bilinear")
    assert (radius(scaled) / radius(images) - 1).abs().max() > 0.01
    mixed = 0.8 * images + 0.2 * images.mean(dim=1, keepdim=True)  # contrast jitter
    assert (magnitudes(mixed) - magnitudes(images)).abs().max() > 0.03


def test_unknown_names_and_absurd_strengths_are_mistakes():
    with pytest.raises(ConfigError, match="Did you mean 'dihedral'"):
        Augment.of({"dihedrals": True}, ABOUT)
    with pytest.raises(ConfigError, match="at most 5%"):
        apply({"shift": 10.0}, {"image": ring(2)})
    with pytest.raises(ConfigError, match="another colour"):
        apply({"zero_point": 0.3}, {"image": ring(2)})


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "rotate"])
def test_a_sample_is_augmented_alike_in_any_batch(name):
    strengths = {"dihedral": True, "shift": 1.0, "brightness": 0.1, "zero_point": 0.02, "psf": 0.4, "depth": 0.5, "stars": 0.8}
    images = ring(12) + torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    transform = Augment.of({name: strengths[name]}, ABOUT)
    together = transform({"image": images}, SampleDraws(1, 4, torch.arange(12)))["image"]
    some = torch.tensor([9, 2])
    alone = transform({"image": images[some]}, SampleDraws(1, 4, some))["image"]
    assert torch.allclose(alone, together[some], atol=1e-4)
    assert not torch.equal(transform({"image": images}, SampleDraws(1, 5, torch.arange(12)))["image"], together)
