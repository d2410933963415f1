"""Arrows point one way. The contracts are made from the packages that are there, so that a new one cannot escape them."""

import configparser
import importlib
import pkgutil
import subprocess
import sys

from conftest import ROOT

PACKAGES = sorted(p.name for p in (ROOT / "packages").iterdir() if (p / "pyproject.toml").exists())
ROOMED = [name for name in PACKAGES if any((ROOT / "packages" / name / "src" / name).glob("*/__init__.py"))]
CORE = sorted(
    p.stem for p in (ROOT / "shared" / "src" / "skyloom").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
)


def contracts() -> configparser.ConfigParser:
    config = configparser.ConfigParser()

    def section(contract, **values):
        config[f"importlinter:contract:{contract}" if contract else "importlinter"] = {
            key: "\n" + "\n".join(value) if isinstance(value, list) else value for key, value in values.items()
        }

    rooms = [f"skyloom.{name}" for name in CORE if name not in ("__init__", "launch")]
    section("", root_packages=["skyloom", *PACKAGES])
    section("packages", name="packages do not know each other", type="independence", modules=PACKAGES)
    section("core", name="the core knows no package", type="forbidden", source_modules=["skyloom"], forbidden_modules=PACKAGES)
    section(
        "launch",
        name="nothing imports the launcher",
        type="forbidden",
        source_modules=[*rooms, *PACKAGES],
        forbidden_modules=["skyloom.launch"],
    )
    section("rooms", name="no circle among rooms", type="acyclic_siblings", ancestors=["skyloom", *ROOMED], depth="0")
    return config


def test_arrows_point_one_way(tmp_path):
    path = tmp_path / "contracts.ini"
    with open(path, "w") as file:
        contracts().write(file)
    command = [str(ROOT / ".venv" / "bin" / "lint-imports"), "--config", str(path), "--no-cache"]
    if not (ROOT / ".venv").exists():
        command[0] = str(sys.prefix) + "/bin/lint-imports"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_no_module_takes_the_place_of_a_name_that_its_room_promises():
    """`import room.module` sets `room.module`: no name that the room gives on first use may be called as one of its modules."""
    rooms = [path for path in (ROOT / "packages").glob("*/src/*/**/__init__.py") if "lazily(" in path.read_text()]
    assert len(rooms) > len(PACKAGES)
    for path in rooms:
        room = importlib.import_module(".".join(path.parent.parts[path.parts.index("src") + 1 :]))
        assert not set(room._HOME) & {module.name for module in pkgutil.iter_modules(room.__path__)}, room.__name__


def test_light_imports_stay_light():
    """What runs before a run, or beside one, does not wait for torch."""
    light = ["skyloom.errors", "skyloom.run", "skyloom.report", "skyloom.launch.compose", "skyloom.launch.pages", *PACKAGES]
    code = f"import sys\nfor name in {light}:\n    __import__(name)\n    assert 'torch' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
