"""Exactly the expected figures, from one small analysis of stand-ins for three models; the page; what degraded means."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from embeddings import figures, from_files, join
from embeddings.analysis import analyse
from embeddings.comparing.compared import Comparing
from embeddings.figures.anchors import anchors_of, published
from embeddings.figures.named import NAMES, named
from embeddings.figures.pieces import canvas
from embeddings.finding import Mapping2D
from embeddings.finding.found import Finding
from embeddings.finding.page import write_page
from embeddings.probes.encoded import Probing
from embeddings.samples import catalogue_and_embeddings, synthetic
from skyloom.data.tables import read_columns
from skyloom.errors import ConfigError, DataError
from skyloom.run import Run

QUICK = {
    "components": 36,
    "probes": Probing(
        folds=3, shuffles=1, neighbours=8, knn_objects=150, other=(), label_counts=(100,), label_draws=1, resamples=4
    ),
    "comparison": Comparing(permutations=2, objects=150, joint_objects=150, resamples=4),
    "maps": Mapping2D(method="pca", others=("tsne",), fit_objects=60, seeds=1),
    "finding": Finding(neighbours=5, methods=("isolation",)),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("runs"), {"pkg": "embeddings", "experiment": "three"})
    run.acquire()
    metrics = analyse(run, synthetic(320, 40, seed=0, models=["astropt", "aion", "astroclip"]), page_objects=0, **QUICK)
    assert metrics["test/null_r2"] < 0.5
    return run


@pytest.fixture(scope="module")
def saved(run):
    return read_columns(run.directory / "predictions" / "test.parquet")


@pytest.mark.parametrize("which", NAMES)
def test_every_set_has_exactly_the_names_that_notebooks_and_scripts_gave(saved, which):
    assert tuple(one.name for one in named(which, *saved)) == NAMES[which]


def test_names_are_those_of_the_sources():
    short = ["logm", "logsfr", "ssfr", "dn4000", "gr_color"]
    long = [
        *short,
        "spectype",
        "ellipticity",
        "kron_radius",
        "concentration",
        "asymmetry",
        "smoothness",
        "gini",
        "sersic_index",
    ]
    assert set(NAMES["aion"]) >= {
        "aion_embeddings_comparison_redshift", *(f"aion_embeddings_{n}" for n in long), "aion_cosine_similarity_analysis"
    }  # fmt: skip
    assert NAMES["astropt"] == ("astropt_embeddings_redshift", *(f"astropt_embeddings_{n}" for n in [*short, "spectype"]))
    correlations = ("model_comparison_correlations", "model_comparison_cosine_similarity")
    assert NAMES["comparison"] == ("model_comparison_redshift", *(f"model_comparison_{n}" for n in short), *correlations)
    assert set(NAMES["scripts"]) == {
        "umap_desi_embeddings_redshift", "umap_desi_embeddings_bins", "tsne_desi_embeddings_redshift",
        "density_desi_embeddings", "multimodal_embedding_analysis", "correlation_heatmap", "downstream_task_results",
    }  # fmt: skip
    maps = [f"umap_{n}" for n in ("logM", "logSFR", "Dn4000", "HaHb", "sersic", "concentration", "spiral")]
    assert NAMES["three"] == (*maps, "embedding_space_correlations", "model_comparison_three_correlations")


def test_old_figures_come_with_their_null_and_say_what_they_do_not_show(saved, tmp_path):
    columns, about = saved
    every = {one.name: one for which in NAMES for one in named(which, columns, about)}
    with canvas(30):
        bins = every["umap_desi_embeddings_bins"]
        counts = bins.draw(columns, about, tmp_path / "a.png", **bins.options)
        bars = every["embedding_space_correlations"].draw(columns, about, tmp_path / "b.png")
    z = columns["truth.redshift"][np.isfinite(columns["pca.astropt/embedding"][:, 0])]
    assert list(counts.values()) == np.histogram(z, [0, 0.5, 1, 1.5, 2, np.inf])[0].tolist()
    assert set(bars) == {"astropt/embedding", "aion/fused", "astroclip/image"}
    assert all((one["null"] > 0.1).all() for one in bars.values())
    assert "rotation" in every["embedding_space_correlations"].caption
    assert "unrelated" in every["model_comparison_cosine_similarity"].caption
    assert "arbitrary" in every["model_comparison_correlations"].caption


@pytest.mark.slow
def test_all_figures_of_all_sets_are_drawn(saved, tmp_path):
    drawn = figures.draw(*saved, tmp_path, maps=[], sets=list(NAMES), dpi=40)
    assert {p.stem for p in tmp_path.glob("*.png")} >= {name for names in NAMES.values() for name in names}
    assert all("Synthetic data." in figure.caption for figure in drawn)
    with pytest.raises(ConfigError, match="no set of figures"):
        figures.draw(*saved, tmp_path, sets=["aio"])


def test_published_numbers_have_their_provenance_and_a_mark_only_where_they_belong():
    assert set(published()) == {"sources", "unavailable", "entries"}
    assert "arXiv" in published()["sources"]["aion"]
    (base, *_) = anchors_of("aion", "fused")
    assert (base["redshift"], base["log_mass"], base["log_ssfr"]) == (1.00, 0.96, 0.72)
    assert anchors_of("alpha", "fused") == anchors_of("astropt", "embedding") == []


def test_outliers_are_listed_with_identifiers_and_places(run, saved):
    import csv

    rows = list(csv.DictReader((run.directory / "outliers.csv").open()))
    assert {row["method"] for row in rows} == {"isolation", "mismatch"}
    columns, _ = saved
    for row in rows[:5]:
        at = int(row["row"])
        assert row["TARGETID"] == str(columns["TARGETID"][at])
        assert float(row["map_1"]) == pytest.approx(columns[f"map.{row['embedding']}"][at, 0])


# ---------------------------------------------------------------------------------------------------------------- the page


def content_of(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)
    return json.loads(found[1])


def unpack(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def test_the_page_holds_what_the_run_found_and_nothing_from_elsewhere(saved, tmp_path):
    columns, about = saved
    path = write_page(tmp_path / "explore.html", columns, about)
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|src=|@import", text.replace("img-src", "").replace("style-src", "").replace("script-src", "")
    )
    data = content_of(path)
    assert data["count"] == about["objects"]
    assert data["synthetic"] is True
    k = [p["label"] for p in data["properties"]].index("log stellar mass [Msun]")
    assert np.array_equal(
        unpack(data["properties"][k]["values"], "<f4"), columns["truth.log_mass"].astype(np.float32), equal_nan=True
    )
    view = next(v for v in data["views"] if v["name"] == "aion/image")
    near = unpack(view["near"], "<i4").reshape(-1, view["k"])
    assert np.array_equal(near, columns["nearest.aion/image"])
    x = unpack(view["x"], "<u2")
    assert np.corrcoef(x, columns["map.aion/image"][:, 0])[0, 1] > 0.9999
    ids = next(one for one in data["ids"] if one["name"] == "object_id")["values"].split("\n")
    assert ids == columns["object_id"].astype(str).tolist()


def test_a_page_of_fewer_objects_points_to_rows_of_its_own(saved, tmp_path):
    columns, about = saved
    data = content_of(write_page(tmp_path / "few.html", columns, about, most=100))
    assert (data["count"], data["of"]) == (100, about["objects"])
    near = unpack(data["views"][0]["near"], "<i4")
    assert near.max() < 100
    assert near.min() == -1


CHECK = """
<script>
const out = {count: n, errors: []};
window.onerror = m => out.errors.push(m);
const box = stage.getBoundingClientRect();
const where = i => ({
  clientX: toX(views[0].x[i]) / ratio + box.left, clientY: toY(views[0].y[i]) / ratio + box.top, pointerId: 1, bubbles: true});
const fire = (type, o) => stage.dispatchEvent(new PointerEvent(type, o));
const some = order[3];
fire("pointermove", where(some));
out.tip = $("tip").textContent; out.hovered = state.hover;
fire("pointerdown", where(some)); fire("pointerup", where(some)); out.chosen = state.chosen;
out.listed = document.querySelectorAll("tr.pick").length;
out.expected = neighbours(state.chosen).length;
$("colour").value = "c0"; $("colour").onchange({target: $("colour")});
out.legend = $("legend").textContent;
const before = toX(views[0].x[some]), here = {clientX: 300, clientY: 300, pointerId: 1}, there = {...here, clientX: 340};
fire("pointerdown", here); fire("pointermove", there); fire("pointerup", there);
out.panned = (toX(views[0].x[some]) - before) / ratio;
const scale = state.scale;
stage.dispatchEvent(new WheelEvent("wheel", {deltaY: -400, clientX: 300, clientY: 300}));
out.zoomed = state.scale / scale;
reset();
const times = [];
for (let k = 0; k < 20; k++) { state.dx += 3; draw(); times.push(state.frame); }
times.sort((a, b) => a - b); out.frame = times[10];
out.inked = pixels.reduce((a, p) => a + (p !== 0), 0);
document.body.innerHTML = "<pre id=out></pre>";
document.getElementById("out").textContent = JSON.stringify(out);
</script></body>"""


def in_browser(path, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    checked = tmp_path / "checked.html"
    checked.write_text(path.read_text(encoding="utf-8").replace("</body>", CHECK), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,800", f"--user-data-dir={tmp_path}/profile"]
    shown = subprocess.run(
        [chromium, *words, "--dump-dom", f"file://{checked}"], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', shown.stdout, re.S)
    assert found, shown.stdout[-500:] + shown.stderr[-500:]
    return json.loads(found[1])


@pytest.mark.slow
def test_fifty_thousand_points_move_smoothly_in_a_browser(tmp_path):
    rng = np.random.default_rng(0)
    n = 50_000
    xy = rng.normal(size=(n, 2)) * [3, 1]
    columns = {"map.m/image": xy, "pca.m/image": xy, "truth.redshift": rng.random(n), "object_id": np.arange(n) + 10**15}
    columns |= {"class.spectral type": rng.choice(["GALAXY", "QSO", ""], n), "nearest.m/image": rng.integers(0, n, (n, 10))}
    about = {
        "objects": n, "synthetic": True, "embeddings": ["m/image"], "classes_of": ["spectral type"],
        "identifiers": ["object_id"],
        "properties": [{"name": "redshift", "axis": "redshift $z$", "colours": "viridis"}],
        "explained": {"m/image": [0.5, 0.2]},
        "maps": [{"embedding": "m/image", "column": "map.m/image", "method": "umap"}],
    }  # fmt: skip
    found = in_browser(write_page(tmp_path / "explore.html", columns, about), tmp_path)
    assert found["errors"] == []
    assert found["count"] == n
    assert "redshift z" in found["tip"]
    assert found["chosen"] == found["hovered"] >= 0
    assert found["listed"] == found["expected"] == 10
    assert "GALAXY" in found["legend"]
    assert "no value" in found["legend"]
    assert found["panned"] == pytest.approx(40, abs=0.5)
    assert found["zoomed"] > 1.5
    assert found["inked"] > 10_000
    assert found["frame"] < 100, f"{found['frame']:.0f} ms a frame"


# ------------------------------------------------------------------------------------------------------------ degraded runs


def apart():
    """Two models of the same catalogue that have no object in common."""
    catalogue, (alpha, beta) = catalogue_and_embeddings(400, 40, seed=1)
    middle = np.median(catalogue.ids["object_id"])
    low = catalogue.ids["object_id"] <= middle
    alpha = alpha.take(np.flatnonzero(alpha.ids["object_id"] <= middle))
    beta = beta.take(np.flatnonzero(~np.isin(beta.ids["TARGETID"], catalogue.ids["TARGETID"][low])))
    return catalogue, alpha, beta


def test_models_without_a_common_object_are_drawn_apart_and_the_run_says_degraded(tmp_path):
    catalogue, alpha, beta = apart()
    sample = join([alpha, beta], catalogue)
    run = Run.create(tmp_path, {"pkg": "embeddings", "experiment": "apart"})
    run.acquire()
    analyse(run, sample, page_objects=0, **{**QUICK, "finding": None, "maps": None})
    assert run.result["analysis"]["status"] == "degraded"
    assert "no object in common" in run.result["analysis"]["reasons"][0]
    assert json.loads((run.directory / "join_report.json").read_text())["status"] == "degraded"
    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    drawn = [f.path.stem for f in figures.draw(columns, about, tmp_path / "figures", maps=["redshift"], dpi=30)]
    assert {"probes", "map_redshift"} <= set(drawn)
    assert not {"model_differences", "model_similarity", "joint_gain_models"} & set(drawn)


def test_a_model_that_no_catalogue_knows_is_mapped_without_properties():
    catalogue, alpha, beta = apart()
    strange = type(beta)("beta", {"TARGETID": beta.ids["TARGETID"] + 10**15}, beta.vectors, synthetic=True)
    with pytest.raises(DataError, match="no identifier matches"):
        join([alpha, strange], catalogue)
    with pytest.warns(UserWarning, match="no identifier matches"):
        sample = join([alpha, strange], catalogue, allow_no_match=True)
    assert len(sample) == len(alpha) + len(beta)
    assert len(sample.degraded) == 2
    theirs = sample.named("beta/image")
    rows = np.flatnonzero(theirs.present)
    assert np.array_equal(theirs[rows], beta["image"])
    assert all(np.isnan(values[rows]).all() for values in sample.properties.values())
    assert sample.ids["beta TARGETID"][rows].tolist() == strange.ids["TARGETID"].tolist()
    assert len(np.unique(sample.groups[rows])) == len(rows)


def test_the_same_models_with_identifiers_cast_to_float_raise(tmp_path):
    catalogue, alpha, _ = apart()
    np.save(tmp_path / "embeddings.npy", alpha["image"])
    np.save(tmp_path / "object_ids.npy", alpha.ids["object_id"].astype(np.float64))
    with pytest.raises(DataError, match="floating point"):
        from_files({"alpha": str(tmp_path)}, str(_catalogue_file(catalogue, tmp_path)), allow_no_match=True)


def _catalogue_file(catalogue, folder):
    import pandas as pd

    pd.DataFrame({**catalogue.ids, **catalogue.numbers}).to_parquet(folder / "catalogue.parquet")
    return folder / "catalogue.parquet"
