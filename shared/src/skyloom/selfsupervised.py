"""Learning from pairs of views without labels: the losses of five methods, as functions of projected features `[B, d]`.

| method | loss | besides |
|---|---|---|
| SimCLR (Chen et al. 2020, arXiv 2002.05709) | `contrast` within the batch | |
| MoCo v2 (Chen et al. 2020, arXiv 2003.04297) | `queue_contrast` with a queue of keys | a slow copy |
| BYOL (Grill et al. 2020, arXiv 2006.07733) | `agreement` of a guess with the slow copy | a slow copy, a predictor |
| SimSiam (Chen and He 2021, arXiv 2011.10566) | `agreement` of a guess with a stopped gradient | a predictor |
| DINO (Caron et al. 2021, arXiv 2104.14294) | `distillation` of a centred, sharpened slow copy | a slow copy, a centre |
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["agreement", "collapse", "contrast", "distillation", "follow", "projector", "queue_contrast"]


def contrast(a: Tensor, b: Tensor, temperature: float = 0.2) -> Tensor:
    """Each of the `2 B` views tells its partner from all others (NT-Xent).

    For views that all are alike it is the logarithm of the number of the others:

    >>> round(float(contrast(torch.ones(4, 3), torch.ones(4, 3)).exp()), 3)
    7.0
    """
    z = F.normalize(torch.cat([a, b]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    return F.cross_entropy(logits, partner)


def queue_contrast(q: Tensor, k: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """Each of `q` tells its own key of `k` from a `queue` `[K, d]` of others'; all are normalised."""
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def agreement(guess: Tensor, target: Tensor) -> Tensor:
    """Mean negative cosine, -1 where all guesses are right; no gradient goes to the target.

    >>> float(agreement(torch.eye(2), 3 * torch.eye(2)))
    -1.0
    """
    return -F.cosine_similarity(guess, target.detach()).mean()


def distillation(student: Tensor, teacher: Tensor, centre: Tensor, warm: float = 0.1, cold: float = 0.04) -> Tensor:
    """Cross entropy of the student's softmax at temperature `warm` under the teacher's, less its `centre`, at `cold`."""
    target = torch.softmax((teacher.detach() - centre) / cold, dim=1)
    return -(target * torch.log_softmax(student / warm, dim=1)).sum(1).mean()


@torch.no_grad()
def follow(slow: nn.Module, quick: nn.Module, momentum: float) -> None:
    """`slow <- momentum slow + (1 - momentum) quick`, parameter by parameter."""
    for behind, ahead in zip(slow.parameters(), quick.parameters(), strict=True):
        behind.lerp_(ahead, 1 - momentum)


def collapse(z: Tensor) -> Tensor:
    """Mean standard deviation per dimension of normalised z [B, d], times sqrt d: near 1 if spread out, 0 if all are one."""
    return F.normalize(z, dim=1).std(dim=0).mean() * z.shape[1] ** 0.5


def projector(widths: list[int], last_norm: bool) -> nn.Sequential:
    """Linear layers with batch normalisation in between, and with `last_norm` (without scale) at the end."""
    layers: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(widths)):
        final = k == len(widths) - 2
        layers.append(nn.Linear(a, b, bias=final and not last_norm))
        if not final:
            layers += [nn.BatchNorm1d(b), nn.ReLU()]
        elif last_norm:
            layers.append(nn.BatchNorm1d(b, affine=False))
    return nn.Sequential(*layers)
