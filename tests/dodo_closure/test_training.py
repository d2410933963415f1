"""Losses, the plain network's limits, the loop's promises kept by this task, and what is said of a run."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dodo_closure import ClosureTask, conservation_error, draw_states, synthetic, total_density
from dodo_closure.figures import calibration, crossing_depth, error_distributions, flux_factors, per_species
from dodo_closure.fluxes import four_flux
from dodo_closure.inspect import inspect
from dodo_closure.losses import source_composite, weighted_l2
from dodo_closure.mlp import InvariantResidual
from dodo_closure.model import EquivariantResidual
from dodo_closure.sky import sky_maps
from dodo_closure.states import random_rotations, rotate
from dodo_closure.steerable import relation_means
from skyloom.data import Columns, Data
from skyloom.data.tables import read_columns
from skyloom.errors import ConfigError, UserError
from skyloom.launch.__main__ import main
from skyloom.run import Run, list_runs
from skyloom.training import Trainer
from skyloom.training.schedules import Cosine

ROOT = Path(__file__).resolve().parents[2]
GOAL = [{"metric": "val/mae", "direction": "minimize"}]


@pytest.fixture(scope="module")
def data():
    return synthetic(tier="t1", rows=240, heldout_rows=20, processes=1, seed=3)


def adam(module, lr=3e-3):
    return torch.optim.AdamW(module.parameters(), lr=lr)


def small(data, model=EquivariantResidual, **options) -> ClosureTask:
    torch.manual_seed(0)
    options = options or {"hidden": 16, "depth": 2, "members": 2}
    return ClosureTask(data.about, partial(model, **options))


# ------------------------------------------------------------------------------------------------------------------ losses


def test_loss_density_index():
    """A right density with a wrong x flux has no density loss: the density is the last component, not the first."""
    F = draw_states("random", 50, seed=0)
    F = (F / total_density(F)[:, None, None, None])[None]
    weight = torch.ones(1, 50, dtype=torch.float64)
    wrong = F + torch.tensor([0.01, 0, 0, 0], dtype=torch.float64)
    terms = source_composite(wrong, F, weight, 1.0)
    assert terms["density"] == 0
    assert terms["magnitude"] > 0 < terms["direction"]
    denser = source_composite(F + torch.tensor([0, 0, 0, 0.01], dtype=torch.float64), F, weight, 1.0)
    assert denser["density"] > 1e-3
    assert (denser["magnitude"], denser["direction"]) == pytest.approx((0, 0), abs=1e-12)
    for loss in (source_composite, weighted_l2):
        exact = loss(F, F, weight, 1.0)
        assert max(float(term) for term in exact.values()) < 1e-12
    negative = F.clone()
    negative[..., 0, 0, 3] = -0.1
    assert source_composite(negative, F, weight, 1.0)["unphysical"] > 1e-2
    assert weighted_l2(negative, F, weight, 1.0)["unphysical"] > 1e-4


def test_gradients_are_finite_where_nothing_flows():
    F = four_flux(torch.full((1, 4, 2, 3), 1 / 6, dtype=torch.float64), torch.zeros(1, 4, 2, 3, 3, dtype=torch.float64))
    for loss in (source_composite, weighted_l2):
        guess = F.clone().requires_grad_()
        loss(guess, F, torch.ones(1, 4, dtype=torch.float64), 0.01)["loss"].backward()
        assert bool(torch.isfinite(guess.grad).all())


def test_box3d_scores_one(data):
    F, box, weight = data.train["final"], data.train["box"][None], torch.ones(1, len(data.train), dtype=torch.float64)
    assert weighted_l2(box, F, weight, data.about["residual_rms"])["squared"].item() == pytest.approx(1, abs=1e-12)


def test_relation_means_commute_with_every_permutation():
    x = torch.randn(5, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for order in ([1, 0, 2], [1, 2, 0]):
        torch.testing.assert_close(relation_means(x[:, :, order]), relation_means(x)[:, :, order])
    torch.testing.assert_close(relation_means(x.flip(1)), relation_means(x).flip(1))


# ------------------------------------------------------------------------------------------------------------------ models


def turned(data, rows: int = 160) -> Columns:
    """Training rows with a truth that is a vector of the state: every flux of electron flavor 2% of N along its own."""
    columns = {name: value[:rows] for name, value in data.train.columns.items()}
    R = random_rotations(rows, torch.Generator().manual_seed(1))
    columns = {k: rotate(v, R) if k in ("initial", "final", "box", "smooth") else v for k, v in columns.items()}
    vector = columns["initial"][:, :, :1, :3]
    step = torch.cat([vector, -vector / 2, -vector / 2], dim=2) * 0.05
    return Columns({**columns, "final": columns["box"] + four_flux(torch.zeros_like(step[..., 0]), step)})


def test_mlp_cannot_learn_rotated_vectors(data):
    """Invariants do not say where a state points: the plain network stays at Box3D's error, the equivariant one does not."""
    rows = turned(data)
    fit = rows.take(np.arange(120))
    rest = rows.take(np.arange(120, 160))
    rms = float((fit["final"] - fit["box"]).square().mean().sqrt())
    about = {**data.about, "residual_rms": rms}
    split = Data(fit, rest, rest, about={**about, "fingerprint": "x", "synthetic": True}, carry=data.carry)
    skill = {}
    for name, model, options in (
        ("plain", InvariantResidual, {"hidden": 32, "depth": 2, "batch_norm": False, "dropout": 0.0}),
        ("equivariant", EquivariantResidual, {"hidden": 16, "depth": 2, "members": 2}),
    ):
        torch.manual_seed(0)
        task = ClosureTask(about, partial(model, **options))
        Trainer(epochs=25, batch_size=20, quiet=True, objective=GOAL).fit(task, split, adam, Cosine())
        with torch.no_grad():
            learned = task.eval().predict(rest.columns)["learned"]
        wrong, box = ((F - rest["final"]).abs().mean() for F in (learned, rest["box"]))
        skill[name] = float(1 - wrong / box)
    assert skill["plain"] < 0.1
    assert skill["equivariant"] > 0.3


@pytest.mark.parametrize("model", ["mlp", "state frame", "steerable"])
def test_every_model_starts_as_box3d_and_conserves(data, model):
    if model == "steerable":
        pytest.importorskip("e3nn")
        from dodo_closure.steerable import SteerableResidual as Model

        options: dict[str, object] = {"channels": 4, "depth": 1}
    else:
        Model = InvariantResidual
        options = {"hidden": 32, "depth": 2, "batch_norm": False, "frame": "state" if model == "state frame" else "fixed"}
    task = small(data, Model, **options).eval()
    batch = {name: value[:40] for name, value in data.train.columns.items()}
    with torch.no_grad():
        torch.testing.assert_close(task.predict(batch)["learned"], batch["box"], rtol=0, atol=1e-15)
        for name, parameter in task.named_parameters():
            if "head" in name or "strength" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
        R = random_rotations(40, torch.Generator().manual_seed(3))
        other = {k: rotate(v, R) if k in ("initial", "final", "box", "smooth") else v for k, v in batch.items()}
        after, again = task.predict(batch)["learned"], task.predict(other)["learned"]
    assert (after - batch["box"]).abs().mean() > 1e-5
    assert max(part.max() for part in conservation_error(batch["initial"], after)) < 1e-12
    error = (again - rotate(after, R)).abs().max()
    assert error > 1e-4 if model == "mlp" else error < 1e-6


# ---------------------------------------------------------------------------------------------------------- loop and splits


def test_scheduler_endpoints():
    schedule = Cosine(warmup=500, unit="steps", floor=1e-3)
    factor = [schedule.factor(step, 4200, 84) for step in range(4200)]
    assert factor[0] == pytest.approx(1 / 501, rel=1e-6)
    assert factor[500] == max(factor) == 1
    assert schedule.after(1.0) == pytest.approx(1e-3)
    assert all(a >= b for a, b in pairwise(factor[500:]))


class Stopping:
    """Data that stop the training in the middle of its third epoch."""

    def __init__(self, data, after: int):
        self.data, self.left = data, after

    def __len__(self):
        return len(self.data)

    def __getitems__(self, rows):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.data.__getitems__(rows)


def fitted(data, folder: Path, name: str, train=None) -> tuple[ClosureTask, Run]:
    directory = folder / name
    run = Run.open(directory) if directory.exists() else Run.create(folder, {"pkg": "dodo_closure"}, directory=directory)
    run.writable = True
    split = Data(train or data.train, data.val, data.test, data.about, data.carry, data.group)
    task = small(data)
    Trainer(epochs=4, batch_size=40, quiet=True, objective=GOAL).fit(task, split, adam, Cosine(), run)
    return task, run


def test_resume_exact(data, tmp_path):
    whole, _ = fitted(data, tmp_path, "whole")
    with pytest.raises(KeyboardInterrupt):
        fitted(data, tmp_path, "stopped", Stopping(data.train, 10))
    again, _ = fitted(data, tmp_path, "stopped")
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_best_checkpoint_used_for_test(data, tmp_path):
    """The weights that are scored are those of the best validation, not the last."""
    from skyloom.training.checkpoints import load_best

    _, run = fitted(data, tmp_path, "run")
    rows = [row["val/mae"] for row in run.rows() if "val/mae" in row]
    best = load_best(run.checkpoints)
    assert best["metrics"]["val/mae"] == pytest.approx(min(rows), rel=1e-6)
    task = small(data)
    task.load_state_dict(best["task"])
    with torch.no_grad():
        found = task.eval().predict(data.val.columns)
    score = task.score({**found, **{name: data.val[name] for name in data.carry}})
    assert score["mae"] == pytest.approx(min(rows), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ command lines


def test_missing_resume_raises(tmp_path, capsys):
    assert main(["train", f"run={tmp_path}/nowhere", f"runs_dir={tmp_path}"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_metrics_schema_and_baseline_zero_skill(run, data):
    metrics = run.result["metrics"]
    wanted = [
        "mae",
        "mae_identity",
        "mae_box3d",
        "mae_smooth",
        "skill",
        "improved",
        "coverage68",
        "fallen_back",
        "conservation",
    ]
    for prefix in ("test/", "test/heldout_"):
        for name in wanted:
            value = metrics[f"{prefix}{name}"]
            assert value["low"] <= value["value"] + 1e-12 and value["value"] <= value["high"] + 1e-12
    task = small(data)
    columns = {name: data.test[name] for name in data.carry}
    with torch.no_grad():
        out = task.predict(data.test.columns)
    scores = task.score({**columns, **out, "predicted": data.test["box"]})
    assert (scores["skill"], scores["heldout_skill"], scores["improved"]) == (0, 0, 0)


def test_inspect_matches_train_loss(run):
    shown = inspect(run, split="val", samples=1000, worst=3)
    metric = run.result["metrics"]["val/mae"]
    assert shown["mean |dF| / N"] == pytest.approx(metric["value"] if isinstance(metric, dict) else metric, rel=1e-4)
    assert shown["loss"] == pytest.approx(shown["loss squared"] + shown["loss absolute"] + shown["loss bars"], rel=1e-4)
    assert sum(name.startswith("row ") for name in shown) == 3
    with pytest.raises(ConfigError, match="split=tests"):
        inspect(run, split="tests")


def test_plotters_empty_and_nonempty(run, tmp_path):
    p, about = read_columns(run.directory / "predictions" / "test.parquet")
    assert (per_species(p, tmp_path / "species.png")["predicted"][..., 0] > 0).all()
    shown = calibration(p, about, tmp_path / "calibration.png")
    assert all((np.diff(part["covered"]) >= 0).all() for part in shown.values())
    assert max(part.max() for part in flux_factors(p, tmp_path / "factors.png").values()) <= 1
    row = sky_maps(p, tmp_path / "sky.png")
    assert 0 <= row < len(p["final"])
    assert len(list(tmp_path.glob("*.png"))) == 4
    only = {name: value[:1] for name, value in p.items()}
    assert list(crossing_depth(only, tmp_path / "one.png")["ratio"]) == [p["smaller"][0] / p["larger"][0]]
    assert len(error_distributions(only, about, tmp_path / "one.png")) == 1


@pytest.mark.slow
def test_study_isolated_dirs_and_metric_rank(tmp_path, monkeypatch):
    """Two settings whose losses are not comparable: ranked by an error that holds no weight of the loss."""
    monkeypatch.chdir(ROOT)
    words = ["sweep", "pkg=dodo_closure", "+experiment=source_replica", "scale=smoke", "hardware.threads=1", "logger=none"]
    assert main([*words, "task.terms.w_density=1.0,0.001", f"runs_dir={tmp_path}/runs", f"cache_dir={tmp_path}/cache"]) == 0
    runs = list_runs(tmp_path / "runs")
    assert len({run.directory for run in runs}) == 2
    assert {run.config["task"]["terms"]["w_density"] for run in runs} == {1.0, 0.001}
    assert all(run.config["objective"][0]["metric"] == "val/mae" for run in runs)


def test_a_split_without_rows_is_named(data):
    with pytest.raises(UserError, match="the val split is empty"):
        Data(data.train, data.val.take(np.array([], dtype=int)), data.test, data.about, data.carry, data.group)
