"""One factory for image encoders: a timm name, the number of bands, the size, and out come logits or features."""

import importlib.util
from typing import Any, Literal

from torch import Tensor, nn

from skyloom.backbones.operators import ensure_torchvision
from skyloom.backbones.stem import ConvolutionalStem
from skyloom.backbones.weights import FirstLayer, read_weights, transplant
from skyloom.errors import ConfigError, DataError, UserError, nearest

__all__ = ["ImageEncoder", "image_encoder"]


class ImageEncoder(nn.Module):
    """A timm model that takes images [B, bands, size, size] and gives logits [B] for one output, [B, outputs] for more, and
    features [B, width] for none. With `any_size` other sizes are taken too: for convolutional networks it is only a matter of
    trust."""

    def __init__(self, network: nn.Module, bands: int, size: int, any_size: bool = False):
        super().__init__()
        self.network, self.bands, self.size, self.any_size = network, bands, size, any_size
        self.width = int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]

    def _checked(self, images: Tensor) -> Tensor:
        fits = images.ndim == 4 and images.shape[1] == self.bands
        if not fits or not (self.any_size or images.shape[2:] == (self.size, self.size)):
            raise DataError(
                f"expected images [B, {self.bands}, {self.size}, {self.size}] (batch, bands, rows, columns), "
                f"got {list(images.shape)}."
            )
        return images

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(self._checked(images))
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees: [B, width]."""
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
    weights: str | None = None,
    first_layer: FirstLayer = "cyclic",
    stem: Literal["patch", "convolutional"] = "patch",
    first_stride: int | None = None,
    any_size: bool = False,
    **options: Any,
) -> ImageEncoder:
    """The timm model `name` for images of any number of bands and any size, with `outputs` logits (0: features).

    `stem="convolutional"` gives a vision transformer a `ConvolutionalStem`; `first_stride` sets the stride of a convolutional
    network's first layer, for small images. Options go to timm unchanged (`patch_size`, `embed_dim`, `depth`, `num_heads`,
    `drop_path_rate`, ...). A name may be `hf_hub:<owner>/<model>`.

    Weights: `pretrained` takes those of the hub, `weights` those of a file, of any timm model of that name, Zoobot's encoders
    among them. `first_layer` says how kernels of other bands are spread over these (`spread_kernels`; new: not at all).

    >>> import torch
    >>> encoder = image_encoder("vit_tiny_patch16_224", bands=5, size=40, patch_size=8, embed_dim=48, depth=1, num_heads=3)
    >>> encoder(torch.zeros(2, 5, 40, 40)).shape, encoder.features(torch.zeros(2, 5, 40, 40)).shape
    (torch.Size([2]), torch.Size([2, 48]))
    """
    timm = _timm()
    on_hub = name.startswith(("hf_hub:", "hf-hub:"))
    if not on_hub and not timm.is_model(name.split(".")[0]):
        raise ConfigError(f"timm has no model {name!r}.{nearest(name, timm.list_models())}")
    if pretrained and weights:
        raise ConfigError("pretrained=true and weights=<file> are two sources: choose one.")
    patch = options.get("patch_size")
    if patch and size % patch:
        raise ConfigError(f"patches of {patch} pixels do not tile images of {size} pixels: take a divisor of {size}.")
    if stem == "convolutional":
        if pretrained or weights:
            raise ConfigError("pretrained weights belong to a stem of patches: stem=patch, or pretrained=false.")
        options["embed_layer"] = ConvolutionalStem
    source = _fetched(timm, name, size, options) if pretrained else None
    network = _created(timm, name, size, in_chans=bands, num_classes=outputs, **options)
    if source is not None:
        transplant({k: v for k, v in source.state_dict().items() if k in network.state_dict()}, network, first_layer)
    elif weights:
        plain = _created(timm, name, size, in_chans=bands, num_classes=0, **options)
        transplant(read_weights(weights, plain), network, first_layer)
    if first_stride is not None:
        next(m for m in network.modules() if isinstance(m, nn.Conv2d)).stride = (first_stride, first_stride)
    return ImageEncoder(network, bands, size, any_size)


def _created(timm: Any, name: str, size: int, **arguments: Any) -> nn.Module:
    try:
        return timm.create_model(name, img_size=size, **arguments)
    except TypeError as error:  # convolutional networks take any size and know no img_size
        if "img_size" not in str(error):
            raise ConfigError(f"model {name!r} does not take these options: {error}") from error
        return timm.create_model(name, **arguments)


def _fetched(timm: Any, name: str, size: int, options: dict[str, Any]) -> nn.Module:
    """The network as the hub has it: three bands, no classifier."""
    try:
        return _created(timm, name, size, pretrained=True, num_classes=0, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the pretrained weights of {name!r} could not be had ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Without a network, fetch them elsewhere into the Hugging Face cache (HF_HOME), name a file with weights=<path>, "
            "or set pretrained=false."
        ) from error
