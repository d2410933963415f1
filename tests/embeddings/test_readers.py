"""Every format on five objects: one lacks the spectrum, one lies at redshift zero, identifiers are 19 digits long."""

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits

from embeddings import from_files, read, read_catalogue
from skyloom.errors import DataError, MissingFile

IDS = 2_700_000_000_000_000_000 + np.array([1, 2, 3, 4, 5])
Z = np.array([0.1, 0.0, 0.3, 0.4, 0.5])
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
LACKS = np.array([True, True, False, True, True])


def objects(**names):
    """One dict per object under a producer's key names; the third has no spectrum."""
    rows = []
    for i in range(5):
        row = {names["ids"]: int(IDS[i]), "redshift": float(Z[i]), names["image"]: torch.tensor(X[i])}
        row["tokens_hsc"] = {"tok_image_hsc": torch.zeros(3, 4)}
        if LACKS[i]:
            row[names["spectrum"]] = torch.tensor(X[i] + 1)
        rows.append(row)
    return rows


def check(found, modality="image"):
    assert next(iter(found.ids.values())).tolist() == IDS.tolist()
    assert np.array_equal(found[modality], X)
    assert found.z is not None
    assert found.z.tolist() == Z.tolist()  # a redshift of zero is kept


@pytest.mark.parametrize(
    "names",
    [
        {"ids": "object_id", "image": "embedding_hsc", "spectrum": "embedding_spectrum"},
        {"ids": "targetid", "image": "embedding_images", "spectrum": "embedding_spectra"},
    ],
)
def test_torch_lists_keep_the_row_of_an_object_that_lacks_a_vector(tmp_path, names):
    torch.save(objects(**names), tmp_path / "aion.pt")
    found = read(tmp_path / "aion.pt")
    check(found)
    assert found.model == "aion"
    assert found.present["spectrum"].tolist() == LACKS.tolist()
    assert np.array_equal(found["spectrum"][LACKS], X[LACKS] + 1)
    torch.save(objects(**names)[1], tmp_path / "one.pt")
    assert len(read(tmp_path / "one.pt")) == 1


def test_torch_dicts_of_arrays_with_numpy_inside(tmp_path):
    torch.save({"embeddings": torch.tensor(X).bfloat16(), "ids": IDS, "redshifts": Z}, tmp_path / "clip.pt")
    found = read(tmp_path / "clip.pt")
    assert found.ids["object_id"].tolist() == IDS.tolist()
    assert np.allclose(found["embedding"], X, rtol=0.01)


class Payload:
    def __reduce__(self):
        return (eval, ("1 + 1",))


def test_files_that_could_run_code_are_refused(tmp_path):
    torch.save([{"object_id": 1, "embedding": torch.zeros(2), "extra": Payload()}], tmp_path / "bad.pt")
    with pytest.raises(DataError, match="could run code"):
        read(tmp_path / "bad.pt")
    np.save(tmp_path / "embeddings.npy", X)
    np.save(tmp_path / "filenames.npy", np.array(["a", None, "c", "d", "e"], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        read(tmp_path)


def test_float_identifiers_inside_a_torch_file_are_refused(tmp_path):
    torch.save([{"object_id": float(i), "embedding": torch.zeros(2)} for i in IDS], tmp_path / "cast.pt")
    with pytest.raises(DataError, match="floating point"):
        read(tmp_path / "cast.pt")


@pytest.mark.parametrize("prefix", ["", "multimodal_train_"])
def test_a_folder_of_arrays_stays_on_disk(tmp_path, prefix):
    arrays = {"embeddings": X, "object_ids": IDS, "redshifts": Z, "has_image": np.ones(5, bool), "has_spectrum": LACKS}
    for name, array in arrays.items():
        np.save(tmp_path / f"{prefix}{name}.npy", array)
    found = read(tmp_path, "astropt")
    check(found, "embedding")
    assert isinstance(found["embedding"], np.memmap)
    assert found.present["spectrum"].tolist() == LACKS.tolist()


def test_archives_and_maps_with_file_names(tmp_path):
    np.savez(tmp_path / "embeddings_with_metadata.npz", embeddings=X, target_ids=IDS, redshifts=Z)
    check(read(tmp_path), "embedding")
    maps = tmp_path / "maps"
    maps.mkdir()
    np.save(maps / "embeddings.npy", X)
    np.save(maps / "filenames.npy", np.array([f"map_{i}.png" for i in range(5)]))
    assert read(maps).ids["name"][2] == "map_2.png"
    (maps / "filenames.npy").unlink()
    with pytest.raises(DataError, match="no identifiers"):
        read(maps)
    with pytest.raises(MissingFile):
        read(tmp_path / "nowhere.npz")


def table():
    columns = {"object_id": IDS, "Z": Z, "a": X[:, 0], "b": X[:, 1], "LOGM": [10.0, np.nan, 9.0, 11.0, 10.5]}
    return pd.DataFrame(columns)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_any_columns_of_a_table_are_an_embedding(tmp_path, ending):
    path = tmp_path / f"galaxies.{ending}"
    table().to_csv(path, index=False) if ending == "csv" else table().to_parquet(path)
    found = read(path, columns=["a", "b"])
    assert found.ids["object_id"].tolist() == IDS.tolist()
    assert np.allclose(found["columns"], X[:, :2])
    assert found.columns["columns"] == ("a", "b")
    with pytest.raises(DataError, match="Did you mean 'a'|Valid"):
        read(path, columns=["aa", "b"])
    with pytest.raises(DataError, match="Name the columns"):
        read(path)
    sample = from_files(str(path), columns=["a", "LOGM"])
    assert set(sample.properties) == {"redshift"}  # what is in the vector is not to be predicted from it
    assert sample.embeddings[0].standardise
    assert sample.embeddings[0].present.tolist() == [True, False, True, True, True]


def test_vectors_in_a_parquet_list_or_in_numbered_columns(tmp_path):
    pd.DataFrame({"object_id": IDS, "embedding_hsc": list(X)}).to_parquet(tmp_path / "lists.parquet")
    assert np.array_equal(read(tmp_path / "lists.parquet")["image"], X)
    numbered = pd.DataFrame(X, columns=[f"e_{k:03d}" for k in range(4)])[["e_003", "e_000", "e_001", "e_002"]]
    numbered.assign(object_id=IDS).to_csv(tmp_path / "numbered.csv", index=False)
    assert np.allclose(read(tmp_path / "numbered.csv")["e"], X)


def test_a_gap_among_csv_identifiers_does_not_make_floats_of_the_others(tmp_path):
    words = [str(i) for i in IDS]
    words[2] = ""
    pd.DataFrame({"object_id": words, "Z": Z}).to_csv(tmp_path / "gap.csv", index=False)
    ids = read_catalogue(tmp_path / "gap.csv").ids["object_id"]
    assert ids[[0, 1, 3, 4]].tolist() == IDS[[0, 1, 3, 4]].tolist()
    pd.DataFrame({"object_id": IDS.astype(float), "Z": Z}).to_csv(tmp_path / "cast.csv", index=False)
    with pytest.raises(DataError, match="floating point"):
        read_catalogue(tmp_path / "cast.csv")


def test_fits_catalogues_are_big_endian_padded_and_full_of_null_codes(tmp_path):
    lowest = np.iinfo(np.int64).min
    columns = [
        fits.Column("object_id", "K", array=IDS),
        fits.Column("TARGETID", "K", array=np.array([39_600_000_000_000_001, 999999, 7 * 10**16, 8 * 10**16, 9 * 10**16])),
        fits.Column("SpectrumID", "K", array=np.array([1, 2, lowest, 4, 5])),
        fits.Column("Z", "D", array=Z),
        fits.Column("error.euclid.code", "I", array=np.array([0, -32768, 1, 2, 3])),
        fits.Column("quality", "J", null=-99, array=np.array([1, -99, 3, 4, 5])),
        fits.Column("SPECTYPE", "8A", array=["GALAXY  ", "QSO     ", "STAR", "GALAXY", ""]),
        fits.Column("kron_radius", "E", array=[10.0, 100.0, -1.0, 0.0, np.nan]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "catalogue.fits")
    found = read_catalogue(tmp_path / "catalogue.fits")
    assert all(v.dtype.isnative for v in [*found.ids.values(), *found.numbers.values()])
    assert found.ids["object_id"].tolist() == IDS.tolist()
    assert found.text["SPECTYPE"].tolist() == ["GALAXY", "QSO", "STAR", "GALAXY", ""]
    assert np.isnan(found.numbers["error.euclid.code"]).tolist() == [False, True, False, False, False]
    assert np.isnan(found.numbers["quality"]).tolist() == [False, True, False, False, False]
    radius = found.properties()["log_kron_radius"]
    assert radius[:2].tolist() == [1.0, 2.0]
    assert np.isnan(radius[2:]).all()


def test_derived_properties_and_their_missing_values():
    from embeddings import Catalogue

    numbers = {
        "logM": np.array([10.0, 10.0, 10.0]),
        "SFR_LOG": np.array([0.5, -6.0, np.nan]),
        "HALPHA_FLUX": np.array([2.86, -1.0, 3.0]),
        "HBETA_FLUX": np.array([1.0, 1.0, 0.0]),
    }
    found = Catalogue({"object_id": IDS[:3]}, numbers).properties()
    assert np.array_equal(found["log_ssfr"], [-9.5, np.nan, np.nan], equal_nan=True)  # rates below 1e-4 are upper limits
    assert np.array_equal(found["balmer_decrement"], [2.86, np.nan, np.nan], equal_nan=True)
