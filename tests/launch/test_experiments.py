"""Every experiment of every package, from its data to its page, at smoke size, as one would type it."""

import os

import pytest

from conftest import ROOT, Checkout
from skyloom.launch.compose import experiments

KNOWN = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_it_runs_at_smoke_size(name, tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(ROOT)
    pkg = experiments()[name]["pkg"]
    checkout = Checkout(tmp_path)
    monkeypatch.setattr(Checkout, "environment", lambda self: environment(self, tmp_path_factory))
    done = checkout.call("train", f"pkg={pkg}", f"+experiment={name}", "scale=smoke", "logger=none", "hardware.threads=1")
    assert done.code == 0, done.err
    run = checkout.newest()
    result = run.result
    assert result["status"] == "finished"
    assert (run.directory / "report.html").stat().st_size > 10_000
    assert any(metric.startswith("test/") for metric in result["metrics"])
    assert all(goal["value"] is not None for goal in result["goals"]), "each stated goal is about a metric that is measured"
    assert result["objective"][0]["value"] is not None
    figures = list((run.directory / "figures").glob("*.png"))
    assert figures
    assert "synthetic" in (run.directory / "figures" / "figures.json").read_text().lower()
    assert result["synthetic"] is True


def environment(checkout, factory):
    own = {"SKYLOOM_CONF": ROOT / "conf", "SKYLOOM_RUNS": checkout.runs, "SKYLOOM_CACHE": factory.getbasetemp() / "cache"}
    usual = {"PATH": os.environ["PATH"], "HOME": str(factory.getbasetemp()), "PYTHONPATH": ""}
    return {**usual, **{k: str(v) for k, v in own.items()}}
