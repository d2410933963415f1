"""A run's page: complete, honest, self-contained, safe, the same every time; and it renders in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from skyloom.errors import MissingFile
from skyloom.plots import panels, save, style
from skyloom.report import write_report

ID = "20261121-101502-k3f9q"
CHROMIUM = shutil.which("chromium")


def write_run(directory: Path, *, figures: bool = True, rows: int = 240, **result) -> Path:
    """A run directory as a finished training leaves it; without rows there are no curves to wait for."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "pkg": "lensfind",
        "experiment": "vit_nnpu",
        "seed": 3,
        "objective": [{"metric": "val/auroc_pu", "direction": "maximize"}],
        "goals": [{"metric": "test/auroc", "min": 0.95}],
        "model": {"_target_": "skyloom.backbones.vit", "widths": [64, 128]},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    provenance = {
        "command": "make train pkg=lensfind +experiment=vit_nnpu 'model.widths=[64,128]'",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": True,
        "diff_file": "code.diff",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "hardware": {"processor": "a processor", "cores": 2, "memory_gib": 7.8},
        "seed": 3,
        "data_fingerprint": "9f8e7d6c5b4a",
        "host": "node01",
    }
    (directory / "provenance.json").write_text(json.dumps(provenance))
    rng = np.random.default_rng(1)
    with open(directory / "metrics.jsonl", "w") as file:
        for step in range(1, rows + 1):
            row = {"step": step, "epoch": step // 20, "train/loss": 0.7 * np.exp(-step / 80) + 0.03 * rng.uniform()}
            if step % 20 == 0:
                row |= {"val/loss": 0.72 * np.exp(-step / 90) + 0.05, "val/auroc_pu": 1 - 0.5 * np.exp(-step / 60)}
            file.write(json.dumps(row) + "\n")
    whole = {
        "id": ID,
        "pkg": "lensfind",
        "experiment": "vit_nnpu",
        "title": "A small ViT trained on labelled lenses and an unlabelled survey sample",
        "status": "finished",
        "reason": None,
        "started": "2026-11-21T10:15:02+00:00",
        "ended": "2026-11-21T10:21:16+00:00",
        "duration_s": 374.2,
        "objective": [{"metric": "val/auroc_pu", "direction": "maximize", "value": 0.9812}],
        "metrics": {
            "val/auroc_pu": {"value": 0.9812, "low": None, "high": None},
            "test/auroc": {"value": 0.97312, "low": 0.9651, "high": 0.9802},
            "test/nll": {"value": 0.21345, "low": 0.198, "high": 0.2301},
            "test/ece": {"value": 0.0312, "low": 0.021, "high": 0.044},
            "test/fpr_at_tpr90": {"value": None, "low": None, "high": None},
        },
        "goals": [
            {"metric": "test/auroc", "min": 0.95, "value": 0.97312, "met": True},
            {"metric": "test/ece", "max": 0.02, "value": 0.0312, "met": False},
            {"metric": "test/purity", "min": 0.5, "value": None, "met": None},
        ],
        "synthetic": True,
        "sweep": None,
        "parameters": 123456,
        "best": {"step": 220, "epoch": 11},
    } | result
    (directory / "result.json").write_text(json.dumps(whole))
    if figures:
        draw_figures(directory / "figures")
    return directory


def draw_figures(folder: Path) -> None:
    entries = []
    for name, title in (("roc", "Receiver operating characteristic"), ("scores", "Scores of lenses and others")):
        with style():
            figure, axes = panels()
            axes.plot(np.linspace(0, 1), np.linspace(0, 1) ** 0.2)
            axes.set(xlabel="false positive rate", ylabel="true positive rate")
            save(figure, folder / f"{name}.png")
        entries.append({"file": f"{name}.png", "title": title, "caption": f"What {name} shows, on synthetic images."})
    (folder / "figures.json").write_text(json.dumps(entries))


class Page(HTMLParser):
    """Text, tags, and every address a page refers to; unbalanced tags are an error."""

    VOID = frozenset({"meta", "link", "img", "source", "br", "hr", "input"})

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert self.open == [], f"unclosed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "srcset", "action", "data")]
        assert not [k for k, _ in attributes if k.startswith("on")], "no scripts in attributes"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_the_page_holds_the_run(tmp_path):
    run = write_run(tmp_path / ID)
    page = Page(write_report(run))
    for words in (
        "A small ViT trained on labelled lenses",
        "finished",
        "0.9731 0.9651 to 0.9802",  # digits that the interval supports
        "0.031 0.021 to 0.044",
        "123 456",
        "6 min 14 s",
        "make rerun run=20261121-101502-k3f9q",
        "make train pkg=lensfind +experiment=vit_nnpu 'model.widths=[64,128]'",
        "git checkout 0123456789abcdef0123456789abcdef01234567",
        "9f8e7d6c5b4a",
        "torch==2.13.0",
        "What roc shows, on synthetic images.",
        "widths:",
    ):
        assert words in page.text, words
    assert page.tags.count("img") == 4, "two learning curves and two figures"


def test_goals_are_all_shown_and_never_flattered(tmp_path):
    text = Page(write_report(write_run(tmp_path / ID, figures=False, rows=0))).text
    goals = text[text.index("Goals") : text.index("All metrics")]
    assert "1 of 3 met" in goals
    assert "test/auroc ≥ 0.95 0.9731 met 0.9651 to 0.9802" in goals
    assert "test/ece ≤ 0.02 0.031 not met 0.021 to 0.044" in goals
    assert "test/purity ≥ 0.5 – not measured –" in goals


def test_goals_of_a_run_that_failed_are_shown_as_not_measured(tmp_path):
    failed = {"status": "failed", "reason": "loss is not finite at step 7", "metrics": {}, "goals": None}
    run = write_run(tmp_path / ID, figures=False, rows=0, **failed)
    text = Page(write_report(run)).text
    assert "loss is not finite at step 7" in text
    assert "0 of 1 met" in text
    assert "test/auroc ≥ 0.95 – not measured" in text
    assert "No metric was recorded" in text


def test_undefined_numbers_are_said_to_be_so(tmp_path):
    text = Page(write_report(write_run(tmp_path / ID, figures=False, rows=0))).text
    assert "test/fpr_at_tpr90 undefined –" in text


def test_synthetic_data_is_announced_and_other_data_is_not(tmp_path):
    for synthetic in (True, False):
        run = write_run(tmp_path / str(synthetic), figures=False, rows=0, synthetic=synthetic)
        assert ("synthetic data" in Page(write_report(run)).text) == synthetic


def test_what_a_workflow_warns_of_and_the_pages_beside_are_on_the_page(tmp_path):
    run = write_run(tmp_path / ID, figures=False, rows=0, caveats=["degraded: no common objects <at all>"])
    (run / "explore.html").write_text("a page of its own")
    page = write_report(run)
    assert "caveat degraded: no common objects <at all>" in Page(page).text
    assert '<a href="explore.html">explore.html</a>' in page.read_text()
    assert "report.html</a>" not in page.read_text(), "a page does not point at itself"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("finished", "finished"),
        ("interrupted", "interrupted"),
        ("pruned", "pruned"),
        ("failed", "failed"),
        ("running", "killed"),
    ],
)
def test_the_status_is_the_first_thing_said(tmp_path, status, shown):
    text = Page(write_report(write_run(tmp_path / ID, figures=False, rows=0, status=status))).text
    assert text.index(f" {shown} ") < text.index("Headline numbers")


def test_self_contained(tmp_path):
    page = Page(write_report(write_run(tmp_path / ID)))
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.html
    assert not re.search(r"url\(|@import|https?://", page.html)


def test_the_page_is_the_same_when_written_twice_and_elsewhere_in_time(tmp_path):
    run = write_run(tmp_path / ID)
    first = write_report(run).read_bytes()
    os.utime(run / "metrics.jsonl", (0, 0))
    assert write_report(run).read_bytes() == first
    assert [p.name for p in run.iterdir() if p.name.startswith(".")] == [], "written whole, nothing left beside it"


HOSTILE = "<script>alert('x')</script> \"quoted\" & <img src=x onerror=alert(1)> {{ 7*7 }}"


def test_everything_is_escaped(tmp_path):
    run = write_run(
        tmp_path / ID,
        rows=0,
        title=HOSTILE,
        reason=HOSTILE,
        status="failed",
        metrics={f"test/{HOSTILE}": {"value": 1.0, "low": 0.0, "high": 2.0}},
        goals=[{"metric": HOSTILE, "min": 1, "value": 1.0, "met": True}],
        experiment=HOSTILE,
        id=HOSTILE,
    )
    (run / "config.yaml").write_text(yaml.safe_dump({"model": HOSTILE}))
    (run / "provenance.json").write_text(json.dumps({"command": HOSTILE, HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}}))
    (run / "figures" / "figures.json").write_text(json.dumps([{"file": "roc.png", "title": HOSTILE, "caption": HOSTILE}]))
    page = Page(write_report(run))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert page.text.count("{{ 7*7 }}") >= 10
    assert " 49 " not in page.text


def test_a_record_with_holes_still_makes_a_page_that_says_so(tmp_path):
    run = tmp_path / "killed"
    run.mkdir()
    text = Page(write_report(run)).text
    for name in ("config.yaml", "result.json", "provenance.json", "metrics.jsonl"):
        assert f"{name} is missing" in text
    write_run(run, rows=2)
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + '{"step": 241, "train/lo')
    (run / "provenance.json").write_text("{")
    (run / "figures" / "roc.png").unlink()
    entries = json.loads((run / "figures" / "figures.json").read_text())
    secret = tmp_path / "secret.png"
    secret.write_bytes((run / "figures" / "scores.png").read_bytes())
    entries.append({"file": "../../secret.png", "title": "", "caption": ""})
    (run / "figures" / "figures.json").write_text(json.dumps(entries))
    page = Page(write_report(run))
    for words in (
        "metrics.jsonl that could not be read",
        "provenance.json cannot be read",
        "roc.png is listed but",
        "outside the run",
    ):
        assert words in page.text, words
    assert page.tags.count("img") == 2, "what is left is shown"


def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(MissingFile, match="make runs"):
        write_report(tmp_path / "nowhere")


def test_reports_need_no_torch():
    code = """
import sys, time
import skyloom.report, skyloom.plots
assert not {"torch", "pandas", "matplotlib", "wandb"} & set(sys.modules), "slow to import"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


BROWSER_FLAGS = """headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking
    disable-component-update disable-sync enable-logging=stderr v=0"""


def chromium(tmp_path: Path, page: Path, *options: str) -> subprocess.CompletedProcess:
    assert CHROMIUM
    flags = [f"--{flag}" for flag in BROWSER_FLAGS.split()]
    profile = tmp_path / f"profile-{len(list(tmp_path.glob('profile-*')))}"
    command = [CHROMIUM, *flags, f"--user-data-dir={profile}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, timeout=120)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the page was checked as text only")
def test_it_renders_in_a_browser_without_console_errors(tmp_path):
    page = write_report(write_run(tmp_path / ID))
    # The browser tells its own layout: every image decoded, nothing wider than a phone.
    probe = tmp_path / "probe.html"
    probe.write_text(
        "<iframe id=f width=390 height=2000 src='page.html'></iframe><script>onload = () => {"
        "const d = document.getElementById('f').contentDocument;"
        "document.body.dataset.wide = d.documentElement.scrollWidth;"
        "document.body.dataset.images = [...d.images].map(i => i.complete && i.naturalWidth).join();"
        "document.body.dataset.heading = d.querySelector('h1').textContent;}</script>"
    )
    shutil.copy(page, tmp_path / "page.html")
    done = chromium(tmp_path, probe, "--allow-file-access-from-files", "--virtual-time-budget=3000", "--dump-dom")
    dom = done.stdout.decode()
    assert 'data-heading="A small ViT trained' in dom
    images = re.search(r'data-images="([^"]*)"', dom)
    assert images
    assert [int(n) > 100 for n in images[1].split(",")] == [True] * 4
    wide = re.search(r'data-wide="(\d+)"', dom)
    assert wide
    assert int(wide[1]) <= 390, "a phone must not scroll sideways"
    assert "CONSOLE" not in done.stderr.decode(), done.stderr.decode()
