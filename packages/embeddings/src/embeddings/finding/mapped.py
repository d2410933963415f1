"""Every embedding's maps, with their settings, and what their axes seem to say of properties."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from embeddings.finding.maps import Map, draw_map
from embeddings.probes.legacy import axis_correlation, null_level, rotation_free_correlation
from embeddings.samples.prepared import Prepared
from embeddings.samples.question import Table
from embeddings.samples.sample import Sample
from skyloom.training.progress import said

__all__ = ["Mapping2D", "axes", "map_all"]


@dataclass(frozen=True)
class Mapping2D:
    """Settings of the maps."""

    method: str = "umap"
    """Of the maps that figures and the page show: `pca`, `umap`, `tsne`, `pacmap`."""
    others: tuple[str, ...] = ()
    """Further methods."""
    preset: str = "standard"
    """Of UMAP: `standard`, `wide`, `balanced`, `local`, `global`."""
    components: int = 50
    """Principal components that the map is made from."""
    fit_objects: int = 50_000
    seeds: int = 3
    """For the stability."""
    seed: int = 42
    judge_neighbours: int = 15


def map_all(data: Sample, prepared: Mapping[str, Prepared], how: Mapping2D | None, columns: dict[str, np.ndarray]) -> Table:
    if how is None:
        return []
    rows: Table = []
    for p in prepared.values():
        if p.present.sum() < 10:
            continue
        settings = {k: v for k, v in asdict(how).items() if k not in ("components", "method", "others")}
        for method in (how.method, *how.others):
            found: Map = draw_map(Leading(p, how.components), p.present, method, **settings)
            column = f"map.{p.name}" if method == how.method else f"map_{method}.{p.name}"
            columns[column] = found.coordinates
            facts = {k: v for k, v in vars(found).items() if k != "coordinates"}
            rows.append({"embedding": p.name, "column": column, "preset": how.preset, "objects": int(p.present.sum()), **facts})
            said(f"map of {p.name} by {method}: {found.seconds:.0f} s, trustworthiness {found.trustworthiness:.3f}")
    return rows


class Leading:
    """The first k components of an embedding as rows."""

    def __init__(self, p: Prepared, k: int):
        self.reduced, self.k = p.reduced, min(k, p.reduced.shape[1])
        self.shape = (len(p.reduced), self.k)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.reduced[rows][..., : self.k]


def axes(data: Sample, columns: Mapping[str, np.ndarray], names: list[str], drawn: Table, most: int = 3000) -> Table:
    """Rank correlations with the axes of the maps, as earlier work drew them, on about `most` objects at most."""
    rows: Table = []
    for one in drawn:
        if not one["column"].startswith("map."):
            continue
        xy = columns[one["column"]]
        for name in names:
            known = np.flatnonzero(np.isfinite(data.properties[name]) & np.isfinite(xy).all(axis=1))
            if len(known) < 10:
                continue
            some = known[:: max(len(known) // most, 1)]
            rho = axis_correlation(xy[some], data.properties[name][some])
            free = rotation_free_correlation(xy[some], data.properties[name][some], 36)
            place = {"embedding": one["embedding"], "property": name, "objects": len(some)}
            rows.append({**place, "rho": rho, "rotation_free": free, "null": null_level(2, len(some))})
    return rows
