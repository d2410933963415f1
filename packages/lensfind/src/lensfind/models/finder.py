"""One factory for lens finders: a backbone that gives features, and a head that gives a logit and what else it knows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lensfind.models.heads import LinearHead

__all__ = ["Finder", "finder"]


class Finder(nn.Module):
    """Images [B, bands, H, W] to logits [B]; `outputs` gives all that the head knows, as columns [B].

    A backbone that takes `conditions` gets them; extra features [B, F] (colours, say) are standardised by a batch norm without
    affine part and join those of the image in a small fusing network.
    """

    def __init__(self, backbone: nn.Module, head: Callable[..., nn.Module], extras: int = 0):
        super().__init__()
        self.backbone = backbone
        self.width = int(backbone.width)  # type: ignore[arg-type]
        self.conditions = int(getattr(backbone, "conditions", 0))
        self.extras = extras
        self.scale = nn.BatchNorm1d(extras, affine=False) if extras else None
        self.fuse = nn.Sequential(nn.Linear(self.width + extras, self.width), nn.GELU()) if extras else None
        self.head = head(width=self.width)

    def features(self, images: Tensor, conditions: Tensor | None = None, extras: Tensor | None = None) -> Tensor:
        found = self.backbone(images) if conditions is None else self.backbone(images, conditions)
        if self.fuse is None or self.scale is None:
            return found
        return self.fuse(torch.cat([found, self.scale(extras)], dim=1))

    def outputs(self, images: Tensor, conditions: Tensor | None = None, extras: Tensor | None = None) -> dict[str, Tensor]:
        return self.head(self.features(images, conditions, extras))

    def forward(self, images: Tensor, conditions: Tensor | None = None, extras: Tensor | None = None) -> Tensor:
        return self.outputs(images, conditions, extras)["logit"]

    def attention_maps(self, images: Tensor) -> Tensor:
        return self.backbone.attention_maps(images)  # type: ignore[operator]

    def penalty(self) -> Tensor | None:
        """What the weights alone add to the loss."""
        return self.backbone.penalty() if hasattr(self.backbone, "penalty") else None  # type: ignore[operator]


def finder(
    bands: int,
    size: int,
    backbone: Callable[..., nn.Module],
    head: Callable[..., nn.Module] = LinearHead,
    extras: int = 0,
) -> Finder:
    """`backbone(bands=, size=)` gives features and says their `width`; `head(width=)` gives {logit: [B], ...}.

    >>> from functools import partial
    >>> from lensfind.models.light_transformer import LightTransformer
    >>> model = finder(3, 40, partial(LightTransformer, width=32, depth=1))
    >>> model(torch.zeros(2, 3, 40, 40)).shape
    torch.Size([2])
    """
    return Finder(backbone(bands=bands, size=size), head, extras)
