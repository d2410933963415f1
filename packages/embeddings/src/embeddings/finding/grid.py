"""A query and what is nearest to it, as a row of pictures: `make similar run=<dir> objects=[id,…] images=<folder or HDF5>`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.figures.pieces import About, canvas, label_of
from embeddings.finding.search import rows_of
from skyloom.data.tables import read_columns
from skyloom.errors import DataError
from skyloom.plots import PAGE, labelled, panels, save
from skyloom.run import Run

__all__ = ["draw_grid", "similar"]


def similar(
    run: Run,
    objects: Sequence[str | int] | str | int | None = None,
    embedding: str | None = None,
    images: str | None = None,
    output: str | None = None,
    neighbours: int = 9,
    show: Sequence[str] = ("redshift", "log_mass"),
) -> dict[str, Any]:
    """The objects nearest to each of `objects` in an embedding of a run, from the lists that the run has saved.

    Arguments:
        objects: Identifiers; unknown ones warn and are left out. Where none is given, the three strangest objects.
        embedding: `model/modality`; by default the first model's fullest.
        images: A folder, HDF5 file or shards with pictures of the same identifiers; without, properties only are shown.
        output: A PNG; by default in the run's figures.
        neighbours: Per object, at most as many as the run has saved.
        show: Properties under each picture.
    """
    columns, about = read_columns(run.directory / "predictions" / "test.parquet")
    name = embedding or about["one_each"][0]
    if f"nearest.{name}" not in columns:
        raise DataError(
            f"the run has no neighbours of {name!r}; it has {', '.join(about['embeddings'])} (finding.neighbours > 0)."
        )
    ids = {key: columns[key] for key in about["identifiers"]}
    if objects is None:
        rows = np.array([row["row"] for row in about["outliers"] if row["embedding"] == name][:3] or [0])
    else:
        rows = rows_of([objects] if isinstance(objects, str | int) else objects, ids)
    rows = np.array([row for row in rows if columns[f"nearest.{name}"][row, 0] >= 0], dtype=np.int64)
    if not len(rows):
        raise DataError(f"none of the objects has a vector in {name}.")
    near = columns[f"nearest.{name}"][rows][:, :neighbours]
    path = Path(output) if output else run.directory / "figures" / f"similar_{name.replace('/', '_')}.png"
    draw_grid(columns, about, rows, near, path, images, [n for n in show if f"truth.{n}" in columns])
    first = {key: [str(v[row]) for row in near[0] if row >= 0] for key, v in ids.items()}
    return {"figure": str(path), "queries": len(rows), "embedding": name, "nearest to the first": next(iter(first.values()))}


def draw_grid(
    columns: dict[str, np.ndarray], about: About, rows: np.ndarray, near: np.ndarray, path: Path, images: str | None,
    show: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """A row per query: it, then its neighbours; returns the rows shown [Q, 1 + k]."""
    every = np.hstack([rows[:, None], near])
    pictures = _pictures(columns, about, every, images)
    height = (1.0 if images else 0.55) * len(rows) + 0.35
    with canvas(), labelled(bool(about["synthetic"])):
        figure, grid = panels(len(rows), every.shape[1], width=PAGE, height=height, squeeze=False)
        for line, shown in zip(grid, every, strict=True):
            for k, (axes, row) in enumerate(zip(line, shown, strict=True)):
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)
                if row in pictures:
                    axes.imshow(pictures[row], cmap="gray", origin="lower" if pictures[row].ndim == 2 else "upper")
                words = [f"{label_of(about, n)} {columns[f'truth.{n}'][row]:.3g}" for n in show] if row >= 0 else []
                if images is None:
                    axes.text(0.5, 0.5, "\n".join(words), fontsize=4.6, ha="center", va="center", transform=axes.transAxes)
                else:
                    axes.set_xlabel("\n".join(words), fontsize=4.2, labelpad=1.5)
                axes.set_title("query" if k == 0 else f"{k}", fontsize=5.5, pad=2)
                for spine in axes.spines.values():
                    spine.set_visible(True)
                    spine.set_color("#D55E00" if k == 0 else "0.85")
        save(figure, path)
    return every


def _pictures(columns: dict[str, np.ndarray], about: About, rows: np.ndarray, images: str | None) -> dict[int, np.ndarray]:
    """Row -> picture [rows, columns] or [rows, columns, 3], stretched to 0 ... 1."""
    if images is None:
        return {}
    from embeddings.extract.images import image_source

    source = image_source(Path(images))
    place = {str(one): k for k, one in enumerate(source.ids)}
    found = {}
    for row in np.unique(rows[rows >= 0]).tolist():
        at = next((place[str(columns[key][row])] for key in about["identifiers"] if str(columns[key][row]) in place), None)
        if at is not None:
            found[row] = _stretched(source.read(np.array([at]))[0])
    return found


def _stretched(image: np.ndarray) -> np.ndarray:
    """asinh of the flux over three times its scatter, between percentiles 1 and 99.5."""
    low, high = np.nanpercentile(image, [1, 99.5])
    soft = np.arcsinh((image - low) / max((high - low) / 5, 1e-12))
    scaled = np.clip(np.nan_to_num(soft / max(float(np.nanpercentile(soft, 99.8)), 1e-12)), 0, 1)
    return np.moveaxis(scaled[:3][::-1], 0, -1) if len(scaled) >= 3 else scaled.mean(axis=0)
