"""An encoder of X-ray maps, learned without labels: five methods, as tasks for the loop.

The two views of a pair are a cluster seen from two sides. What they share is the cluster, and not the side from which it is
seen, so that is what features come to hold. Besides, each is turned, shifted by a pixel or two, and thinned: a shorter exposure
of Poisson counts is exactly a random part of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cinn_clusters.columns import LOOKBACK, TARGETS
from cinn_clusters.cosmology import AGE_TODAY
from cinn_clusters.maps import PROJECTIONS, map_names
from cinn_clusters.readout import held_out_r2
from cinn_clusters.rings import ring_profiles
from skyloom.run import Run
from skyloom.run.files import write_whole
from skyloom.selfsupervised import agreement, collapse, contrast, distillation, follow, projector, queue_contrast

__all__ = ["BYOL", "DINO", "MoCo", "SimCLR", "SimSiam", "embed", "probed", "views"]


def views(maps: Tensor, shift: int = 2, least_exposure: float = 0.5) -> Tensor:
    """A random view of each of maps `[B, H, W]` of counts: a symmetry of the square, a shift by up to `shift` pixels, and an
    exposure of between `least_exposure` and all of it."""
    size, device = maps.shape[-1], maps.device
    symmetry = torch.randint(8, (len(maps),), device=device)
    seen = torch.empty_like(maps)
    for k in range(8):
        rows = symmetry == k
        turned = torch.rot90(maps[rows], k % 4, dims=(-2, -1))
        seen[rows] = turned.flip(-1) if k >= 4 else turned
    line = torch.arange(size, device=device)
    rows, columns = ((line + torch.randint(-shift, shift + 1, (len(maps), 1), device=device)).clamp(0, size - 1) for _ in "yx")
    seen = seen.gather(1, rows[:, :, None].expand_as(seen)).gather(2, columns[:, None, :].expand_as(seen))
    kept = least_exposure + (1 - least_exposure) * torch.rand(len(maps), 1, 1, device=device)
    return torch.binomial(seen, kept.expand_as(seen).contiguous())


class _Encoder(nn.Module):
    """A backbone, a projector, and what every method does with a batch of `maps` `[B, 3, H, W]`.

    Arguments:
        about: What the data says of its maps: their size, and the spread of their log counts.
        backbone: Builds a `skyloom.backbones.ImageEncoder`: `backbone(bands=1, size=size, outputs=0)`.
        dimensions: Of the projected features, in which pairs are compared.
    """

    last_norm = False

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 128) -> None:
        super().__init__()
        self.backbone = backbone(bands=1, size=int(about["size"]), outputs=0)
        self.width, self.level = int(self.backbone.width), dict(about["log_counts"])
        self.project = projector([self.width, self.width, dimensions], self.last_norm)
        self.dimensions = dimensions

    def stretch(self, counts: Tensor) -> Tensor:
        """Maps `[B, H, W]` of counts as images `[B, 1, H, W]` of zero mean and unit spread."""
        return ((torch.log1p(counts) - self.level["mean"]) / self.level["sd"]).unsqueeze(1)

    def project_views(self, seen: Tensor) -> Tensor:
        return self.project(self.backbone(self.stretch(seen)))

    def pair(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Each cluster from two of its sides."""
        sides = torch.rand(len(maps), maps.shape[1], device=maps.device).argsort(1)[:, :2]
        chosen = maps[torch.arange(len(maps), device=maps.device)[:, None], sides].float()
        return views(chosen[:, 0]), views(chosen[:, 1])

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        loss, z = self.compared(*self.pair(batch["maps"]))
        return {"loss": loss, "spread": collapse(z.detach())}

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a pair of views, and projected features of the first."""
        raise NotImplementedError

    def vectors(self, maps: Tensor) -> Tensor:
        """Embeddings `[B, 3, width]` of maps `[B, 3, H, W]`, whole and unturned."""
        flat = self.backbone(self.stretch(maps.float().flatten(0, 1)))
        return flat.view(*maps.shape[:2], -1)

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean embedding of a cluster's sides `[B, width]`, the mean of their profiles, and one of its maps."""
        maps = batch["maps"]
        return {"embedding": self.vectors(maps).mean(1), "profile": ring_profiles(maps).mean(1), "map": maps[:, 0].float()}

    def score(self, predictions: Mapping[str, Tensor]) -> dict[str, float]:
        """`r2_*`: what a ridge regression on the embedding explains of each target, on held-out clusters of the split; the age
        is replaced by the time since the merger. `profile_r2_*`: the same of profiles that nobody had to learn. `spread`: near
        0 if all embeddings are one."""
        targets, names = probed(predictions)
        r2 = held_out_r2(predictions["embedding"], targets, predictions["cluster_id"])
        unlearned = held_out_r2(predictions["profile"], targets, predictions["cluster_id"])
        scores = {f"r2_{name}": float(value) for name, value in zip(names, r2, strict=True)}
        scores |= {f"profile_r2_{name}": float(value) for name, value in zip(names, unlearned, strict=True)}
        return scores | {"r2": float(r2.mean()), "spread": float(collapse(predictions["embedding"]))}


def probed(predictions: Mapping[str, Tensor]) -> tuple[Tensor, list[str]]:
    """What a picture may tell `[B, 6]`, and its names: time since the merger and the other targets, masses as logarithms."""
    target, since = predictions["target"], AGE_TODAY - predictions["context"][:, LOOKBACK] - predictions["target"][:, 0]
    rest = [target[:, d].log() if c.logarithmic else target[:, d] for d, c in enumerate(TARGETS) if d]
    return torch.stack([since.clamp(min=0.1).log(), *rest], 1), ["since", *(c.symbol for c in TARGETS[1:])]


class SimCLR(_Encoder):
    """Each view tells its partner from all others of the batch."""

    temperature = 0.2

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        z, other = self.project_views(a), self.project_views(b)
        return contrast(z, other, self.temperature), z


class SimSiam(_Encoder):
    """Each view guesses the other, with a stopped gradient."""

    last_norm = True

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 128) -> None:
        super().__init__(about, backbone, dimensions)
        self.guess = projector([dimensions, dimensions // 2, dimensions], last_norm=False)

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        z, other = self.project_views(a), self.project_views(b)
        return (agreement(self.guess(z), other) + agreement(self.guess(other), z)) / 2, z


class _WithSlowCopy(_Encoder):
    """Targets come from a copy that follows by `momentum`, and gets no gradient."""

    momentum = 0.99

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 128) -> None:
        super().__init__(about, backbone, dimensions)
        self.slow = copy.deepcopy(nn.Sequential(self.backbone, self.project)).requires_grad_(False)

    @torch.no_grad()
    def targets(self, *seen: Tensor) -> list[Tensor]:
        if self.training:
            follow(self.slow, nn.Sequential(self.backbone, self.project), self.momentum)
        return [self.slow(self.stretch(each)) for each in seen]


class BYOL(_WithSlowCopy):
    """Each view guesses what the slow copy says of the other."""

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 128) -> None:
        super().__init__(about, backbone, dimensions)
        self.guess = projector([dimensions, dimensions, dimensions], last_norm=False)

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        z, other = self.project_views(a), self.project_views(b)
        of_a, of_b = self.targets(a, b)
        return (agreement(self.guess(z), of_b) + agreement(self.guess(other), of_a)) / 2, z


class MoCo(_WithSlowCopy):
    """Each view tells what the slow copy says of the other from a queue of what it said of others before."""

    queue: Tensor
    place: Tensor
    temperature = 0.2

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 128, keys: int = 4096) -> None:
        super().__init__(about, backbone, dimensions)
        self.register_buffer("queue", F.normalize(torch.randn(keys, dimensions), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        q = F.normalize(self.project_views(a), dim=1)
        k = F.normalize(self.targets(b)[0], dim=1)
        loss = queue_contrast(q, k, self.queue.clone(), self.temperature)
        if self.training:
            rows = (self.place + torch.arange(len(k), device=k.device)) % len(self.queue)
            self.queue[rows] = k
            self.place.copy_((self.place + len(k)) % len(self.queue))
        return loss, q


class DINO(_WithSlowCopy):
    """Each view has the distribution over prototypes that the slow copy, centred and sharpened, has of the other."""

    centre: Tensor

    def __init__(self, about: Mapping[str, Any], backbone: Callable[..., Any], dimensions: int = 256) -> None:
        super().__init__(about, backbone, dimensions)
        self.register_buffer("centre", torch.zeros(dimensions))

    def compared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        z, other = self.project_views(a), self.project_views(b)
        of_a, of_b = self.targets(a, b)
        loss = (distillation(z, of_b, self.centre) + distillation(other, of_a, self.centre)) / 2
        if self.training:
            self.centre.lerp_(torch.cat([of_a, of_b]).mean(0), 0.1)
        return loss, z


def embed(run: Run, rows: int = 512) -> dict[str, Any]:
    """Embeddings of all maps of the run's data by its encoder, as `embeddings.npy` `[N, D]` and `filenames.npy` `[N]` in
    `embeddings/` of the run: what `data=cinn_clusters/combined_maps` reads."""
    from hydra.utils import instantiate

    from skyloom.training.saved import load_task

    encoder, _ = load_task(run)
    data = instantiate(run.config["data"], _convert_="all")
    folder = run.directory / "embeddings"
    folder.mkdir(exist_ok=True)
    vectors, names = [], []
    with torch.no_grad():
        for split in (data.train, data.val, data.test):
            found = torch.cat([encoder.vectors(part) for part in split["maps"].split(rows)])
            vectors.append(found.transpose(0, 1).flatten(0, 1))
            halo, snapshot = split["halo_id"].tolist(), split["snapshot"].tolist()
            names += [name for side in range(PROJECTIONS) for name in map_names(halo, snapshot, side + 1)]
    arrays = {"embeddings": torch.cat(vectors).numpy(), "filenames": np.array(names)}
    for name, array in arrays.items():
        _write(folder / f"{name}.npy", array)
    return {"maps": len(names), "size": arrays["embeddings"].shape[1], "written": str(folder)}


def _write(path: Path, array: np.ndarray) -> None:
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
