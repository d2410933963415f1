"""How probable an embedding is under a normalizing flow fitted to all: the improbable ones are outliers."""

from typing import Any

import numpy as np

from skyloom.run.seeds import derive

__all__ = ["flow_outliers"]

CLIP = 8.0  # standard deviations: beyond it a distance says no more than "far", and would only bend the fit


def flow_outliers(
    x: np.ndarray,
    epochs: int = 20,
    batch: int = 256,
    rate: float = 2e-3,
    blocks: int = 4,
    hidden: int = 32,
    most: int = 20_000,
    seed: int = 0,
) -> np.ndarray:
    """[N] minus the natural log density of x [N, D] (principal components, standardised here), per dimension.

    Fitted to at most `most` objects; all are scored.
    """
    import torch

    centre, spread = np.median(x, axis=0), x.std(axis=0)
    u = np.clip((x - centre) / np.where(spread > 0, spread, 1.0), -CLIP, CLIP)
    rows = np.random.default_rng(derive(seed, "flow objects")).permutation(len(u))[:most]
    data = torch.as_tensor(u, dtype=torch.float32)
    before = torch.get_rng_state()
    torch.manual_seed(derive(seed, "flow"))  # weights draw from the global generator, whose state is given back
    try:
        flow = _flow(u.shape[1], blocks, hidden)
        optimizer = torch.optim.Adam(flow.parameters(), lr=rate, weight_decay=1e-5)
        for _ in range(epochs):
            for part in torch.as_tensor(rows)[torch.randperm(len(rows))].split(batch):
                loss = -flow().log_prob(data[part]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
                optimizer.step()
        flow.eval()
        with torch.no_grad():
            found = torch.cat([-flow().log_prob(part) for part in data.split(8192)])
    finally:
        torch.set_rng_state(before)
    return found.double().numpy() / u.shape[1]


def _flow(dimension: int, blocks: int, hidden: int) -> Any:
    from skyloom.flows import GlowCoupling

    return GlowCoupling(dimension, context=0, blocks=blocks, hidden=hidden, identity_start=True)
