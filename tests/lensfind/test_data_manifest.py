"""The manifest says what is wrong row by row, invents nothing, and guards what a label may be used for."""

import numpy as np
import pandas as pd
import pytest

from lensfind.data import allow, problems, read_manifest, sample_weights, validate, write_manifest
from lensfind.data.manifest import SCHEMA, known
from skyloom.errors import DataError, MissingFile


def rows(count: int = 1, **changes) -> pd.DataFrame:
    columns = {
        "object_id": [f"o{k}" for k in range(count)], "filepath": [f"o{k}.fits" for k in range(count)], "label": 1,
        "label_source": "sim:bologna", "label_confidence": 1.0, "survey": "kids", "pixel_scale": 0.2,
    }  # fmt: skip
    return pd.DataFrame({**columns, **changes})


def test_a_good_table_has_no_problems():
    assert problems(rows(3)) == []


def test_each_bad_row_gets_a_message_of_its_own():
    table = rows(4, label=[2, 1, 1, 1], label_source=["sim:bologna", "sim:bolonga", "sim:bologna", "sim:bologna"],
                 z_spec=[np.nan, 0.3, 12.0, 0.4])  # fmt: skip
    found = problems(table)
    assert len(found) == 3
    assert "row 0 ('o0'), column label: 2 is not one of 1" in found[0]
    assert "row 2 ('o2'), column z_spec: 12 is out of range" in found[1]
    assert "row 1 ('o1'), column label_source" in found[2] and "Did you mean 'sim:bologna'" in found[2]
    with pytest.raises(DataError, match="has 3 mistakes"):
        validate(table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": -1, "label_source": "obs:castles"}, "must be 1, not -1"),
        ({"label": 0, "label_source": "obs:castles"}, "must be 1, not 0"),
        ({"label": 1, "label_source": "pretrain:galaxiesml", "label_confidence": 0.0}, "has no lens labels"),
        ({"label": 1, "label_source": "weak:gzoo", "label_confidence": 0.3}, "has no lens labels"),
        ({"label": 1, "label_source": "survey", "label_confidence": 0.0}, "has no lens labels"),
        ({"label_confidence": 0.3, "label_source": "obs:castles"}, "allows label_confidence 0.9 to 1, not 0.3"),
        ({"label_confidence": 1.5}, "1.5 is out of range"),
        ({"psf_fwhm": -5.0}, "psf_fwhm: -5 is out of range"),
        ({"axis_ratio": 7.0}, "axis_ratio: 7 is out of range"),
        ({"z_phot": -1.0}, "what is not known is left empty, not -1"),
        ({"variance_map_available": True}, "variance_map_path is empty"),
        ({"psf_matched": True, "psf_fwhm": 0.6}, "target_psf_fwhm is missing"),
        ({"psf_matched": True, "psf_fwhm": 0.6, "target_psf_fwhm": 1.0}, "is not yet the target"),
        ({"magnitude": 20.0}, "without magnitude_band"),
        ({"survey": "castles"}, "no such survey 'castles'"),
        ({"filepath": ""}, "is missing, and every row needs it"),
        ({"label": "lens"}, "'lens' is not a number"),
        ({"label": 0.5}, "0.5 is not one of"),
        ({"split": "training"}, "'training' is not train, val or test"),
        ({"schema_version": "1.0"}, "'1.0'; this is '2.0'"),
        ({"ra": 400.0}, "ra: 400 is out of range"),
        ({"psf_match": True}, "did you mean 'psf_matched'"),
    ],
)
def test_rules_within_and_across_columns(changes, message):
    found = problems(rows(**changes))
    assert any(message in line for line in found), found


def test_one_object_twice_is_named():
    assert any("stands in an earlier row already" in line for line in problems(rows(2, object_id="same")))


def test_what_is_not_known_stays_unknown():
    """Physical defaults (magnitude 20, seeing 1.0, PSF 0.8, redshift -1) made data up."""
    table = validate(rows(2, seeing=[0.7, np.nan]))
    for name, spec in SCHEMA.items():
        if name not in rows() and name not in ("seeing", "schema_version") and spec.kind != "flag":
            assert not known(table[name]).any(), name
    assert known(table["seeing"]).tolist() == [True, False]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_values_and_types_survive_a_round_trip(tmp_path, ending):
    rng = np.random.default_rng(1)
    redshift = np.where(rng.random(100) < 0.5, np.nan, 0.5)
    table = rows(100, ra=rng.uniform(0, 360, 100), dec=rng.uniform(-90, 90, 100), z_spec=redshift,
                 seed=rng.integers(2**62, 2**63 - 1, 100), label=rng.integers(-1, 2, 100), label_confidence=rng.random(100),
                 psf_matched=False, kind="ring")  # fmt: skip
    stated = validate(table)
    write_manifest(tmp_path / f"manifest{ending}", table)
    again = read_manifest(tmp_path / f"manifest{ending}")
    pd.testing.assert_frame_equal(stated, again, check_exact=True)


def test_missing_files_are_listed(tmp_path):
    write_manifest(tmp_path / "m.csv", rows(2))
    with pytest.raises(MissingFile, match=r"2 files are not there.*o0.fits"):
        read_manifest(tmp_path / "m.csv", check_files=True)
    with pytest.raises(MissingFile, match="there is no manifest"):
        read_manifest(tmp_path / "none.csv")


def test_unlabeled_rows_do_not_enter_a_supervised_loss():
    """Label -1 was taken for a class by the loss."""
    with pytest.raises(DataError, match="1 unlabeled rows"):
        allow(["sim:bologna"] * 3, [1, 0, -1], "supervised")
    assert allow(["sim:bologna"] * 3, [1, 0, -1], "pu") == []


def test_sources_for_pretraining_carry_no_labels():
    with pytest.raises(DataError, match="serves pretraining only"):
        allow(["sim:bologna", "sim:bologna", "pretrain:galaxiesml"], [1, 0, -1], "supervised")
    assert allow(["pretrain:galaxiesml"], [-1], "pretrain") == []


def test_a_single_class_refuses_to_train():
    with pytest.raises(DataError, match="lenses only"):
        allow(["obs:castles"] * 4, [1] * 4, "pu")
    with pytest.raises(DataError, match="holds no lens"):
        allow(["obs:relics"] * 4, [0] * 4, "supervised")


def test_a_source_of_lenses_only_asks_for_non_lenses_of_the_same_telescope():
    warnings = allow(["obs:castles", "survey"], [1, -1], "pu")
    assert len(warnings) == 1 and "same instrument" in warnings[0]
    assert allow(["obs:castles", "obs:relics"], [1, 0], "supervised") == []


def test_weights_balance_sources_and_classes():
    sources = np.repeat(["a", "b"], [90, 10])
    labels = np.concatenate([np.arange(90) % 3 == 0, np.arange(10) % 2 == 0]).astype(int)
    weight = sample_weights(sources, labels, np.full(100, 0.5))
    assert weight.mean() == pytest.approx(1)
    assert weight[sources == "a"].sum() == pytest.approx(weight[sources == "b"].sum())
    for source in "ab":
        of = sources == source
        assert weight[of & (labels == 1)].sum() == pytest.approx(weight[of & (labels == 0)].sum())
