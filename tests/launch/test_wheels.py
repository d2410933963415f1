"""Six distributions, each installable alone with the core."""

import os
import subprocess
import sys
import venv
import zipfile

import pytest

from conftest import ROOT

DISTRIBUTIONS = [ROOT / "shared", *sorted(p.parent for p in (ROOT / "packages").glob("*/pyproject.toml"))]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*command, *map(str, DISTRIBUTIONS)], check=True)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.mark.slow
def test_each_distribution_is_a_wheel_with_all_that_it_needs(wheels):
    assert len(wheels) == len(DISTRIBUTIONS) >= 6
    inside = zipfile.ZipFile(wheels["skyloom"]).namelist()
    for wanted in ("skyloom/py.typed", "skyloom/report/style.css", "skyloom/launch/templates/task.py.tmpl"):
        assert wanted in inside
    assert any(name.startswith("hydra_plugins/skyloom_sweeper/") for name in inside)
    assert "hydra_plugins/__init__.py" not in inside


@pytest.mark.slow
@pytest.mark.parametrize("package", [path.name for path in DISTRIBUTIONS[1:]])
def test_a_package_lives_in_an_empty_environment_with_the_core_alone(package, wheels, tmp_path):
    """Undeclared imports come to light here: one shared environment would hide them."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    wheel = wheels[f"skyloom_{package}"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, str(wheels["skyloom"]), str(wheel)], check=True, env=clean, cwd=tmp_path)
    code = (
        f"import pkgutil, importlib, {package} as p\n"
        "for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.'): importlib.import_module(m.name)\n"
        "for name in p.__all__: getattr(p, name)\n"
        "import torch, importlib.metadata as d\n"
        "cuda = [x.metadata['Name'] for x in d.distributions() if x.metadata['Name'].startswith('nvidia')]\n"
        "assert not ('+cpu' in torch.__version__ and cuda), cuda\n"
    )
    subprocess.run([str(python), "-c", code], check=True, env={**clean, "OMP_NUM_THREADS": "1"}, cwd=tmp_path)
