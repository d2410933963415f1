"""Vectors of images: the same from folders, HDF5 and shards, the same after a stop, and a finder's by its run."""

import io
import tarfile

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from embeddings import read
from embeddings.extract import extract, image_source
from embeddings.extract.networks import Penultimate, network_named
from skyloom.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
IDS = 2_700_000_000_000_000_001 + np.arange(9)
IMAGES = RNG.normal(size=(9, 3, 16, 16)).astype(np.float32)
NETWORK = "timm:resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """One set of random weights for all calls."""
    from skyloom.backbones import image_encoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    torch.save(image_encoder("resnet10t", 3, 16, outputs=0).network.state_dict(), path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cutouts").mkdir()
    for name, image in zip(IDS, IMAGES, strict=True):
        np.save(tmp_path / "cutouts" / f"{name}.npy", image)
    return tmp_path / "cutouts"


def test_folder_hdf5_and_shards_give_the_same_vectors_by_identifier(folder, tmp_path, weights):
    with h5py.File(tmp_path / "cutouts.hdf5", "w") as file:
        file["images"], file["object_id"] = IMAGES[::-1], IDS[::-1]
    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for name, image in zip(IDS, IMAGES, strict=True):
            for ending, content in ((".npy", np_bytes(image)), (".json", b"{}")):
                member = tarfile.TarInfo(f"{name}{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = {}
    for source in (folder, tmp_path / "cutouts.hdf5", tmp_path / "shard-000.tar"):
        output = tmp_path / f"out_{source.suffix or 'folder'}"
        told = extract(NETWORK, str(source), str(output), batch=4, weights=weights, device="cpu")
        assert told["embedded"] == 9
        vectors = read(output)
        order = np.argsort(vectors.ids["object_id"])
        assert vectors.ids["object_id"][order].tolist() == IDS.tolist()
        found[source.suffix] = np.asarray(vectors["image"][order])
    assert np.allclose(found[""], found[".hdf5"], atol=1e-5)
    assert np.allclose(found[""], found[".tar"], atol=1e-6)
    assert np.ptp(found[""], axis=0).max() > 0


def np_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_stopped_extraction_goes_on_where_it_was(folder, tmp_path, weights):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    extract(NETWORK, str(folder), str(whole), batch=2, weights=weights, device="cpu")
    told = extract(NETWORK, str(folder), str(parts), batch=2, weights=weights, limit=5, device="cpu")
    assert told == {"embedded": 5, "left": 4, "output": str(parts)}
    assert not (parts / "image_embeddings.npy").exists()
    assert extract(NETWORK, str(folder), str(parts), batch=2, weights=weights, device="cpu")["embedded"] == 9
    assert np.allclose(np.load(whole / "image_embeddings.npy"), np.load(parts / "image_embeddings.npy"), atol=1e-6)
    with pytest.raises(DataError, match="its normalise is"):
        extract(NETWORK, str(folder), str(parts), weights=weights, normalise="none", device="cpu")
    assert extract(NETWORK, str(folder), str(parts), weights=weights, device="cpu")["embedded"] == 9  # nothing is left to do


def test_pictures_are_scaled_and_images_of_another_size_refused(tmp_path):
    Image.fromarray(np.full((8, 8, 3), 255, dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "b.png")
    source = image_source(tmp_path)
    assert source.ids.tolist() == ["a", "b"]
    assert (source.bands, source.size) == (3, 8)
    assert source.read([0, 1]).mean(axis=(1, 2, 3)).tolist() == [1.0, 0.0]
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png has shape"):
        image_source(tmp_path).read([0, 2])


class Finder(nn.Module):
    def __init__(self, about):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(32, 7), nn.ReLU())
        self.head = nn.Linear(7, 1)

    def predict(self, batch):
        return {"logit": self.head(self.body(batch["image"]))[:, 0]}


def test_a_finder_gives_what_its_last_layer_sees():
    finder, images = Finder({}), torch.randn(5, 2, 4, 4)
    assert torch.equal(Penultimate(finder)(images), finder.body(images))


def test_a_run_is_taken_by_its_directory(monkeypatch):
    finder = Finder({})
    monkeypatch.setattr("skyloom.training.saved.load_task", lambda run: (finder, {"bands": ["g", "r"], "size": 4}))
    network = network_named("run:somewhere", bands=2, size=64, device="cpu")
    images = RNG.normal(size=(3, 2, 4, 4)).astype(np.float32)
    assert np.allclose(network.embed(images, "none"), finder.body(torch.tensor(images)).detach().numpy(), atol=1e-6)
    assert network.embed(RNG.normal(size=(3, 2, 8, 8)).astype(np.float32)).shape == (3, 7)  # resized
    with pytest.raises(DataError, match="takes 2 bands"):
        network.embed(RNG.normal(size=(3, 5, 4, 4)).astype(np.float32))


def test_a_finder_gets_fluxes_as_they_are_and_a_backbone_scaled_ones(folder, tmp_path, monkeypatch):
    seen = []

    class Recorded:
        size = 4

        def embed(self, images, normalise):
            seen.append(normalise)
            return np.zeros((len(images), 3), np.float32)

    monkeypatch.setattr("embeddings.extract.network_named", lambda *_: Recorded())
    for k, network in enumerate(("run:somewhere", "aion", "timm:resnet18", "astropt")):
        extract(network, str(folder), str(tmp_path / str(k)))
    assert list(dict.fromkeys(seen[:1] + seen[-1:])) == ["none", "per_image"] and set(seen) == {"none", "per_image"}


def test_what_is_not_installed_is_said_with_where_it_comes_from():
    for name in ("aion", "astropt", "astroclip"):
        with pytest.raises(ConfigError, match=f"network={name} needs"):
            network_named(name, 3, 96, weights="/nowhere")
    with pytest.raises(ConfigError, match="say timm:<name>"):
        network_named("resnet", 3, 96)
    with pytest.raises(ConfigError, match="which network="):
        extract()
