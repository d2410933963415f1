"""`.safetensors` files: tensors under the known names; identifiers are int64 tensors, or text in the header as JSON."""

import json
from pathlib import Path

import numpy as np

from embeddings.readers.arrays import from_arrays
from embeddings.readers.keys import IDENTIFIERS
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["read_safetensors"]


def read_safetensors(path: Path, model: str) -> EmbeddingSet:
    """Half precision of either kind becomes float32. Text identifiers: metadata `{"names": "[\\"a\\", \\"b\\"]"}`."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None
    halves = (torch.bfloat16, torch.float16)
    arrays = {name: (t.float() if t.dtype in halves else t).numpy() for name, t in tensors.items()}
    for name in {name for names in IDENTIFIERS.values() for name in names} & metadata.keys():
        arrays[name] = np.array(json.loads(metadata[name]), dtype=str)
    return from_arrays(arrays, model, str(path))
