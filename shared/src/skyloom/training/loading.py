"""Batches of given rows from a map-style data set, here or in worker processes."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, default_collate

from skyloom.data.splits import Batch

__all__ = ["fetch", "load"]


def fetch(dataset: Any, rows: np.ndarray) -> Batch:
    """The batch of these rows: by the dataset's own `__getitems__`, else item by item and collated."""
    if hasattr(dataset, "__getitems__"):
        batch = dataset.__getitems__(rows)
        return batch if isinstance(batch, dict) else default_collate(batch)
    if len(rows) == 0:
        return {name: value[:0] for name, value in default_collate([dataset[0]]).items()}
    return default_collate([dataset[int(row)] for row in rows])


class _Batches(torch.utils.data.Dataset):
    """One item is one batch, so that a worker sends whole batches."""

    def __init__(self, dataset: Any, rows: Sequence[np.ndarray]):
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return fetch(self.dataset, self.rows[index])


def _seed_worker(worker: int) -> None:
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries inside a data set may still use the global generator
    torch.set_num_threads(1)


def load(dataset: Any, rows: Sequence[np.ndarray], workers: int = 0, seed: int = 0) -> Iterator[Batch]:
    """Batches in the order of `rows`; with workers they are fetched ahead, in processes that hold no position."""
    if workers == 0 or len(rows) == 0:
        return (fetch(dataset, part) for part in rows)
    return iter(
        DataLoader(
            _Batches(dataset, rows),
            batch_size=None,
            num_workers=min(workers, len(rows)),
            worker_init_fn=_seed_worker,
            generator=torch.Generator().manual_seed(seed),
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4,
        )
    )
