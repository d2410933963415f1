"""What the documentation says is so."""

import re
import shlex
import subprocess
import sys

import pytest

from conftest import PACKAGE, ROOT
from skyloom.launch.documents import generated

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_generated_parts_are_up_to_date(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    written, fresh = text.splitlines(), generated(text, ROOT).splitlines()
    mine = {p.name for p in (ROOT / "packages").iterdir()} - {name.split("/")[1] for name in TRACKED if "packages/" in name}
    late = [
        line for line in fresh if line not in written and not any(f"{name} " in line or f"{name}]" in line for name in mine)
    ]
    assert not late, "run `make docs`"
    assert not [line for line in written if line not in fresh], "run `make docs`"


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "packages").glob("*/README.md"), ROOT / "CONTRIBUTING.md"], ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        link = target[0] or target[1]
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_script_of_the_readme_runs():
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    names: dict = {}
    exec(script.group(1).replace("batch_size=50)", "batch_size=50, quiet=True)"), names)
    assert abs(float(names["task"].slope) - 2) < 0.01


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "packages").glob("*/README.md")], ids=str)
def test_every_command_of_a_page_names_what_exists(page, monkeypatch):
    """Verbs, packages, experiments and keys: each `make` line is composed, not only read."""
    monkeypatch.chdir(ROOT)
    from skyloom.launch.__main__ import VERBS
    from skyloom.launch.compose import compose_config, resolve
    from skyloom.launch.package_verbs import package_verbs
    from skyloom.launch.words import take

    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    make ([^#\n]+)", text, re.MULTILINE)
    named = re.findall(r"`make ([a-z-]+)", text)
    assert lines or named or page.name == "architecture.md"
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = {*re.findall(r"^([a-z-]+):", targets, re.MULTILINE), *VERBS, *package_verbs()}
    assert set(named) <= known
    for line in lines:
        verb, *words = shlex.split(line)
        assert verb in known, line
        if verb in ("train", "config") and any(word.startswith("pkg=") for word in words):
            _, rest = take(words, "run", "resume")
            if "mypackage" not in line:
                resolve(compose_config(rest))


def test_the_project_speaks_of_itself_alone():
    """No path of a machine, no folder whose name says nothing, nothing left behind."""
    assert TRACKED, "not a checkout"
    odd = [name for name in TRACKED if re.search(r"(^|/)(utils?|helpers?|common|misc|base)(/|\.py$)", name)]
    assert not odd
    for name in TRACKED:
        if name.endswith((".py", ".md", ".yaml", ".toml", ".tmpl")) or name == "Makefile":
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not re.search(r"/(work|root|home/\w+)/", text), name
            assert not re.search(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b", text), name


def test_a_new_package_trains_and_passes_its_own_test(checkout):
    done = checkout.call("train", f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware.threads=1")
    assert done.code == 0, done.err
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{PACKAGE}"]
    where = {"cwd": checkout.root, "env": checkout.environment()}
    done = subprocess.run(command, **where, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout
    again = checkout.call("new", f"pkg={PACKAGE}")
    assert (again.code, "exists already" in again.err) == (2, True)
    assert checkout.call("new", "pkg=My-Package").code == 2
