"""The fitted linear probes of a run as one module: vectors in, properties out. It is solved for, never trained."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Readout"]


class Readout(nn.Module):
    """`about["readouts"]` lists the embeddings: name, dimension, properties.

    >>> about = {"readouts": [{"name": "toy/image", "dimension": 2, "properties": ["redshift"]}]}
    >>> readout = Readout(about)
    >>> readout.set("toy/image", np.array([[1.0], [2.0]]), np.array([0.5]))
    >>> readout.predict({"toy/image": torch.tensor([[1.0, 1.0]])})["toy/image"].tolist()
    [[3.5]]
    """

    def __init__(self, about: Mapping[str, Any]):
        super().__init__()
        self.entries = [dict(entry) for entry in about["readouts"]]
        for k, entry in enumerate(self.entries):
            size = len(entry["properties"])
            self.register_buffer(f"weights_{k}", torch.zeros(entry["dimension"], size, dtype=torch.float64))
            self.register_buffer(f"intercepts_{k}", torch.zeros(size, dtype=torch.float64))

    def set(self, name: str, weights: np.ndarray, intercepts: np.ndarray) -> None:
        """The fit of one embedding: weights [D, T], intercepts [T]."""
        k = [entry["name"] for entry in self.entries].index(name)
        self.get_buffer(f"weights_{k}").copy_(torch.as_tensor(weights))
        self.get_buffer(f"intercepts_{k}").copy_(torch.as_tensor(intercepts))

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embedding -> [B, T] properties, for every embedding that the batch has [B, D]; NaN where a vector is NaN."""
        found = {}
        for k, entry in enumerate(self.entries):
            if entry["name"] in batch:
                vectors = batch[entry["name"]].double()
                found[entry["name"]] = vectors @ self.get_buffer(f"weights_{k}") + self.get_buffer(f"intercepts_{k}")
        return found

    def example(self) -> dict[str, Tensor]:
        return {entry["name"]: torch.zeros(2, entry["dimension"]) for entry in self.entries}
