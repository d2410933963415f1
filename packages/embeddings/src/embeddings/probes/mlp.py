"""A small network as a probe: what a few layers find that a plane does not."""

import numpy as np

from embeddings.machine.threads import one_thread
from embeddings.vectors.rows import Rows
from skyloom.run.seeds import derive

__all__ = ["mlp_predictions"]


def mlp_predictions(
    x: Rows,
    y: np.ndarray,
    fold: np.ndarray,
    present: np.ndarray,
    hidden: int = 64,
    dropout: float = 0.1,
    epochs: int = 20,
    batch: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
) -> np.ndarray:
    """[N, T] held-out predictions of one network per fold for all properties together.

    Two hidden layers as in AstroCLIP's few-shot probe (Parker et al. 2024, arXiv:2310.03024), twice its epochs, because samples
    here are smaller. Vectors are centred and scaled by one number, properties standardised, both on the training rows; unknown
    properties do not count in the loss.
    """
    predictions = np.full(y.shape, np.nan)
    for held_out in np.unique(fold[present]):
        train = np.flatnonzero(present & (fold != held_out) & np.isfinite(y).any(axis=1))
        test = np.flatnonzero(present & (fold == held_out))
        a, b = (np.asarray(x[rows], dtype=np.float64) for rows in (train, test))
        mean = a.mean(axis=0)
        size = np.sqrt(((a - mean) ** 2).mean()) or 1.0
        with one_thread():
            predictions[test] = _fit_and_apply(
                (a - mean) / size,
                y[train],
                (b - mean) / size,
                hidden,
                dropout,
                epochs,
                batch,
                rate,
                derive(seed, "mlp", int(held_out)),
            )
    return predictions


def _fit_and_apply(
    a: np.ndarray, y: np.ndarray, b: np.ndarray, hidden: int, dropout: float, epochs: int, batch: int, rate: float, seed: int
) -> np.ndarray:
    import torch
    from torch import nn

    known = np.isfinite(y)
    centre, spread = np.nanmean(y, axis=0), np.nanstd(y, axis=0)
    spread[spread == 0] = 1.0
    goal = torch.as_tensor(np.where(known, (y - centre) / spread, 0.0), dtype=torch.float32)
    counts = torch.as_tensor(known, dtype=torch.float32)
    inputs, asked = (torch.as_tensor(v, dtype=torch.float32) for v in (a, b))
    before = torch.get_rng_state()
    torch.manual_seed(seed)  # weights and dropout draw from the global generator, whose state is given back
    try:
        layers = [nn.Linear(a.shape[1], hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden, y.shape[1]))
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(batch):
                error = ((net(inputs[rows]) - goal[rows]) ** 2 * counts[rows]).sum() / counts[rows].sum().clamp(min=1)
                optimizer.zero_grad()
                error.backward()
                optimizer.step()
        net.eval()
        with torch.no_grad():
            found = net(asked).double().numpy()
    finally:
        torch.set_rng_state(before)
    return found * spread + centre
