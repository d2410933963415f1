"""Data sets on disk, opened for training: splits, truths, masks, bands, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits

from lensfind.data import Store, stored, write_store
from lensfind.data.files import read_image
from lensfind.data.statistics import statistics
from skyloom.data import SampleDraws
from skyloom.errors import ConfigError, DataError, MissingFile

COUNT, SIZE = 120, 24
ABOUT = {
    "bands": ["g", "r", "i"], "size": SIZE, "unit": "nJy", "synthetic": True, "masked": True,
    "survey": {"name": "lsst", "pixel_scale": 0.2, "bands": {"g": {"wavelength": 486.0}}},
}  # fmt: skip


def rows(count: int = COUNT, **changes) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    label = (np.arange(count) < count // 3).astype(int)  # class-sorted, as the generators wrote it
    columns = {
        "object_id": [f"negative_x/train/nonlens_{k:03d}" for k in range(count)], "label": label, "label_source": "sim:bologna",
        "label_confidence": 1.0, "theta_E": np.where(label, rng.uniform(0.5, 2, count), np.nan),
        "kind": np.where(label, "lens", "ring"),
        "seeing": rng.uniform(0.6, 0.9, count), "survey": "lsst", "pixel_scale": 0.2,
    }  # fmt: skip
    return pd.DataFrame({**columns, **changes})


def images(count: int = COUNT, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).normal(0, [1, 2, 3], (count, size, size, 3)).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data"), images(), rows(), ABOUT, rows_per_part=32).directory


def everything(split) -> dict[str, torch.Tensor]:
    return split.__getitems__(np.arange(len(split)))


def test_splits_are_disjoint_cover_the_table_and_hold_both_classes(directory):
    """Unwrapping a subset dropped its indices, and validation was a slice of training."""
    data = stored(directory)
    parts = [everything(getattr(data, name))["row"].tolist() for name in ("train", "val", "test")]
    assert sorted(row for part in parts for row in part) == list(range(COUNT))
    assert not set(parts[0]) & set(parts[1]) and not set(parts[0]) & set(parts[2])
    for name in ("train", "val", "test"):
        assert set(everything(getattr(data, name))["label"].tolist()) == {0, 1}
    again = stored(directory)
    assert everything(again.val)["row"].tolist() == parts[1]


def test_rows_belong_to_their_images_and_truths(directory):
    """A fresh positional index was later addressed by the labels of the old one."""
    data, table = stored(directory), rows()
    batch = everything(data.test)
    index = batch["row"].numpy()
    assert torch.equal(batch["image"], torch.from_numpy(images()[index]))
    assert batch["label"].tolist() == table["label"].iloc[index].tolist()
    assert np.allclose(batch["theta_E"], table["theta_E"].iloc[index], equal_nan=True)
    ratio = batch["seeing"].numpy() / table["seeing"].iloc[index].to_numpy()
    median = table["seeing"].iloc[everything(data.train)["row"].numpy()].median()
    assert ratio == pytest.approx(1 / median, rel=1e-5)  # over that of the training split, as in simulated data


def test_labels_come_from_the_table_wherever_the_files_lie(directory):
    """Any 'nonlens', 'negative' or 'lens' in the absolute path decided label and split."""
    assert everything(stored(directory).train)["lens"].float().mean() == pytest.approx(1 / 3, abs=0.05)


def test_validation_is_the_same_twice_and_is_not_augmented(directory):
    data = stored(directory, augment={"dihedral": True, "shift": 1.0})
    assert torch.equal(everything(data.val)["image"], everything(data.val)["image"])
    first = data.train.__getitems__(np.arange(16))
    changed = data.augment(dict(first), SampleDraws(0, 0, torch.arange(16)))
    assert not torch.equal(changed["image"], first["image"])


def test_all_rows_of_validation_and_test_are_scored_whatever_the_batch(directory):
    """drop_last left 8 of 10 test images."""
    data = stored(directory)
    for size in (7, 32, 1000):
        seen = [
            data.test.__getitems__(np.arange(k, min(k + size, len(data.test))))["row"] for k in range(0, len(data.test), size)
        ]
        assert len(torch.cat(seen)) == len(data.test)


def test_statistics_come_from_training_alone(directory):
    data = stored(directory)
    train = torch.from_numpy(images()[everything(data.train)["row"].numpy()])
    for name, values in statistics(train).items():
        assert data.about["statistics"][name] == pytest.approx(values, rel=1e-5)
    assert data.about["statistics"]["noise"] == pytest.approx([1, 2, 3], rel=0.1)


def test_bands_are_picked_by_name_and_size_from_the_middle(directory):
    data = stored(directory, bands=["i", "g"], size=16)
    batch = everything(data.val)
    assert data.about["bands"] == ["i", "g"] and batch["image"].shape[1:] == (2, 16, 16)
    expected = images()[batch["row"].numpy()][:, [2, 0], 4:20, 4:20]
    assert torch.equal(batch["image"], torch.from_numpy(expected))
    with pytest.raises(ConfigError, match="no band 'z'"):
        stored(directory, bands=["g", "z"])
    with pytest.raises(ConfigError, match="by an even number"):
        stored(directory, size=15)


def test_the_fingerprint_is_of_images_labels_and_choices(directory, tmp_path):
    first = stored(directory).about["fingerprint"]
    assert stored(directory).about["fingerprint"] == first
    assert stored(directory, bands=["g", "r"]).about["fingerprint"] != first
    changed = images()
    changed[3, 0, 0, 0] += 1
    assert stored(write_store(tmp_path, changed, rows(), ABOUT).directory).about["fingerprint"] != first


def test_only_some_lenses_are_labelled_and_the_rest_hide(directory):
    data = stored(directory, labelled_lenses=0.5)
    batch = everything(data.train)
    assert (batch["lens"][batch["labelled"] > 0] == 1).all()
    assert 0.3 < float(batch["labelled"].sum() / batch["lens"].sum()) < 0.7
    hidden = (batch["lens"] - batch["labelled"]).float().sum() / (batch["labelled"] == 0).sum()
    assert data.about["class_prior"] == pytest.approx(float(hidden))


def test_unlabeled_rows_have_no_truth_and_need_a_class_prior(tmp_path):
    label = np.where(np.arange(COUNT) < 30, 1, -1)
    table = rows(label=label, label_source=np.where(label == 1, "obs:castles", "survey"),
                 label_confidence=np.where(label == 1, 1.0, 0.0), kind="")  # fmt: skip
    directory = write_store(tmp_path, images(), table, ABOUT).directory
    with pytest.raises(ConfigError, match="set data.class_prior"):
        stored(directory)
    data = stored(directory, class_prior=1e-3)
    batch = everything(data.train)
    assert "lens" not in batch and "lens" not in data.carry
    assert torch.equal(batch["labelled"] > 0, batch["label"] == 1)
    with pytest.raises(DataError, match="unlabeled rows"):
        stored(directory, learning="supervised", class_prior=1e-3)


def test_lenses_alone_refuse_to_train(tmp_path):
    table = rows(label=1, label_source="obs:castles")
    directory = write_store(tmp_path, images(), table, ABOUT).directory
    with pytest.raises(DataError, match="lenses only"):
        stored(directory)


def test_pixels_that_are_not_usable_are_sky_and_marked(tmp_path):
    """NaN became 0 without a mask, and saturated cores were clipped."""
    pixels = images()
    pixels[:, :, 2, 5] = np.nan
    table = rows(quality=np.isfinite(pixels).mean(axis=(1, 2, 3)))
    data = stored(write_store(tmp_path, pixels, table, ABOUT).directory)
    batch = everything(data.train)
    assert (batch["mask"][:, :, 2, 5] == 0).all() and batch["mask"].float().mean() == pytest.approx(1 - 1 / SIZE**2)
    assert (batch["image"][:, :, 2, 5] == 0).all()
    assert torch.isfinite(batch["image"]).all()
    assert np.isfinite(data.about["statistics"]["mean"]).all()
    whole = stored(write_store(tmp_path / "whole", images(), rows(quality=1.0), ABOUT).directory)
    assert "mask" not in everything(whole.train)


def test_turning_takes_wide_cutouts_and_gives_narrow_ones(tmp_path):
    wide = stored(
        write_store(tmp_path, images(size=40), rows(), {**ABOUT, "size": 40}).directory, size=SIZE, augment={"rotate": True}
    )
    batch = wide.train.__getitems__(np.arange(8))
    assert batch["image"].shape[-1] == SIZE and batch["wide"].shape[-1] == 40
    after = wide.augment(batch, SampleDraws(0, 0, torch.arange(8)))
    assert after["image"].shape[-1] == SIZE and "wide" not in after
    assert "wide" not in everything(wide.val)
    with pytest.raises(ConfigError, match="set data.size="):
        stored(tmp_path, size=32, augment={"rotate": True})


def test_a_corrupt_record_is_left_out_and_reported(tmp_path, capsys):
    opened = write_store(tmp_path, images(), rows(), ABOUT)
    path = tmp_path / opened.table["filepath"].iloc[7]
    data = bytearray(path.read_bytes())
    place = data.find(images()[7].tobytes())
    data[place + 100] ^= 1
    path.write_bytes(data)
    found = stored(tmp_path, corrupt_limit=0.05)
    kept = {row for name in ("train", "val", "test") for row in everything(getattr(found, name))["row"].tolist()}
    assert kept == set(range(COUNT)) - {7}
    assert "left out a corrupt record: row 7" in capsys.readouterr().err
    with pytest.raises(DataError, match="1 of 120 records"):
        stored(tmp_path, corrupt_limit=0.001)


def test_one_image_on_two_sides_is_an_error_under_whatever_name(tmp_path):
    pixels = images()
    pixels[7] = pixels[8]
    split = ["train", "val", "test"] * (COUNT // 3)  # rows 7 and 8: val and test
    directory = write_store(tmp_path / "twice", pixels, rows(split=split), ABOUT).directory
    with pytest.raises(DataError, match="rows 7 and 8 .* are one image, in val and in test"):
        stored(directory)
    split[8] = "val"
    stored(write_store(tmp_path / "same", pixels, rows(split=split), ABOUT).directory)


def test_groups_are_carried_where_rows_share_the_sky(tmp_path):
    table = rows(ra=np.repeat(np.arange(COUNT // 2), 2) * 0.1, dec=0.0)
    data = stored(write_store(tmp_path, images(), table, ABOUT).directory)
    assert data.group == "group"
    assert len(set(everything(data.test)["group"].tolist())) == len(data.test) // 2


def test_what_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(MissingFile, match="make prepare pkg=lensfind data=bologna1 input="):
        stored(tmp_path / "none", source="bologna1")


def manifest_of_files(tmp_path, write) -> str:
    table = rows(36).assign(filepath=[write(tmp_path, k) for k in range(36)], bands="g,r,i")
    table["object_id"] = [f"o{k}" for k in range(36)]
    table.to_csv(tmp_path / "mine.csv", index=False)
    return str(tmp_path / "mine.csv")


def write_npy(tmp_path, k):
    np.save(tmp_path / f"{k}.npy", images(36)[k])
    return f"{k}.npy"


def write_npz(tmp_path, k):
    np.savez(tmp_path / f"{k}.npz", image=images(36)[k])
    return f"{k}.npz"


def write_cube(tmp_path, k):
    fits.PrimaryHDU(images(36)[k]).writeto(tmp_path / f"{k}.fits")
    return f"{k}.fits"


def write_extensions(tmp_path, k):
    planes = [fits.ImageHDU(plane, name=name) for plane, name in zip(images(36)[k], "GRI", strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *planes, fits.ImageHDU(np.ones((SIZE, SIZE), np.float32), name="VAR_G")]).writeto(
        tmp_path / f"{k}.fits"
    )
    return f"{k}.fits"


@pytest.mark.parametrize("write", [write_npy, write_npz, write_cube, write_extensions])
def test_a_user_s_own_manifest_is_a_data_set(tmp_path, write):
    data = stored(manifest_of_files(tmp_path, write))
    batch = everything(data.train)
    assert torch.equal(batch["image"], torch.from_numpy(images(36)[batch["row"].numpy()]))
    assert data.about["bands"] == ["g", "r", "i"] and data.about["survey"]["pixel_scale"] == 0.2


def test_a_16_bit_ramp_keeps_its_levels_and_8_bits_are_refused(tmp_path):
    """Opened 'as RGB', 99.6% of a 16-bit ramp became 255."""
    from PIL import Image

    ramp = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    for name in ("ramp.tif", "ramp.png"):
        assert len(np.unique(read_image(tmp_path / name))) == 65536
        assert np.array_equal(read_image(tmp_path / name)[0], ramp.astype(np.float32))
    Image.fromarray((ramp // 256).astype(np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "colour.jpg")
    with pytest.raises(DataError, match="8 bits"):
        read_image(tmp_path / "grey.png")
    with pytest.raises(DataError, match="cutouts are FITS"):
        read_image(tmp_path / "colour.jpg")


@pytest.mark.filterwarnings("ignore")
def test_an_unreadable_file_is_an_error_and_not_a_black_image(tmp_path):
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE  =                    T" + b"\0" * 100)
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY\x01\x00")
    for name in ("broken.fits", "short.npy"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(MissingFile):
        read_image(tmp_path / "absent.npy")


def test_a_network_trains_on_it(directory):
    """The same task as for simulated data: losses and gradients are finite."""
    from functools import partial

    from lensfind.training.task import LensFinder
    from skyloom.backbones import image_encoder
    from skyloom.pu import nnpu

    data = stored(directory)
    task = LensFinder(data.about, partial(image_encoder, name="resnet18"), nnpu)
    batch = data.augment(data.train.__getitems__(np.arange(16)), SampleDraws(0, 0, torch.arange(16)))
    loss = task.losses(batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)


def test_a_store_opens_in_worker_processes(directory):
    import pickle

    again = pickle.loads(pickle.dumps(Store(directory)))
    assert np.array_equal(again.read([5, 3]), images()[[5, 3]])
