import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skyloom.data import Columns, Data, SampleDraws, Standardise, fingerprint, group_split
from skyloom.data.tables import read_columns, write_columns
from skyloom.errors import DataError, MissingFile


@given(st.lists(st.integers(0, 30), min_size=3, max_size=200), st.integers(0, 3))
@settings(max_examples=50)
def test_no_group_stands_on_two_sides(groups, seed):
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match="at least 3"):
            group_split(groups, seed=seed)
        return
    parts = group_split(groups, seed=seed)
    rows = np.concatenate(parts)
    assert sorted(rows) == list(range(len(groups)))
    sides = [set(np.asarray(groups)[part]) for part in parts]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert all(sides)


def test_draws_belong_to_the_sample_alone():
    index = torch.arange(1000)
    whole = SampleDraws(5, 2, index)
    first, second = whole.uniform(3), whole.uniform(2)
    part = SampleDraws(5, 2, torch.tensor([999, 17]))
    assert torch.equal(part.uniform(3), first[[999, 17]])
    assert torch.equal(part.uniform(2), second[[999, 17]])
    assert not torch.equal(first, SampleDraws(5, 3, index).uniform(3))
    assert not torch.equal(first, SampleDraws(6, 2, index).uniform(3))


def test_draws_are_uniform_normal_and_uncorrelated():
    draws = SampleDraws(0, 0, torch.arange(20_000))
    u, n = draws.uniform(4), draws.normal(2)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert all(stats.kstest(u[:, k].numpy(), "uniform").pvalue > 1e-3 for k in range(4))
    assert all(stats.kstest(n[:, k].numpy(), "norm").pvalue > 1e-3 for k in range(2))
    off = np.corrcoef(torch.cat([u, n], 1).numpy().T) - np.eye(6)
    assert np.abs(off).max() < 0.035
    neighbours = np.corrcoef(u[:-1, 0].numpy(), u[1:, 0].numpy())[0, 1]
    assert abs(neighbours) < 0.035


def test_columns_of_different_length_and_unknown_names_are_named():
    with pytest.raises(DataError, match="differ in length"):
        Columns({"x": torch.zeros(3), "y": torch.zeros(4)})
    with pytest.raises(DataError, match="Did you mean 'flux'"):
        Columns({"flux": torch.zeros(3)})["flx"]


def test_an_empty_split_and_a_silent_about_are_refused():
    one, none = Columns({"x": torch.zeros(3)}), Columns({"x": torch.zeros(0)})
    with pytest.raises(DataError, match="val split is empty"):
        Data(one, none, one, about={"fingerprint": "", "synthetic": True})
    with pytest.raises(DataError, match="synthetic"):
        Data(one, one, one, about={"fingerprint": ""})


def test_what_a_checkpoint_could_not_read_back_is_made_plain_or_refused():
    one = Columns({"x": torch.zeros(3)})
    known = {"fingerprint": "", "synthetic": np.bool_(True), "mean": np.float64(0.5), "scale": [torch.ones(2)]}
    about = Data(one, one, one, about=known).about
    assert about["scale"] == [[1.0, 1.0]]
    assert type(about["mean"]) is float
    with pytest.raises(DataError, match="about.model holds a Linear"):
        Data(one, one, one, about={**known, "model": torch.nn.Linear(1, 1)})


def test_the_fingerprint_sees_values_names_shapes_and_types():
    x = np.arange(6.0)
    prints = [
        fingerprint(columns)
        for columns in ({"x": x}, {"y": x}, {"x": x.reshape(2, 3)}, {"x": x.astype("f4")}, {"x": x + 1e-12}, {"x": x[::-1]})
    ]
    assert len(set(prints)) == 6
    assert fingerprint({"x": x, "y": x[::2]}) == fingerprint({"y": x[::2].copy(), "x": torch.as_tensor(x)})


def test_standardise_refuses_constants_and_nan_and_inverts():
    x = torch.randn(50, 3, dtype=torch.float64) * 7 + 3
    scaler = Standardise.from_json(Standardise.fit(x).to_json())
    assert torch.allclose(scaler(x).mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(scaler(x).std(0, correction=0), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(scaler.inverse(scaler(x)), x)
    with pytest.raises(DataError, match=r"\['b'\] are constant"):
        Standardise.fit(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), ("a", "b"))
    with pytest.raises(DataError, match="not finite"):
        Standardise.fit(torch.tensor([[float("nan")]]))


def test_columns_of_any_shape_come_back_from_parquet(tmp_path):
    columns = {"a": np.arange(4), "b": np.random.default_rng(0).normal(size=(4, 3, 2)), "c": np.array(["x", "y", "z", "w"])}
    write_columns(tmp_path / "t.parquet", columns, {"synthetic": True})
    back, about = read_columns(tmp_path / "t.parquet")
    assert about == {"synthetic": True}
    assert all(np.array_equal(back[name], columns[name]) for name in columns)
    with pytest.raises(MissingFile):
        read_columns(tmp_path / "absent.parquet")
