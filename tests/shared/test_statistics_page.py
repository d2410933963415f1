"""The page on statistics runs, draws its figure, and leaves no public function without an example."""

import doctest
import importlib
import re
import warnings

import pytest

from conftest import ROOT

PAGE = ROOT / "docs" / "statistics.md"
ROOMS = {
    "skyloom.metrics": "comparison discovery operating_points prevalence proportions ranking strata",
    "skyloom.calibration": "calibrator conformal isotonic logistic prevalence reliability scaling",
    "skyloom.uncertainty": "acquisition dropout fusion heads labelling members novelty selective stacking",
}


def test_the_page_is_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    page = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(page.examples) > 80
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(page).failed == 0
    assert (tmp_path / "statistics.png").stat().st_size > 20_000


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_a_home_and_an_example(room):
    package = importlib.import_module(room)
    sources = [PAGE, *ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("shared/src/skyloom/**/*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    for file in ROOMS[room].split():
        module = importlib.import_module(f"{room}.{file}")
        others = "".join(t for p, t in texts.items() if p.stem not in (file, "__init__"))
        for name in module.__all__:
            if name in ("Rule", "Bins"):  # types of arguments
                continue
            own = texts[ROOT / "shared" / "src" / f"{room.replace('.', '/')}/{file}.py"]
            returned = re.search(rf"-> .*\b{name}\b", own)  # what a function of the same file gives
            assert returned or re.search(rf"\b{name}\b", others), f"{room}.{file}.{name} is used nowhere"
            assert getattr(module, name).__doc__, name
            assert getattr(package, name) is getattr(module, name) and name in package.__all__ and name in dir(package)
