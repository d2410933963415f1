"""`new`: a sixth package that works from its first minute: noisy data, a small network, goals, figures, tests."""

import keyword
import re
from importlib import resources
from pathlib import Path

from skyloom.errors import ConfigError
from skyloom.launch.compose import choices, conf_dir
from skyloom.launch.words import take
from skyloom.run.files import write_text

__all__ = ["new", "write_skeleton"]

PLACES = {
    "pyproject.toml": "packages/{name}/pyproject.toml",
    "README.md": "packages/{name}/README.md",
    "init.py": "packages/{name}/src/{name}/__init__.py",
    "data.py": "packages/{name}/src/{name}/data.py",
    "model.py": "packages/{name}/src/{name}/model.py",
    "task.py": "packages/{name}/src/{name}/task.py",
    "figures.py": "packages/{name}/src/{name}/figures.py",
    "predict.py": "packages/{name}/src/{name}/predict.py",
    "py.typed": "packages/{name}/src/{name}/py.typed",
    "pkg.yaml": "conf/pkg/{name}.yaml",
    "data.yaml": "conf/data/{name}/synthetic.yaml",
    "model.yaml": "conf/model/{name}/mlp.yaml",
    "task.yaml": "conf/task/{name}/regression.yaml",
    "evaluation.yaml": "conf/evaluation/{name}/default.yaml",
    "experiment.yaml": "conf/experiment/{name}_start.yaml",
    "test.py": "tests/{name}/test_{name}.py",
}


def new(words: list[str]) -> int:
    own, _ = take(words, "pkg")
    if "pkg" not in own:
        raise ConfigError("say how to call it: make new pkg=<name>.")
    written = write_skeleton(own["pkg"], conf_dir().parent)
    print("\n".join(f"written: {path}" for path in written))  # noqa: T201
    print(f"try: make train pkg={own['pkg']} && make test")  # noqa: T201
    return 0


def write_skeleton(name: str, root: Path) -> list[Path]:
    """Write every file of package `name` under `root`; nothing that exists is touched."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"pkg={name} cannot be a Python package: use small letters, digits and _, a letter first.")
    targets = {template: root / place.format(name=name) for template, place in PLACES.items()}
    there = [str(path) for path in targets.values() if path.exists()]
    if there or name in choices("pkg"):
        raise ConfigError(f"pkg={name} exists already ({', '.join(there[:2]) or 'in conf/pkg'}); nothing was written.")
    folder = resources.files("skyloom.launch") / "templates"
    for template, target in targets.items():
        text = (folder / f"{template}.tmpl").read_text(encoding="utf-8")
        camel = "".join(part.capitalize() for part in name.split("_"))
        write_text(target, text.replace("@name@", name).replace("@Name@", camel).replace("@dist@", name.replace("_", "-")))
    return list(targets.values())
