"""Learning what cutouts look like before anyone says which hold a lens: three ways, as tasks for the loop.

Each takes a `LensFinder` and trains its backbone. Views of a cutout are symmetries of the square, shifts of a few pixels, a
broader PSF and more noise: what a camera might have done. Colours and brightness stay, for they are signal.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensfind.models.ridges import gaussian_blur
from lensfind.training.task import LensFinder
from skyloom.data import Batch
from skyloom.errors import ConfigError
from skyloom.selfsupervised import agreement, collapse, projector, queue_contrast

__all__ = ["MaskedImages", "MomentumContrast", "SimSiam", "backbone_of", "collapse", "patch_mask", "tokens_of", "views"]


def backbone_of(finder: LensFinder) -> nn.Module:
    """The part of a finder that gives features [B, width]."""
    backbone = getattr(finder.encoder, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError("self-supervised pretraining needs a model of lensfind.models.finder, whose backbone gives features.")
    return backbone


def views(images: Tensor, noise: Tensor, shift: int = 3, extra_noise: float = 0.5, blur: float = 0.8) -> Tensor:
    """A random view of each of images [B, bands, H, W]: a symmetry, a shift by up to `shift` pixels, a Gaussian of up to `blur`
    pixels for half of the batch, and noise of up to `extra_noise` times that of an empty pixel ([bands, 1, 1])."""
    seen = torch.empty_like(images)
    symmetry = torch.randint(8, (len(images),), device=images.device)
    for k in range(8):
        rows = symmetry == k
        turned = torch.rot90(images[rows], k % 4, dims=(-2, -1))
        seen[rows] = turned.flip(-1) if k >= 4 else turned
    if shift:
        size = images.shape[-1]
        move = torch.randint(-shift, shift + 1, (len(images), 2), device=images.device)
        line = torch.arange(size, device=images.device)
        rows = (line + move[:, :1]).clamp(0, size - 1)
        columns = (line + move[:, 1:]).clamp(0, size - 1)
        seen = seen.gather(2, rows[:, None, :, None].expand_as(seen)).gather(3, columns[:, None, None, :].expand_as(seen))
    if blur:
        half = torch.rand(len(images), device=images.device) < 0.5
        width = float(torch.empty(()).uniform_(0.3, blur))
        seen = torch.where(half[:, None, None, None], gaussian_blur(seen, width), seen)
    level = extra_noise * torch.rand(len(images), 1, 1, 1, device=images.device)
    return seen + level * noise * torch.randn_like(seen)


class _Pretraining(nn.Module):
    """Validated by its own loss: lower is better, and nothing is scored."""

    def __init__(self, finder: LensFinder):
        super().__init__()
        self.finder = finder
        self.backbone = backbone_of(finder)
        if getattr(self.backbone, "conditions", 0):
            raise ConfigError("a conditioned backbone cannot be pretrained alone.")
        self.width = int(self.backbone.width)  # type: ignore[arg-type]

    def embed(self, images: Tensor) -> Tensor:
        return self.backbone(self.finder.stretch(images))

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"norm": self.embed(batch["image"]).norm(dim=1)}

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        return {}


class SimSiam(_Pretraining):
    """Two views of a cutout predict each other, with a stopped gradient (Chen and He 2021, arXiv:2011.10566)."""

    def __init__(self, finder: LensFinder, dimensions: int = 128, hidden: int = 64):
        super().__init__(finder)
        self.project = projector([self.width, dimensions, dimensions], last_norm=True)
        self.guess = projector([dimensions, hidden, dimensions], last_norm=False)

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        images = batch["image"]
        return views(images, self.finder.noise), views(images, self.finder.noise)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        z = [self.project(self.embed(view)) for view in self.pair(batch)]
        p = [self.guess(each) for each in z]
        loss = (agreement(p[0], z[1]) + agreement(p[1], z[0])) / 2
        return {"loss": loss, "spread": collapse(z[0].detach())}


class MomentumContrast(_Pretraining):
    """A view tells its own other view from a queue of others' (MoCo v2: Chen et al. 2020, arXiv:2003.04297).

    Keys come from a copy of the encoder that follows by momentum and gets no gradient.
    """

    queue: Tensor
    place: Tensor

    def __init__(
        self, finder: LensFinder, dimensions: int = 128, keys: int = 4096, momentum: float = 0.99, temperature: float = 0.2
    ):
        super().__init__(finder)
        import copy

        self.project = projector([self.width, self.width, dimensions], last_norm=False)
        self.slow = nn.ModuleList([copy.deepcopy(self.backbone), copy.deepcopy(self.project)]).requires_grad_(False)
        self.momentum, self.temperature = momentum, temperature
        self.register_buffer("queue", F.normalize(torch.randn(keys, dimensions), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def follow(self) -> None:
        fast = [*self.backbone.parameters(), *self.project.parameters()]
        for slow, quick in zip(self.slow.parameters(), fast, strict=True):
            slow.lerp_(quick, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        order = torch.randperm(len(images), device=images.device)  # batch statistics must not tell which key is whose
        z = self.slow[1](self.slow[0](self.finder.stretch(images[order])))
        return F.normalize(z, dim=1)[order.argsort()]

    @torch.no_grad()
    def remember(self, keys: Tensor) -> None:
        rows = (int(self.place) + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
        self.place.fill_((int(self.place) + len(keys)) % len(self.queue))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images, noise = batch["image"], self.finder.noise
        if self.training:
            self.follow()
        q = F.normalize(self.project(self.embed(views(images, noise))), dim=1)
        k = self.keys(views(images, noise))
        loss = queue_contrast(q, k, self.queue.clone(), self.temperature)
        if self.training:
            self.remember(k)
        return {"loss": loss, "spread": collapse(q.detach())}


def patch_mask(rows: int, grid: int, share: float, device: Any) -> Tensor:
    """[rows, grid, grid] true for the share of patches that is hidden: as many in each row."""
    hidden = round(share * grid * grid)
    order = torch.rand(rows, grid * grid, device=device).argsort(dim=1).argsort(dim=1)
    return (order < hidden).unflatten(1, (grid, grid))


def tokens_of(backbone: nn.Module, seen: Tensor) -> Tensor:
    """Features with their places, [B, D, rows, columns], of a backbone of tokens or of maps."""
    if hasattr(backbone, "blocks") and hasattr(backbone, "tokens"):
        x, grid, evidence = backbone.tokens(seen)  # type: ignore[operator]
        for block in backbone.blocks:  # type: ignore[union-attr]
            x = block(x, grid, evidence, backbone.prefix)
        return x[:, backbone.prefix :].transpose(1, 2).unflatten(2, grid)  # type: ignore[misc]
    network = getattr(backbone, "network", None)
    if network is None:
        raise ConfigError("masked images need a backbone that keeps places: a light transformer or a timm network.")
    x = network.forward_features(seen)  # type: ignore[operator]
    if x.ndim == 4:
        return x if x.shape[1] == network.num_features else x.permute(0, 3, 1, 2)
    x = x[:, int(getattr(network, "num_prefix_tokens", 0)) :]
    side = math.isqrt(x.shape[1])
    return x.transpose(1, 2).unflatten(2, (side, side))


class MaskedImages(_Pretraining):
    """What stands in hidden patches is told from what is around them (SimMIM: Xie et al. 2022, arXiv:2111.09886).

    Hidden patches hold a learned value per channel; a linear map of the features at their place gives their pixels, and the
    loss is the mean absolute error of hidden pixels, in units of the stretched image. It is the simplest of masked
    autoencoders, and works for backbones of maps as well as of tokens.
    """

    def __init__(self, finder: LensFinder, patch: int = 4, share: float = 0.6):
        super().__init__(finder)
        if finder.size % patch:
            raise ConfigError(f"patches of {patch} pixels do not tile {finder.size} pixels.")
        self.patch, self.share, self.grid = patch, share, finder.size // patch
        self.channels = finder.bands + (finder.aperture is not None)
        self.blank = nn.Parameter(torch.zeros(self.channels, 1, 1))
        with torch.no_grad():
            found = tokens_of(self.backbone.eval(), torch.zeros(1, self.channels, finder.size, finder.size))
        self.backbone.train()
        self.cell = finder.size // found.shape[-1]
        self.decode = nn.Conv2d(found.shape[1], self.channels * self.cell**2, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        seen = self.finder.stretch(batch["image"])
        mask = patch_mask(len(seen), self.grid, self.share, seen.device)
        mask = mask[:, None].repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        guess = self.decode(tokens_of(self.backbone, torch.where(mask, self.blank, seen)))
        guess = F.pixel_shuffle(guess, self.cell)
        if guess.shape[-1] != seen.shape[-1]:
            guess = F.interpolate(guess, size=seen.shape[-2:], mode="bilinear", align_corners=False)
        error = (guess - seen).abs() * mask
        return {"loss": error.sum() / (mask.sum() * self.channels)}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"norm": batch["image"].flatten(1).norm(dim=1)}
