"""Formats beyond torch and plain arrays: HDF5, safetensors, a file per modality, bare tensors, maps of clusters, two tables."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from embeddings import from_files, read
from embeddings.objects.catalogue import merged, read_catalogue
from embeddings.readers.cluster_maps import parse_map_name
from embeddings.readers.hdf5 import Stored
from embeddings.samples.synthetic_clusters import SNAPSHOTS, map_files
from embeddings.vectors.pooling import pool
from skyloom.errors import DataError, MissingFile

IDS = 2_700_000_000_000_000_001 + np.arange(5)
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
Z = np.array([0.1, 0.0, 0.3, 1.2, np.nan])


@pytest.mark.parametrize("chunks", [None, (2, 4)])
@pytest.mark.parametrize("group", ["", "set/"])
def test_hdf5_stays_on_disk_and_gives_rows_in_any_order(tmp_path, chunks, group):
    with h5py.File(tmp_path / "m.hdf5", "w") as file:
        file.create_dataset(f"{group}embedding_image", data=X, chunks=chunks)
        file[f"{group}object_id"], file[f"{group}redshift"] = IDS, Z
        file[f"{group}has_image"] = np.array([1, 1, 1, 1, 0], dtype=bool)
    found = read(tmp_path / "m.hdf5")
    assert isinstance(found["image"], np.memmap if chunks is None else Stored)
    assert found.ids["object_id"].tolist() == IDS.tolist()
    assert found.present["image"].tolist() == [True, True, True, True, False]
    for rows in (np.array([3, 0, 3, 1]), np.array([], dtype=int), np.array([True, False, True, False, False]), slice(1, 4)):
        assert np.array_equal(found["image"][rows], X[rows])
    assert np.array_equal(found.take(np.array([4, 2]))["image"], X[[4, 2]])


def test_hdf5_text_identifiers_and_what_is_no_embedding(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["embeddings"], file["names"] = X, np.array([f"map_{i}" for i in range(5)], dtype=object)
    assert read(tmp_path / "m.h5").ids["name"].tolist() == [f"map_{i}" for i in range(5)]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = X
    with pytest.raises(DataError, match="no groups hold vectors"):
        read(tmp_path / "other.h5")
    (tmp_path / "torn.h5").write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read(tmp_path / "torn.h5")


def test_safetensors_with_integers_halves_and_names(tmp_path):
    save_file({"embedding_hsc": X, "object_id": IDS, "redshift": Z}, tmp_path / "m.safetensors")
    found = read(tmp_path / "m.safetensors")
    assert found.ids["object_id"].tolist() == IDS.tolist()
    assert np.array_equal(found["image"], X)
    half = {"embeddings": torch.tensor(X).bfloat16()}
    save_torch_file(half, tmp_path / "half.safetensors", {"names": json.dumps(list("abcde"))})
    found = read(tmp_path / "half.safetensors")
    assert found.ids["name"].tolist() == list("abcde")
    assert np.allclose(found["embedding"], X, rtol=0.01)


def test_a_folder_with_a_file_per_modality_is_one_model(tmp_path):
    np.save(tmp_path / "object_ids.npy", IDS)
    np.save(tmp_path / "image_embeddings.npy", X)
    np.save(tmp_path / "spectrum_embeddings.npy", X[:, :2])
    np.save(tmp_path / "has_spectrum.npy", np.array([1, 0, 1, 1, 1], dtype=bool))
    found = read(tmp_path)
    assert set(found.modalities) == {"image", "spectrum"}
    assert found.present["spectrum"].tolist() == [True, False, True, True, True]
    assert np.array_equal(found["image"], X)


def test_a_summary_that_counts_otherwise_is_an_error(tmp_path):
    np.save(tmp_path / "train_embeddings.npy", X)
    np.save(tmp_path / "train_object_ids.npy", IDS)
    summary = tmp_path / "train_summary.json"
    summary.write_text(json.dumps({"n_samples": 5, "embedding_dim": 4}))
    assert len(read(tmp_path)) == 5
    summary.write_text(json.dumps({"n_samples": 754064, "embedding_dim": 4}))
    with pytest.raises(DataError, match="754064"):
        read(tmp_path)


def test_a_bare_tensor_needs_identifiers_beside_it_and_an_unknown_matrix_is_guessed_aloud(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "clip.pt")
    with pytest.raises(DataError, match="bare tensor"):
        read(tmp_path / "clip.pt")
    np.save(tmp_path / "clip_ids.npy", IDS)
    assert np.array_equal(read(tmp_path / "clip.pt")["embedding"], X)
    torch.save({"penultimate": torch.tensor(X), "ids": IDS}, tmp_path / "odd.pt")
    with pytest.warns(UserWarning, match="'penultimate' is taken"):
        assert np.array_equal(read(tmp_path / "odd.pt")["embedding"], X)


def test_tokens_are_pooled(tmp_path):
    tokens = np.random.default_rng(1).normal(size=(3, 7, 4)).astype(np.float32)
    torch.save(
        [{"object_id": int(i), "embedding": torch.tensor(t)} for i, t in zip(IDS, tokens, strict=False)], tmp_path / "t.pt"
    )
    assert np.allclose(read(tmp_path / "t.pt")["embedding"], tokens.mean(axis=1))
    assert np.array_equal(pool(tokens, "last"), tokens[:, -1])
    weight = np.exp(-np.arange(7)[::-1] / 0.7)
    assert np.allclose(pool(tokens, "exp_decay"), np.einsum("t,ntd->nd", weight / weight.sum(), tokens))
    assert np.allclose(pool(tokens, "exp_decay", decay=1e9), pool(tokens, "mean"), atol=1e-6)


def test_every_name_of_a_cluster_map_is_parsed():
    names = [f"snap_{s:03d}_halo_{h}_proj_{p}.jpg" for s in SNAPSHOTS for h in range(100, 452) for p in (1, 2, 3)]
    parsed = np.array([parse_map_name(name) for name in names])
    assert len(parsed) == 8448
    assert all(np.sum(parsed[:, 0] == s) == 1056 for s in SNAPSHOTS)
    with pytest.raises(DataError, match="not the name of a cluster map"):
        parse_map_name("halo_3.jpg")


def test_views_of_a_cluster_are_modalities_and_its_snapshots_stay_together(tmp_path):
    maps, catalogue = map_files(30, 12, seed=0)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "embeddings.npy", maps["embedding"])
    np.save(tmp_path / "maps" / "filenames.npy", maps.ids["name"])
    halo, snapshot = np.transpose([key.split("_") for key in catalogue.ids["halo_snapshot"]])
    table = pd.DataFrame({"HaloID": halo.astype(int), "Snapshot": snapshot.astype(int), **catalogue.numbers})
    inputs = ["Group_M_Crit500", "lookback_time_Gyr", "cluster_id"]
    table[["HaloID", "Snapshot", *inputs]].to_csv(tmp_path / "observables1.csv", index=False)
    table.drop(columns=inputs).sample(frac=1, random_state=0).to_csv(tmp_path / "unobservables1.csv", index=False)
    tables = [str(tmp_path / "observables1.csv"), str(tmp_path / "unobservables1.csv")]
    sample = from_files({"maps": str(tmp_path / "maps")}, tables, group="cluster_id")
    assert [e.modality for e in sample.embeddings] == ["projection 1", "projection 2", "projection 3"]
    assert len(sample) == 240
    assert len(np.unique(sample.groups)) == 30
    mass = sample.properties["log_collision_mass"]
    missing = np.isnan(mass).mean()
    assert 0.01 < missing < 0.15  # -1 is a code, not a mass
    row = int(np.flatnonzero(maps.ids["name"] == f"snap_{int(snapshot[7]):03d}_halo_{halo[7]}_proj_2.jpg")[0])
    here = int(np.flatnonzero(sample.ids["halo_snapshot"] == f"{halo[7]}_{snapshot[7]}")[0])
    assert np.array_equal(sample.embeddings[1][np.array([here])][0], maps["embedding"][row])


def test_tables_are_put_side_by_side_by_identifier(tmp_path):
    pd.DataFrame({"object_id": IDS, "Z": Z}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"object_id": IDS[[3, 1, 0]], "LOGM": [3.0, 1.0, 0.0]}).to_csv(tmp_path / "b.csv", index=False)
    both = merged([read_catalogue(tmp_path / "a.csv"), read_catalogue(tmp_path / "b.csv")])
    assert both.ids["object_id"].tolist() == IDS[[0, 1, 3]].tolist()
    assert both.numbers["LOGM"].tolist() == [0.0, 1.0, 3.0]
    assert both.numbers["Z"].tolist() == Z[[0, 1, 3]].tolist()
    pd.DataFrame({"TARGETID": IDS, "GR": Z}).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(DataError, match="share no identifier"):
        merged([read_catalogue(tmp_path / "a.csv"), read_catalogue(tmp_path / "c.csv")])


def test_what_cannot_be_measured_is_missing():
    from embeddings import Catalogue

    numbers = {"DN4000": np.array([1.5, -99.0, 0.0]), "sersic_sersic_vis_axis_ratio": np.array([0.5, 1.5, -1.0])}
    found = Catalogue({"object_id": IDS[:3]}, numbers).properties()
    assert np.isnan(found["dn4000"]).tolist() == [False, True, True]
    assert np.isnan(found["axis_ratio"]).tolist() == [False, True, True]


def test_all_files_that_are_missing_are_named_at_once(tmp_path):
    with pytest.raises(MissingFile) as error:
        from_files({"aion": None, "astropt": str(tmp_path / "none.pt")})
    for word in ("data.embeddings.aion", "none.pt", "data.catalog"):
        assert word in str(error.value)
