"""A flow of what a linear regression leaves unexplained: it starts as the regression, and learns only how reality departs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from zuko.lazy import Flow, LazyTransform

__all__ = ["AroundRegression"]


class AroundRegression(Flow):
    """`p(z | w)` with `u = L^-1 (z - A^T w - b)` distributed as `flow(w)`, `L L^T` the covariance of the residuals.

    With a flow that starts as the identity, `p(z | w)` starts as the linear-Gaussian `N(A^T w + b, L L^T)` exactly. On a few
    thousand rows this matters: what the straight line already knows need not be learnt, and cannot be overfitted.

    Arguments:
        flow: Of vectors `[..., D]` given `w` `[..., C]`.
        coefficients: `A` `[C, D]`.
        intercept: `b` `[D]`.
        covariance: Of the residuals, `[D, D]`.
    """

    def __init__(self, flow: Flow, coefficients: Any, intercept: Any, covariance: Any) -> None:
        super().__init__([_Residual(coefficients, intercept, covariance), flow.transform], flow.base)


class _Residual(LazyTransform):
    coefficients: Tensor
    intercept: Tensor
    scale: Tensor

    def __init__(self, coefficients: Any, intercept: Any, covariance: Any) -> None:
        super().__init__()
        scale = torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.float64))
        for name, value in (("coefficients", coefficients), ("intercept", intercept), ("scale", scale)):
            numbers = torch.as_tensor(value, dtype=torch.float64).to(torch.get_default_dtype())
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, c: Tensor | None = None) -> Transform:
        if c is None:
            raise ValueError("this flow is conditional: call it with the context")
        return _Whitened(c @ self.coefficients.to(c.dtype) + self.intercept.to(c.dtype), self.scale.to(c.dtype))


class _Whitened(Transform):
    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def _call(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.scale, (x - self.mean).unsqueeze(-1), upper=False).squeeze(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.mean + y @ self.scale.T

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = self._call(x)
        return u, self.log_abs_det_jacobian(x, u)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.scale.diagonal().log().sum().expand(y.shape[:-1])
