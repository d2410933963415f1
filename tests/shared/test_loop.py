"""What each setting of the loop does, against plain PyTorch or by its definition."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skyloom.data import Columns
from skyloom.errors import ConfigError
from skyloom.run import Run
from skyloom.training import NonFinite, Pruned, Trainer
from skyloom.training.averaging import Average
from skyloom.training.optimizers import optimizer, parameter_groups
from skyloom.training.order import Order
from skyloom.training.schedules import Constant, Cosine, OneCycle, Plateau
from training_problem import Curve, curve_data

MSE = [{"metric": "val/mse", "direction": "minimize"}]


def trainer(**settings):
    return Trainer(**{"epochs": 2, "batch_size": 20, "quiet": True, "objective": MSE, **settings})


class Line(nn.Module):
    """Without dropout or normalisation, so that parts of a batch add up exactly."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(2))

    def losses(self, batch):
        return {"loss": (batch["x"] @ self.weight - batch["y"]).square().mean()}

    def predict(self, batch):
        return {"y_hat": batch["x"] @ self.weight}

    def score(self, predictions):
        return {"mse": float((predictions["y_hat"] - predictions["y"]).detach().square().mean())}


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def final(task, **settings):
    loop = trainer(**{"ema_decay": None, **settings})
    data = curve_data(augment=None)
    loop.fit(task, data, sgd, Constant())
    return task.weight.detach()


def test_the_loop_is_plain_gradient_descent():
    data, task = curve_data(augment=None), Line()
    plain = sgd(task)
    order = Order(len(data.train), 20, seed=0)
    states = []
    for epoch in range(2):
        for rows in order.epoch(epoch):
            plain.zero_grad()
            task.losses(data.train.__getitems__(rows))["loss"].backward()
            plain.step()
        held_out = task.score(task.predict(data.val.columns) | data.val.columns)["mse"]
        states.append((held_out, task.weight.detach().clone()))
    best = min(states, key=lambda s: s[0])[1]
    assert torch.allclose(final(Line()), best, atol=1e-7)


def test_accumulated_parts_give_the_gradient_of_the_whole():
    assert torch.allclose(final(Line(), accumulate=4), final(Line()), atol=1e-6)


def test_clipping_bounds_the_step():
    data, task = curve_data(augment=None), Line()
    before = task.weight.detach().clone()
    trainer(epochs=1, limit_batches=1, clip_norm=0.01).fit(task, data, sgd, Constant())
    assert float((task.weight.detach() - before).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_limited_split_is_seen_from_one_end_to_the_other():
    """Labelled rows often come first, and one batch of them alone tells nothing of a model."""
    rows = Columns({"x": torch.arange(100.0)})

    class Itself(Line):
        def predict(self, batch):
            return {"seen": batch["x"]}

    seen = trainer(batch_size=8, limit_batches=2).predict(Itself(), rows)["seen"]
    assert len(seen) == 16
    assert seen[0] == 0
    assert seen[-1] >= 90
    assert bool((seen.diff() > 0).all())


def test_the_average_is_its_definition_and_is_what_is_kept():
    task = Line()
    average = Average(task, 0.5)
    shadow = task.weight.detach().clone()
    for t in range(1, 6):
        with torch.no_grad():
            task.weight += torch.randn(2)
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        shadow = decay * shadow + (1 - decay) * task.weight.detach()
    own = task.weight.detach().clone()
    with average.in_place():
        assert torch.allclose(task.weight, shadow, atol=1e-6)
    assert torch.equal(task.weight, own)


def test_layers_nearer_the_input_learn_more_slowly_and_vectors_do_not_decay():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
            self.head = nn.Linear(2, 1)

    model = Deep()
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    setting = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(setting) == len(list(model.parameters()))
    rates = [setting[id(m.weight)][0] for m in (model.stem, *model.blocks, model.head)]
    assert rates == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert {setting[id(p)][1] for n, p in model.named_parameters() if n.endswith("bias")} == {0.0}
    assert {setting[id(p)][1] for n, p in model.named_parameters() if n.endswith("weight")} == {0.1}
    with pytest.raises(ConfigError, match="numbered blocks"):
        parameter_groups(Line(), 1.0, 0.0, layer_decay=0.5)
    with pytest.raises(ConfigError, match="Did you mean 'AdamW'"):
        optimizer(model, name="AdmW")


@pytest.mark.parametrize("unit, length", [("steps", 20.0), ("epochs", 2.0), ("fraction", 0.2)])
def test_warm_up_is_linear_in_any_unit_then_half_a_cosine(unit, length):
    schedule = Cosine(warmup=length, unit=unit, floor=0.1)
    factors = np.array([schedule.factor(k, 100, 10) for k in range(101)])
    assert np.allclose(np.diff(factors[:20]), factors[0])
    assert factors[20] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert (np.diff(factors[20:]) < 0).all()


def test_one_cycle_rises_to_its_peak_and_falls():
    factors = np.array([OneCycle(peak=0.3).factor(k, 100, 10) for k in range(101)])
    assert factors.argmax() == 30
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[-1] == pytest.approx(1 / 25e4)


def test_a_plateau_shrinks_after_patience_and_only_then_in_either_direction():
    for minimize, sign in ((True, 1), (False, -1)):
        schedule = Plateau(shrink=0.5, patience=2)
        seen = []
        for value in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0):
            schedule.observe(sign * value, minimize)
            seen.append(schedule.factor(50, 100, 10))
        assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_training_stops_when_patience_is_spent_and_leaves_the_best_weights():
    class Worsening(Line):
        def score(self, predictions):
            self.calls = getattr(self, "calls", 0) + 1
            return {"mse": abs(self.calls - 2.0)}

    task = Worsening()
    fitted = trainer(epochs=50, patience=3).fit(task, curve_data(augment=None), sgd)
    assert (fitted.best_epoch, fitted.epoch) == (1, 5)


def test_patience_counts_only_gains_above_min_delta():
    class Creeping(Line):
        def score(self, predictions):
            self.calls = getattr(self, "calls", 0) + 1
            return {"mse": 1.0 - 0.001 * self.calls}

    assert trainer(epochs=30, patience=2, min_delta=0.01).fit(Creeping(), curve_data(augment=None)).epoch < 30
    assert trainer(epochs=9, patience=2).fit(Creeping(), curve_data(augment=None)).epoch == 9


class Exploding(Line):
    at = 5

    def losses(self, batch):
        self.calls = getattr(self, "calls", 0) + 1
        terms = super().losses(batch)
        return {"loss": terms["loss"] * (math.nan if self.calls == self.at else 1.0)}


def test_a_nan_stops_the_run_with_the_batch_saved(tmp_path):
    run = Run.create(tmp_path, {"pkg": "p"})
    with pytest.raises(NonFinite, match="step 4: not finite"):
        trainer().fit(Exploding(), curve_data(), run=run)
    saved = torch.load(run.directory / "nonfinite" / "step-4-rank-0.pt", weights_only=True)
    assert saved["batch"]["x"].shape == (20, 2)
    assert torch.isfinite(saved["task"]["weight"]).all()


def test_allowed_skips_leave_the_step_out_with_a_warning():
    task = Exploding()
    with pytest.warns(UserWarning, match="Left out, 1 of 2"):
        fitted = trainer(nonfinite_skips=2).fit(task, curve_data())
    assert fitted.skipped == 1
    assert torch.isfinite(task.weight).all()


def test_a_sweep_may_end_a_run_and_its_state_is_saved(tmp_path):
    run = Run.create(tmp_path, {"pkg": "p"})
    with pytest.raises(Pruned):
        trainer(epochs=9).fit(Line(), curve_data(), run=run, prune=lambda metrics, step: step >= 16)
    assert torch.load(run.checkpoints / "last.pt", weights_only=True)["progress"]["epoch"] == 2


def test_scores_see_the_whole_split_in_its_order():
    data, seen = curve_data(), {}

    class Looking(Curve):
        def score(self, predictions):
            seen["y"] = predictions["y"]
            return super().score(predictions)

    trainer(epochs=1, batch_size=7).fit(Looking(), data)
    assert torch.equal(seen["y"], data.val["y"])


def test_a_failing_compiler_is_a_warning_and_changes_nothing(monkeypatch):
    def broken(function):
        def fail(batch):
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="torch.compile failed"):
        compiled = final(Line(), compile=True)
    assert torch.equal(compiled, final(Line()))


def test_bf16_autocast_keeps_weights_and_losses_in_float32():
    from lightning_fabric import Fabric

    kinds = set()

    class Mixed(Curve):
        def losses(self, batch):
            terms = super().losses(batch)
            kinds.add((terms["loss"].dtype, self.layers[0](batch["x"]).dtype, self.layers[0].weight.dtype))
            return terms

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    task = Mixed()
    trainer(fabric=fabric).fit(task, curve_data())
    assert {(inner, weight) for _, inner, weight in kinds} == {(torch.bfloat16, torch.float32)}
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_deterministic_mode_gives_the_same_bits_twice():
    runs = []
    for _ in range(2):
        task = Curve()
        trainer(deterministic=True).fit(task, curve_data())
        runs.append(task.state_dict())
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in runs), strict=True))


def test_overfitting_sees_the_same_batch_and_its_loss_falls():
    task, data = Curve(), curve_data(augment=None)
    task.layers[3].p = 0.0
    rows = []
    adam = lambda m: torch.optim.Adam(m.parameters(), lr=0.02)  # noqa: E731
    settings = {"epochs": 400, "limit_batches": 1, "overfit": True, "validate_every": 400, "log_every": 1}
    trainer(**settings).fit(task, data, adam, Constant(), record=lambda row, step: rows.append(row))
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < 0.3 * losses[0]


def test_settings_that_cannot_be_are_all_named_at_once():
    with pytest.raises(ConfigError, match=r"epochs=0 must be positive; trainer.ema_decay=2"):
        Trainer(epochs=0, ema_decay=2)
    with pytest.raises(ConfigError, match="objective val/mes is not among.*Did you mean 'val/mse'"):
        trainer(objective=[{"metric": "val/mes", "direction": "minimize"}]).fit(Line(), curve_data())


def test_plain_item_by_item_data_sets_train_too():
    class Items(torch.utils.data.Dataset):
        def __init__(self, columns):
            self.columns = columns

        def __len__(self):
            return len(self.columns)

        def __getitem__(self, row):
            return {name: self.columns[name][row] for name in ("x", "y")}

    data, other = curve_data(augment=None), curve_data(augment=None)
    other.train = Items(data.train)
    a, b = Line(), Line()
    trainer().fit(a, data, sgd)
    trainer().fit(b, other, sgd)
    assert torch.equal(a.weight, b.weight)


def test_gradients_that_are_never_numbers_stop_a_run_in_half_precision():
    """The fp16 scaler leaves out steps that overflow; a gradient that is NaN at every scale is no overflow."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    class Root(Curve):
        def losses(self, batch):
            terms = super().losses(batch)
            return {**terms, "loss": terms["loss"] + (0 * self.layers[0].weight).square().sum().sqrt()}  # 0, of slope 0 / 0

    scaler = torch.amp.GradScaler("cpu")
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    fabric.launch()
    with pytest.raises(NonFinite, match="gradient norm nan"):
        trainer(fabric=fabric, epochs=100, validate_every=100).fit(Root(), curve_data())
    assert scaler.get_scale() < 1e-3
