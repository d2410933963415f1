"""The whole analysis through the command line: record, figures from predictions alone, predict, export, real tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embeddings import figures
from embeddings.figures import knowledge, places
from skyloom.data.tables import read_columns
from skyloom.launch.__main__ import main
from skyloom.launch.compose import compose_config, resolve
from skyloom.run import list_runs

ROOT = Path(__file__).resolve().parents[2]
PROPERTIES = "data.properties=[redshift,log_mass,log_sfr,log_ssfr,dn4000,spiral_arms,log_snr_b,log_snr]"
SMALL = [
    "data.objects=500",
    "data.dimension=40",
    PROPERTIES,
    "workflow.probes.knn_objects=300",
    "workflow.comparison.objects=300",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def here(monkeypatch, runs):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SKYLOOM_RUNS", str(runs))
    monkeypatch.delenv("SKYLOOM_OVERRIDES", raising=False)


@pytest.fixture(scope="module")
def run(runs):
    import os

    before = Path.cwd(), os.environ.get("SKYLOOM_RUNS")
    os.chdir(ROOT)
    try:
        words = ["pkg=embeddings", "+experiment=known_answers", "scale=smoke", "hardware.threads=1", *SMALL]
        assert main(["train", *words, f"runs_dir={runs}", f"cache_dir={runs}/cache", "logger=none"]) == 0
    finally:
        os.chdir(before[0])
    return list_runs(runs, "embeddings", "known_answers")[0]


def test_the_configuration_composes_to_this_workflow():
    for extra in (
        [],
        ["+experiment=known_answers"],
        ["data=embeddings/files", "data.embeddings=x.csv"],
        ["+experiment=aion", "scale=full"],
    ):
        config = resolve(compose_config(["pkg=embeddings", *extra]))
        assert config["workflow"]["_target_"] == "embeddings.analysis.analyse"
    assert resolve(compose_config(["pkg=embeddings"]))["data"]["stand_in"]["objects"] == 12_000
    for given in ("data.embeddings=x.pt", "data.embeddings.aion=x.pt"):
        config = resolve(compose_config(["pkg=embeddings", "+experiment=aion", given, "data.catalog=c.fits"]))
        assert config["data"]["embeddings"] in ("x.pt", {"aion": "x.pt"})


def test_a_run_records_what_it_found(run):
    result = run.result
    assert result["status"] == "finished"
    assert result["synthetic"] is True
    assert {"test/r2_gap", "test/null_r2", "test/partial_r2_gap", "test/joint_gain_gap", "test/cka_gap"} == {
        goal["metric"] for goal in result["goals"]
    }
    assert result["analysis"] == {"status": "complete", "reasons": []}
    assert all(goal["value"] is not None for goal in result["goals"])
    one = result["metrics"]["probe/r2/ridge/alpha/spectrum/log_mass"]
    assert one["low"] < one["value"] < one["high"]
    assert result["objective"][0]["value"] == result["metrics"]["test/mean_r2"]["value"]
    report = json.loads((run.directory / "join_report.json").read_text())
    assert report["status"] == "complete"
    assert [r["used"] for r in report["models"]] == [["object_id", "object_id"], ["TARGETID", "TARGETID"]]
    assert len(report["models"][0]["pairs"]) == 2
    table, _ = read_columns(run.directory / "predictions" / "probes.parquet")
    assert dict(zip(*np.unique(table["probe"], return_counts=True), strict=True)) == {
        "ridge": 48,
        "knn": 48,
        "mlp": 48,
        "trees": 6,
    }


def test_metrics_are_those_of_the_saved_predictions(run):
    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    for row in about["probes"]:
        if row["probe"] == "ridge":
            y, p = columns[f"truth.{row['property']}"], columns[f"ridge.{row['embedding']}.{row['property']}"]
            use = np.isfinite(y) & np.isfinite(p)
            r2 = 1 - ((y - p)[use] ** 2).sum() / ((y[use] - y[use].mean()) ** 2).sum()
            assert row["r2"] == pytest.approx(r2, abs=1e-9)
            assert row["objects"] == use.sum()


GENERAL = [
    "probes", "partial_r2", "learning_curves", "class_separation", "model_differences", "model_similarity",
    "modality_similarity", "joint_gain_models", "joint_gain_modalities", "retrieval", "map_log_sfr", "outliers_isolation",
    "outliers_lof", "outliers_flow",
]  # fmt: skip


def test_figures_are_drawn_from_predictions_alone(run, tmp_path):
    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    drawn = figures.draw(columns, about, tmp_path, maps=["log_sfr"], dpi=40)
    assert [f.path.stem for f in drawn] == GENERAL
    assert all("Synthetic data." in f.caption and f.path.stat().st_size > 2000 for f in drawn)
    listed = json.loads((run.directory / "figures" / "figures.json").read_text())
    assert {entry["file"] for entry in listed} == {p.name for p in (run.directory / "figures").glob("*.png")}


def test_figures_show_what_the_tables_say(run, tmp_path):
    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    shown = knowledge.probes(columns, about, tmp_path / "p.png")["alpha/image"]
    assert shown["r2"][1] == run.result["metrics"]["probe/r2/ridge/alpha/image/log_mass"]["value"]
    plotted = places.by_property(columns, about, tmp_path / "q.png", "log_sfr", (2.0, 98.0))
    known = columns["truth.log_sfr"]
    assert plotted["limits"] == pytest.approx(np.nanpercentile(known, [2, 98]))
    coloured, grey = plotted["points"]["alpha/image"]
    assert (coloured, grey) == (np.isfinite(known).sum(), np.isnan(known).sum())


def test_a_run_predicts_for_new_objects_and_exports(run, tmp_path, capsys):
    from embeddings.samples import catalogue_and_embeddings

    catalogue, sets = catalogue_and_embeddings(500, 40, seed=0)
    beta = sets[1]
    new = {"TARGETID": beta.ids["TARGETID"], "embedding_image": list(beta["image"])}
    pd.DataFrame(new).to_parquet(tmp_path / "beta_new.parquet")
    words = [f"run={run.directory}", f"input={tmp_path / 'beta_new.parquet'}", f"output={tmp_path / 'out.parquet'}"]
    assert main(["predict", *words]) == 0
    found, _ = read_columns(tmp_path / "out.parquet")
    order = np.argsort(catalogue.ids["TARGETID"])
    truth = catalogue.numbers["LOGM"][order][np.searchsorted(catalogue.ids["TARGETID"][order], found["TARGETID"])]
    assert np.corrcoef(truth, found["image.log_mass"])[0, 1] ** 2 > 0.7
    pd.DataFrame(new).to_parquet(tmp_path / "unnamed.parquet")
    assert main(["predict", f"run={run.directory}", f"input={tmp_path / 'unnamed.parquet'}"]) == 2
    assert "which of them made" in capsys.readouterr().err
    assert main(["export", f"run={run.directory}", f"output={tmp_path / 'model.pt2'}"]) == 0


def test_a_plain_catalogue_goes_through_without_code(tmp_path, runs):
    rng = np.random.default_rng(0)
    n = 400
    colours = rng.normal(size=(n, 5))
    table = pd.DataFrame(colours * [1, 10, 100, 0.1, 1], columns=list("ugriz"))
    table = table.assign(objid=np.arange(n), redshift=colours @ [0.5, 0.2, 0, 0, 0] + 0.1 * rng.normal(size=n))
    table["class"] = rng.choice(["GALAXY", "QSO", "STAR"], n)
    table["ra"], table["dec"] = rng.uniform(0, 20, n), rng.uniform(-5, 5, n)
    table.to_csv(tmp_path / "sdss.csv", index=False)
    words = ["pkg=embeddings", f"data.embeddings={tmp_path / 'sdss.csv'}", "data.columns=[u,g,r,i,z]"]
    words += ["scale=smoke", "workflow.probes.knn_objects=200", "logger=none", "hardware.threads=1", f"runs_dir={runs}"]
    assert main(["train", *words]) == 0
    result = list_runs(runs, "embeddings", None)[0].result
    assert result["synthetic"] is False
    assert result["metrics"]["probe/r2/ridge/sdss/columns/redshift"]["value"] > 0.9
    assert 0 < result["metrics"]["test/macro_f1/spectral_type/sdss/columns"]["value"] < 0.6  # classes are random here
    assert "test/r2_gap" not in result["metrics"]


def test_what_cannot_be_is_said_in_one_line(tmp_path, runs, capsys):
    pd.DataFrame({"objid": [1.5, 2.5], "a": [1.0, 2.0], "redshift": [0.1, 0.2]}).to_csv(tmp_path / "cast.csv", index=False)
    words = ["pkg=embeddings", "data=embeddings/files", f"data.embeddings={tmp_path / 'cast.csv'}", "data.columns=[a]"]
    assert main(["train", *words, f"runs_dir={runs}", "logger=none"]) == 2
    assert "floating point" in capsys.readouterr().err
    assert main(["train", "pkg=embeddings", "data=embeddings/files", f"runs_dir={runs}"]) == 2
    assert "data.embeddings" in capsys.readouterr().err


def test_an_experiment_on_files_says_which_are_missing(runs, capsys):
    words = ["pkg=embeddings", "+experiment=compare_astropt_aion", "data.embeddings.aion=nowhere.pt", f"runs_dir={runs}"]
    assert main(["train", *words, "logger=none"]) == 2
    said = capsys.readouterr().err
    for word in ("data.embeddings.astropt=<path> (not given)", "no such file: nowhere.pt", "data.catalog=<path> (not given)"):
        assert word in said


def test_a_run_finds_what_is_like_an_object_and_draws_it(run, tmp_path, capsys):
    columns, _ = read_columns(run.directory / "predictions" / "test.parquet")
    query = int(columns["object_id"][np.flatnonzero(columns["nearest.alpha/image"][:, 0] >= 0)[3]])
    (tmp_path / "pictures").mkdir()
    for name in columns["object_id"][:60]:
        np.save(tmp_path / "pictures" / f"{name}.npy", np.random.default_rng(int(name) % 1000).normal(size=(3, 12, 12)))
    words = ["embedding=alpha/image", f"images={tmp_path / 'pictures'}", f"output={tmp_path / 'grid.png'}", "neighbours=4"]
    with pytest.warns(UserWarning, match="no object is called 7"):
        assert main(["similar", f"run={run.directory}", f"objects=[{query},7]", *words]) == 0
    assert "queries: 1" in capsys.readouterr().err
    assert (tmp_path / "grid.png").stat().st_size > 5000
    assert main(["explore", f"run={run.directory}", f"output={tmp_path / 'page.html'}", "objects=50"]) == 0
    assert (tmp_path / "page.html").stat().st_size > 20_000
