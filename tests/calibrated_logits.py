"""Scores whose calibration is known."""

import numpy as np
from scipy.special import expit


def calibrated(n, seed, spread=2.0, shift=0.0):
    """Logits that are calibrated, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(shift, spread, n)
    return z, (rng.random(n) < expit(z)).astype(int)
