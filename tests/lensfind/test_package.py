"""The package as a library: light to import, its names where they are promised, its examples true."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lensfind

README = Path(__file__).parents[2] / "packages" / "lensfind" / "README.md"


def test_importing_it_loads_nothing_heavy():
    program = (
        "import sys, lensfind; print([m for m in ('torch', 'numpy', 'timm', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_promised_name_is_there():
    for name in lensfind.__all__:
        assert getattr(lensfind, name) is not None
    assert set(lensfind.__all__) == set(lensfind._HOME)
    with pytest.raises(AttributeError, match="no attribute 'lenses'"):
        _ = lensfind.lenses


@pytest.mark.parametrize("module", ["lensfind", "lensfind.lensing", "lensfind.simulation.simulator"])
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_examples_in_the_readme():
    tests = doctest.DocTestParser().get_doctest(README.read_text(), {}, "README.md", str(README), 0)
    assert len(tests.examples) >= 4
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(tests).failed == 0
