"""Sweeps: the study's laws on cheap functions, then real command lines that are pruned, killed, joined and taken up."""

import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from conftest import PACKAGE, ROOT
from skyloom.errors import ConfigError, UserError
from skyloom.run import Interrupted, list_runs
from skyloom.run.files import read_json
from skyloom.sweep import live_trial
from skyloom.sweep.page import summary, write_sweep
from skyloom.sweep.samplers import make_sampler
from skyloom.sweep.space import read_space
from skyloom.sweep.storage import hidden, open_storage
from skyloom.sweep.study import Sweep
from skyloom.sweep.workers import Worker, is_living

CONFIG = """
defaults:
  - _self_
  - sweep: auto
  - override hydra/sweeper: skyloom
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
pkg: parabola
experiment: null
seed: 0
runs_dir: RUNS
objective: [{metric: val/loss, direction: minimize}]
trial: null
trainer: {epochs: 10}
x: 0.0
y: 0.0
kind: plain
hydra: {output_subdir: null, run: {dir: .}, sweep: {dir: ., subdir: .}}
"""


def parabola(config):
    return (config.x - 1) ** 2


def failing(config):
    if config.x == 2:
        raise MemoryError("no room")
    return math.nan if config.x == 3 else float(config.x)


def stopping(config):
    if config.x == 2:
        raise Interrupted(signal.SIGTERM)
    return float(config.x)


def both(config):
    return (config.x - 1) ** 2, (config.x + 1) ** 2


def course(config):
    """Ten validations on the way to `y`; returns the last, or leaves when told to."""
    report = live_trial(dict(config.trial), list(config.objective))
    for step in range(1, 11):
        value = config.y + 1.0 / step
        if report({"val/loss": value}, 100 * step):
            raise optuna.TrialPruned(f"after {step}")
    return value


@pytest.fixture
def home(tmp_path):
    """A Hydra application of its own, with our sweep group."""
    shutil.copytree(ROOT / "conf" / "sweep", tmp_path / "conf" / "sweep")
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG.replace("RUNS", str(tmp_path / "runs")))
    return tmp_path


def swept(home, function, *words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(home / "conf"), version_base="1.3"):
        return GlobalHydra.instance().hydra.multirun("config", function, list(words), with_log_configuration=False)


def states(sweep):
    return [trial.state.name for trial in sweep.trials]


# -------------------------------------------------------------------- what is varied


def test_hydras_sweep_syntax_becomes_distributions():
    fixed, space = read_space(
        ["seed=1,2", "a=range(0,6,step=2)", "b=interval(1,9)", "c=int(interval(1,9))", "d=[1,2],[3]", "pkg=x", "+e=null,true"],
        {"optimizer.lr": "tag(log,interval(1e-4,1e-2))", "seed": "choice(7,8)", "f": "range(0.1,0.5,0.1)"},
    )
    d = {dimension.name: dimension.distribution for dimension in space.dimensions}
    assert fixed == ["pkg=x"]
    assert d["seed"].choices == (1, 2)  # the command line wins over sweep.space
    assert (d["a"].low, d["a"].high, d["a"].step) == (0, 4, 2)  # Hydra's range leaves out its end
    assert isinstance(d["b"], optuna.distributions.FloatDistribution)
    assert isinstance(d["c"], optuna.distributions.IntDistribution)
    assert d["d"].choices == ("[1,2]", "[3]")
    assert d["e"].choices == (None, True)
    assert d["optimizer.lr"].log
    assert d["f"].high == pytest.approx(0.4)
    assert space.points is None
    written = space.overrides({**space.first(), "e": None, "b": 1e-05})
    assert "+e=null" in written
    assert "b=1e-05" in written
    assert "d=[1,2]" in written


def test_values_come_back_from_an_override_exactly():
    _, space = read_space(["x=interval(0,1)"], {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(50):
        trial = study.ask()
        value = space.suggest(trial)["x"]
        assert float(space.overrides({"x": value})[0].split("=")[1]) == value


@pytest.mark.parametrize(
    ("words", "stated", "said"),
    [
        (["hardware=cpu,gpu"], {}, "hardware cannot be swept"),
        (["sweep.n_trials=1,2"], {}, "sweep.n_trials cannot be swept"),
        ([], {"x": "3"}, "x: 3 is one value"),
        ([], {"x": "interval(1"}, "cannot be read"),
        ([], {"x": "tag(log,interval(0,1))"}, "no values"),
        ([], {"x": "interval(2,1)"}, "no values"),
    ],
)
def test_a_space_that_cannot_be_says_why(words, stated, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_space(words, stated)


def test_a_grid_is_every_combination_in_the_order_written(home):
    sweep, stopped = swept(home, parabola, "x=0,1", "y=range(0,3)", "sweep.directory=g")
    assert stopped is None
    assert [tuple(t.params.values()) for t in sweep.trials] == [(x, y) for x in (0, 1) for y in (0, 1, 2)]
    assert [t.value for t in sweep.trials] == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ConfigError, match="values that can be listed"):
        swept(home, parabola, "sweep=grid", "x=interval(0,1)")
    with pytest.raises(ConfigError, match="how many trials"):
        swept(home, parabola, "x=interval(0,1)")


# -------------------------------------------------------------------- totals, draws, resume


@pytest.mark.parametrize("storage", ["null", "sqlite"])
def test_n_trials_is_a_total(home, storage):
    url = "null" if storage == "null" else f"sqlite:///{home}/study.db"
    words = ["sweep=tpe", "x=interval(-5,5)", f"sweep.storage={url}", "sweep.directory=s"]
    first, _ = swept(home, parabola, *words, "sweep.n_trials=3")
    assert len(first.trials) == 3
    before = [t.params for t in first.trials]
    second, _ = swept(home, parabola, *words, "sweep.n_trials=5")
    third, _ = swept(home, parabola, *words, "sweep.n_trials=5")
    assert len(second.trials) == len(third.trials) == 5
    assert [t.params for t in third.trials][:3] == before
    for trial in third.trials:
        assert trial.value == (trial.params["x"] - 1) ** 2


def directly(directory, sampler, total, seed=0, batch=1):
    """The same without Hydra: claim, evaluate, tell; new objects each time, as after a restart."""
    stated = yaml.safe_load((ROOT / "conf" / "sweep" / "sampler" / f"{sampler}.yaml").read_text())
    stated = {**stated, "n_startup_trials": 3} if "n_startup_trials" in stated else stated
    settings = {"sampler": stated, "pruner": {}, "n_trials": total, "storage": None, "seed": seed, "max_failure_rate": 0.5}
    config = {"pkg": "parabola", "experiment": None, "objective": [{"metric": "val/loss", "direction": "minimize"}]}
    _, space = read_space(["x=interval(-5,5)", "y=tag(log,interval(1e-3,1))"], {})
    sweep = Sweep(directory, settings, config, space, [])
    sweep.open()
    with Worker(directory, 100.0) as worker:
        while claims := sweep.claim(worker, batch):
            for claim in claims:
                sweep.tell(claim.number, (claim.params["x"] - 1) ** 2 + claim.params["y"])
    return [tuple(trial.params.values()) for trial in sweep.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "gp"])
def test_a_sweep_in_pieces_draws_what_a_whole_one_draws(tmp_path, sampler):
    n = 6 if sampler == "gp" else 24
    whole = directly(tmp_path / "whole", sampler, n)
    for part in (n // 3, n // 2, n):
        pieces = directly(tmp_path / "pieces", sampler, part)
    assert pieces == whole
    assert len(set(whole)) == n or sampler == "nsga2"  # whose parents may come back
    assert directly(tmp_path / "other", sampler, 2, seed=1) != whole[:2]


def test_trials_launched_together_differ(tmp_path):
    drawn = directly(tmp_path, "tpe", 12, batch=4)
    assert len(set(drawn)) == 12


def test_another_space_or_setting_is_another_sweep(home):
    swept(home, parabola, "x=1,2", "sweep.directory=s")
    with pytest.raises(ConfigError, match="the swept values of x"):
        swept(home, parabola, "x=1,3", "sweep.directory=s")
    with pytest.raises(ConfigError, match="trainer.epochs"):
        swept(home, parabola, "x=1,2", "trainer.epochs=3", "sweep.directory=s")
    with pytest.raises(ConfigError, match="sweep.sampler"):
        swept(home, parabola, "x=1,2", "sweep/sampler=random", "sweep.n_trials=3", "sweep.directory=s")


def test_a_failed_trial_is_told_why_and_the_sweep_goes_on(home):
    sweep, _ = swept(home, failing, "x=1,2,3,4", "sweep.directory=s")
    assert states(sweep) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    reasons = [t.user_attrs.get("reason", "") for t in sweep.trials]
    assert reasons[1] == "MemoryError: no room"
    assert "not a finite number" in reasons[2]
    with pytest.raises(UserError, match=r"1 of 2 trials failed.*no room"):
        swept(home, failing, "x=1,2,3,4", "sweep.max_failure_rate=0.2")
    with pytest.raises(UserError, match="3 of 3 trials failed"):
        swept(home, failing, "x=2", "y=range(0,20)", "sweep.max_failure_rate=0.9", "sweep/sampler=grid")


def test_a_stop_leaves_the_sweep_resumable(home):
    sweep, stopped = swept(home, stopping, "x=1,2,3", "sweep.directory=s")
    assert stopped == signal.SIGTERM
    assert states(sweep) == ["COMPLETE", "RUNNING"]
    sweep, stopped = swept(home, parabola, "x=1,2,3", "sweep.directory=s")
    assert stopped is None
    assert [t.value for t in sweep.trials] == [1.0, 1.0, 4.0]  # the first as it was, the others by the other function
    assert [t.user_attrs["attempts"] for t in sweep.trials] == [1, 1, 1]


def test_several_objectives_are_not_pruned_and_have_a_front(home):
    objective = "objective=[{metric: a, direction: minimize},{metric: b, direction: minimize}]"
    sweep, _ = swept(home, both, "x=-3,-1,0,1,3", objective, "sweep/pruner=median")
    assert sorted(t.params["x"] for t in sweep.study.best_trials) == [-1, 0, 1]
    assert live_trial(sweep.trial_identity(0), sweep.objective) is None
    page = write_sweep(sweep).read_text()
    assert "Pareto front" in page
    assert "none (several objectives)" in page


# -------------------------------------------------------------------- pruning


def test_pruning_compares_validations_and_stops_the_worse_half(home):
    values = [0.3, 0.2, 0.1, 5.0, 0.05, 6.0]
    words = [f"y={','.join(map(str, values))}", "sweep/pruner=median"]
    words += ["sweep.pruner.n_startup_trials=2", "sweep.pruner.n_warmup_steps=3", "sweep.pruner.n_min_trials=1"]
    sweep, _ = swept(home, course, *words)
    assert states(sweep) == ["COMPLETE"] * 3 + ["PRUNED", "COMPLETE", "PRUNED"]
    assert len(sweep.trials[3].intermediate_values) == 3  # the first validation at which it may be
    assert sweep.trials[3].value == pytest.approx(5 + 1 / 3)
    assert list(sweep.trials[0].intermediate_values) == list(range(1, 11))
    saved = summary(sweep)
    assert saved["counts"]["pruned"] == 2
    assert saved["best"] == [4]


def test_a_repeated_validation_is_not_reported_twice(home):
    sweep, _ = swept(home, stopping, "x=2", "y=0", "sweep/pruner=median")  # trial 0 stays RUNNING
    identity = sweep.trial_identity(0)
    report = live_trial(identity, sweep.objective)
    assert [report({"val/loss": v}, s) for v, s in ((3.0, 10), (2.0, 20))] == [False, False]
    again = live_trial(identity, sweep.objective)  # the run was killed after its validation at 20, before it saved
    again({"val/loss": 2.0}, 20)
    again({"val/loss": 1.0}, 30)
    assert sweep.trials[0].intermediate_values == {1: 3.0, 2: 2.0, 3: 1.0}
    sweep.tell(0, 1.0)
    assert live_trial(identity, sweep.objective)({"val/loss": 9.0}, 40) is False  # settled: a run on its own
    assert 4 not in sweep.trials[0].intermediate_values
    lost = live_trial({**identity, "storage": "sqlite:////nowhere/x.db"}, sweep.objective)
    with pytest.warns(UserWarning, match="storage failed"):
        assert lost({"val/loss": 1.0}, 1) is False


# -------------------------------------------------------------------- storage and workers


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
    import test_sweep

    def slowly(config):
        time.sleep(0.15)
        with open({log!r}, "a") as file:
            file.write(f"{{config.trial.number}}\\n")
        return test_sweep.parabola(config)

    test_sweep.swept(Path({home!r}), slowly, *sys.argv[1:])
"""


@pytest.mark.parametrize("storage", ["null", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_workers_started_as_separate_commands_never_share_a_trial(home, storage):
    url = "null" if storage == "null" else f"sqlite:///{home}/study.db"
    log = home / "ran.txt"
    script = home / "worker.py"
    script.write_text(textwrap.dedent(WORKER).format(tests=str(Path(__file__).parent), log=str(log), home=str(home)))
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


def test_seeds_of_trials_differ_and_are_reproducible():
    _, space = read_space(["x=interval(0,1)"], {})

    def first(number):
        study = optuna.create_study(sampler=make_sampler({}, space, 0, number))
        return study.ask().suggest_float("x", 0, 1)

    drawn = [first(number) for number in range(20)]
    assert len(set(drawn)) == 20
    assert drawn == [first(number) for number in range(20)]


# -------------------------------------------------------------------- real command lines

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
