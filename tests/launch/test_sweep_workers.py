"""Storage and workers of a sweep: killed, joined, given up."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest

from parabola import parabola, states, stopping, swept
from skyloom.errors import ConfigError
from skyloom.run.files import read_json
from skyloom.sweep.storage import hidden, open_storage
from skyloom.sweep.workers import Worker, is_living


def _hold(directory, queue):
    with Worker(Path(directory), 1000.0) as worker:
        queue.put(worker.id)
        time.sleep(60)


def test_a_killed_worker_is_dead_at_once_and_a_living_one_is_not(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_hold, args=(str(tmp_path), queue))
    process.start()
    name = queue.get(timeout=60)
    assert is_living(tmp_path, name, lease=1000.0)
    process.kill()
    process.join()
    assert not is_living(tmp_path, name, lease=1000.0)
    path = tmp_path / "workers" / f"{name}.json"
    path.write_text(json.dumps({**read_json(path), "machine": "another"}))  # there, only the file's age can tell
    assert is_living(tmp_path, name, lease=1000.0)
    os.utime(path, (time.time() - 2000, time.time() - 2000))
    assert not is_living(tmp_path, name, lease=1000.0)


def test_a_journal_outlives_a_writer_killed_in_the_middle_of_a_line(tmp_path):
    study = optuna.create_study(study_name="s", storage=open_storage(None, tmp_path))
    study.tell(study.ask().number, 1.0)
    with open(tmp_path / "journal.log", "a") as journal:
        journal.write('{"op_code":4,"worker_id":"x","study_')
    again = optuna.load_study(study_name="s", storage=open_storage(None, tmp_path))
    again.tell(again.ask().number, 2.0)
    fresh = optuna.load_study(study_name="s", storage=open_storage(None, tmp_path))
    assert [t.value for t in fresh.trials] == [1.0, 2.0]


def test_a_password_is_not_written_down(tmp_path):
    url = "postgresql://ada:se:cret@db.example/sweeps"
    assert "cret" not in hidden(url)
    assert hidden("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    with pytest.raises(ConfigError, match="give sweep.storage"):
        open_storage(hidden(url), tmp_path)
    with pytest.raises(ConfigError, match="is no URL"):
        open_storage("study.db", tmp_path)


WORKER = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import parabola

    def slowly(config):
        time.sleep(0.15)
        with open({log!r}, "a") as file:
            file.write(f"{{config.trial.number}}\\n")
        return parabola.parabola(config)

    parabola.swept(Path({home!r}), slowly, *sys.argv[1:])
"""


@pytest.mark.parametrize("storage", ["null", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_workers_started_as_separate_commands_never_share_a_trial(home, storage):
    url = "null" if storage == "null" else f"sqlite:///{home}/study.db"
    log = home / "ran.txt"
    script = home / "worker.py"
    script.write_text(textwrap.dedent(WORKER).format(tests=str(Path(__file__).parents[1]), log=str(log), home=str(home)))
    words = ["x=range(0,4)", "y=range(0,3)", "sweep.directory=s", f"sweep.storage={url}"]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    processes = [subprocess.Popen([sys.executable, str(script), *words], env=path) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(12))
    sweep, _ = swept(home, parabola, *words)
    assert states(sweep) == ["COMPLETE"] * 12
    points = {tuple(t.params.values()) for t in sweep.trials}
    assert len(points) == 12
    assert len({t.user_attrs["worker"] for t in sweep.trials}) == 2  # both did some


def test_a_process_that_dies_each_time_is_given_up(home):
    sweep, _ = swept(home, stopping, "x=2", "y=0", "sweep.directory=s")
    with Worker(sweep.directory, 100.0) as worker:
        for attempt in range(3):
            claims = sweep.claim(worker, 1)
            assert [c.number for c in claims] == [0], attempt
        assert sweep.claim(worker, 1) == []
    assert states(sweep) == ["FAIL"]
    assert "killed 3 times" in sweep.trials[0].user_attrs["reason"]
