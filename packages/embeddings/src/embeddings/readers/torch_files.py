"""`.pt` files: a list with one dict per object, or one dict of arrays. Read without running what is in them."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.readers.arrays import beside_files, from_arrays
from embeddings.readers.keys import IDENTIFIERS, REDSHIFTS, VECTORS, first
from embeddings.vectors.pooling import pool
from embeddings.vectors.sets import EmbeddingSet
from skyloom.errors import DataError

__all__ = ["read_torch"]


def read_torch(path: Path, model: str) -> EmbeddingSet:
    """Weights-only loading: tensors, arrays, numbers, text and containers of them; anything else is refused.

    Vectors kept as tokens [tokens, D] are averaged over tokens (`embeddings.vectors.pooling` has other ways).
    """
    content = _load(path)
    if hasattr(content, "shape"):
        return _bare(_array(content), model, path)
    if isinstance(content, Mapping) and not _is_one_object(content):
        return from_arrays({str(k): _array(v) for k, v in content.items() if _is_column(v)}, model, str(path))
    objects = [content] if isinstance(content, Mapping) else content
    if not isinstance(objects, Sequence) or not objects or not all(isinstance(o, Mapping) for o in objects):
        raise DataError(
            f"{path}: holds {type(content).__name__}, not a list of dicts (one per object) or a dict of arrays. "
            "Vectors without identifiers cannot be joined to a catalogue."
        )
    return _from_objects(objects, model, path)


def _bare(vectors: np.ndarray, model: str, path: Path) -> EmbeddingSet:
    """A file that is nothing but a matrix: its identifiers must stand beside it as `.npy`."""
    beside = beside_files(path.parent, f"{path.stem}_") or beside_files(path.parent, "")
    if not beside or vectors.ndim != 2:
        raise DataError(
            f"{path}: a bare tensor of shape {vectors.shape}, and no {path.stem}_ids.npy or ids.npy beside it. "
            "Vectors without identifiers cannot be joined to a catalogue; their order is not one."
        )
    return from_arrays({**beside, "embeddings": vectors}, model, str(path))


def _load(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_parts()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds Python objects beyond tensors, arrays and numbers; reading them could run code, so the file is "
            f"refused. Save tensors, or use Parquet. ({str(error).splitlines()[0]})"
        ) from error


def _numpy_parts() -> list[Any]:
    """What a NumPy array or scalar in a pickle is rebuilt from; none of it runs anything."""
    import codecs

    from numpy._core.multiarray import _reconstruct, scalar

    kinds = {
        type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "U1", "S1")
    }
    return [_reconstruct, scalar, np.ndarray, np.dtype, codecs.encode, *kinds]


def _is_one_object(content: Mapping[Any, Any]) -> bool:
    """One object's dict, not wrapped into a list: its vectors are 1-D."""
    key = first([name for names in VECTORS.values() for name in names], content)
    return key is not None and np.ndim(_array(content[key])) == 1


def _is_column(value: Any) -> bool:
    return hasattr(value, "shape") or isinstance(value, (list, tuple))


def _array(value: Any) -> np.ndarray:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _from_objects(objects: Sequence[Mapping[str, Any]], model: str, path: Path) -> EmbeddingSet:
    """Every object keeps its row; where it lacks a vector the row is NaN, and so absent. Token dicts are left behind."""
    keys = set().union(*(o.keys() for o in objects))
    ids = {}
    for kind, names in IDENTIFIERS.items():
        key = first(names, keys)
        if key is not None:
            ids[kind] = _identifier_list([o.get(key) for o in objects], f"{path}, {key}")
    if not ids:
        raise DataError(f"{path}: its objects have no identifier; they have {', '.join(sorted(keys))}.")
    vectors = {}
    for kind, names in VECTORS.items():
        key = first(names, keys)
        if key is not None:
            vectors[kind] = _stack([o.get(key) for o in objects], f"{path}, {key}")
    if not vectors:
        raise DataError(f"{path}: its objects have no vector under a known name; they have {', '.join(sorted(keys))}.")
    redshift = first(REDSHIFTS, keys)
    z = None
    if redshift is not None:  # a redshift of exactly zero is a star's, not a missing one
        z = np.array([np.nan if o.get(redshift) is None else float(o[redshift]) for o in objects])
    return EmbeddingSet(model, ids, vectors, {}, z)


def _identifier_list(values: list[Any], where: str) -> np.ndarray:
    plain = [v.item() if hasattr(v, "item") and np.size(v) == 1 else v for v in values]
    if plain and all(isinstance(v, float) for v in plain):
        return np.array(plain)  # refused, with its reason, by EmbeddingSet
    from embeddings.objects.identifiers import as_identifiers

    return as_identifiers(np.array(plain, dtype=object), where)


def _stack(values: list[Any], where: str) -> np.ndarray:
    rows = [None if v is None else _one_vector(_array(v)) for v in values]
    widths = {len(row) for row in rows if row is not None}
    if len(widths) != 1:
        raise DataError(f"{where}: vectors of different lengths {sorted(widths)[:5]}, so they cannot be of one model.")
    out = np.full((len(rows), widths.pop()), np.nan, dtype=np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            out[place] = row
    return out


def _one_vector(value: np.ndarray) -> np.ndarray:
    """[D] from [D], [1, D] or tokens [T, D]."""
    return value if value.ndim == 1 else pool(value.reshape(-1, value.shape[-1]), "mean")
