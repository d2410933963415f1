"""A flow of what a linear regression leaves unexplained: it starts as the regression, and learns only how reality departs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from zuko.lazy import LazyDistribution

from skyloom.flows.bound import Given, Step
from skyloom.flows.density import Flow, FlowDistribution

__all__ = ["AroundRegression"]


class AroundRegression(LazyDistribution):
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
        super().__init__()
        self.flow, self.residual = flow, Residual(coefficients, intercept, covariance)

    def forward(self, c: Tensor | None = None) -> FlowDistribution:
        if c is None:
            raise ValueError("this flow is conditional: call it with the context")
        inner = self.flow(c)
        return FlowDistribution(inner.transform.before([self.residual], c), inner.base)


class Residual(Step):
    """`u = L^-1 (z - A^T w - b)`."""

    coefficients: Tensor
    intercept: Tensor
    scale: Tensor

    def __init__(self, coefficients: Any, intercept: Any, covariance: Any) -> None:
        super().__init__()
        scale = torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.float64))
        for name, value in (("coefficients", coefficients), ("intercept", intercept), ("scale", scale)):
            numbers = torch.as_tensor(value, dtype=torch.float64).to(torch.get_default_dtype())
            self.register_buffer(name, numbers, persistent=False)

    def of_context(self) -> tuple[Tensor, Tensor]:
        return self.coefficients.T, self.intercept

    def _mean(self, given: Given | None) -> Tensor:
        assert given is not None
        if given.ready:
            return given.value
        with torch.autocast(given.value.device.type, enabled=False):
            flat = given.value.reshape(len(given.value), -1).to(self.intercept.dtype)
            mean = torch.addmm(self.intercept.unsqueeze(1), self.coefficients.T, flat)
        return mean.view(-1, *given.value.shape[1:])

    def _ladj(self, like: Tensor) -> Tensor:
        return -self.scale.diagonal().log().sum().to(like.dtype).expand(1, *like.shape[1:])

    def forward(self, y: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        residual = (y - self._mean(given).to(y.dtype)).reshape(len(y), -1)
        u = torch.linalg.solve_triangular(self.scale.to(y.dtype), residual, upper=False).view_as(y)
        return u, self._ladj(y)

    def inverse(self, z: Tensor, given: Given | None) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(z.device.type, enabled=False):
            spread = torch.mm(self.scale.to(z.dtype), z.reshape(len(z), -1)).view_as(z)
        return spread + self._mean(given).to(z.dtype), self._ladj(z)
