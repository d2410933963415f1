"""A convolutional beginning for vision transformers."""

import math
from typing import Any

from torch import Tensor, nn

from skyloom.errors import ConfigError

__all__ = ["ConvolutionalStem"]


class ConvolutionalStem(nn.Module):
    """Tokens [B, N, D] from images [B, bands, H, W] by 3x3 convolutions of stride 2, in the place of one large patch.

    Xiao et al. (2021, "Early convolutions help transformers see better", arXiv:2106.14881): the transformer behind it trains
    in fewer steps and with less care. `patch_size` must be a power of two: each halving is one convolution, of half the width
    of the next; the last is followed by a 1x1 projection to `embed_dim`. It takes the arguments of timm's PatchEmbed.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, bias: bool = True, **unused: Any) -> None:
        super().__init__()
        halvings = round(math.log2(patch_size))
        if 2**halvings != patch_size or halvings < 1:
            raise ConfigError(f"a convolutional stem needs a patch size of 2, 4, 8, ..., not {patch_size}.")
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        width = in_chans
        for step in range(halvings):
            wider = max(8, embed_dim // 2 ** (halvings - 1 - step))
            layers += [nn.Conv2d(width, wider, 3, 2, 1, bias=False), nn.GroupNorm(1, wider), nn.GELU()]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, embed_dim, 1, bias=bias))

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        return max(self.patch_size) if as_scalar else self.patch_size

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(2).transpose(1, 2)
