"""Trackers: what they write, that a run taken up again stays one run, and that none of them can break a training."""

import json
import os
import struct
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import pytest

from skyloom.errors import UserError
from skyloom.tracking import Console, Identity, TensorBoard, Tracker, Trackers, WandB
from skyloom.tracking import weights_and_biases as wb
from skyloom.tracking.tracker import plain

RUN = "20261121-101502-k3f9q"
CONFIG = {
    "pkg": "lensfind",
    "seed": 3,
    "objective": [{"metric": "val/auroc", "direction": "maximize"}],
    "model": {"widths": [64, 128], "activation": plain},
}
ROWS = [
    {"step": 10, "epoch": 1, "train/loss": 0.9},
    {"step": 10, "epoch": 1, "val/auroc": 0.7, "val/loss": 0.8},
    {"step": 20, "epoch": 2, "train/loss": 0.5},
    {"step": 20, "epoch": 2, "val/auroc": 0.9, "val/loss": 0.6},
    {"step": 30, "epoch": 3, "train/loss": 0.4},
    {"step": 30, "epoch": 3, "val/auroc": 0.8, "val/loss": 0.7},
]


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    wb.say.cache_clear()


def record(directory: Path, rows) -> None:
    with open(directory / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def picture(tmp_path):
    from skyloom.plots import panels, save, style

    with style():
        figure, axes = panels()
        axes.plot([0, 1], [1, 0])
        return save(figure, tmp_path / "picture.png")


# ------------------------------------------------------------------------------------------------- the composite


class Recorder(Tracker):
    def __init__(self):
        self.calls = []

    def log(self, row, step):
        self.calls.append(("log", step))

    def finish(self, status, summary):
        self.calls.append(("finish", status))


class Broken(Recorder):
    def log(self, row, step):
        raise OSError("no route to host")


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path):
    good, bad = Recorder(), Broken()
    trackers = Trackers([bad, good])
    trackers.start(RUN, tmp_path, {})
    with pytest.warns(RuntimeWarning, match=r"Broken could not log \(OSError: no route to host\)"):
        trackers.log({"train/loss": 1.0}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trackers.log({"train/loss": 1.0}, 2)
        trackers.log({"train/loss": 1.0}, 3)
    trackers.finish("finished", {})
    assert good.calls == [("log", 1), ("log", 2), ("log", 3), ("finish", "finished")]
    assert bad.calls == [("finish", "interrupted")], "closed, so that a later run does not write into it"


def test_what_stops_a_training_is_never_swallowed(tmp_path):
    class Stopped(Recorder):
        def log(self, row, step):
            raise KeyboardInterrupt

    trackers = Trackers([Stopped()])
    trackers.start(RUN, tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        trackers.log({}, 1)


@pytest.mark.parametrize(
    ("error", "status"), [(None, "finished"), (ValueError("nan"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_context_closes_in_any_case_and_once(tmp_path, error, status):
    tracker = Recorder()
    try:
        with Trackers([tracker]) as trackers:
            trackers.start(RUN, tmp_path, {})
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    trackers.finish("failed", {})
    assert tracker.calls == [("finish", status)]


def test_a_missing_library_is_said_at_launch_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for kind in (WandB, TensorBoard):
        with pytest.raises(UserError, match=r"skyloom\[tracking\]"):
            kind()


def test_importing_the_trackers_is_cheap():
    code = "import skyloom.tracking, sys; assert not {'torch', 'wandb', 'tensorboard', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_configured_functions_have_names_not_addresses():
    class Thing:
        pass

    text = json.dumps(plain({"a": plain, "b": Thing(), "c": Path("x"), "d": (1, None)}))
    assert "0x" not in text
    assert "skyloom.tracking.tracker.plain" in text


# ------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("none", []),
        ("console", [Console]),
        ("[tensorboard,wandb]", [TensorBoard, WandB]),
        ("[console,tensorboard,wandb]", [Console, TensorBoard, WandB]),
    ],
)
def test_loggers_compose(tmp_path, choice, kinds):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    groups = Path(__file__).parents[2] / "conf" / "logger"
    (tmp_path / "logger").symlink_to(groups)
    (tmp_path / "config.yaml").write_text("defaults:\n  - logger: [console]\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config", overrides=[f"logger={choice}"])
    trackers = Trackers(instantiate(config.logger))
    assert [type(t) for t in trackers.active] == kinds


# ------------------------------------------------------------------------------------------------- console


def test_console_shows_a_line_per_validation_and_marks_the_best(tmp_path, capsys):
    trackers = Trackers([Console()])
    trackers.start(RUN, tmp_path, CONFIG)
    for row in ROWS:
        trackers.log(row, row["step"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "epoch 1  step 10  train/loss 0.9  val/auroc 0.7*  val/loss 0.8",
        "epoch 2  step 20  train/loss 0.5  val/auroc 0.9*  val/loss 0.6",
        "epoch 3  step 30  train/loss 0.4  val/auroc 0.8  val/loss 0.7",
    ]


def test_console_takes_brackets_and_undefined_values_as_they_are(tmp_path, capsys):
    trackers = Trackers([Console()])
    trackers.start(RUN, tmp_path, {"objective": [{"metric": "val/[b]x", "direction": "minimize"}]})
    trackers.log({"val/[b]x": float("nan"), "val/y": None}, 1)
    assert capsys.readouterr().out == "step 1  val/[b]x nan\n"


# ------------------------------------------------------------------------------------------------- TensorBoard


def events(directory: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return reader.Reload()


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    reader = events(directory)
    return {tag: [(e.step, pytest.approx(e.value)) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_tensorboard_holds_what_was_logged(tmp_path, picture):
    trackers = Trackers([TensorBoard()])
    trackers.start(RUN, tmp_path, CONFIG, group="sweep-1", tags=["pu"])
    for row in ROWS:
        trackers.log(row, row["step"])
    trackers.figure("roc", picture, "synthetic images")
    trackers.table("worst", ["id", "score"], [["a|b", 0.5]])
    trackers.finish("finished", {"test/auroc": 0.88})

    got = scalars(tmp_path)
    assert got["val/auroc"] == [(10, 0.7), (20, 0.9), (30, 0.8)]
    assert got["test/auroc"] == [(30, 0.88)]
    reader = events(tmp_path)
    png = reader.Images("figures/roc")[0]
    assert (png.width, png.height) == struct.unpack(">II", picture.read_bytes()[16:24])
    text = {t: reader.Tensors(t)[-1].tensor_proto.string_val[0].decode() for t in reader.Tags()["tensors"]}
    assert "skyloom.tracking.tracker.plain" in text["config/text_summary"]
    assert "a\\|b | 0.5" in text["worst/text_summary"]
    assert '"status": "finished"' in text["result/text_summary"]
    assert len(list((tmp_path / "tensorboard").rglob("events.out.*"))) == 1, "HParams must not make a second run"


def killed_and_taken_up(tracker: Tracker, directory: Path) -> None:
    """The order of a resumed run: trackers start, the record is cut at the checkpoint (step 20), training goes on.

    Each row is in the record before the trackers hear of it.
    """
    record(directory, ROWS[:5])
    trackers = Trackers([tracker])
    trackers.start(RUN, directory, CONFIG)
    (directory / "metrics.jsonl").unlink()
    record(directory, ROWS[:4])
    for row in ROWS[4:]:
        record(directory, [row])
        trackers.log(row, row["step"])
    trackers.finish("finished", {})


def test_tensorboard_after_a_kill_has_neither_holes_nor_doubles(tmp_path):
    first = TensorBoard()
    first.start(Identity(RUN, tmp_path, CONFIG))
    for row in ROWS[:5]:
        first.log(row, row["step"])
    first._writer.flush()  # what reached the disk before the kill
    killed_and_taken_up(TensorBoard(), tmp_path)
    got = scalars(tmp_path)
    assert got["val/auroc"] == [(10, 0.7), (20, 0.9), (30, 0.8)]
    assert got["train/loss"] == [(10, 0.9), (20, 0.5), (30, 0.4)]


def test_a_new_run_resumes_nothing_and_a_finished_one_is_shown_whole(tmp_path):
    class Witness(Recorder):
        def resume(self, rows):
            self.calls.append(("resume", len(rows)))

    witness = Witness()
    trackers = Trackers([witness])
    trackers.start(RUN, tmp_path, {})
    for row in ROWS[:2]:
        record(tmp_path, [row])
        trackers.log(row, row["step"])
    trackers.finish("finished")
    assert [name for name, _ in witness.calls] == ["log", "log", "finish"]

    again = Witness()
    trackers = Trackers([again])
    trackers.start(RUN, tmp_path, {})
    trackers.finish("finished")  # trained already, only scored again
    assert again.calls == [("resume", 2), ("finish", "finished")]


def test_console_knows_the_best_of_before_the_stop(tmp_path, capsys):
    killed_and_taken_up(Console(), tmp_path)
    assert capsys.readouterr().out == "epoch 3  step 30  train/loss 0.4  val/auroc 0.8  val/loss 0.7\n"


# ------------------------------------------------------------------------------------------------- wandb


def wandb_records(file: Path):
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, each record a protobuf message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if at + 7 + length > len(data):
            return  # being written
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def closed(segment: Path):
    """All records, once the exit record is there: wandb's own process may still be writing when `finish` returns."""
    [file] = segment.glob("*.wandb")
    for _ in range(200):
        records = list(wandb_records(file))
        if any(r.WhichOneof("record_type") == "exit" for r in records):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{file} was never closed")


def read_wandb(directory: Path):
    [segment] = directory.glob("wandb/offline-run-*")
    history, summary, rest = defaultdict(list), {}, {"metrics": [], "artifacts": []}
    for record in closed(segment):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {" ".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            for key, value in row.items():
                history[key].append((row["_step"], value))
        elif kind == "summary":
            for item in record.summary.update:
                summary[item.key or tuple(item.nested_key)] = json.loads(item.value_json)
        elif kind == "run":
            rest["run"] = record.run
        elif kind == "exit":
            rest["exit"] = record.exit.exit_code
        elif kind == "metric":
            rest["metrics"].append(record.metric)
        elif kind == "artifact":
            rest["artifacts"].append(record.artifact)
    return history, summary, rest


def test_wandb_offline_holds_everything(tmp_path, picture, monkeypatch, no_account):
    monkeypatch.setenv("WANDB_MODE", "offline")
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    trackers = Trackers({"wandb": WandB(model_artifact=True)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trackers.start(RUN, tmp_path, CONFIG, group="sweep-1", job_type="train", tags=["pu"])
        for row in ROWS:
            trackers.log(row, row["step"])
        trackers.figure("roc", picture, "synthetic images")
        trackers.table("worst", ["id", "score"], [["a", 0.5], ["b", None]])
        trackers.artifact(weights)
        trackers.finish("finished", {"test/auroc": 0.88, "val/auroc": 0.9})

    history, summary, rest = read_wandb(tmp_path)
    assert history["val/auroc"] == [(10, 0.7), (20, 0.9), (30, 0.8)]
    assert history["train/loss"] == [(10, 0.9), (20, 0.5), (30, 0.4)]
    assert history["figures/roc _type"] == [(30, "image-file")]
    assert history["figures/roc caption"] == [(30, "synthetic images")]
    assert history["tables/worst nrows"] == [(30, 2)]
    run = rest["run"]
    config = {c.key: json.loads(c.value_json) for c in run.config.update}
    assert (run.run_id, run.run_group, run.job_type, list(run.tags)) == (RUN, "sweep-1", "train", ["pu"])
    assert config["model"] == {"widths": [64, 128], "activation": "skyloom.tracking.tracker.plain"}
    assert summary["status"] == "finished"
    assert summary["test/auroc"] == 0.88
    [objective] = [m for m in rest["metrics"] if m.name == "val/auroc"]
    assert objective.summary.max
    assert not objective.summary.min
    assert sorted(a.type for a in rest["artifacts"]) == ["model", "run_table"]
    assert rest["exit"] == 0


@pytest.mark.parametrize(("status", "failed"), [("failed", True), ("interrupted", True), ("pruned", False)])
def test_wandb_shows_how_it_ended_and_lets_the_next_run_be_another(tmp_path, monkeypatch, no_account, status, failed):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, end in (("first", status), ("second", "finished")):
        (tmp_path / name).mkdir()
        trackers = Trackers([WandB()])
        trackers.start(f"{RUN}-{name}", tmp_path / name, CONFIG)
        trackers.log({"val/auroc": 0.5}, 1)
        trackers.finish(end, {"reason": "as told"})
    _, summary, rest = read_wandb(tmp_path / "first")
    assert (rest["exit"] != 0) == failed
    assert summary["status"] == status
    history, _, rest = read_wandb(tmp_path / "second")
    assert rest["run"].run_id == f"{RUN}-second"
    assert history["val/auroc"] == [(1, 0.5)]


def test_wandb_offline_resume_is_one_whole_segment_under_the_same_id(tmp_path, monkeypatch, no_account):
    monkeypatch.setenv("WANDB_MODE", "offline")
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_tracking import CONFIG, ROWS, RUN
from skyloom.tracking import Trackers, WandB
tracker = Trackers([WandB()])
tracker.start(RUN, {str(tmp_path)!r}, CONFIG)
for row in ROWS:
    tracker.log(row, row["step"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    killed_and_taken_up(WandB(), tmp_path)
    history, _, rest = read_wandb(tmp_path)  # which also asserts that a single segment is left to sync
    assert history["val/auroc"] == [(10, 0.7), (20, 0.9), (30, 0.8)]
    assert rest["run"].run_id == RUN
    assert len(list(tmp_path.glob(f"wandb/replaced/offline-run-*-{RUN}"))) == 1, "nothing is thrown away"


class Server:
    """As much of a wandb run as matters for a resume online: the server knows the steps below `starting_step`."""

    def __init__(self, starting_step):
        self.starting_step, self.rows, self.url = starting_step, [], "https://example.org/run"

    def log(self, row, step):
        self.rows.append((step, row))

    def define_metric(self, *_, **__):
        pass


def test_wandb_online_resume_continues_the_run_and_repeats_nothing(tmp_path, monkeypatch, no_account, capsys):
    import wandb

    asked = {}
    server = Server(starting_step=21)  # killed after step 20 had been sent; the checkpoint is of step 10
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options) or server)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    trackers = Trackers([WandB()])
    trackers.start(RUN, tmp_path, CONFIG)
    record(tmp_path, ROWS[:2])
    for row in ROWS[2:]:
        trackers.log(row, row["step"])
    assert (asked["id"], asked["resume"], asked["mode"]) == (RUN, "allow", "online")
    assert [step for step, _ in server.rows] == [30, 30]
    assert "https://example.org/run" in capsys.readouterr().out

    server = Server(starting_step=0)  # its first part ran offline: the server gets the history
    trackers = Trackers([WandB()])
    trackers.start(RUN, tmp_path, CONFIG)
    trackers.log(ROWS[2], 20)
    assert [step for step, _ in server.rows] == [10, 10, 20]


def test_wandb_mode_is_decided_without_asking(monkeypatch, no_account, tmp_path, capsys):
    assert wb.choose_mode() == "offline"
    assert wb.choose_mode() == "offline"
    assert capsys.readouterr().out.count("recorded offline") == 1, "said once"
    assert wb.choose_mode("online") == "offline", "online without an account would ask"
    assert wb.choose_mode("disabled") == "disabled"

    file = tmp_path / "netrc"
    file.write_text("machine other.org login a password b\ndefault login c password d\n")
    monkeypatch.setenv("NETRC", str(file))
    assert wb.choose_mode() == "offline", "an entry for another host, or a default one, is no account"
    file.write_text("machine api.wandb.ai login user password abc\n")
    assert wb.choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wb.choose_mode() == "offline"
    assert wb.choose_mode("online") == "online", "the configuration beats the environment"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wb.choose_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    assert wb.choose_mode() == "online"


def test_wandb_that_cannot_start_leaves_the_training_alone(tmp_path, monkeypatch, no_account):
    import wandb

    def refuse(**_):
        raise wandb.errors.CommError("timed out")

    monkeypatch.setattr(wandb, "init", refuse)
    other = Recorder()
    trackers = Trackers([WandB(mode="offline"), other])
    with pytest.warns(RuntimeWarning, match="WandB could not start"):
        trackers.start(RUN, tmp_path, CONFIG)
    trackers.log({"train/loss": 1.0}, 1)
    trackers.finish("finished", {})
    assert other.calls == [("log", 1), ("finish", "finished")]
