"""Cutouts come back bit for bit, labels as they were given, streams without overlap or loss, and corrupt records as such."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from torch.utils.data import DataLoader

from lensfind.data import Store, Stream, write_store
from lensfind.data.files import read_image
from lensfind.data.fits_files import write_cube, write_cutout
from lensfind.data.streams import stream_order
from skyloom.errors import DataError, MissingFile

COUNT = 50
ABOUT = {"bands": ["g", "r", "i"], "size": 12, "unit": "nJy", "synthetic": True, "survey": {"name": "lsst", "pixel_scale": 0.2}}


def rows(count: int = COUNT) -> pd.DataFrame:
    label = np.arange(count) % 2
    names = [f"{'lens' if label[k] else 'nonlens'}_{k:03d}" for k in range(count)]
    return pd.DataFrame({"object_id": names, "label": label, "label_source": "sim:bologna", "label_confidence": 1.0})


def images(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 5, (count, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module", params=["hdf5", "webdataset"])
def store(request, tmp_path_factory) -> Store:
    return write_store(tmp_path_factory.mktemp("store"), images(), rows(), ABOUT, images() ** 2, request.param, rows_per_part=8)


def damage(store: Store, row: int) -> None:
    """Flip a bit in the middle of a record."""
    path = store.directory / store.table["filepath"].iloc[row]
    data = bytearray(path.read_bytes())
    place = data.find(store.record(row, check=False).tobytes())
    assert place > 0
    data[place + 400] ^= 1
    path.write_bytes(data)


def copy(store: Store, to) -> Store:
    kind = store.about["storage"]
    return write_store(to, images(), rows(), ABOUT, None, kind, rows_per_part=8)


def test_every_bit_comes_back(store):
    order = np.random.default_rng(1).permutation(COUNT)
    assert np.array_equal(store.read(order), images()[order])
    assert np.array_equal(store.variance(order), (images() ** 2)[order])
    again = Store(store.directory)
    assert np.array_equal(again.read(order), images()[order])


def test_labels_are_those_of_the_table_and_not_read_from_names(store):
    """'nonlens' contains 'lens': every label was 1."""
    assert store.table["label"].tolist() == rows()["label"].tolist()
    assert (store.table["label"] == 0).sum() == COUNT // 2


def test_faint_arcs_and_negative_pixels_survive(tmp_path):
    """8 bits after a per-image stretch kept 256 levels of them."""
    rng = np.random.default_rng(3)
    sky = rng.normal(0, 1, (1, 3, 12, 12)).astype(np.float32)
    arc = np.zeros_like(sky)
    arc[..., 3, :] = 0.3
    opened = write_store(tmp_path, sky + arc + 1e4 * (np.indices((12, 12)).sum(0) == 11), rows(1), ABOUT)
    kept = opened.read([0])
    expected = sky + arc + 1e4 * (np.indices((12, 12)).sum(0) == 11)
    assert np.array_equal(kept, expected.astype(np.float32))
    assert (kept < 0).any()


def test_8_bit_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="8-bit"):
        write_store(tmp_path, np.zeros((2, 3, 12, 12), np.uint8), rows(2), ABOUT)


def test_reading_copies_only_the_rows_that_are_asked_for(store):
    image = store.record(5)
    assert not image.flags.owndata  # a view of the file in the page cache


def test_equal_data_are_equal_files(tmp_path):
    for kind in ("hdf5", "webdataset"):
        digests = []
        for name in ("a", "b"):
            write_store(tmp_path / kind / name, images(), rows(), ABOUT, None, kind, rows_per_part=20)
            digests.append(
                [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / kind / name).glob("cutouts*"))]
            )
        assert digests[0] == digests[1]
        assert len(digests[0]) == 3


def test_the_webdataset_package_reads_the_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    opened = write_store(tmp_path, images(), rows(), ABOUT, None, "webdataset", rows_per_part=20)
    urls = [str(path) for path in sorted(opened.directory.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(found) == COUNT
    for k, sample in enumerate(found):
        assert np.array_equal(sample["image.npy"], images()[k])
        assert sample["json"]["label"] == rows()["label"].iloc[k]
        assert sample["json"]["object_id"] == rows()["object_id"].iloc[k]


def test_a_directory_without_its_last_file_is_no_data_set(store, tmp_path):
    with pytest.raises(MissingFile, match="unfinished"):
        Store(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_read_every_record_once(store, workers):
    """Each rank read all shards; repeat() never ended; drop_last lost the rest of validation and test."""
    seen = []
    for rank in range(2):
        stream = Stream(store, batch_size=4, rank=rank, world=2, window=0)
        loader = DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream
        for batch in loader:
            assert torch.equal(batch["image"], torch.from_numpy(images()[batch["row"].numpy()]))
            seen += batch["row"].tolist()
    assert sorted(seen) == list(range(COUNT))


def test_shuffling_is_by_seed_and_epoch_and_loses_nothing(store):
    def order(seed, epoch, consumer=0, consumers=1):
        return stream_order(store.parts(), seed, epoch, consumer, consumers, window=20).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) and order(1, 0) != order(2, 0)
    for consumers in (1, 2, 5):
        assert sorted(row for k in range(consumers) for row in order(4, 7, k, consumers)) == list(range(COUNT))


def test_an_interrupted_epoch_goes_on_with_what_it_lacked(store):
    whole = [batch["row"].tolist() for batch in Stream(store, 4, seed=3, epoch=2, window=16)]
    for begin in (1, 5, len(whole) - 1):
        rest = [batch["row"].tolist() for batch in Stream(store, 4, seed=3, epoch=2, window=16, begin=begin)]
        assert rest == whole[begin:]
    workers = [
        batch["row"].tolist() for batch in DataLoader(Stream(store, 4, seed=3, window=16), batch_size=None, num_workers=2)
    ]
    for begin in (3, 12):
        rest = list(DataLoader(Stream(store, 4, seed=3, window=16, begin=begin), batch_size=None, num_workers=2))
        assert [batch["row"].tolist() for batch in rest] == workers[begin:]


def test_more_consumers_than_files_is_an_error_that_says_what_to_do(store):
    with pytest.raises(DataError, match="rows_per_part="):
        next(iter(Stream(store, 4, world=20)))


def test_a_corrupt_record_is_left_out_and_never_a_black_image_labelled_0(store, tmp_path, capsys):
    hurt = copy(store, tmp_path)
    damage(hurt, 11)
    opened = Store(tmp_path)
    assert opened.corrupt().tolist() == [11]
    with pytest.raises(DataError, match=r"row 11 of the manifest \('lens_011'\) is corrupt"):
        opened.read([11])
    stream = Stream(opened, 8, window=0, corrupt_limit=0.05)
    seen = torch.cat([batch["row"] for batch in stream])
    assert sorted(seen.tolist()) == [row for row in range(COUNT) if row != 11]
    assert stream.skipped == [11]
    assert "skipped a corrupt record" in capsys.readouterr().err
    for batch in Stream(opened, 8, window=0, corrupt_limit=0.05):
        assert (batch["image"].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_too_many_corrupt_records_stop_the_run(store, tmp_path):
    hurt = copy(store, tmp_path)
    for row in (3, 20, 33):
        damage(hurt, row)
    with pytest.raises(DataError, match="3 of 50 records are corrupt, more than corrupt_limit=0.05"):
        list(Stream(Store(tmp_path), 8, window=0, corrupt_limit=0.05))


def test_a_file_that_was_cut_off_is_corrupt_and_not_silent(store, tmp_path):
    hurt = copy(store, tmp_path)
    path = tmp_path / hurt.table["filepath"].iloc[49]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert len(Store(tmp_path).corrupt()) > 0


def test_fits_files_hold_pixels_manifest_and_wcs(store, tmp_path):
    pixels = images(6)
    pixels[2, 0, 3, 3] = np.nan
    write_cube(tmp_path / "cube.fits", pixels, store.table.iloc[:6], store.about)
    with fits.open(tmp_path / "cube.fits") as file:
        assert np.array_equal(file[0].data, pixels, equal_nan=True)
        assert file[0].header["BANDS"] == "g,r,i" and file[0].header["SYNTH"] is True
        assert file["MANIFEST"].data["object_id"].tolist() == rows()["object_id"].tolist()[:6]
        assert file["MANIFEST"].data["label"].tolist() == [0, 1, 0, 1, 0, 1]
    world = WCS(naxis=2)
    world.wcs.ctype, world.wcs.crval, world.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [6.5, 6.5]
    world.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    cards = "\n".join(str(card) for card in world.to_header().cards)
    write_cutout(tmp_path / "one.fits", pixels[0], store.about, cards)
    assert np.array_equal(read_image(tmp_path / "one.fits", 3), pixels[0])
    again = WCS(fits.getheader(tmp_path / "one.fits"), naxis=2)
    assert [float(v) for v in again.all_world2pix(150.0, 2.0, 0)] == pytest.approx([5.5, 5.5])
