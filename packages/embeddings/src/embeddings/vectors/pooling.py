r"""One vector per object from the tokens of a transformer.

mean: :math:`\frac1T \sum_t x_t`; last: :math:`x_T`; exp_decay: weights :math:`\propto e^{-(T - t)/\tau}`, which favour the late
tokens of a causal model, whose first ones have seen nothing.
"""

from typing import Any

import numpy as np

from skyloom.errors import ConfigError

__all__ = ["POOLINGS", "pool"]

POOLINGS = ("mean", "last", "exp_decay")


def pool(tokens: Any, how: str = "mean", decay: float = 0.1) -> np.ndarray:
    """[..., D] from tokens [..., T, D]; `decay` is tau in units of T.

    >>> pool(np.array([[0.0, 2.0], [2.0, 4.0]])).tolist(), pool(np.array([[0.0], [3.0]]), "last").tolist()
    ([1.0, 3.0], [3.0])
    """
    x = np.asarray(tokens)
    if how == "mean":
        return x.mean(axis=-2)
    if how == "last":
        return x[..., -1, :]
    if how == "exp_decay":
        count = x.shape[-2]
        weight = np.exp(-np.arange(count)[::-1] / (decay * count))
        return np.tensordot(weight / weight.sum(), x, axes=(0, x.ndim - 2))
    raise ConfigError(f"pooling={how!r}: there are {', '.join(POOLINGS)}.")
