"""Sweeps: Optuna under Hydra, with pruning, resume, and many workers on one storage.

A trial is an ordinary run; what ties it to its sweep is `config["trial"]`. Nothing here imports Optuna before it is needed,
so that a run outside any sweep never does.
"""

from skyloom.sweep.live import live_trial

__all__ = ["live_trial"]
