"""Many runs: what counts as a repeat, the statistics, the choice on validation, and the three outputs."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skyloom.errors import MissingFile
from skyloom.report import latex, write_group_report
from skyloom.report.collect import collect
from skyloom.report.selection import summarise
from skyloom.report.settings import fingerprint


def write_run(
    root: Path,
    number: int,
    *,
    seed: int = 0,
    lr: float = 1e-3,
    widths=(64, 128),
    val: float | None = 0.5,
    test: float | None = 0.5,
    status: str = "finished",
    curve: int = 0,
    direction: str = "minimize",
    config=None,
    objective=None,
    **result,
) -> Path:
    """A run as training leaves it; its seed also stands where `${seed}` was referred to."""
    run_id = f"20261121-1015{number:02d}-abcde"
    directory = root / run_id
    directory.mkdir(parents=True)
    resolved = {
        "pkg": "cinn_clusters",
        "experiment": "scalar_cinn",
        "seed": seed,
        "runs_dir": str(root),
        "trial": {"number": number},
        "logger": {"console": {"columns": number}},
        "data": {"_target_": "cinn_clusters.data.synthetic", "seed": seed, "rows": 4000},
        "optimizer": {"lr": lr},
        "model": {"widths": list(widths)},
        "checkpoint": f"{directory}/checkpoints/best.pt",
    } | (config or {})
    (directory / "config.yaml").write_text(yaml.safe_dump(resolved))
    objective = objective or [{"metric": "val/nll", "direction": direction, "value": val}]
    ended = status == "finished"
    whole = {
        "id": run_id,
        "pkg": "cinn_clusters",
        "experiment": "scalar_cinn",
        "status": status,
        "started": f"2026-11-21T10:15:{number:02d}+00:00",
        "objective": objective if ended else [{**o, "value": None} for o in objective],
        "metrics": {"val/nll": {"value": val}, "test/nll": {"value": test}, "test/crps": {"value": test}} if ended else {},
        "synthetic": True,
    } | result
    (directory / "result.json").write_text(json.dumps(whole))
    (directory / "provenance.json").write_text(json.dumps({"commit": "0123456789abcdef", "dirty": False, "seed": seed}))
    rows = [{"step": s, "val/nll": (val or 1.0) + 1 / s} for s in range(10, 10 * curve + 1, 10)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def grid(root: Path, curve: int = 0) -> list[Path]:
    """Two rates, three seeds; the larger rate is better on validation and worse on test; one of its seeds is missing."""
    values = {
        (1e-3, 1): (0.50, 0.60),
        (1e-3, 2): (0.54, 0.62),
        (1e-3, 3): (0.52, 0.61),
        (1e-2, 1): (0.41, 0.71),
        (1e-2, 2): (0.43, 0.73),
        (1e-2, 3): (0.42, 0.75),
    }
    return [
        write_run(root, i, lr=lr, seed=seed, val=v, test=t, curve=curve)
        for i, ((lr, seed), (v, t)) in enumerate(values.items())
    ]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def text_of(path: Path) -> str:
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(path.read_text())
    return re.sub(r"\s+", " ", " ".join(words))


# ------------------------------------------------------------------------------------------------- grouping


def test_seed_paths_ids_trial_and_trackers_do_not_make_a_setting(tmp_path):
    group = collect(grid(tmp_path))
    assert group.varied == ["optimizer.lr"]
    assert [s.values for s in group.settings] == [{"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-2}]
    assert [len(s.runs) for s in group.settings] == [3, 3]
    assert [s.label for s in group.settings] == ["lr=0.001", "lr=0.01"]


def test_a_trial_whose_directory_is_a_digit_takes_no_settings_with_that_digit_away(tmp_path):
    trials = []
    for trial in range(3):
        made = write_run(
            tmp_path, trial, seed=trial + 1, config={"hardware": {"precision": "32-true"}, "model": {"name": "vit_10"}}
        )
        trials.append(made.rename(tmp_path / str(trial)))
    group = collect(trials)
    assert [len(setting.runs) for setting in group.settings] == [3]


def test_everything_else_does(tmp_path):
    a = write_run(tmp_path, 1, widths=(64, 128))
    b = write_run(tmp_path, 2, widths=(64,))
    c = write_run(tmp_path, 3, config={"survey": {"zero_point": 27.0}})
    group = collect([a, b, c])
    assert group.varied == ["model.widths", "survey.zero_point"]
    assert len(group.settings) == 3
    assert [s.values["survey.zero_point"] for s in group.settings].count("absent") == 2


def test_a_seed_of_its_own_is_a_swept_value(tmp_path):
    """`data.seed` that follows the run's seed is no setting; one that is fixed, or swept by itself, is."""
    runs = [write_run(tmp_path, n, seed=n, config={"split": {"seed": split}}) for n, split in enumerate((7, 7, 8), start=1)]
    group = collect(runs)
    assert group.varied == ["split.seed"]
    assert [len(s.runs) for s in group.settings] == [2, 1]


json_leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=3), json_leaves | st.lists(json_leaves, max_size=2), max_size=4))
def test_the_fingerprint_knows_values_not_their_order_or_spelling(settings):
    backwards = dict(reversed(settings.items()))
    respelt = {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in backwards.items()}
    assert fingerprint(settings) == fingerprint(backwards) == fingerprint(respelt)
    assert fingerprint(settings) != fingerprint({**settings, "one more": 1})


def test_repeats_of_one_seed_count_once(tmp_path):
    """Counting the same seed twice would make the spread too small: the newest finished run stands for it."""
    runs = [
        write_run(tmp_path, 1, seed=1, val=0.9),
        write_run(tmp_path, 2, seed=1, val=0.5),
        write_run(tmp_path, 3, seed=1, status="failed"),
        write_run(tmp_path, 4, seed=2, val=0.7),
    ]
    [setting] = collect(runs).settings
    assert [r.id[-8:-6] for r in setting.runs] == ["02", "04"]
    assert len(setting.repeats) == 2
    page = text_of(write_group_report(runs, tmp_path / "out")["html"])
    assert "Not counted, because a newer or finished run has the same setting and seed" in page


# ------------------------------------------------------------------------------------------------- statistics


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=12))
def test_mean_deviation_and_interval_are_those_of_scipy(values):
    s = summarise(values)
    assert s.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert s.spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if s.spread > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (s.low, s.high) == pytest.approx((low, high), abs=1e-7)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        s = summarise(rng.normal(1.0, 2.0, 4))
        covered += s.low <= 1.0 <= s.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_too_few_values_give_no_spread_and_no_interval():
    assert math.isnan(summarise([1.0]).spread)
    two = summarise([1.0, 3.0])
    assert two.spread == pytest.approx(math.sqrt(2))
    assert math.isnan(two.low)
    assert summarise([1.0, math.nan, 3.0]) == two, "undefined values do not count"
    assert summarise([math.nan]).n == 0


# ------------------------------------------------------------------------------------------------- choice


def test_validation_chooses_and_the_test_has_no_say(tmp_path):
    group = collect(grid(tmp_path))
    assert [s.values["optimizer.lr"] for s in group.chosen] == [1e-2], "better on validation, worse on test"
    assert "validation alone, among 2 settings with 3 finished runs" in group.how
    assert "lowest mean val/nll" in group.how


def test_the_direction_is_minded(tmp_path):
    runs = [write_run(tmp_path, n, lr=lr, val=v, direction="maximize") for n, lr, v in ((1, 0.1, 0.3), (2, 0.2, 0.8))]
    assert collect(runs).chosen[0].values == {"optimizer.lr": 0.2}


def test_one_lucky_seed_does_not_win(tmp_path):
    runs = grid(tmp_path)
    lucky = [write_run(tmp_path, 20, lr=0.1, seed=1, val=0.01)]
    lucky += [write_run(tmp_path, 20 + s, lr=0.1, seed=s, status="failed", reason="loss is not finite") for s in (2, 3)]
    group = collect(runs + lucky)
    assert group.chosen[0].values == {"optimizer.lr": 1e-2}
    assert "Not compared: 1 with fewer finished runs." in group.how


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"objective": [{"metric": "test/nll", "direction": "minimize", "value": 0.1}]}, "fitting the test"),
        ({"status": "failed"}, "No run has finished"),
        ({"val": None}, "undefined in every run"),
        ({"val": float("nan")}, "undefined in every run"),
    ],
)
def test_nothing_is_chosen_where_nothing_can_be(tmp_path, change, why):
    runs = [write_run(tmp_path, n, lr=n / 10, **change) for n in (1, 2)]
    group = collect(runs)
    assert group.chosen == []
    assert why in group.how
    written = write_group_report(runs, tmp_path / "out")
    assert why in text_of(written["html"])
    assert not any("test/" in column for column in read(written["csv"])[0])


def test_one_setting_is_no_choice_and_two_kinds_of_objective_cannot_be_compared(tmp_path):
    runs = [write_run(tmp_path, n, seed=n) for n in (1, 2)]
    group = collect(runs)
    assert "nothing to choose" in group.how
    assert len(group.chosen) == 1, "its test metrics are shown"
    other = write_run(tmp_path, 3, lr=0.5, objective=[{"metric": "val/auroc", "direction": "maximize", "value": 0.9}])
    group = collect([*runs, other])
    assert group.chosen == []
    assert "different objectives" in group.how


def test_several_objectives_give_the_pareto_set(tmp_path):
    points = {1: (0.1, 0.9), 2: (0.2, 0.95), 3: (0.3, 0.94), 4: (0.05, 0.8)}
    runs = [
        write_run(
            tmp_path,
            n,
            lr=n / 10,
            val=nll,
            objective=[
                {"metric": "val/nll", "direction": "minimize", "value": nll},
                {"metric": "val/auroc", "direction": "maximize", "value": auroc},
            ],
        )
        for n, (nll, auroc) in points.items()
    ]
    assert [s.values["optimizer.lr"] for s in collect(runs).chosen] == [0.1, 0.2, 0.4]


# ------------------------------------------------------------------------------------------------- counting


def test_how_many_ended_how(tmp_path):
    runs = [
        write_run(tmp_path, 1, seed=1, lr=0.1),
        write_run(tmp_path, 2, seed=2, lr=0.1, status="failed", reason="loss is not finite at step 7"),
        write_run(tmp_path, 3, seed=3, lr=0.1, status="pruned"),
        write_run(tmp_path, 4, seed=4, lr=0.1, status="interrupted"),
        write_run(tmp_path, 5, seed=5, lr=0.1, status="running"),  # no process holds it: killed
        write_run(tmp_path, 6, seed=1, lr=0.2),
        write_run(tmp_path, 7, seed=2, lr=0.2),
    ]
    (runs[6] / "result.json").write_text("")
    rows = read(write_group_report(runs, tmp_path / "out")["csv"])
    names = ("finished", "failed", "pruned", "interrupted", "missing")
    assert [[row[name] for name in names] for row in rows] == [["1", "1", "1", "2", "0"], ["1", "0", "0", "0", "4"]]
    page = text_of(tmp_path / "out" / "report.html")
    assert "loss is not finite at step 7" in page
    assert "left no readable result" in page


def test_trials_with_a_seed_each_are_not_called_a_grid_with_holes(tmp_path):
    runs = [write_run(tmp_path, n, seed=n, lr=n / 10, val=n / 10) for n in range(1, 5)]
    rows = read(write_group_report(runs, tmp_path / "out")["csv"])
    assert [row["missing"] for row in rows] == ["0"] * 4


def test_a_metric_that_some_runs_lack_says_how_many_have_it(tmp_path):
    runs = [write_run(tmp_path, n, seed=n, val=v) for n, v in ((1, 0.5), (2, float("nan")), (3, 0.7))]
    written = write_group_report(runs, tmp_path / "out")
    [row] = read(written["csv"])
    assert (row["finished"], row["val/nll n"]) == ("3", "2")
    assert "(n = 2)" in text_of(written["html"])


# ------------------------------------------------------------------------------------------------- outputs


def test_csv_numbers_are_exact_and_tied_to_runs_and_commit(tmp_path):
    runs = grid(tmp_path)
    written = write_group_report(runs, tmp_path / "lr")
    small, large = read(written["csv"])
    assert float(small["val/nll mean"]) == pytest.approx(0.52, abs=1e-12)
    assert float(small["val/nll sd"]) == pytest.approx(0.02, abs=1e-12)
    half = stats.t.ppf(0.975, 2) * 0.02 / math.sqrt(3)
    assert float(small["val/nll t95_low"]) == pytest.approx(0.52 - half, abs=1e-9)
    assert (small["chosen"], large["chosen"]) == ("no", "yes")
    assert small["test/nll mean"] == "", "the test is shown once, for the chosen setting"
    assert float(large["test/nll mean"]) == pytest.approx(0.73)
    assert small["runs"].split() == [r.name for r in runs[:3]]
    assert small["commits"] == "0123456789"
    assert {row["synthetic"] for row in (small, large)} == {"yes"}
    table = read(written["runs_csv"])
    assert [row["run"] for row in table] == [r.name for r in runs]
    assert [row["seed"] for row in table] == ["1", "2", "3"] * 2
    assert not [column for column in table[0] if column.startswith("test/")]


def test_the_page_holds_table_choice_and_curves(tmp_path):
    runs = grid(tmp_path, curve=5)
    page = write_group_report(runs, tmp_path / "lr")["html"]
    text = text_of(page)
    assert "lr: 6 runs" in text
    assert "0.520 ± 0.020" in text
    assert "test/nll 0.730 ± 0.020" in text
    assert "0.610" not in text, "the test metric of a setting that was not chosen"
    assert "synthetic data" in text
    assert all(run.name in text for run in runs)
    assert page.read_text().count("<img") == 1
    assert not re.search(r"https?://|<script", page.read_text())


def test_many_metrics_and_long_settings_stay_readable(tmp_path):
    runs = []
    for n, lr in ((1, 0.1), (2, 0.2)):
        metrics = {f"val/m{k:02d}": {"value": float(k)} for k in range(30)} | {"test/m20": {"value": 1.0}}
        many = {"metrics": metrics | {"val/nll": {"value": 0.5}}, "goals": [{"metric": "test/m20", "min": 0.5}]}
        runs.append(write_run(tmp_path, n, lr=lr, config={"name": "a long value " * 5 + str(n)}, curve=3, **many))
    group = collect(runs)
    assert [s.label for s in group.settings] == ["setting 1", "setting 2"]
    written = write_group_report(runs, tmp_path / "out")
    text = text_of(written["html"])
    assert "23 further metrics are in settings.csv" in text
    assert "val/nll val/m20 val/m00" in text, "the objective, what has a goal, the rest"
    assert len([c for c in read(written["csv"])[0] if c.startswith("val/") and c.endswith("mean")]) == 31


def test_written_twice_it_is_the_same(tmp_path):
    runs = grid(tmp_path, curve=3)
    first = {k: p.read_bytes() for k, p in write_group_report(runs, tmp_path / "out").items()}
    second = {k: p.read_bytes() for k, p in write_group_report(runs[::-1], tmp_path / "out").items()}
    assert first == second, "neither time nor the order of the runs matters"


def test_code_and_data_that_differ_are_pointed_out(tmp_path):
    runs = grid(tmp_path)
    record = json.loads((runs[0] / "provenance.json").read_text())
    (runs[0] / "provenance.json").write_text(json.dumps(record | {"commit": "fedcba9876543210", "data_fingerprint": "a"}))
    (runs[3] / "provenance.json").write_text(json.dumps(record | {"data_fingerprint": "b", "dirty": True}))
    text = text_of(write_group_report(runs, tmp_path / "out")["html"])
    assert "3 states of the code: 0123456789, 0123456789+changes, fedcba9876" in text
    assert "Runs with one seed have seen different data" in text


def test_latex_is_escaped_and_balanced(tmp_path):
    nasty = "50%_a&b#1$x${y}~z^w\\alpha"
    runs = [
        write_run(tmp_path, n, seed=n, lr=lr, val=-0.4 + n / 100, config={"name": name})
        for n, (lr, name) in enumerate([(0.1, nasty), (0.2, "plain"), (0.1, nasty), (0.2, "plain")], start=1)
    ]
    written = write_group_report(runs, tmp_path / "a_b")
    tex = written["tex"].read_text()
    lines = tex.splitlines()
    assert all(line.startswith("%") for line in lines[: next(i for i, line in enumerate(lines) if line.startswith("\\"))])
    body = "\n".join(line for line in lines if not line.startswith("%"))
    for character in "%&#_":
        bare = re.findall(rf"(?<!\\){re.escape(character)}", body)
        assert len(bare) == (body.count(" & ") if character == "&" else 0), character
    assert body.count("{") - body.count("\\{") == body.count("}") - body.count("\\}")
    assert len(re.findall(r"(?<!\\)\$", body)) % 2 == 0
    for inside in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", body, flags=re.S):
        rows = [line for line in inside[1].splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 2
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(inside[0])}
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == 2
    assert "Synthetic data" in body
    assert "0123456789" in tex
    assert all(run.name in tex for run in runs)


@given(st.text())
def test_escaped_text_holds_no_bare_special_character(text):
    escaped = latex.escape(text)
    for command in (r"\\textbackslash{}", r"\\textasciitilde{}", r"\\textasciicircum{}", r"\\text(less|greater){}"):
        escaped = re.sub(command, "", escaped)
    escaped = re.sub(r"\$\\(geq|leq|pm|infty)\$|\$-\$", "", escaped)
    assert not re.search(r"(?<!\\)[&%$#_{}~^\\](?![&%$#_{}])", escaped)


def test_no_runs_is_a_clear_error(tmp_path):
    with pytest.raises(MissingFile, match="make runs"):
        write_group_report([], tmp_path)
