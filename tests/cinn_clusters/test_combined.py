"""Embeddings joined by name: order never matters, nothing is lost by chance, and a shuffled control gains nothing."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch

from cinn_clusters import combined, data
from cinn_clusters.embeddings import Embeddings, parse_name, read_embeddings, stand_in
from cinn_clusters.synthetic import merger_catalogue
from cinn_clusters.task import MergerPosterior
from skyloom.errors import DataError, MissingFile
from skyloom.flows import GlowCoupling

pytestmark = pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")


@pytest.fixture(scope="module")
def made():
    tables = merger_catalogue(40, seed=2)
    return tables, *stand_in(*tables, size=12, seed=2)


def test_the_order_of_the_images_does_not_matter_and_one_file_alone_must_not_be_reordered(made):
    (observables, _), vectors, names = made
    halo, snapshot = observables["HaloID"].to_numpy(), observables["Snapshot"].to_numpy()
    straight = Embeddings.from_arrays(vectors, names).of(halo, snapshot)
    order = np.random.default_rng(0).permutation(len(names))
    np.testing.assert_allclose(Embeddings.from_arrays(vectors[order], names[order]).of(halo, snapshot), straight, atol=1e-6)
    assert np.abs(Embeddings.from_arrays(vectors[order], names).of(halo, snapshot) - straight).max() > 0.1


def test_the_projections_of_a_cluster_are_averaged(made):
    (observables, _), vectors, names = made
    halo, snapshot = int(observables["HaloID"][5]), int(observables["Snapshot"][5])
    mine = [k for k, name in enumerate(names) if parse_name(name)[:2] == (halo, snapshot)]
    assert len(mine) == 3
    found = Embeddings.from_arrays(vectors, names).of(np.array([halo]), np.array([snapshot]))
    np.testing.assert_allclose(found[0], vectors[mine].mean(0), atol=1e-6)


def test_mistakes_in_the_files_are_named(made, tmp_path):
    (observables, _), vectors, names = made
    with pytest.raises(DataError, match="do not fit"):
        Embeddings.from_arrays(vectors[:-1], names)
    with pytest.raises(DataError, match="listed twice"):
        Embeddings.from_arrays(vectors[[0, 0]], names[[0, 0]])
    with pytest.raises(DataError, match="no image name"):
        parse_name("halo_12_snap_050.jpg")
    few = Embeddings.from_arrays(vectors[:300], names[:300])  # one projection of all but twenty pairs
    with pytest.raises(DataError, match="20 of 320 catalogue rows have no embedding"):
        few.of(observables["HaloID"].to_numpy(), observables["Snapshot"].to_numpy())
    np.save(tmp_path / "embeddings.npy", vectors)
    with pytest.raises(MissingFile, match="filenames"):
        read_embeddings(tmp_path / "embeddings.npy", tmp_path / "filenames.npy")
    np.save(tmp_path / "filenames.npy", names)
    assert len(read_embeddings(tmp_path / "embeddings.npy", tmp_path / "filenames.npy").keys) == 320


def test_rows_and_splits_are_those_of_the_scalars():
    both, scalars = combined.synthetic(60, seed=1, size=32, components=4), data.synthetic(60, seed=1)
    for name in ("train", "val", "test"):
        wide, narrow = getattr(both, name), getattr(scalars, name)
        assert torch.equal(wide["context"][:, :7], narrow["context"])
        assert torch.equal(wide["target"], narrow["target"])
        assert wide["context"].shape[1] == 11
    torch.testing.assert_close(both.test["log_prob_true"], scalars.test["log_prob_true"])


def trained(clusters, steps=60):
    torch.manual_seed(0)
    model = partial(GlowCoupling, blocks=3, hidden=32, clamp=1.0, dropout=0.1, identity_start=True)
    task = MergerPosterior(clusters.about, model, target_noise=0.1).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(clusters.train), (512,))
        loss = task.losses({name: clusters.train[name][rows] for name in ("context", "target")})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(task.eval().losses(clusters.test.columns)["loss"])


def test_embeddings_help_where_they_carry_information_and_tie_where_they_are_shuffled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_clusters": 500, "seed": 0, "size": 64, "components": 6, "information": 0.5}
        informed, shuffled = (trained(combined.synthetic(**options, shuffled=s)) for s in (False, True))
        scalars = trained(data.synthetic(500, seed=0))
    assert informed < scalars - 0.3
    assert scalars - 0.05 < shuffled < scalars + 0.2  # eight columns of noise cost a little on so few rows, and gain nothing
