"""Training batches with enough labelled lenses in each, however rare they are among the rows."""

from typing import Any

from lensfind.data import simulated
from skyloom.data import Data
from skyloom.pu import Balanced

__all__ = ["balanced", "simulated_balanced"]


def balanced(data: Data, positives: float = 0.25) -> Data:
    """The same data, with the share `positives` of labelled rows in every training batch (`skyloom.pu.Balanced`).

    Risks that take the means over labelled and over unlabeled rows apart do not change by it, only their noise does.
    """
    train = Balanced(data.train, data.train["labelled"], positives)
    return Data(train, data.val, data.test, data.about, data.carry, data.group, data.augment)


def simulated_balanced(positives: float | None = 0.25, **arguments: Any) -> Data:
    """`lensfind.data.simulated` with balanced training batches; None leaves them as the rows come."""
    data = simulated(**arguments)
    return data if positives is None else balanced(data, positives)
