"""An interactive map as one self-contained HTML file: pan, zoom, hover, colour by any property, click for what is nearest."""

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.pieces import CLASS_COLOURS, OTHER, About, colour_limits, place_of
from skyloom.run import Run
from skyloom.run.files import write_text
from skyloom.run.seeds import numpy_generator

__all__ = ["explore", "write_page"]

NONE = 65535  # coordinate of an object that a map lacks
UNKNOWN = 255  # code of an unknown class
SPARE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", OTHER)


def write_page(
    path: Path,
    predictions: Mapping[str, np.ndarray],
    about: About,
    most: int = 50_000,
    seed: int = 0,
    title: str = "Embeddings",
) -> Path:
    """From what a run has saved. At most `most` objects, drawn at random, with all of their properties."""
    total = int(about["objects"])
    rows = np.arange(total)
    if total > most:
        rows = np.sort(numpy_generator(seed, "page objects").choice(total, most, replace=False))
    content = {
        "count": len(rows),
        "of": total,
        "synthetic": bool(about["synthetic"]),
        "order": _packed(numpy_generator(seed, "page order").permutation(len(rows)).astype(np.int32)),
        "views": [_view(predictions, about, name, rows, total) for name in about["embeddings"]],
        "properties": [_property(predictions, entry, rows) for entry in about["properties"]],
        "classes": [_classes(predictions, kind, rows) for kind in about["classes_of"]],
        "ids": [{"name": name, "values": "\n".join(_words(predictions[name][rows]))} for name in about["identifiers"]],
    }
    page = (files("embeddings.finding") / "page.html").read_text(encoding="utf-8")
    data = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    write_text(path, page.replace("__TITLE__", html.escape(title)).replace("__DATA__", data))
    return path


def _view(predictions: Mapping[str, np.ndarray], about: About, name: str, rows: np.ndarray, total: int) -> dict[str, Any]:
    """Coordinates as 16-bit integers of a square, and neighbours as rows of the page."""
    xy, first, _ = place_of(predictions, about, name)
    placed = np.isfinite(xy).all(axis=1)
    low, high = (f(xy[placed], axis=0) for f in (np.min, np.max)) if placed.any() else (np.zeros(2), np.ones(2))
    span = max(float((high - low).max()), 1e-12)
    square = np.full((len(rows), 2), NONE, dtype=np.uint16)
    known = placed[rows]
    square[known] = np.clip(32767 + (xy[rows][known] - (low + high) / 2) / span * 65533, 0, 65534).astype(np.uint16)
    view = {"name": name, "axes": first.rpartition(" ")[0] if "(" not in first else "PC", "near": None, "k": 0}
    view |= {"x": _packed(square[:, 0]), "y": _packed(square[:, 1])}
    near = predictions.get(f"nearest.{name}")
    if near is not None:
        place = np.full(total + 1, -1, dtype=np.int32)
        place[rows] = np.arange(len(rows))
        view |= {"near": _packed(place[near[rows]]), "k": int(near.shape[1])}
    return view


def _property(predictions: Mapping[str, np.ndarray], entry: Mapping[str, str], rows: np.ndarray) -> dict[str, Any]:
    import matplotlib

    values = predictions[f"truth.{entry['name']}"]
    low, high = colour_limits(values, (2.0, 98.0)) if np.isfinite(values).any() else (0.0, 1.0)
    table = (matplotlib.colormaps[entry["colours"]](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    return {
        "label": _plain(entry["axis"]), "low": low, "high": high, "values": _packed(values[rows].astype(np.float32)),
        "table": _packed(table),
    }  # fmt: skip


def _classes(predictions: Mapping[str, np.ndarray], kind: str, rows: np.ndarray) -> dict[str, Any]:
    labels = predictions[f"class.{kind}"][rows].astype(str)
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:UNKNOWN]
    codes = np.full(len(rows), UNKNOWN, dtype=np.uint8)
    for code, name in enumerate(names):
        codes[labels == name] = code
    colours = [CLASS_COLOURS.get(name, SPARE_COLOURS[k % len(SPARE_COLOURS)]) for k, name in enumerate(names)]
    return {"name": kind, "names": names.tolist(), "colours": colours, "codes": _packed(codes)}


def _packed(array: np.ndarray) -> str:
    """Little-endian bytes in base 64."""
    plain = np.ascontiguousarray(array)
    return base64.b64encode(plain.astype(plain.dtype.newbyteorder("<")).tobytes()).decode()


def _words(ids: np.ndarray) -> list[str]:
    from embeddings.objects.identifiers import null_mask

    words = ids.astype(str)
    return np.where(null_mask(ids), "", np.char.replace(words, "\n", " ")).tolist()


def _plain(label: str) -> str:
    """A label for HTML, without TeX."""
    for tex, plain in (
        ("$10^{10}M_\\odot/h$", "1e10 Msun/h"), ("$10^{14}M_\\odot$", "1e14 Msun"), ("$M_\\odot$", "Msun"),
        ("$M_{500}$", "M500"),
        ("$D_n4000$", "Dn4000"), ("H$\\alpha$/H$\\beta$", "Hα/Hβ"), ("$z$", "z"), ("$g-r$", "g−r"),
    ):  # fmt: skip
        label = label.replace(tex, plain)
    return label.replace("$", "")


def explore(run: Run, output: str | None = None, objects: int = 50_000, seed: int = 0) -> dict[str, Any]:
    """The interactive page of a run, written anew: `make explore run=<dir> objects=20000`."""
    from skyloom.data.tables import read_columns

    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    path = write_page(Path(output) if output else run.directory / "explore.html", columns, about, objects, seed)
    return {"page": str(path), "objects": min(objects, int(about["objects"]))}
