r"""Where an image is an arc about its centre: evidence maps that attention may lean on.

The structure tensor $J = G_\sigma * (\nabla I\, \nabla I^T)$ of a smoothed image has eigenvalues $l_1 \ge l_2$; the
coherence $c = ((l_1 - l_2) / (l_1 + l_2))^2$ is 1 on a straight ridge and 0 on a blob, and the ridge runs along the eigenvector
of $l_2$, at angle $\theta$. With the polar angle $\phi$ about the centre of the image, $t = c \sin^2(\theta - \phi)$ is
evidence for something tangential and $r = c \cos^2(\theta - \phi)$ for something radial (coherence after Weickert 1999,
IJCV 31, 111).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OrientedRidges", "StructureTensor", "gaussian_blur", "polar", "structure_evidence"]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images [B, C, H, W] smoothed by a Gaussian of `sigma` pixels; the frame is continued by its own values."""
    reach = max(1, math.ceil(3 * sigma))
    x = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    line = torch.exp(-0.5 * (x / sigma) ** 2)
    line = line / line.sum()
    channels = images.shape[1]
    rows = line.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = line.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)


def polar(images: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [H, W] of the polar angle about the centre of the frame of images [..., H, W] (0 at the centre itself)."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    radius = torch.sqrt(y[:, None] ** 2 + x**2).clamp(min=1e-6)
    return x / radius, y[:, None] / radius


def structure_evidence(images: Tensor, smoothing: float = 1.5, window: float = 2.5) -> tuple[Tensor, Tensor, Tensor]:
    """Tangential and radial evidence and gradient energy, [B, H, W] each, of one-channel images [B, H, W].

    `smoothing` (pixels) comes before the gradient, `window` (pixels) averages its products. With tangent unit vector
    $(-\\sin\\phi, \\cos\\phi)$ the ridge's $\\sin^2(\\theta - \\phi)$ is 1/2 + (cross terms) and needs no angle.
    """
    smooth = gaussian_blur(images[:, None], smoothing)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    products = gaussian_blur(torch.cat([gx * gx, gy * gy, gx * gy], dim=1), window)
    jxx, jyy, jxy = products.unbind(1)
    energy = jxx + jyy
    floor = 1e-12 + 1e-6 * energy.mean(dim=(1, 2), keepdim=True)
    # cos 2a and sin 2a of the gradient's direction a, times (l1 - l2) / (l1 + l2); the ridge is at right angles to it
    along, across = (jxx - jyy) / (energy + floor), 2 * jxy / (energy + floor)
    coherence = along**2 + across**2
    cos, sin = polar(images)
    cos2, sin2 = cos**2 - sin**2, 2 * sin * cos
    # cos 2(theta - phi) with theta = a + pi/2
    alignment = -(along * cos2 + across * sin2) / torch.sqrt(coherence + 1e-12)
    return coherence * (1 - alignment) / 2, coherence * (1 + alignment) / 2, energy


class StructureTensor(nn.Module):
    """Tangential evidence at several scales, [B, scales, H, W], weighed by where there is light at all.

    `scales` are the smoothing in pixels; the window is 5/3 of it. What is seen is the mean over the channels. The weight is
    energy / (energy + its mean over the frame), so that sky noise, coherent by chance, counts for less.
    """

    def __init__(self, scales: tuple[float, ...] = (1.0, 2.0)):
        super().__init__()
        self.scales = tuple(scales)
        self.maps = len(self.scales)

    def forward(self, images: Tensor) -> Tensor:
        grey = images.float().mean(dim=1)
        found = []
        for scale in self.scales:
            tangential, _, energy = structure_evidence(grey, scale, 5 / 3 * scale)
            found.append(tangential * energy / (energy + energy.mean(dim=(1, 2), keepdim=True) + 1e-12))
        return torch.stack(found, dim=1).to(images.dtype)

    def penalty(self) -> Tensor | None:
        return None


class OrientedRidges(nn.Module):
    r"""Learned ridge kernels, turned to lie along the circle about the centre: evidence [B, kernels, H, W].

    Kernel K (odd size k) starts as a ridge template C: a second derivative of a Gaussian across, a Gaussian along, of widths
    that grow from kernel to kernel, of zero mean and unit norm. Every image is filtered with the kernel turned to `angles`
    orientations, and each pixel takes the response whose orientation is that of its circle (linear between neighbours);
    negative responses count nothing, and what is left is divided by its mean over the frame.

    The regulariser keeps the kernels near what they are meant to be:
    $R = \lambda \sum_k (1 - \cos(K_k, C_k)) + \lambda_1 \sum_k |K_k|_1$. It depends on weights alone and says nothing of an
    image, so it must never weigh one.
    """

    templates: Tensor

    def __init__(
        self,
        kernels: int = 2,
        size: int = 9,
        angles: int = 8,
        strength: float = 0.1,
        sparsity: float = 1e-3,
        learn: bool = True,
    ):
        super().__init__()
        self.maps, self.angles, self.strength, self.sparsity = kernels, angles, strength, sparsity
        line = torch.arange(size) - (size - 1) / 2
        across, along = line[:, None], line[None, :]
        templates = []
        for k in range(kernels):
            width = 0.8 * 1.5**k
            ridge = (1 - across**2 / width**2) * torch.exp(-0.5 * across**2 / width**2 - 0.5 * along**2 / (2.5 * width) ** 2)
            ridge = ridge - ridge.mean()
            templates.append(ridge / ridge.norm())
        self.register_buffer("templates", torch.stack(templates))
        self.kernels = nn.Parameter(self.templates.clone(), requires_grad=learn)

    def turned(self) -> Tensor:
        """The kernels at every orientation: [angles * kernels, 1, k, k], orientation a * pi / angles."""
        steps = torch.arange(self.angles, device=self.kernels.device, dtype=self.kernels.dtype) * torch.pi / self.angles
        cos, sin, zero = torch.cos(steps), torch.sin(steps), torch.zeros_like(steps)
        maps = torch.stack([torch.stack([cos, sin, zero], 1), torch.stack([-sin, cos, zero], 1)], 1)
        size = self.kernels.shape[-1]
        grid = F.affine_grid(maps, [self.angles, self.maps, size, size], align_corners=True)
        return F.grid_sample(self.kernels.expand(self.angles, -1, -1, -1), grid, align_corners=True).flatten(0, 1)[:, None]

    def response(self, images: Tensor) -> Tensor:
        """Rectified response of the kernels that lie along the circle: [B, kernels, H, W]."""
        grey = images.mean(dim=1, keepdim=True)
        size = self.kernels.shape[-1]
        reach = size // 2
        found = F.conv2d(F.pad(grey, (reach,) * 4, mode="replicate"), self.turned().to(grey.dtype))
        found = found.unflatten(1, (self.angles, self.maps))
        cos, sin = polar(images)
        tangent = torch.atan2(cos, -sin) % torch.pi * self.angles / torch.pi  # of the circle, in steps of orientation
        low = tangent.floor()
        share = tangent - low
        pick = torch.zeros(self.angles, *share.shape, device=images.device, dtype=images.dtype)
        pick.scatter_add_(0, (low.long() % self.angles)[None], (1 - share)[None])
        pick.scatter_add_(0, ((low.long() + 1) % self.angles)[None], share[None])
        pick = torch.where((cos**2 + sin**2 > 0.5)[None], pick, torch.full_like(pick, 1 / self.angles))  # the centre has none
        return F.relu((found * pick[None, :, None]).sum(dim=1))

    def forward(self, images: Tensor) -> Tensor:
        response = self.response(images)
        return response / (response.mean(dim=(2, 3), keepdim=True) + 1e-6)

    def alignment(self) -> Tensor:
        """Cosine of each kernel with its template: [kernels]."""
        return F.cosine_similarity(self.kernels.flatten(1), self.templates.flatten(1), dim=1)

    def penalty(self) -> Tensor:
        return self.strength * (1 - self.alignment()).sum() + self.sparsity * self.kernels.abs().sum()
