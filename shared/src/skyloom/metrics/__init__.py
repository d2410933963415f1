"""Scores over a whole split, each with an interval."""

from skyloom.metrics.bootstrap import Estimate, bootstrap

__all__ = ["Estimate", "bootstrap"]
