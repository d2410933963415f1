"""Packages whose import is quick: names are loaded on first use.

    __getattr__, __dir__ = lazily(__name__, {"simulate": "showers", "Events": "events"}, modules=("physics",))

`import muonflow` then costs milliseconds; `muonflow.simulate` imports `muonflow.showers`. A static `TYPE_CHECKING` import
beside it tells type checkers and editors what the names are.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from skyloom.errors import nearest

__all__ = ["lazily"]


def lazily(
    package: str, home: Mapping[str, str], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: `home` gives each public name its module; `modules` are public themselves."""
    known = {*home, *modules}

    def load(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in known:
            return import_module(f"{package}.{name}")
        hint = "" if name.startswith("_") else nearest(name, known)
        raise AttributeError(f"module {package!r} has no attribute {name!r}.{hint}")

    return load, lambda: sorted(known)
