"""Image encoders from timm for any number of bands and any size."""

from skyloom.backbones.images import ImageEncoder, image_encoder
from skyloom.backbones.operators import ensure_torchvision

__all__ = ["ImageEncoder", "ensure_torchvision", "image_encoder"]
