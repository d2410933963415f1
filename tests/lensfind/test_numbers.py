"""Tables of the documentation come from run directories, seed by seed, and land between their markers alone."""

import numpy as np
import pytest

from lensfind.evaluate import numbers
from lensfind.evaluate.rows import gather
from skyloom.data.tables import write_columns
from skyloom.errors import DataError
from skyloom.run import Run


def make(folder, experiment, seed, logit, lens, words="", scale="laptop", auroc=0.9):
    config = {"pkg": "lensfind", "experiment": experiment, "scale": scale, "seed": seed, "data": {"class_prior": 0.1}}
    run = Run.create(folder, config, directory=folder / experiment / f"{words}{seed}{scale}")
    run.write_json(
        "provenance.json", {"command": f"make train pkg=lensfind +experiment={experiment} {words} seed={seed} logger=none"}
    )
    metrics = {"test/auroc": {"value": auroc + 0.01 * seed, "low": 0, "high": 1}, "test/ece": {"value": 0.01}}
    run.update(status="finished", metrics=metrics, device="CPU")
    columns = {"logit": logit, "lens": lens, "labelled": np.zeros(len(lens)), "seed": np.arange(len(lens)) + 100 * seed}
    write_columns(run.directory / "predictions" / "test.parquet", columns, {})
    return run


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lens = rng.random(3000) < 0.2
    for seed in (0, 1):
        make(tmp_path, "good", seed, rng.normal(2.0 * lens), lens)
        make(tmp_path, "poor", seed, rng.normal(0.5 * lens), lens, auroc=0.6)
    make(tmp_path, "good", 0, rng.normal(2.0 * lens), lens, words="task=other")
    make(tmp_path, "good", 2, rng.normal(2.0 * lens), lens, scale="smoke")
    return tmp_path


def test_seeds_share_a_row_and_other_sizes_do_not_count(folder):
    rows = gather(folder)
    assert [(row.experiment, row.words, len(row.runs)) for row in rows] == [
        ("good", (), 2), ("good", ("task=other",), 1), ("poor", (), 2),
    ]  # fmt: skip
    assert rows[0].command == "make sweep pkg=lensfind +experiment=good seed=0,1"
    assert rows[1].command == "make train pkg=lensfind +experiment=good task=other"
    assert rows[0].values("test/auroc").tolist() == pytest.approx([0.9, 0.91])


def test_a_word_with_spaces_stays_one(tmp_path):
    lens = np.arange(40) % 4 == 0
    make(tmp_path, "good", 0, lens * 1.0, lens, words="'task.conditions={seeing: [1.0, 0.1]}'")
    (row,) = gather(tmp_path)
    assert row.words == ("task.conditions={seeing: [1.0, 0.1]}",)
    assert row.command == "make train pkg=lensfind +experiment=good 'task.conditions={seeing: [1.0, 0.1]}'"


def test_pairs_are_of_the_same_rows(folder):
    rows = gather(folder)
    table = numbers.pairs(rows, [("good", "poor"), ("good", "absent")]).splitlines()
    assert len(table) == 2 + 2
    difference = float(table[2].split("|")[6])
    assert difference == pytest.approx(0.92 - 0.64, abs=0.04)
    rng = np.random.default_rng(1)
    make(folder, "elsewhere", 0, rng.normal(size=50), rng.random(50) < 0.5)
    with pytest.raises(DataError, match="different rows"):
        numbers.pairs(gather(folder), [("good", "elsewhere")])


def test_tables_land_between_their_markers_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "cost", lambda run: {"parameters": 2e5, "flops": 3e6, "seconds": 1e-3})
    page = tmp_path / "page.md"
    blocks = "<!-- numbers: experiments -->\nold\n<!-- /numbers -->\nafter\n<!-- numbers: pairs -->\n<!-- /numbers -->"
    page.write_text(f"before\n{blocks}\nend\n")
    assert numbers.write(page, folder, [("good", "poor")]) == ["experiments", "pairs"]
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- numbers: experiments -->\n| experiment |")
    assert "| `good` | 0.1 | 0.20 M | 3 | – | 0.905 ± 0.007 | – | – | 0.0100 ± 0.0000 | – | 2 | CPU |" in text
    assert text.endswith("end\n")
    assert numbers.write(page, folder, [("good", "poor")])
    assert page.read_text() == text


def test_large_runs_and_other_surveys_have_tables_of_their_own(folder):
    rng = np.random.default_rng(2)
    lens = rng.random(400) < 0.2
    big = make(folder, "good", 0, rng.normal(2.0 * lens), lens, words="data.n_train=20000")
    interval = {"value": 0.7, "low": 0.6, "high": 0.8}
    table = {
        "n_others": 100000, "n_lenses": 11000, "auroc": interval, "tpr_at_fpr": {"1e-3": interval}, "calibration": {},
        "visible": {"auroc": interval, "tpr_at_fpr_1e-3": {"value": 0.65, "low": 0.6, "high": 0.7}},
    }  # fmt: skip
    big.write_json("evaluation.json", table)
    for survey in ("des", "lsst"):
        run = make(folder, "good", 0, rng.normal(2.0 * lens), lens, words=f"survey={survey}")
        run.write_json("across.json", {"auroc": {survey: interval}})
    rows = gather(folder)
    assert "| `good` | 20000 | 100,000 | 11,000 | 0.7000 [0.6000, 0.8000] |" in numbers.large(rows)
    assert "0.650 [0.600, 0.700]" in numbers.large(rows)
    there = numbers.surveys(rows).splitlines()
    assert there[2].count("0.700 [0.600, 0.800]") == 1
    assert [line.split("|")[2].strip() for line in there[2:]] == ["des", "lsst"]
