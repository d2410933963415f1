"""A run that was stopped and taken up again is the run that was never stopped: same bits, same batches, same records."""

import os
import signal
import warnings

import pytest
import torch

from skyloom.errors import ConfigError, UserError
from skyloom.run import Interrupted, Run
from skyloom.training import Trainer
from skyloom.training.schedules import Plateau
from training_problem import SYNTHETIC, Curve, curve_data

SETTINGS = {
    "epochs": 4,
    "batch_size": 16,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "log_every": 3,
    "patience": 3,
    "quiet": True,
    "objective": [{"metric": "val/mse", "direction": "minimize"}],
}


class StopAt:
    """Data whose augmentation sends this process a signal at the given steps: in the middle of a step."""

    def __init__(self, data, steps, signum=signal.SIGTERM):
        self.data, self.steps, self.seen, self.signum = data, set(steps), 0, signum
        self.original, data.augment = data.augment, self

    def __call__(self, batch, draws):
        self.seen += 1
        if self.seen in self.steps:
            os.kill(os.getpid(), self.signum)
        return self.original(batch, draws)


def fit(run, data=None, task=None, **settings):
    task = task or Curve()
    trainer = Trainer(**{**SETTINGS, **settings})
    trainer.fit(task, data or curve_data(), schedule=Plateau(patience=1), run=run)
    return task


def record(run):
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.rows()]
    last = torch.load(run.checkpoints / "last.pt", weights_only=True)
    return rows, last


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "seconds")
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture
def new_run(tmp_path):
    return lambda name: Run.create(tmp_path, {"pkg": "p"}, directory=tmp_path / name)


@pytest.fixture
def reference(new_run):
    run = new_run("reference")
    task = fit(run)
    return task.state_dict(), *record(run)


@pytest.mark.parametrize(
    "stops",
    [[(3, 1)], [(2, 1), (3, 1)], [(10, 1)], [(9, 1), (1, 1)], [(17, 1), (4, 1), (1, 1), (2, 1)]],
    ids=["inside an epoch", "twice inside one epoch", "at an epoch's end", "before an end, then at it", "four times"],
)
def test_stopped_and_resumed_is_never_stopped(stops, new_run, reference):
    weights, rows, last = reference
    run = new_run("stopped")
    for step, _ in stops:
        data = curve_data()
        StopAt(data, [step])
        with pytest.raises(Interrupted):
            fit(run, data)
    task = fit(run)
    assert same(task.state_dict(), weights)
    resumed_rows, resumed_last = record(run)
    assert resumed_rows == rows
    assert same(resumed_last, last)
    assert resumed_last["progress"]["order"] == last["progress"]["order"] != 0


def test_killed_before_the_first_checkpoint_it_begins_anew(new_run, reference):
    _, rows, _ = reference
    run = new_run("early")
    run.append({"step": 3, "epoch": 0, "train/loss": 1.0})
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 6, "tra')
    fit(run)
    assert record(run)[0] == rows


def test_a_signal_in_the_last_validation_is_not_lost(new_run):
    class Last(Curve):
        def score(self, predictions):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().score(predictions)

    with pytest.raises(Interrupted):
        fit(new_run("last"), task=Last(), epochs=1)


def test_a_signal_during_validation_waits_for_a_whole_state(new_run, reference):
    weights, rows, _ = reference

    class Stopping(Curve):
        calls = 0

        def predict(self, batch):
            Stopping.calls += 1
            if Stopping.calls == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().predict(batch)

    run = new_run("validating")
    with pytest.raises(Interrupted):
        fit(run, task=Stopping())
    assert torch.load(run.checkpoints / "last.pt", weights_only=True)["progress"]["batch"] == 10
    assert same(fit(run).state_dict(), weights)
    assert record(run)[0] == rows


def test_worker_processes_change_nothing(new_run, reference):
    weights, rows, _ = reference
    run = new_run("workers")
    assert same(fit(run, workers=2).state_dict(), weights)
    assert record(run)[0] == rows


@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_a_damaged_last_checkpoint_falls_back_to_the_previous_one_and_says_so(damage, new_run, reference):
    weights, rows, _ = reference
    run = new_run("damaged")
    data = curve_data()
    StopAt(data, [25])
    with pytest.raises(Interrupted):
        fit(run, data)
    path = run.checkpoints / "last.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"last.pt.*damaged.*previous.pt, step 20"):
        task = fit(run)
    assert same(task.state_dict(), weights)
    assert record(run)[0] == rows


def test_when_no_checkpoint_can_be_read_it_says_so_and_starts_nothing(new_run):
    run = new_run("lost")
    fit(run, epochs=1)
    for name in ("last", "previous"):
        (run.checkpoints / f"{name}.pt").write_bytes(b"gone")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        fit(run)


def test_other_data_are_refused(new_run):
    run = new_run("other")
    fit(run, epochs=1)
    with pytest.raises(ConfigError, match="fingerprint curve then, other now"):
        fit(run, curve_data(about={**SYNTHETIC, "fingerprint": "other"}))


def test_a_full_disk_keeps_the_last_good_checkpoint(new_run, monkeypatch):
    import errno

    run = new_run("full")
    fit(run, epochs=1)
    before = (run.checkpoints / "last.pt").read_bytes()

    def full(*args, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="no space left on the device while writing .*start again with the same run"):
            fit(run)
    assert (run.checkpoints / "last.pt").read_bytes() == before
    assert not list(run.checkpoints.glob(".*"))
    fit(run)


def test_a_finished_run_is_only_scored_again_and_more_epochs_go_on(new_run, reference):
    _, rows, _ = reference
    run = new_run("finished")
    fit(run, epochs=2)
    count = len(run.rows())
    fit(run, epochs=2)
    assert len(run.rows()) == count < len(rows)
    fit(run)
    assert record(run)[1]["progress"]["epoch"] == 4


def test_the_second_ctrl_c_insists(new_run):
    data = curve_data()
    StopAt(data, [2, 3], signal.SIGINT)

    class Twice(Curve):
        def losses(self, batch):
            if data.augment.seen == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().losses(batch)

    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        fit(new_run("insisting"), data, Twice())
