"""Batches of cutouts from disk: HDF5 and WebDataset parts of ours against PNG folders, raw h5py and the webdataset package."""

import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import h5py
import numpy as np
import pandas as pd
import torch
from compare import interleaved, row, write_table

from lensfind.data import Stream, stored, write_store
from lensfind.training.task import LensFinder
from skyloom.backbones import ensure_torchvision, image_encoder
from skyloom.pu import nnpu
from skyloom.training.loading import fetch

COUNT, BANDS, SIZE, BATCH, ROUNDS = 4096, 3, 64, 64, 9
torch.set_num_threads(1)


def images() -> np.ndarray:
    """Noise and a galaxy each: what a PNG compresses as it would a survey's cutout."""
    rng = np.random.default_rng(0)
    r2 = ((np.indices((SIZE, SIZE)) - SIZE / 2) ** 2).sum(0)
    galaxy = (
        200 * np.exp(-np.sqrt(r2)[None, None] / rng.uniform(2, 6, (COUNT, 1, 1, 1))) * np.array([0.3, 0.7, 1.0])[:, None, None]
    )
    return (galaxy + rng.normal(0, 1, (COUNT, BANDS, SIZE, SIZE))).astype(np.float32)


def write(folder: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    table = pd.DataFrame(
        {
            "object_id": [f"o{k:05d}" for k in range(COUNT)],
            "label": np.arange(COUNT) % 2,
            "label_source": "sim:bologna",
            "label_confidence": 1.0,
            "split": np.where(np.arange(COUNT) % 8 < 6, "train", "test"),
        }
    )
    table.loc[::8, "split"] = "val"
    table["sky_group_id"] = table["object_id"]
    about = {
        "bands": ["g", "r", "i"],
        "size": SIZE,
        "unit": "nJy",
        "synthetic": True,
        "masked": False,
        "survey": {"name": "lsst", "pixel_scale": 0.2, "bands": {}},
    }
    table["quality"] = 1.0
    for storage in ("hdf5", "webdataset"):
        write_store(folder / storage, pixels, table, about, None, storage, rows_per_part=512)
    with h5py.File(folder / "raw.h5", "w") as file:
        file["image"] = pixels
        file["label"] = table["label"].to_numpy()
    eight = np.clip(255 * np.arcsinh(pixels) / np.arcsinh(200), 0, 255).astype(np.uint8)
    for k in range(COUNT):
        path = folder / "png" / ("lens" if k % 2 else "nonlens")
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(eight[k], 0, -1)).save(path / f"{k:05d}.png")


def epoch_of(dataset, rows: np.ndarray) -> None:
    for part in np.split(rows, range(BATCH, len(rows), BATCH)):
        assert fetch(dataset, part)["image"].dtype == torch.float32


def cases(folder: Path) -> tuple[dict, dict]:
    ensure_torchvision()
    import torchvision
    import webdataset
    from torch.utils.data import DataLoader
    from torchvision import transforms

    hdf5, tar = stored(folder / "hdf5", class_prior=0.5), stored(folder / "webdataset", class_prior=0.5)
    rows = np.random.default_rng(1).permutation(len(hdf5.train))
    pngs = torchvision.datasets.ImageFolder(str(folder / "png"), transform=transforms.ToTensor())
    chosen = np.random.default_rng(1).permutation(COUNT)[: len(rows)]

    def png() -> None:
        for batch, _ in DataLoader(torch.utils.data.Subset(pngs, chosen.tolist()), batch_size=BATCH):
            assert batch.shape[1] == 3

    def raw_rows() -> None:
        with h5py.File(folder / "raw.h5") as file:
            for part in np.split(chosen, range(BATCH, len(chosen), BATCH)):
                torch.from_numpy(np.stack([file["image"][int(k)] for k in part]))

    def raw_sorted() -> None:
        with h5py.File(folder / "raw.h5") as file:
            for part in np.split(chosen, range(BATCH, len(chosen), BATCH)):
                order = np.argsort(part)
                torch.from_numpy(file["image"][part[order]][np.argsort(order)])

    def stream() -> None:
        for batch in Stream(tar.train.store, BATCH, rows=tar.train.rows, window=1024):
            assert len(batch["image"])

    def web() -> None:
        urls = sorted(str(path) for path in (folder / "webdataset").glob("*.tar"))
        data = (
            webdataset.WebDataset(urls, shardshuffle=False).shuffle(1024).decode().to_tuple("image.npy", "json").batched(BATCH)
        )
        for part, _ in data:
            torch.from_numpy(np.asarray(part))

    measured = {
        "hdf5": lambda: epoch_of(hdf5.train, rows),
        "webdataset": lambda: epoch_of(tar.train, rows),
        "stream": stream,
        "png": png,
        "h5py by row": raw_rows,
        "h5py sorted": raw_sorted,
        "webdataset package": web,
    }
    versions = {"png": torchvision.__version__, "h5py": h5py.__version__, "webdataset": webdataset.__version__}
    return measured, {"versions": versions, "hdf5": hdf5, "rows": rows, "whole": COUNT / len(rows)}


def step_against_fetch(data) -> tuple[list[float], list[float]]:
    """CPU seconds of fetching a batch of 64, and of one training step of a ResNet-18 on it."""
    task = LensFinder(data.about, partial(image_encoder, name="resnet18"), nnpu)
    optimizer = torch.optim.AdamW(task.parameters())
    fetching, stepping = [], []
    for k in range(12):
        rows = np.arange(k * BATCH, (k + 1) * BATCH)
        began = time.process_time()
        batch = fetch(data.train, rows)
        fetching.append(time.process_time() - began)
        began = time.process_time()
        task.losses(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        stepping.append(time.process_time() - began)
    return fetching[2:], stepping[2:]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="lens_loading-"))
    try:
        write(folder, images())
        measured, facts = cases(folder)
        seconds = interleaved(measured, rounds=ROUNDS)
        fetching, stepping = step_against_fetch(facts["hdf5"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    versions = facts["versions"]
    per_row = [value / facts["whole"] for value in seconds["webdataset package"]]  # it reads all rows, ours the training split
    table = [
        row("HDF5, shuffled", seconds["hdf5"], "torchvision ImageFolder, 8-bit PNG", versions["png"], seconds["png"], "≥ 5"),
        row("HDF5, shuffled", seconds["hdf5"], "h5py, row by row", versions["h5py"], seconds["h5py by row"], "≥ 1"),
        row("HDF5, shuffled", seconds["hdf5"], "h5py, sorted rows of a batch", versions["h5py"], seconds["h5py sorted"], "≥ 1"),
        row(
            "WebDataset shards, shuffled",
            seconds["webdataset"],
            "torchvision ImageFolder, 8-bit PNG",
            versions["png"],
            seconds["png"],
            "≥ 5",
        ),
        row(
            "WebDataset shards, stream", seconds["stream"], "webdataset, shuffle(1024)", versions["webdataset"], per_row, "≥ 1"
        ),
        row("a batch from HDF5", fetching, "a ResNet-18 training step on it", torch.__version__, stepping, "≥ 50"),
    ]
    note = (
        f"{len(facts['rows'])} synthetic cutouts, {BANDS} bands of {SIZE} x {SIZE}, batches of {BATCH}, one thread, files in "
        f"the page cache, CPU seconds of the process, {ROUNDS} rounds interleaved. Ours checks nothing while reading (a data "
        "set is checked against its checksums when it is opened; the stream checks each record); the rows of raw h5py carry no "
        "labels. Ours and h5py give float32 of all bands, the PNGs three bands of 8 bits after a stretch. The last line is how "
        "many times longer a training step takes than fetching its batch: the step waits on data for the inverse of it."
    )
    write_table("lens_loading", "Loading cutouts", table, note)


if __name__ == "__main__":
    main()
