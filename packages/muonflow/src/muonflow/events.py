"""Events of unequal size: conditions per event, muons in one flat table, and never a muon with another event's condition.

A batch is `condition [B, 4]`, `count [B]`, `muons [M, F]` and `owner [M]` with

    sum(count) = M,    bincount(owner) = count,    muon k belongs to event owner[k].

Whatever is done to events (shuffling, filtering, batching, sharding) goes through `Events.take`, which moves muons
together with their event: cutting the flat table by counts that were permuted first tears muons from their primaries, and
a model trained on such batches can only learn the distribution of all muons together.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from skyloom.errors import DataError

__all__ = ["CONDITIONS", "MUONS", "Events"]

CONDITIONS = ("E0_GeV", "zenith_rad", "A", "depth_m")
MUONS = ("E_GeV", "r_m")


class Events:
    """`N` events; event `i` holds the `count[i]` muons from `sum(count[:i])` on.

    Args:
        condition: [N, 4] primary energy (GeV), zenith (rad), mass number, vertical depth (m)
        count: [N] muons of each event; zero is an answer too
        muons: [sum(count), F] energy (GeV) and distance from the shower axis (m) first; None where they are to be predicted
        columns: more per event, such as the shower it comes from

    >>> events = Events(torch.zeros(3, 4), torch.tensor([2, 0, 1]), torch.tensor([[1.0, 5], [2, 6], [3, 7]]))
    >>> batch = events.__getitems__(np.array([2, 0]))
    >>> batch["muons"][:, 0].tolist(), batch["owner"].tolist(), batch["count"].tolist()
    ([3.0, 1.0, 2.0], [0, 1, 1], [1, 2])
    """

    def __init__(
        self, condition: Tensor, count: Tensor, muons: Tensor | None, columns: Mapping[str, Tensor] | None = None
    ) -> None:
        self.condition, self.count, self.muons = condition, count.to(torch.int64), muons
        self.columns = dict(columns or {})
        lengths = {"condition": len(condition), "count": len(count), **{k: len(v) for k, v in self.columns.items()}}
        if len(set(lengths.values())) > 1:
            raise DataError(f"event columns differ in length: {lengths}.")
        if condition.ndim != 2 or condition.shape[1] != len(CONDITIONS):
            raise DataError(f"a condition is {', '.join(CONDITIONS)}: expected shape [N, 4], found {list(condition.shape)}.")
        if len(count) and int(self.count.min()) < 0:
            raise DataError(f"event {int(self.count.argmin())} has a negative number of muons.")
        if muons is not None and int(self.count.sum()) != len(muons):
            raise DataError(f"the counts of {len(count)} events sum to {int(count.sum())}, but there are {len(muons)} muons.")
        self.start = torch.cumsum(self.count, 0) - self.count

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, name: str) -> Tensor:
        return self.__getitems__(np.arange(len(self)))[name]

    def rows_of_muons(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For events `rows` [B]: where their muons lie in the flat table, and which of the B each belongs to, both [M]."""
        count = self.count[rows]
        owner = torch.repeat_interleave(torch.arange(len(rows)), count)
        first = torch.cumsum(count, 0) - count
        return torch.arange(len(owner)) + (self.start[rows] - first)[owner], owner

    def __getitems__(self, rows: np.ndarray | Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(rows, dtype=torch.int64)
        batch = {"condition": self.condition[index], **{k: v[index] for k, v in self.columns.items()}}
        if self.muons is not None:
            where, owner = self.rows_of_muons(index)
            batch |= {"count": self.count[index], "muons": self.muons[where], "owner": owner}
        return batch

    def take(self, rows: np.ndarray | Tensor) -> "Events":
        """These events, in this order, with their own muons."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        muons = None if self.muons is None else self.muons[self.rows_of_muons(index)[0]]
        return Events(self.condition[index], self.count[index], muons, {k: v[index] for k, v in self.columns.items()})

    def where(self, keep: Tensor) -> "Events":
        """The events for which `keep` [N] is true; the muons of the others go with them."""
        return self.take(torch.nonzero(keep).flatten())

    def where_muons(self, keep: Tensor) -> "Events":
        """The muons for which `keep` [M] is true; every event stays, with a smaller count."""
        if self.muons is None:
            raise DataError("these events hold no muons to choose from.")
        owner = torch.repeat_interleave(torch.arange(len(self)), self.count)
        count = torch.bincount(owner[keep], minlength=len(self))
        return Events(self.condition, count, self.muons[keep], self.columns)

    def batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Batches of `size` events in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.__getitems__(np.arange(start, min(start + size, len(self))))

    def shard(self, rank: int, world: int) -> "Events":
        """Every world-th event, from `rank` on."""
        return self.take(np.arange(rank, len(self), world))

    def cpu(self) -> "Events":
        muons = None if self.muons is None else self.muons.cpu()
        return Events(self.condition.cpu(), self.count.cpu(), muons, {k: v.cpu() for k, v in self.columns.items()})

    @staticmethod
    def join(parts: Sequence["Events"]) -> "Events":
        """All events of all parts, in order."""
        muons = None if parts[0].muons is None else torch.cat([p.muons for p in parts if p.muons is not None])
        columns = {name: torch.cat([p.columns[name] for p in parts]) for name in parts[0].columns}
        return Events(torch.cat([p.condition for p in parts]), torch.cat([p.count for p in parts]), muons, columns)
