"""One factory for image encoders: a timm name, the number of bands, the size, and out come logits."""

import importlib.util
from typing import Any, Literal

from torch import Tensor, nn

from skyloom.backbones.operators import ensure_torchvision
from skyloom.backbones.stem import ConvolutionalStem
from skyloom.errors import ConfigError, DataError, UserError, nearest

__all__ = ["ImageEncoder", "image_encoder"]


class ImageEncoder(nn.Module):
    """A timm model that takes images [B, bands, size, size] and gives logits: [B] for one output, else [B, outputs]."""

    def __init__(self, network: nn.Module, bands: int, size: int):
        super().__init__()
        self.network, self.bands, self.size = network, bands, size

    def _checked(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.bands or images.shape[2:] != (self.size, self.size):
            raise DataError(
                f"expected images [B, {self.bands}, {self.size}, {self.size}] (batch, bands, rows, columns), "
                f"got {list(images.shape)}."
            )
        return images

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(self._checked(images))
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees: [B, D]."""
        hidden = self.network.forward_features(self._checked(images))  # type: ignore[operator]
        return self.network.forward_head(hidden, pre_logits=True)  # type: ignore[operator]


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise UserError("image encoders come from timm: pip install 'skyloom[vision]' (or run `make setup`).")
    ensure_torchvision()
    import timm

    return timm


def image_encoder(
    name: str,
    bands: int,
    size: int,
    outputs: int = 1,
    pretrained: bool = False,
    stem: Literal["patch", "convolutional"] = "patch",
    **options: Any,
) -> ImageEncoder:
    """The timm model `name` for images of any number of bands and any size, with `outputs` logits.

    `stem="convolutional"` gives a vision transformer a `ConvolutionalStem`. Options go to timm unchanged (`patch_size`,
    `embed_dim`, `depth`, `num_heads`, `drop_path_rate`, ...). With `pretrained`, timm spreads the RGB kernels of the first
    layer over the bands, scaled by 3/bands, and resamples position embeddings.

    >>> import torch
    >>> encoder = image_encoder("vit_tiny_patch16_224", bands=5, size=40, patch_size=8, embed_dim=48, depth=1, num_heads=3)
    >>> encoder(torch.zeros(2, 5, 40, 40)).shape, encoder.features(torch.zeros(2, 5, 40, 40)).shape
    (torch.Size([2]), torch.Size([2, 48]))
    """
    timm = _timm()
    if not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    patch = options.get("patch_size")
    if patch and size % patch:
        raise ConfigError(f"patches of {patch} pixels do not tile images of {size} pixels: take a divisor of {size}.")
    if stem == "convolutional":
        if pretrained:
            raise ConfigError("pretrained weights belong to a stem of patches: stem=patch, or pretrained=false.")
        options["embed_layer"] = ConvolutionalStem
    arguments = dict(pretrained=pretrained, in_chans=bands, num_classes=outputs, **options)
    try:
        try:
            network = timm.create_model(name, img_size=size, **arguments)
        except TypeError as error:  # convolutional networks take any size and know no img_size
            if "img_size" not in str(error):
                raise ConfigError(f"model {name!r} does not take these options: {error}") from error
            network = timm.create_model(name, **arguments)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"the pretrained weights of {name!r} could not be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Without a network, fetch them elsewhere into the Hugging Face cache (HF_HOME), or set pretrained=false."
        ) from error
    return ImageEncoder(network, bands, size)
