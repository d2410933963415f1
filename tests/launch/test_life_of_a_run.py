"""Real command lines, from the first word to the last file: trained, killed, taken up, scored, exported, repeated."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from conftest import PACKAGE
from skyloom.data.tables import read_columns
from skyloom.launch.build import build
from skyloom.run import Interrupted, StopSignals, list_runs

SMOKE = (f"pkg={PACKAGE}", "scale=smoke", "hardware.threads=1")


def rows(run):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.rows()]


def weights(run, name="best"):
    return torch.load(run.checkpoints / f"{name}.pt", weights_only=True)["task"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_writes_all_that_later_verbs_need(checkout):
    done = checkout.call("train", *SMOKE, f"+experiment={PACKAGE}_start", "trainer.epochs=5")
    assert done.code == 0, done.err
    run = checkout.newest()
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "result.json", "report.html", "figures/fit.png"):
        assert (run.directory / name).stat().st_size > 100, name
    result = run.result
    assert result["status"] == "finished"
    assert result["synthetic"] is True
    assert result["device"] == "CPU"
    for metric in result["metrics"].values():
        if metric["low"] is not None:
            assert metric["low"] <= metric["value"] <= metric["high"]
    assert [g["met"] for g in result["goals"]] != [None, None]
    assert "synthetic" in done.out
    assert str(run.directory) in done.out
    predictions, about = read_columns(run.directory / "predictions" / "test.parquet")
    assert len(predictions["mean"]) == result["splits"]["test"]
    assert about["synthetic"] is True
    stored = pd.Series(result["metrics"]["test/mae"]["value"])
    assert stored[0] == pytest.approx(abs(predictions["y"] - predictions["mean"]).mean(), rel=1e-5)

    listed = checkout.call("runs", f"pkg={PACKAGE}").out
    assert run.id in listed
    assert "finished" in listed
    assert "of 2" in listed

    before = result["metrics"]
    again = checkout.call("evaluate", f"run={run.id[-5:]}")
    assert again.code == 0, again.err
    assert run.result["metrics"] == before

    table = checkout.root / "new.csv"
    pd.DataFrame({"x": [0.1, 0.5, 3.0]}).to_csv(table, index=False)
    done = checkout.call("predict", f"run={run.directory}", f"input={table}")
    assert done.code == 0, done.err
    predicted, _ = read_columns(run.directory / "predictions" / "new.parquet")
    assert list(predicted["outside_training_range"]) == [False, False, True]
    missing = checkout.call("predict", "run=last", "input=absent.csv")
    assert (missing.code, "absent.csv does not exist" in missing.err) == (2, True)

    done = checkout.call("export", "run=last")
    assert done.code == 0, done.err
    graph = torch.export.load(run.directory / "export" / "model.pt2").module()
    assert float(graph({"x": torch.tensor([0.1, 0.5])})["mean"][0]) == pytest.approx(float(predicted["mean"][0]), abs=1e-5)

    done = checkout.call("rerun", "run=last")
    assert done.code == 0, done.err
    assert "all metrics agree" in done.err
    repeated = checkout.newest()
    assert repeated.result["rerun"] == {"of": run.id, "agrees": True, "differences": {}}
    longer = checkout.call("train", f"run={repeated.directory}", "trainer.epochs=6")
    assert longer.code == 0, longer.err
    assert repeated.rows()[-1]["epoch"] == 5

    page = checkout.call("report", "run=last")
    assert page.code == 0
    assert "report.html" in page.out


def until(condition, seconds=120):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def steps_of(checkout):
    runs = list_runs(checkout.runs)
    return runs[0].rows()[-1]["step"] if runs and runs[0].rows() else 0


LONG = (*SMOKE, "trainer.epochs=60", "trainer.log_every=1", "logger=none")


@pytest.fixture
def reference(checkout, tmp_path):
    """The same run, never stopped."""
    done = checkout.call("train", *LONG, f"runs_dir={tmp_path}/reference")
    assert done.code == 0, done.err
    return list_runs(tmp_path / "reference")[0]


def test_killed_at_any_moment_and_taken_up_again_it_is_the_same_run(checkout, reference):
    words = (*LONG, "trainer.checkpoint_every=0.0")
    process = checkout.start("train", *words)
    until(lambda: steps_of(checkout) >= 30)
    process.kill()
    process.communicate()
    run = checkout.newest()
    assert run.status == "killed"
    assert "killed" in checkout.call("runs").out
    process = checkout.start("train", f"run={run.id[-5:]}")
    until(lambda: steps_of(checkout) >= 150)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = checkout.call("train", f"run={run.directory}")
    assert done.code == 0, done.err
    assert "resuming at step" in done.err
    assert equal(weights(run), weights(reference))
    assert equal(weights(run, "last"), weights(reference, "last"))
    assert rows(run) == rows(reference)
    metrics, expected = run.result["metrics"], reference.result["metrics"]
    assert metrics == expected
    assert run.status == "finished"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_signal_ends_in_a_saved_step_and_a_clean_exit(signum, checkout):
    process = checkout.start("train", *LONG)
    until(lambda: steps_of(checkout) >= 5)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if signum == signal.SIGINT else 0), err
    run = checkout.newest()
    assert run.status == "interrupted"
    assert signal.Signals(signum).name in run.result["reason"]
    saved = torch.load(run.checkpoints / "last.pt", weights_only=True)["progress"]
    assert saved["step"] == run.rows()[-1]["step"]
    assert f"make train run={run.directory.relative_to(checkout.root)}" in out or f"run={run.directory}" in out


def test_resume_auto_takes_up_the_unfinished_run_else_starts(checkout):
    short = (*SMOKE, "logger=none", "resume=auto")
    assert checkout.call("train", *short).code == 0
    first = checkout.newest()
    assert checkout.call("train", *short).code == 0
    assert len(list_runs(checkout.runs)) == 2
    first.writable = True
    first.update(status="interrupted")
    assert checkout.call("train", *short).code == 0
    assert len(list_runs(checkout.runs)) == 2
    assert first.status == "finished"


def test_a_resume_refuses_what_would_make_another_run_and_takes_the_rest(checkout):
    assert checkout.call("train", *SMOKE, "logger=none").code == 0
    run = checkout.newest()
    before = (run.directory / "result.json").read_text()
    idle = checkout.call("train", "run=last")
    assert (idle.code, "this run is finished" in idle.out) == (0, True)
    assert (run.directory / "result.json").read_text() == before
    refused = checkout.call("train", "run=last", "model.hidden=32", "data.rows=900")
    assert refused.code == 2
    assert "cannot be resumed with data.rows, model.hidden changed" in refused.err
    longer = checkout.call("train", "run=last", "trainer.epochs=5")
    assert longer.code == 0, longer.err
    assert run.rows()[-1]["epoch"] == 4
    assert run.config["trainer"]["epochs"] == 5


def test_two_processes_train_as_one(checkout, tmp_path):
    """121 rows to validate in batches of 20: one process has a part more than the other."""
    done = checkout.call("train", *SMOKE, "logger=none", f"runs_dir={tmp_path}/one", "data.rows=1210", "trainer.batch_size=20")
    assert done.code == 0, done.err
    both = checkout.run("train", f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware=ddp_cpu", "devices=2",
                        f"runs_dir={tmp_path}/two", "data.rows=1210", "trainer.batch_size=20")  # fmt: skip
    assert both.code == 0, both.err
    one, two = (list_runs(tmp_path / name)[0] for name in ("one", "two"))
    a, b = rows(one), rows(two)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, abs=1e-5)
    assert one.result["splits"]["test"] == 121  # odd: a sampler would have doubled a row
    p, q = (read_columns(run.directory / "predictions" / "test.parquet")[0] for run in (one, two))
    assert list(p["row"]) == list(q["row"])
    assert abs(p["mean"] - q["mean"]).max() < 1e-4
    assert sorted(f.name for f in one.directory.rglob("*")) == sorted(f.name for f in two.directory.rglob("*"))


def test_two_processes_are_stopped_together_and_resumed(checkout):
    words = (f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware=ddp_cpu", "trainer.epochs=300", "trainer.log_every=1")
    process = checkout.start("train", *words)
    until(lambda: steps_of(checkout) >= 5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    run = checkout.newest()
    assert run.status == "interrupted"
    step = torch.load(run.checkpoints / "last.pt", weights_only=True)["progress"]["step"]
    assert step == run.rows()[-1]["step"]
    done = checkout.run("train", f"run={run.directory}", f"trainer.epochs={step // 7 + 1}")
    assert done.code == 0, done.err
    assert run.status == "finished"


def test_a_signal_while_something_is_built_is_no_fault_of_what_is_built():
    with StopSignals(), pytest.raises(Interrupted, match="SIGTERM"):
        build({"data": {"_target_": "signal.raise_signal", "_args_": [int(signal.SIGTERM)]}}, "data")


@pytest.mark.slow
def test_a_mistake_that_one_process_meets_is_the_runs(checkout):
    """Where the command starts the processes, and where a scheduler has started them."""
    path = checkout.root / "packages" / PACKAGE / "src" / PACKAGE / "task.py"
    bad = """def losses(self, batch):
        import os

        from skyloom.errors import DataError

        if os.environ.get("LOCAL_RANK") == "1":
            raise DataError("row 7 is no number")
        return self._losses(batch)

    def _losses(self, batch"""
    path.write_text(path.read_text().replace("def losses(self, batch", bad, 1))
    done = checkout.run("train", f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware=ddp_cpu")
    assert done.code == 2, done.err
    assert "row 7 is no number" in done.err
    assert "Traceback" not in done.err
    run = checkout.newest()
    assert run.result["reason"] == "row 7 is no number"

    run.update(reason=None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scheduled = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = f"from skyloom.launch.submission import SubmittedRun; SubmittedRun({str(run.directory)!r})()"
    started = []
    for rank in "01":
        own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "SLURM_PROCID": rank}
        where = {"cwd": checkout.root, "env": {**checkout.environment(), **scheduled, **own}}
        started.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **where))
    for process in started:
        assert "row 7 is no number" in process.communicate(timeout=120)[1].splitlines()[-1]
    assert run.result["reason"] == "row 7 is no number"
    assert not (run.directory / "mistake.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 0.5, 2.0, 4.0])
def test_a_signal_while_processes_start_is_heard_by_all(checkout, wait):
    process = checkout.start("train", f"pkg={PACKAGE}", "scale=smoke", "logger=none", "hardware=ddp_cpu", "trainer.epochs=3000")
    until(lambda: list(checkout.root.glob("runs/*/*/*/provenance.json")) and checkout.newest().status == "running")
    time.sleep(wait)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert checkout.newest().status == "interrupted"


def test_a_bug_is_ours_with_a_traceback_and_the_run_is_failed(checkout):
    path = checkout.root / "packages" / PACKAGE / "src" / PACKAGE / "task.py"
    path.write_text(path.read_text().replace("def score(self, predictions", "def score(self, predictions_", 1))
    done = checkout.run("train", *SMOKE, "logger=none")
    assert done.code == 1
    assert "Traceback" in done.err
    run = checkout.newest()
    assert run.status == "failed"
    assert "NameError" in run.result["reason"]


def test_a_mistake_has_no_traceback_unless_asked(checkout):
    words = ("train", *SMOKE, "trainer.batch_size=100000", "logger=none")
    plain, debug = checkout.call(*words), checkout.call(*words, "debug=true")
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert plain.code == debug.code == 2
    assert checkout.newest().status == "failed"
    assert "fewer than one batch" in json.loads((checkout.newest().directory / "result.json").read_text())["reason"]


def test_debug_presets_do_what_they_say(checkout):
    assert checkout.call("train", *SMOKE, "+debug=one_step").code == 0
    assert checkout.newest().rows()[-1]["step"] == 1
    assert checkout.call("train", *SMOKE, "+debug=profiler", "trainer.epochs=2", "trainer.profile=3").code == 0
    assert "aten::" in (checkout.newest().directory / "profile" / "table.txt").read_text()
    assert json.loads((checkout.newest().directory / "profile" / "trace.json").read_text())["traceEvents"]
