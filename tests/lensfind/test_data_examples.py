"""The examples in the docstrings of the data room are true."""

import doctest
import importlib

import pytest

MODULES = ("augment", "bands", "manifest", "photometry", "provenance", "splits", "streams")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"lensfind.data.{name}"))
    assert found.attempted > 0 and found.failed == 0
