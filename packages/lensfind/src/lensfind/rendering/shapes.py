"""Light that is neither lensed nor a Sersic profile: arms, rings and tails, evaluated on every cell of a cutout."""

import math

import torch
from torch import Tensor

from lensfind.light.shapes import gaussian_ring, spiral_arms
from lensfind.rendering.fourier import Plane

__all__ = ["lay_shape"]

_SIDE = 3  # rays on a side of a cell


def lay_shape(plane: Plane, kind: str, x: Tensor, y: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Canvases [B, canvas, canvas] of unit flux: `spiral` arms, a `ring` or a tidal `tail` about (x, y) [B]."""
    count = plane.canvas - 4
    offsets = (torch.arange(_SIDE, device=plane.device, dtype=plane.dtype) - (_SIDE - 1) / 2) * (plane.cell / _SIDE)
    line = (plane.line()[:, None] + offsets).reshape(-1)
    px, py = line - x[:, None, None], line[:, None] - y[:, None, None]
    p = {name: value[:, None, None] for name, value in parameters.items()}
    if kind == "spiral":
        light = spiral_arms(px, py, p["scale"], p["pitch"], p["q"], p["angle"], p["phase"])
    elif kind == "ring":
        light = gaussian_ring(px, py, p["radius"], p["width"], p["q"], p["angle"], p["lopsided"])
    else:
        light = _tail(px, py, p["radius"], p["width"], p["angle"], p["length"])
    cells = torch.nn.functional.avg_pool2d(light, _SIDE)
    light = torch.nn.functional.pad(cells, (2, 2, 2, 2))
    assert light.shape[-1] == count + 4
    return light / light.sum(dim=(-2, -1), keepdim=True)


def _tail(x: Tensor, y: Tensor, radius: Tensor, width: Tensor, angle: Tensor, length: Tensor) -> Tensor:
    """A stream of stars that winds outwards by half its radius, over `length` radians from `angle`; it fades at both ends, as
    t (1 - t)^2 along t = 0 … 1, for an end cut off straight is seen where pixels are small."""
    t = (torch.remainder(torch.atan2(y, x) - angle, 2 * math.pi) / length).clamp(max=1.0)
    track = radius * (1 + 0.5 * t)
    along = 6.75 * t * (1 - t) ** 2
    return along * torch.exp(-0.5 * ((torch.hypot(x, y) - track) / width) ** 2) + 1e-12
