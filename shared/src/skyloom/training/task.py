"""What the loop knows of a task, and nothing more."""

from typing import Any, Protocol

from torch import Tensor

from skyloom.data import Batch

__all__ = ["Task"]


class Task(Protocol):
    """An `nn.Module` with three methods; it is built as `task(about=data.about)`."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`{"loss": scalar, **named_terms}`: what is minimized, and its parts for the log."""
        ...

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """`{name: [B, …]}`: raw outputs (logits, samples, fluxes), never thresholded; the batch may lack labels."""
        ...

    def score(self, predictions: dict[str, Tensor]) -> dict[str, float]:
        """Metrics over the whole split at once, from the predictions and the carried columns."""
        ...

    def __getattr__(self, name: str) -> Any: ...
