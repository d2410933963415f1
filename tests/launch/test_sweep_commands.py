"""Sweeps by real command lines: pruned, killed, joined and taken up."""

import signal
import time

import pytest

from conftest import PACKAGE
from skyloom.run import list_runs
from skyloom.run.files import read_json

SMOKE = (f"pkg={PACKAGE}", "scale=smoke", "hardware.threads=1", "logger=none", "data.rows=400")


@pytest.fixture
def without_pages(monkeypatch):
    """Pages have tests of their own, and take longer than the trials here."""
    monkeypatch.setattr("skyloom.launch.sweeping.write_page", lambda directory: None)
    monkeypatch.setattr("skyloom.sweep.page._figures", lambda sweep, trials: [])
    monkeypatch.setattr("skyloom.sweep.page._write_group", lambda sweep: None)


def studied(checkout):
    [path] = checkout.runs.glob("*/*/*/study.json")
    return path.parent, read_json(path)


def test_three_trials_from_the_command_line(checkout, monkeypatch):
    monkeypatch.setattr(
        "skyloom.launch.sweeping.write_page", lambda directory: (directory / "report.html").write_text("its page")
    )
    done = checkout.call("sweep", *SMOKE, "seed=1,2,3", "trainer.epochs=1")
    assert done.code == 0, done.err
    directory, study = studied(checkout)
    assert [t["status"] for t in study["trials"]] == ["finished"] * 3
    assert [t["params"] for t in study["trials"]] == [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    assert str(directory) in done.out
    for trial in study["trials"]:
        run = next(r for r in list_runs(checkout.runs) if r.directory == directory / trial["run"])
        assert run.config["seed"] == trial["params"]["seed"]
        assert run.result["objective"][0]["value"] == trial["values"][0]
        assert run.result["sweep"] == {"id": directory.name, "trial": trial["number"]}
        assert "sweep" not in run.provenance["command"]
    assert study["best"] == [min(study["trials"], key=lambda t: t["values"])["number"]]
    page = (directory / "report.html").read_text()
    assert "synthetic" in page
    assert "2/report.html" in page
    assert (directory / "group" / "settings.csv").exists()

    wrong = checkout.call("sweep", *SMOKE, "seed=1,2", "trainer.epoch=1")
    assert (wrong.code, "trainer.epochs" in wrong.err) == (2, True)
    wrong = checkout.call("sweep", *SMOKE, "trainer.epoch=1,2")
    assert wrong.code == 2
    assert "trainer.epoch" in wrong.err
    assert len(list(checkout.runs.glob("*/*/sweep-*/sweep.json"))) == 1


def test_a_bad_trial_is_pruned_early_and_its_run_says_so(checkout, without_pages):
    words = ["optimizer.lr=1e-2,8e-3,1e-9", "sweep/pruner=median", "trainer.epochs=6", "schedule=constant"]
    words += [f"sweep.pruner.{k}=1" for k in ("n_startup_trials", "n_warmup_steps", "n_min_trials")]
    done = checkout.call("sweep", *SMOKE, *words)
    assert done.code == 0, done.err
    directory, study = studied(checkout)
    last = study["trials"][2]
    assert last["status"] == "pruned"
    assert last["validations"] < 6
    run = next(r for r in list_runs(checkout.runs) if r.directory == directory / "2")
    assert run.result["status"] == "pruned"
    assert len([row for row in run.rows() if "val/nll" in row]) == last["validations"]
    assert run.result["objective"][0]["value"] == last["values"][0]


def test_a_killed_sweep_repeats_nothing_and_takes_up_the_trial_it_was_in(checkout, without_pages):
    words = [*SMOKE, "seed=1,2", "trainer.epochs=60", "sweep.directory=s"]
    process = checkout.start("sweep", *words)
    directory = checkout.runs / PACKAGE / "default" / "s"
    _wait(lambda: len(_rows(directory / "1")) > 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (directory / "0" / "metrics.jsonl").read_bytes()
    started = read_json(directory / "1" / "result.json")["started"]

    done = checkout.call("sweep", f"run={directory.name}")
    assert done.code == 0, done.err
    assert "trial 1 of 2 (taken up again)" in done.err
    assert "resuming at step" in done.err
    _, study = studied(checkout)
    assert [t["status"] for t in study["trials"]] == ["finished"] * 2
    assert (directory / "0" / "metrics.jsonl").read_bytes() == first
    assert read_json(directory / "1" / "result.json")["started"] == started

    alone = checkout.call("train", *SMOKE, "seed=2", "trainer.epochs=60")
    assert alone.code == 0, alone.err
    metrics = checkout.newest().result["metrics"]["val/nll"]["value"]
    assert study["trials"][1]["values"] == [metrics]  # as if it had never been killed


def _rows(directory):
    path = directory / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def _wait(ready, process, seconds=90):
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_two_real_workers_and_a_stop_by_signal(checkout):
    words = [*SMOKE, "seed=1,2,3,4", "trainer.epochs=30", "sweep.directory=s", "data.rows=1500"]
    workers = [checkout.start("sweep", *words) for _ in range(2)]
    directory = checkout.runs / PACKAGE / "default" / "s"
    _wait(lambda: len(_rows(directory / "1")) > 2, workers[0])
    workers[1].send_signal(signal.SIGTERM)
    out, _ = workers[1].communicate(timeout=120)
    assert workers[1].returncode == 0
    assert "resume: make sweep" in out
    _, err = workers[0].communicate(timeout=240)
    assert workers[0].returncode == 0, err
    _, study = studied(checkout)
    assert [t["status"] for t in study["trials"]] == ["finished"] * 4  # the first took up what the second had left


@pytest.mark.slow
def test_trials_side_by_side_under_joblib(checkout):
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "optimizer.lr=1e-3,1e-2,nan,1e-4", "trainer.epochs=2"]
    done = checkout.run("sweep", *SMOKE, *words)
    assert done.code == 0, done.err
    _, study = studied(checkout)
    assert [t["status"] for t in study["trials"]] == ["finished", "finished", "failed", "finished"]
    assert study["trials"][2]["reason"]
