"""What the machine can bear: how many threads work, and whether the memory suffices."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.machine.memory import analysis_bytes, require
    from embeddings.machine.threads import one_thread, threads_for, use_threads

_HOMES = {
    "memory": ("analysis_bytes", "require"),
    "threads": ("one_thread", "threads_for", "use_threads"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "analysis_bytes",
    "one_thread",
    "require",
    "threads_for",
    "use_threads",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
