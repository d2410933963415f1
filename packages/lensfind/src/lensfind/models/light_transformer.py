"""A convolutional trunk and a small transformer on its map: the Light Transformer, and with attention that leans on evidence
for arcs the Enhanced Light Transformer."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensfind.models.attention import attention as make_attention
from lensfind.models.ridges import OrientedRidges, StructureTensor
from skyloom.backbones import image_encoder
from skyloom.errors import ConfigError, nearest

__all__ = ["Block", "DropPath", "LightTransformer"]

_STAGES = {"layer1": (64, 4), "layer2": (128, 8), "layer3": (256, 16)}  # channels and pixels per cell of ResNet-18
Evidence = Literal["none", "structure_tensor", "ridges"]


class DropPath(nn.Module):
    """Leaves out a sample's whole branch with probability p, and divides what stays by 1 - p (Huang et al. 2016)."""

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"drop_path lies in [0, 1), not at {p}.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p)


class Block(nn.Module):
    """Pre-norm: x + Attention(LN x), then x + MLP(LN x)."""

    def __init__(self, width: int, attend: nn.Module, mlp_ratio: float, dropout: float, drop_path: float):
        super().__init__()
        self.norm1, self.attend, self.norm2 = nn.LayerNorm(width), attend, nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.drop = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int], evidence: Tensor | None, prefix: int) -> Tensor:
        x = x + self.drop(self.attend(self.norm1(x), grid, evidence, prefix))
        return x + self.drop(self.mlp(self.norm2(x)))


class LightTransformer(nn.Module):
    """Features [B, width] of images [B, bands, H, W] of any size.

    Args:
        stage: of ResNet-18 where the tokens are taken: layer1, layer2 or layer3 (4, 8 or 16 pixels); null: the deepest that
            leaves at least `min_tokens`. Nine tokens, as an earlier finder had at 112 pixels, cannot resolve an arc
        patch: cells of the map per token side; a map that does not divide is padded, so that no row is lost
        width, depth, heads, mlp_ratio: of the transformer
        attention: plain, evidence, multi_scale or adaptive (`lensfind.models.attention`)
        evidence: where arcs may be: none, structure_tensor (fixed), ridges (learned kernels, with a penalty)
        pooling: mean, attention (one learned query) or class (a class token)
        freeze: trunk stages up to and including this one keep their weights and their batch statistics
        pretrained, weights: of the trunk, from the hub or a file of resnet18
    """

    def __init__(
        self,
        bands: int,
        size: int,
        stage: str | None = None,
        patch: int = 1,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        attention: str = "plain",
        evidence: Evidence = "none",
        pooling: Literal["mean", "attention", "class"] = "mean",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        drop_path: float = 0.1,
        freeze: str | None = None,
        min_tokens: int = 49,
        max_tokens: int = 256,
        pretrained: bool = False,
        weights: str | None = None,
    ):
        super().__init__()
        self.bands, self.size, self.width, self.pooling, self.patch = bands, size, width, pooling, patch
        self.stage = self._stage(stage, size, patch, min_tokens, max_tokens)
        self.trunk = _trunk(bands, size, self.stage, pretrained, weights)
        self.embed = nn.Conv2d(_STAGES[self.stage][0], width, patch, patch)
        self.embed_norm = nn.LayerNorm(width)
        side = max(1, min(8, math.isqrt(max_tokens)))
        self.position = nn.Parameter(torch.empty(1, width, side, side))
        self.prefix = 1 if pooling == "class" else 0
        self.token = nn.Parameter(torch.empty(1, 1, width)) if self.prefix else None
        self.query = nn.Parameter(torch.empty(width)) if pooling == "attention" else None
        self.evidence = _evidence(evidence)
        maps = self.evidence.maps if self.evidence is not None else 0
        rates = torch.linspace(0, drop_path, depth).tolist()
        options = {"width": width, "heads": heads, "dropout": attention_dropout, "evidence": maps}
        self.blocks = nn.ModuleList(
            Block(width, make_attention(attention, **options), mlp_ratio, dropout, rate) for rate in rates
        )
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self._initialise()
        self.frozen = self._freeze(freeze)

    @staticmethod
    def _stage(stage: str | None, size: int, patch: int, fewest: int, most: int) -> str:
        tokens = {name: math.ceil(math.ceil(size / cell) / patch) ** 2 for name, (_, cell) in _STAGES.items()}
        if stage is None:
            stage = next((name for name in reversed(_STAGES) if tokens[name] >= fewest), "layer1")
        if stage not in _STAGES:
            raise ConfigError(f"there is no trunk stage {stage!r}.{nearest(stage, _STAGES)}")
        if not fewest <= tokens[stage] <= most:
            raise ConfigError(
                f"{size} pixels give {tokens[stage]} tokens at stage={stage}, patch={patch}, outside [{fewest}, {most}]: "
                f"choose another stage ({', '.join(f'{k} gives {v}' for k, v in tokens.items())}), patch, size, or limit."
            )
        return stage

    def _initialise(self) -> None:
        for module in [self.embed, *self.blocks.modules()]:
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in (self.position, self.token, self.query):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def _freeze(self, stage: str | None) -> list[str]:
        if stage is None:
            return []
        names = ["conv1", "bn1", *list(_STAGES)[: list(_STAGES).index(stage) + 1]]
        for name in names:
            self.trunk[name].requires_grad_(False)
        return names

    def train(self, mode: bool = True) -> "LightTransformer":
        super().train(mode)
        for name in self.frozen:  # frozen weights go with the statistics they were trained with
            self.trunk[name].eval()
        return self

    def no_weight_decay(self) -> set[str]:
        return {"position", "token", "query"}

    def tokens(self, images: Tensor) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """Tokens [B, N, width] with their positions, the grid, and the evidence [B, maps, N]."""
        found = images
        for part in self.trunk.values():
            found = part(found)
        short = [-side % self.patch for side in found.shape[-2:]]
        found = self.embed(F.pad(found, (0, short[1], 0, short[0])) if any(short) else found)
        grid = (int(found.shape[-2]), int(found.shape[-1]))
        x = self.embed_norm(found.flatten(2).transpose(1, 2))
        position: Tensor = self.position
        if position.shape[-2:] != grid:
            position = F.interpolate(position, size=grid, mode="bilinear", align_corners=False)
        x = self.drop(x + position.flatten(2).transpose(1, 2))
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        evidence = None if self.evidence is None else F.adaptive_avg_pool2d(self.evidence(images), grid).flatten(2)
        return x, grid, evidence

    def forward(self, images: Tensor) -> Tensor:
        x, grid, evidence = self.tokens(images)
        for block in self.blocks:
            x = block(x, grid, evidence, self.prefix)
        if self.pooling == "mean":
            x = x.mean(dim=1)
        elif self.query is not None:
            x = ((x @ self.query / self.width**0.5).softmax(dim=1)[..., None] * x).sum(dim=1)
        else:
            x = x[:, 0]
        return self.norm(x)

    def attention_maps(self, images: Tensor) -> Tensor:
        """Attention that each token of the grid receives, mean over queries and heads of the last block: [B, rows, columns]."""
        x, grid, evidence = self.tokens(images)
        for block in self.blocks[:-1]:
            x = block(x, grid, evidence, self.prefix)
        last: Block = self.blocks[-1]  # type: ignore[assignment]
        weights = last.attend.weights(last.norm1(x), evidence, self.prefix)  # type: ignore[operator]
        return weights.mean(dim=1).mean(dim=1)[:, self.prefix :].unflatten(1, grid)

    def penalty(self) -> Tensor | None:
        """What learned evidence adds to the loss."""
        return self.evidence.penalty() if self.evidence is not None else None


def _evidence(name: str) -> StructureTensor | OrientedRidges | None:
    kinds: dict[str, type[StructureTensor] | type[OrientedRidges]] = {
        "structure_tensor": StructureTensor,
        "ridges": OrientedRidges,
    }
    if name != "none" and name not in kinds:
        raise ConfigError(f"there is no evidence {name!r}.{nearest(name, ['none', *kinds])}")
    return None if name == "none" else kinds[name]()


def _trunk(bands: int, size: int, stage: str, pretrained: bool, weights: str | None) -> nn.ModuleDict:
    """The beginning of ResNet-18 up to and including `stage`."""
    whole = image_encoder("resnet18", bands, size, outputs=0, pretrained=pretrained, weights=weights).network
    names = ["conv1", "bn1", "act1", "maxpool", *list(_STAGES)[: list(_STAGES).index(stage) + 1]]
    return nn.ModuleDict({name: getattr(whole, name) for name in names})
