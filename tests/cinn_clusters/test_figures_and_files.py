"""What a reader sees: labels with the right units, every object drawn, files that say what they hold."""

import ast
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cinn_clusters import data as cluster_data
from cinn_clusters import figures
from cinn_clusters.columns import INPUT_NAMES, TARGET_NAMES, TARGETS
from cinn_clusters.predict import inside_support, predict
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.task import MergerPosterior
from skyloom.errors import ConfigError, DataError
from skyloom.flows import GlowCoupling, MaskedContext
from skyloom.plots import style

README = Path(__file__).parents[2] / "packages" / "cinn_clusters" / "README.md"


@pytest.fixture(scope="module")
def clusters():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cluster_data.synthetic(80, seed=0)


@pytest.fixture(scope="module")
def task(clusters):
    torch.manual_seed(0)
    return MergerPosterior(clusters.about, partial(GlowCoupling, blocks=2, hidden=16, identity_start=True), draws=60).eval()


@pytest.fixture(scope="module")
def predictions(clusters, task):
    torch.manual_seed(0)
    with torch.no_grad():
        out = task.predict(clusters.test.columns)
    out |= {name: clusters.test[name] for name in clusters.carry}
    return {name: value.numpy() for name, value in out.items()}


def test_the_table_of_units_is_the_catalogues():
    assert [(c.name, c.unit) for c in TARGETS] == [
        ("last_T_coll", "Gyr"),
        ("last_V_coll", "log10(km/s)"),
        ("last_M_Crit500_coll", "1e14 Msun"),
        ("last_Subcluster_mass", "1e14 Msun"),
        ("last_Mass_ratio", ""),
        ("last_d_peri", "log10(kpc)"),
    ]


def test_logarithmic_columns_are_never_labelled_as_linear_ones():
    """The stored velocity and distance are dex: km/s or kpc alone on an axis would be off by powers of ten."""
    for column in TARGETS:
        assert ("log" in column.axis) == column.unit.startswith("log10")


def test_axes_carry_the_name_and_unit_of_what_they_show(predictions, clusters):
    with style():
        grid, drawn = figures.posteriors_against_prior(predictions, clusters.about)
        truth, shown = figures.medians_against_truth(predictions, clusters.about)
    last = grid.axes[-len(TARGETS) :]
    assert [axis.get_xlabel().replace("\n", " ") for axis in last] == [column.axis for column in TARGETS]
    for d, (axis, column) in enumerate(zip(truth.axes, TARGETS, strict=True)):
        assert axis.get_title() == column.label
        assert axis.get_xlabel() == f"Truth{column.bracketed_unit}"
        assert axis.get_ylabel() == f"Posterior median{column.bracketed_unit}"
        low, high = axis.get_xlim()
        assert ((shown["truth"][:, d] >= low) & (shown["truth"][:, d] <= high)).all()
    held_out = {tuple(pair) for pair in np.stack([predictions["halo_id"], predictions["snapshot"]], 1).tolist()}
    rows = [(int(predictions["halo_id"][r]), int(predictions["snapshot"][r])) for r in drawn["rows"]]
    assert set(rows) <= held_out
    assert len({int(predictions["cluster_id"][r]) for r in drawn["rows"]}) == len(drawn["rows"])


def test_no_object_is_hidden(predictions, clusters):
    n = len(clusters.test)
    with style():
        _, ranks = figures.calibration(predictions, clusters.about)
        spread, values = figures.errors_against_spread(predictions, clusters.about)
    assert (ranks["counts"].sum(1) == n).all()
    for d, axis in enumerate(spread.axes):
        x, y = axis.lines[0].get_data()
        assert len(x) == n
        np.testing.assert_allclose(y, values["error"][:, d])


def test_a_calibrated_gaussian_follows_its_reference_lines():
    rng = np.random.default_rng(0)
    n = 6000
    sd = rng.uniform(0.5, 2.0, (n, 6))
    mean = rng.normal(5, 1, (n, 6))
    made = {"map": mean, "sd": sd, "target": mean + sd * rng.normal(size=(n, 6))}
    with style():
        _, values = figures.errors_against_spread(made, {})
    slope68, slope95 = (np.mean(values["lines"][..., k] / values["lines"][..., 0]) for k in (1, 2))
    assert slope68 == pytest.approx(1.0, abs=0.05)
    assert slope95 == pytest.approx(1.96, abs=0.1)
    uniform = {"rank": rng.uniform(size=(n, 6)), "target": made["target"]}
    with style():
        _, covered = figures.coverage(uniform, {})
        _, ranks = figures.calibration(uniform, {})
    np.testing.assert_allclose(covered["inside"], np.broadcast_to(covered["nominal"], (6, 101)), atol=0.03)
    density = ranks["counts"] / n * figures.RANK_BINS
    assert ((density >= ranks["band"][0]) & (density <= ranks["band"][2])).mean() > 0.9


def test_figures_are_written_and_say_synthetic(predictions, clusters, tmp_path):
    drawn = figures.draw(predictions, clusters.about, tmp_path)
    assert len(drawn) == 9
    for figure in drawn:
        assert figure.path.stat().st_size > 10_000
        assert figure.path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert "ynthetic" in figure.caption


def test_the_axes_of_the_staircase_are_named_for_what_they_show(predictions, clusters):
    with style():
        figure, drawn = figures.staircase(predictions, clusters.about)
    assert len(drawn["labels"]) == 15
    names = {column.axis.replace(" [", "\n["): d for d, column in enumerate(TARGETS)}
    for (row, place), axis in zip(drawn["labels"], figure.axes, strict=True):
        truth = axis.lines[0].get_data()
        np.testing.assert_array_equal(truth[0], predictions["target"][:, place])
        np.testing.assert_array_equal(truth[1], predictions["target"][:, row + 1])
        if axis.get_xlabel():
            assert names[axis.get_xlabel()] == place
        if axis.get_ylabel():
            assert names[axis.get_ylabel()] == row + 1


def test_columns_of_a_heat_map_are_distributions_and_bins_hold_every_object(predictions, clusters):
    with style():
        _, maps = figures.prior_to_posterior(predictions, clusters.about)
        _, trend = figures.map_against_truth(predictions, clusters.about)
    filled = maps["shares"].sum(2)
    assert ((np.abs(filled - 1) < 1e-9) | (filled == 0)).all()
    assert (trend["counts"].sum(1) == len(clusters.test)).all()


def test_certain_draws_lie_on_the_diagonal_of_the_heat_map(predictions, clusters):
    certain = predictions | {"samples": np.repeat(predictions["target"][:, None], 5, axis=1)}
    with style():
        _, maps = figures.prior_to_posterior(certain, clusters.about)
    for share in maps["shares"]:
        assert share.sum() == pytest.approx(np.trace(share))


def test_curves_of_a_calibrated_posterior_stay_in_their_band_and_of_a_narrow_one_do_not():
    rng = np.random.default_rng(0)
    n = 500
    made = {"cluster_id": np.arange(n), "rank": rng.random((n, 6)), "tarp": rng.random(n), "credibility": rng.random(n) ** 0.5}
    with style():
        _, drawn = figures.joint_coverage(made, {})
    low, high = drawn["low"] - drawn["points"], drawn["high"] - drawn["points"]
    inside = {name: ((drawn[name] >= low) & (drawn[name] <= high)).all() for name in ("T", "M", "tarp", "credibility")}
    assert inside == {"T": True, "M": True, "tarp": True, "credibility": False}


# ------------------------------------------------------------------ predicting from a file


def apply_of(task):
    def apply(dataset):
        torch.manual_seed(0)
        with torch.no_grad():
            return {name: value.numpy() for name, value in task.predict(dataset.columns).items()}

    return apply


@pytest.fixture
def table(clusters):
    """A few test clusters whose catalogue knows nothing of their mergers."""
    observables, _ = merger_catalogue(80, seed=0)
    wanted = set(clusters.test["cluster_id"].tolist())
    return observables[observables["cluster_id"].isin(wanted)].reset_index(drop=True)


def test_posteriors_of_a_file_keep_its_rows_and_flag_strangers(task, clusters, table, tmp_path):
    table.loc[2, "bcg_StellarMass"] = np.nan
    table.loc[5, "GroupGasMass"] *= 30  # ten times more gas than baryons allow
    table.to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(UserWarning, match="outside what the flow was trained on"):
        summary = predict(task, clusters.about, tmp_path / "new.csv", tmp_path / "out.parquet", apply_of(task))
    out = pq.read_table(tmp_path / "out.parquet")
    rows = out.to_pandas()
    assert summary["rows"] == len(table) == len(rows)
    assert summary["missing_inputs"] == 1
    assert rows["HaloID"].tolist() == table["HaloID"].tolist()
    assert rows.loc[2, "last_T_coll_median"] != rows.loc[2, "last_T_coll_median"]
    assert not rows.loc[5, "inside_training_support"]
    assert rows.drop(index=[2, 5])["inside_training_support"].mean() > 0.8
    known = rows.drop(index=2)
    for name in TARGET_NAMES:
        levels = known[[f"{name}_{level}" for level in ("p2.5", "p16", "median", "p84", "p97.5")]].to_numpy()
        assert (np.diff(levels, axis=1) >= 0).all()
    units = {field.name: (field.metadata or {}).get(b"unit") for field in out.schema}
    assert units["last_V_coll_p84"] == b"log10(km/s)"
    assert units["last_Subcluster_mass_sd"] == b"1e14 Msun"
    assert b"synthetic" in out.schema.metadata[b"content"]
    with h5py.File(tmp_path / "out.draws.h5") as draws:
        assert draws["HaloID"][:].tolist() == known["HaloID"].tolist()
        assert draws["last_d_peri"].shape == (len(known), 60)
        assert draws["last_d_peri"].attrs["unit"] == "log10(kpc)"
        np.testing.assert_allclose(np.median(draws["last_T_coll"][:], 1), known["last_T_coll_median"], rtol=1e-5)
        assert "synthetic" in draws.attrs["content"]
    assert known["last_Mass_ratio_map"].between(0, 1, inclusive="right").all()


def test_the_alarm_rings_for_strangers_and_seldom_for_others():
    """Its rates: about one in a hundred of clusters of the same kind; of planted faults of one column, most."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clusters, others = cluster_data.synthetic(500, seed=0), cluster_data.synthetic(300, seed=5)
    ordinary = others.train["context"].numpy()[:1200]
    assert (~inside_support(ordinary, clusters.about)).mean() < 0.03
    found = {}
    for name, factor in (
        ("GroupGasMass", 2.0),
        ("bcg_SubhaloMass", 0.5),
        ("bcg_SubhaloBHMass", 20.0),
        ("Group_R_Crit500", 1.2),
    ):
        strange = ordinary.copy()
        strange[:, INPUT_NAMES.index(name)] *= factor
        found[name] = (~inside_support(strange, clusters.about)).mean()
    assert min(found.values()) > 0.9, found
    missing = ordinary.copy()
    missing[:, 1] = np.nan
    assert (~inside_support(missing, clusters.about)).mean() < 0.03


def test_a_flow_trained_with_masks_answers_without_a_column_and_one_without_does_not(clusters, table, tmp_path):
    masked = partial(GlowCoupling, blocks=1, hidden=8, identity_start=True, embed=MaskedContext)
    torch.manual_seed(0)
    task = MergerPosterior(clusters.about, masked, start="standardised", hidden=0.3, draws=60).eval()
    table.loc[2, "bcg_StellarMass"] = np.nan
    table.loc[3, "lookback_time_Gyr"] = np.nan
    table.to_csv(tmp_path / "new.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = predict(task, clusters.about, tmp_path / "new.csv", tmp_path / "out.parquet", apply_of(task))
    rows = pq.read_table(tmp_path / "out.parquet").to_pandas()
    assert (summary["missing_inputs"], summary["predicted"]) == (2, len(table) - 1)
    assert np.isfinite(rows.loc[2, "last_T_coll_median"])
    assert np.isnan(rows.loc[3, "last_T_coll_median"])
    with pytest.raises(ConfigError, match="needs every input"):
        MergerPosterior(clusters.about, masked, start="regression", hidden=0.3)


def test_impossible_posteriors_are_refused(task, clusters, table, tmp_path):
    table.to_csv(tmp_path / "new.csv", index=False)

    def wild(dataset):
        out = apply_of(task)(dataset)
        out["outside"][:, 4] = 0.2
        return out

    with pytest.raises(DataError, match="last_Mass_ratio"):
        predict(task, clusters.about, tmp_path / "new.csv", tmp_path / "out.parquet", wild)
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_without_inputs_is_refused(task, clusters, table, tmp_path):
    table["Group_M_Crit500"] = np.nan
    table.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="none of its"):
        predict(task, clusters.about, tmp_path / "new.csv", tmp_path / "out.parquet", apply_of(task))
    table.drop(columns=INPUT_NAMES[0]).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="bcg_SubhaloBHMass"):
        predict(task, clusters.about, tmp_path / "new.csv", tmp_path / "out.parquet", apply_of(task))


# ------------------------------------------------------------------ the README and the package


def test_importing_the_package_loads_neither_torch_nor_pandas():
    code = "import sys, cinn_clusters; print(sorted({'torch', 'pandas', 'matplotlib', 'FrEIA'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_readme_claims_no_observation():
    text = README.read_text()
    assert "X-ray observables" not in text
    assert "catalogue scalars" in text
    assert "synthetic" in text.lower()


@pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")
def test_the_example_of_the_readme_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL))
    ast.parse(code)
    scope: dict = {}
    exec(compile(code, str(README), "exec"), scope)
    assert scope["draws"].shape == (1000, 2, 6)
    assert scope["scores"]["nll"] < scope["scores"]["nll_population"]
