"""Image encoders from timm for any number of bands and any size."""

from skyloom.backbones.images import ImageEncoder, image_encoder
from skyloom.backbones.operators import ensure_torchvision
from skyloom.backbones.weights import read_weights, spread_kernels, transplant

__all__ = ["ImageEncoder", "ensure_torchvision", "image_encoder", "read_weights", "spread_kernels", "transplant"]
