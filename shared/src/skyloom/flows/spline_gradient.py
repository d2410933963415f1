"""A spline and its gradient in closed form: what training spends its time on.

The same map as `spline(x, knots(raw, bound), bound)`, value for value. Automatic differentiation of it keeps some sixty
intermediate arrays and walks over each of them again; here the gradient is written down. Bin k with `w = x1 - x0`,
`h = y1 - y0`, `s = h / w`, `t = (x - x0) / w`, `m = t (1 - t)` has

    y = y0 + h n / b,    ln dy/dx = 2 ln s - 2 ln b + ln r,
    n = s t^2 + d0 m,    b = s + (d0 + d1 - 2 s) m,    r = d1 t^2 + 2 s m + d0 (1 - t)^2

and of all knots only the two of the bin have a gradient. First derivatives only: a second one is refused, not wrong.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["trained_spline"]


def trained_spline(x: Tensor, raw: Tensor, bound: float, least: float = 1e-3) -> tuple[Tensor, Tensor]:
    """`y` and `ln dy/dx` of `x` `[D, ...]` from `3 K - 1` unconstrained numbers `[D, 3 K - 1, ...]`.

    >>> y, ladj = trained_spline(torch.tensor([[0.5, 7.0]]), torch.zeros(1, 11, 2), bound=5.0)
    >>> y, ladj
    (tensor([[0.5000, 7.0000]]), tensor([[0., 0.]]))
    """
    shape = x.shape
    y, ladj = _Spline.apply(x.reshape(len(x), -1), raw.reshape(*raw.shape[:2], -1), bound, -math.log(least))
    return y.view(shape), ladj.view(shape)


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, bound: float, reach: float) -> tuple[Tensor, Tensor]:
        features, rows = x.shape
        bins = (raw.shape[1] + 1) // 3
        sizes = raw[:, : 2 * bins].unflatten(1, (2, bins))
        one = x.new_ones(())
        damping = torch.add(one, sizes.abs(), alpha=2 / reach)
        shares = torch.softmax(sizes / damping, 2)
        edges = x.new_empty(features, 2, bins + 1, rows)
        edges[:, :, 0], edges[:, :, bins] = -bound, bound
        torch.add(-bound * one, torch.cumsum(shares[:, :, :-1], 2), alpha=2 * bound, out=edges[:, :, 1:bins])
        inside = x.clamp(-bound, bound)
        above = x.new_empty(features, bins + 1, rows)  # 1 for the knots at or below x, up to the last but one
        above[:, 0], above[:, bins] = 1, 0
        above[:, 1:bins] = inside.unsqueeze(1) >= edges[:, 0, 1:bins]
        upper = above.sum(1, keepdim=True).long()
        both = torch.cat([upper - 1, upper], 1)
        ends = torch.gather(edges, 2, both.unsqueeze(1).expand(-1, 2, -1, -1))
        (x0, x1), (y0, y1) = ends[:, 0].unbind(1), ends[:, 1].unbind(1)
        raw_slopes = torch.gather(raw[:, 2 * bins :], 1, (both - 1).clamp_(0, bins - 2))
        raw_slopes.masked_fill_((both == 0) | (both == bins), 0.0)  # the identity continues with slope one
        slopes = torch.exp(raw_slopes / (1 + raw_slopes.abs() / reach))
        d0, d1 = slopes.unbind(1)
        w, h = x1 - x0, y1 - y0
        s, t = h / w, ((inside - x0) / w).clamp_(0, 1)
        m = t * (1 - t)
        b = torch.addcmul(s, d0 + d1 - 2 * s, m)
        n = torch.addcmul(d0 * m, s, t * t)
        r = d1 * t * t + 2 * s * m + d0 * (1 - t).square_()
        out = x.abs() > bound
        y = torch.where(out, x, torch.addcmul(y0, h, n / b))
        ladj = (2 * (s / b).log_() + r.log()).masked_fill_(out, 0.0)
        ctx.save_for_backward(damping, shares, above, raw_slopes, slopes, w, h, t, out)
        ctx.bound, ctx.reach = bound, reach
        return y, ladj

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        damping, shares, above, raw_slopes, slopes, w, h, t, out = ctx.saved_tensors
        of_y, of_ladj = (g.masked_fill(out, 0.0) for g in grads)
        of_x, (of_lower, of_upper), of_slopes = _of_bin(of_y, of_ladj, w, h, t, slopes)
        bins = shares.shape[2]
        of_raw = shares.new_empty(shares.shape[0], 3 * bins - 1, shares.shape[3])
        # the lower knot of bin k is at 2 bound (p_0 + ... + p_(k-1)) - bound, the upper one includes p_k
        of_shares = above[:, None, 1:] * of_lower.mul_(2 * ctx.bound).unsqueeze(2)
        of_shares.addcmul_(above[:, None, :-1], of_upper.mul_(2 * ctx.bound).unsqueeze(2))
        of_sizes = torch._softmax_backward_data(of_shares, shares, 2, shares.dtype)
        torch.div(of_sizes, damping.square(), out=of_raw[:, : 2 * bins].unflatten(1, (2, bins)))
        of_slopes = of_slopes * slopes / (1 + raw_slopes.abs() / ctx.reach).square_()
        here = above[:, :-1] - above[:, 1:]  # 1 in the bin
        torch.mul(here[:, 1:], of_slopes[:, :1], out=of_raw[:, 2 * bins :]).addcmul_(here[:, :-1], of_slopes[:, 1:])
        return torch.where(out, grads[0], of_x), of_raw, None, None


def _of_bin(of_y: Tensor, of_ladj: Tensor, w: Tensor, h: Tensor, t: Tensor, slopes: Tensor) -> tuple[Any, ...]:
    """Gradients of `x` `[D, N]`; of the lower and of the upper end of its bin, and of both slopes, each `[D, 2, N]`."""
    d0, d1 = slopes.unbind(1)
    s, rest = h / w, 1 - t
    m, tt, uu = t * rest, t * t, rest * rest
    bend = d0 + d1 - 2 * s
    b = torch.addcmul(s, bend, m)
    n = torch.addcmul(d0 * m, s, tt)
    r = d1 * tt + 2 * s * m + d0 * uu
    q = n / b
    per_b, per_r = of_ladj * (-2 / b), of_ladj / r  # how L = ln dy/dx feels b and r
    of_q = of_y * h / b
    mixed = m * (per_b - of_q * q)
    of_slopes = torch.stack([mixed + of_q * m + per_r * uu, mixed + per_r * tt], 1)
    of_s = of_q * tt + (1 - 2 * m) * (per_b - of_q * q) + 2 * (of_ladj / s + per_r * m)
    turn = rest - t
    of_t = of_q * s * r / b + per_b * bend * turn + 2 * per_r * (d1 * t + s * turn - d0 * rest)
    of_x = of_t / w
    of_w = -(of_s * s + of_t * t) / w
    of_h = of_y * q + of_s / w
    of_ends = torch.stack([-of_x - of_w, of_y - of_h], 1), torch.stack([of_w, of_h], 1)
    return of_x, of_ends, of_slopes
