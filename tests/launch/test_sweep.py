"""The laws of a study, on cheap functions: what is varied, totals, draws, resume, pruning."""

import re
import signal

import optuna
import pytest
import yaml

from conftest import ROOT
from parabola import both, course, failing, parabola, states, stopping, swept
from skyloom.errors import ConfigError, UserError
from skyloom.sweep import live_trial
from skyloom.sweep.page import summary, write_sweep
from skyloom.sweep.samplers import make_sampler
from skyloom.sweep.space import read_space
from skyloom.sweep.study import Sweep
from skyloom.sweep.workers import Worker

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


def test_seeds_of_trials_differ_and_are_reproducible():
    _, space = read_space(["x=interval(0,1)"], {})

    def first(number):
        study = optuna.create_study(sampler=make_sampler({}, space, 0, number))
        return study.ask().suggest_float("x", 0, 1)

    drawn = [first(number) for number in range(20)]
    assert len(set(drawn)) == 20
    assert drawn == [first(number) for number in range(20)]
