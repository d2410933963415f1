"""How unlike the training rows a row is: scores for a queue to look at, never to be added to a probability."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

__all__ = ["Mahalanobis", "energy"]

Array = NDArray[np.float64]


def energy(logits: ArrayLike, temperature: float = 1.0) -> Array:
    """-T logsumexp(z/T) over classes [n]: large where no class is supported (Liu et al. 2020, arXiv:2010.03759).

    Logits [n, classes]; one logit of two classes has no energy of its own.

    >>> energy([[0.0, 0.0]]).round(4)
    array([-0.6931])
    """
    z = np.asarray(logits, np.float64)
    if z.ndim != 2:
        raise ValueError(f"energy is of logits [n, classes], not {list(z.shape)}.")
    return -temperature * logsumexp(z / temperature, axis=1)


class Mahalanobis:
    """Squared distance (x - mu)^T S^-1 (x - mu) with a shrunken covariance (Ledoit and Wolf 2004), finite with fewer rows than
    features. For Gaussian rows its mean is the number of features. `skyloom.calibration.conformal_p_values` makes p-values.
    """

    def __init__(self, features: ArrayLike):
        self._fit = LedoitWolf().fit(np.asarray(features, np.float64))

    def __call__(self, features: ArrayLike) -> Array:
        return self._fit.mahalanobis(np.asarray(features, np.float64))
