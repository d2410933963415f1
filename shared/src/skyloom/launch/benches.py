"""`bench`: measurements against peers, each a script in benchmarks/ that writes its own table."""

import ast
import subprocess
import sys
from pathlib import Path

from skyloom.errors import ConfigError, nearest
from skyloom.launch.compose import conf_dir
from skyloom.launch.words import take

__all__ = ["bench"]


def scripts() -> dict[str, Path]:
    return {path.stem: path for path in sorted((conf_dir().parent / "benchmarks").glob("*.py")) if path.stem != "compare"}


def bench(words: list[str]) -> int:
    own, rest = take(words, "name")
    known = scripts()
    if "name" not in own:
        for name, path in known.items():
            first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
            print(f"name={name:<16} {first[0] if first else ''}")  # noqa: T201
        return 0
    if own["name"] not in known:
        raise ConfigError(f"there is no benchmark name={own['name']}.{nearest(own['name'], known)}")
    return subprocess.run([sys.executable, str(known[own["name"]]), *rest], check=False).returncode
