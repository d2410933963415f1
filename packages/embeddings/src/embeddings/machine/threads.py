"""How many threads work: one where sums must come out the same, or where work is too small to be shared."""

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["one_thread", "threads_for", "use_threads"]

SHARED_ABOVE = 2e7  # numbers in an embedding: below, a second thread costs more than it does


@contextlib.contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Of the linear algebra, of OpenMP and of torch, inside this block."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with threadpool_limits(count):
        if torch is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Sums of products in one order, whatever the machine."""
    return use_threads(1)


def threads_for(asked: int | str, numbers: float) -> int:
    """As many as were asked for; with `auto` one for small work and every core for large.

    >>> threads_for(3, 10), threads_for("auto", 1e4)
    (3, 1)
    """
    if asked != "auto":
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if numbers > SHARED_ABOVE else 1
