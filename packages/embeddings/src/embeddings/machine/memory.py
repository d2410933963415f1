"""How much memory a piece of work needs, said before it begins; refused where it does not fit."""

from pathlib import Path

from skyloom.errors import ConfigError
from skyloom.training.progress import said

__all__ = ["analysis_bytes", "free_bytes", "neighbour_bytes", "require"]

SHARE = 0.7  # of the free memory that one piece of work may take


def neighbour_bytes(objects: int, dimension: int, k: int) -> int:
    """Of an exact search of all among all: the vectors, k neighbours of each and a block of distances.

    >>> neighbour_bytes(200_000, 768, 10) < 1e9
    True
    """
    return 4 * objects * (dimension + 3 * (k + 8)) + 3 * 4 * 1024 * 8192


def analysis_bytes(objects: int, dimensions: list[int], properties: int, shuffles: int, kept: int, on_disk: bool) -> int:
    """Of a whole analysis: vectors (unless they are memory maps), predictions, and the products of one embedding.

    Arguments:
        dimensions: Of every embedding.
        kept: Columns that the run saves per embedding beside the predictions (projections, scores, neighbours).
    """
    vectors = 0 if on_disk else 4 * objects * sum(dimensions)
    columns = 8 * objects * len(dimensions) * (properties + kept)
    fit = 8 * objects * properties * 2 * (1 + shuffles) + 12 * 8 * max(dimensions, default=0) ** 2
    return vectors + columns + fit


def free_bytes() -> int:
    """Available to this process: of the machine, or of its control group where that allows less."""
    words = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines()) if _linux() else {}
    free = int(words["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in words else 2**63 - 1
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def require(needed: int, what: str, limit: float | None = None) -> None:
    """Print the estimate; refuse above `limit` [bytes], or above 70 percent of what is free where None."""
    allowed = SHARE * free_bytes() if limit is None else limit
    said(f"memory: {what} needs about {_readable(needed)}; {_readable(allowed)} may be used")
    if needed > allowed:
        raise ConfigError(
            f"{what} needs about {_readable(needed)} of memory, and {_readable(allowed)} may be used (70% of what is free, or "
            "memory_limit). Use fewer objects, embeddings on disk (.npy or HDF5), or a larger machine."
        )


def _linux() -> bool:
    return Path("/proc/meminfo").is_file()


def _readable(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count > 1e8 else f"{count / 1e6:.1f} MB"
