"""What a package hands to the training loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skyloom.data.draws import SampleDraws
from skyloom.errors import DataError

__all__ = ["Batch", "Data"]

Batch = dict[str, Tensor]


@dataclass
class Data:
    """Train, validation and test, and all that a model must know of them.

    A split is map-style: `len(split)` and either `split.__getitems__(rows) -> Batch` (stacked; fast) or
    `split[i] -> dict` (collated by the loader).
    """

    train: Any
    val: Any
    test: Any
    about: dict[str, Any]
    """JSON-able: shapes, units, bands, class prior, statistics of the training split, fingerprint, whether synthetic.
    It travels in every checkpoint, so that a model is rebuilt without the data."""
    carry: tuple[str, ...] = ()
    """Batch columns put beside the predictions: labels, truth, identifiers."""
    group: str | None = None
    """A carried column; its rows are resampled together when intervals are made."""
    augment: Callable[[Batch, SampleDraws], Batch] | None = None
    """Training only, on the device."""

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            if len(getattr(self, name)) == 0:
                raise DataError(f"the {name} split is empty: give more rows, or other split fractions.")
        self.about = _plain(self.about, "about")
        if self.group is not None and self.group not in self.carry:
            raise DataError(f"group column {self.group!r} must be among the carried columns {list(self.carry)}.")
        missing = [key for key in ("fingerprint", "synthetic") if key not in self.about]
        if missing:
            raise DataError(f"`about` must say {', '.join(missing)}: a run records what it was trained on.")

    def sizes(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in ("train", "val", "test")}


def _plain(value: Any, where: str) -> Any:
    """Numbers of NumPy and torch as Python's own: only those are read back from a checkpoint without unpickling."""
    if isinstance(value, dict):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, where) for item in value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise DataError(
        f"{where} holds a {type(value).__name__}; it travels in checkpoints and must be text, numbers, lists, dicts."
    )


def columns_of(batch: Batch, names: Sequence[str]) -> Batch:
    missing = [name for name in names if name not in batch]
    if missing:
        raise DataError(f"carried columns {missing} are not in the batch, which has {sorted(batch)}.")
    return {name: batch[name] for name in names}
