"""Runs through a queue: submitit's local executor here, preempted for real; and the file that Slurm's sbatch would get."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import PACKAGE
from skyloom.launch.submission import surviving_preemption
from skyloom.run import Interrupted, list_runs

SMOKE = (f"pkg={PACKAGE}", "scale=smoke", "hardware.threads=1", "logger=none", "data.rows=400")


def tasks(controller: int) -> list[int]:
    """Processes that submitit's controller has started."""
    listed = Path(f"/proc/{controller}/task/{controller}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def wait(ready, seconds=240):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def rows(run):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.rows()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the job's process in /proc")
def test_a_preempted_job_goes_on_in_its_directory_from_where_it_saved(checkout):
    command = [
        sys.executable,
        "-m",
        "skyloom.launch",
        "train",
        *SMOKE,
        "trainer.epochs=80",
        "hardware.launcher=submitit_local",
    ]
    with open(checkout.root / "said.txt", "w") as said:  # a pipe would stay open as long as the job, which outlives the command
        subprocess.run(command, cwd=checkout.root, env=checkout.environment(), stdout=said, stderr=said, check=True)
    [run] = list_runs(checkout.runs)  # made when it was submitted
    job = run.result["job"]
    assert f"job {job['id']}" in (checkout.root / "said.txt").read_text()
    assert run.provenance["commit"] is not None or run.provenance["submitted"]
    wait(lambda: len(run.rows()) > 3)
    [task] = tasks(int(job["id"]))
    os.kill(task, signal.SIGUSR2)
    wait(lambda: tasks(int(job["id"])) not in ([task], []))  # submitit has started it again
    wait(lambda: run.result["status"] == "finished")
    assert "Requeued job" in Path(job["log"]).read_text()
    assert "resuming at step" in Path(job["log"].replace(".out", ".err")).read_text()
    assert len(list_runs(checkout.runs)) == 1
    wait(lambda: not Path(f"/proc/{job['id']}").exists() or not tasks(int(job["id"])))

    alone = checkout.call("train", *SMOKE, "trainer.epochs=80")
    assert alone.code == 0, alone.err
    other = checkout.newest()
    assert other.directory != run.directory
    assert rows(other) == rows(run)
    assert other.result["metrics"] == run.result["metrics"]


FAKE = """#!/bin/sh
cp "$1" "{copy}"
echo "Submitted batch job 77"
"""


def test_what_slurm_is_told(checkout, tmp_path, monkeypatch):
    for name in ("srun", "sbatch"):
        path = tmp_path / name
        path.write_text(FAKE.format(copy=tmp_path / "submitted.sh"))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = [
        "hardware=slurm",
        "devices=2",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu",
        "hydra.launcher.signal_delay_s=90",
    ]
    done = checkout.run("train", *SMOKE, *words)
    assert done.code == 0, done.err
    told = (tmp_path / "submitted.sh").read_text()
    for line in ("--ntasks-per-node=2", "--gpus-per-node=2", "--nodes=1", "--partition=gpu", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in told, told
    [run] = list_runs(checkout.runs)
    assert run.result["job"]["id"] == "77"
    assert run.status == "submitted"
    assert str(run.directory / "submitit") in told


def test_a_queue_that_is_not_there_is_a_plain_message(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = checkout.call("train", *SMOKE, "hardware=slurm")
    assert done.code == 2
    assert "slurm" in done.err
    assert [run.status for run in list_runs(checkout.runs)] in (["failed"], [])
    done = checkout.call("train", *SMOKE, "hardware.launcher=joblib")
    assert done.code == 2
    assert "submitit_slurm" in done.err


class Handler:
    """submitit's, as far as it is used."""

    def __init__(self):
        self.called: list[int] = []

    def __call__(self, signum, frame):
        self.called.append(signum)


@pytest.fixture
def inside_a_job(monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    handler = Handler()
    before = signal.signal(signal.SIGUSR2, handler)
    yield handler
    signal.signal(signal.SIGUSR2, before)


def test_only_a_run_that_has_saved_itself_is_requeued(inside_a_job):
    def stopped_when_asked():
        def stop(signum, frame):
            seen.append(signum)

        before = signal.signal(signal.SIGUSR1, stop)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert inside_a_job.called == []  # not in the middle of a step
        signal.signal(signal.SIGUSR1, before)
        raise Interrupted(seen[0])

    seen: list[int] = []
    with pytest.raises(Interrupted):
        surviving_preemption(stopped_when_asked)
    assert seen == [signal.SIGUSR1]
    assert inside_a_job.called == [signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is inside_a_job


def test_a_cancelled_or_a_finished_job_is_not_requeued(inside_a_job):
    def cancelled():
        raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        surviving_preemption(cancelled)
    assert surviving_preemption(lambda: 3) == 3
    assert inside_a_job.called == []


def test_before_the_run_begins_the_job_is_requeued_at_once(inside_a_job):
    surviving_preemption(lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert inside_a_job.called == [signal.SIGUSR2]


def test_outside_a_job_nothing_is_touched(monkeypatch):
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    before = signal.getsignal(signal.SIGUSR2)
    assert surviving_preemption(lambda: signal.getsignal(signal.SIGUSR2)) is before
