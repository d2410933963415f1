"""The density of all muons together, whatever their primary: what a model reaches that ignores its condition."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from muonflow.coordinates import to_source

__all__ = ["Marginal", "fit_marginal"]


def fit_marginal(muons: Tensor, components: int = 8, most: int = 30_000, seed: int = 0) -> dict[str, Any]:
    """A Gaussian mixture of (e, v) fitted on muons [M, 2] (GeV, m), at most `most` of them, as plain numbers."""
    from sklearn.mixture import GaussianMixture

    scaled = to_source(muons.double()).numpy()
    rng = np.random.default_rng(seed)
    if len(scaled) > most:
        scaled = scaled[rng.choice(len(scaled), most, replace=False)]
    components = min(components, max(1, len(scaled) // 50))
    mixture = GaussianMixture(components, random_state=seed % 2**32, reg_covar=1e-4, max_iter=300).fit(scaled)
    return {
        "weights": mixture.weights_.tolist(),
        "means": mixture.means_.tolist(),
        "covariances": mixture.covariances_.tolist(),
    }


class Marginal(nn.Module):
    """ln p(e, v) of a mixture that `fit_marginal` described."""

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, numbers: dict[str, Any]) -> None:
        super().__init__()
        covariance = torch.tensor(numbers["covariances"], dtype=torch.float64)
        self.register_buffer("log_weights", torch.tensor(numbers["weights"]).log(), persistent=False)
        self.register_buffer("means", torch.tensor(numbers["means"]), persistent=False)
        self.register_buffer("factors", torch.linalg.cholesky(covariance).float(), persistent=False)

    def log_prob(self, muons: Tensor) -> Tensor:
        """[M], per unit of (e, v), for muons [M, 2] (GeV, m)."""
        normal = torch.distributions.MultivariateNormal(self.means, scale_tril=self.factors, validate_args=False)
        return torch.logsumexp(self.log_weights + normal.log_prob(to_source(muons)[:, None]), -1)
