"""Features that know how the image was taken: feature-wise linear modulation by seeing and depth."""

from torch import Tensor, nn

from skyloom.backbones import image_encoder

__all__ = ["ConditionedResNet", "Modulation"]


class Modulation(nn.Module):
    """h' = (1 + g(m)) h + b(m) per channel (Perez et al. 2018, arXiv:1709.07871), from conditions m [B, M].

    g and b are the last layer of a small network that starts at zero: the beginning is the network without conditions.
    """

    def __init__(self, conditions: int, channels: int, hidden: int = 32):
        super().__init__()
        last = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(conditions, hidden), nn.GELU(), last)

    def forward(self, maps: Tensor, conditions: Tensor) -> Tensor:
        gain, shift = self.net(conditions)[..., None, None].chunk(2, dim=1)
        return maps * (1 + gain) + shift


class ConditionedResNet(nn.Module):
    """Features of a timm ResNet whose stages 2 to 4 are modulated by conditions [B, M] of each image.

    Conditions describe the camera and never the sky: PSF width, depth. Position would let the network learn where known
    lenses are.
    """

    def __init__(
        self,
        bands: int,
        size: int,
        conditions: int,
        name: str = "resnet18",
        pretrained: bool = False,
        weights: str | None = None,
        any_size: bool = False,
    ):
        super().__init__()
        encoder = image_encoder(name, bands, size, outputs=0, pretrained=pretrained, weights=weights, any_size=any_size)
        self.network, self.width, self.conditions = encoder.network, encoder.width, conditions
        channels = [self.network.layer2, self.network.layer3, self.network.layer4]
        self.modulations = nn.ModuleList(Modulation(conditions, _channels(stage)) for stage in channels)

    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        n = self.network
        x = n.maxpool(n.act1(n.bn1(n.conv1(images))))  # type: ignore[operator]
        x = n.layer1(x)  # type: ignore[operator]
        for stage, modulate in zip((n.layer2, n.layer3, n.layer4), self.modulations, strict=True):
            x = modulate(stage(x), conditions)  # type: ignore[operator]
        return n.global_pool(x)  # type: ignore[operator]


def _channels(stage: object) -> int:
    convolutions = [m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)]  # type: ignore[index]
    return convolutions[-1].out_channels
