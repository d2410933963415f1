"""The canonical form, written so that a stop costs little: rows into an array on disk, and a note of which are done."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.extract.images import ImageSource
from embeddings.readers.arrays import MODALITY_FILES
from skyloom.errors import DataError
from skyloom.run.files import read_json, write_json, write_whole
from skyloom.training.progress import said

__all__ = ["Writer"]

FILES = {"object_id": "object_ids", "TARGETID": "target_ids", "name": "names"}


class Writer:
    """Vectors of a source's images in `folder`; continues what an earlier call with the same settings began."""

    def __init__(self, folder: Path, source: ImageSource, about: dict[str, Any], save_every: int = 20):
        self.folder, self.source, self.save_every = folder, source, save_every
        self.about = {**about, "images": len(source), "source": source.fingerprint}
        folder.mkdir(parents=True, exist_ok=True)
        self.partial, self.note = folder / "image_embeddings.partial.npy", folder / "extraction.json"
        before = read_json(self.note) if self.note.exists() else {"done": 0, **self.about}
        other = [key for key, value in self.about.items() if before.get(key) != value]
        if other:
            raise DataError(
                f"{folder} holds another extraction: its {other[0]} is {before.get(other[0])!r}, not {self.about[other[0]]!r}. "
                "Choose another output, or remove the folder."
            )
        self.done, self.batches, self.began = int(before["done"]), 0, time.monotonic()
        self.array: np.ndarray | None = None
        if self.done:
            said(f"{self.done} of {len(source)} images are embedded already")

    def left(self, batch: int, limit: int | None = None) -> Iterator[np.ndarray]:
        """Rows that are not done, a batch at a time."""
        stop = len(self.source) if limit is None else min(self.done + limit, len(self.source))
        for start in range(self.done, stop, batch):
            yield np.arange(start, min(start + batch, stop))

    def take(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self.array is None:
            self.array = self._open(vectors.shape[1])
        self.array[rows] = vectors
        self.batches += 1
        self.done = int(rows[-1]) + 1
        if self.batches % self.save_every == 0:
            self._save()

    def finish(self) -> dict[str, Any]:
        """The finished form, where every image is done; else what is left for the next call."""
        self._save()
        rate = self.batches and self.done / max(time.monotonic() - self.began, 1e-9)
        if self.done < len(self.source):
            return {"embedded": self.done, "left": len(self.source) - self.done, "output": str(self.folder)}
        final = self.folder / MODALITY_FILES["image"]
        if self.partial.exists():
            self.array = None
            os.replace(self.partial, final)
        with write_whole(self.folder / f"{FILES[self.source.kind]}.npy") as path, open(path, "wb") as file:
            np.save(file, self.source.ids)
        width = int(np.load(final, mmap_mode="r").shape[1])
        return {
            "embedded": self.done,
            "dimension": width,
            "images_per_second": round(float(rate), 1),
            "output": str(self.folder),
        }

    def _open(self, width: int) -> np.ndarray:
        if self.done and self.partial.exists():
            array = np.lib.format.open_memmap(self.partial, mode="r+")
            if array.shape != (len(self.source), width):
                raise DataError(f"{self.partial} has shape {array.shape}, not {(len(self.source), width)}: remove the folder.")
            return array
        return np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=(len(self.source), width))

    def _save(self) -> None:
        """Rows first, then the note: what the note counts is on disk."""
        if isinstance(self.array, np.memmap):
            self.array.flush()
        write_json(self.note, {**self.about, "done": self.done})
