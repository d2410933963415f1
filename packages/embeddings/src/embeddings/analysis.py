"""The workflow: what each embedding encodes, how the models compare, and a record of both."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from embeddings.folds import grouped_folds
from embeddings.probes import held_out_scores, probe, shuffled
from embeddings.projection import principal_components
from embeddings.properties import property_named
from embeddings.ridge import cross_validated_ridge
from embeddings.sample import Embedding, Sample
from embeddings.similarity import compare
from skyloom.errors import DataError
from skyloom.run import Run
from skyloom.run.seeds import numpy_generator

__all__ = ["analyse"]

Table = list[dict[str, Any]]


def analyse(
    run: Run,
    data: Sample,
    evaluation: Callable[..., list[Any]] | None = None,
    trackers: Any = None,
    seed: int = 0,
    folds: int = 5,
    shuffles: int = 3,
    neighbours: int = 64,
    knn_objects: int = 4000,
    overlap_neighbours: int = 10,
    permutations: int = 99,
    compared_objects: int = 2000,
    resamples: int = 200,
    min_objects: int = 100,
) -> dict[str, float]:
    """Probe every embedding for every property, compare the models, draw, and keep the fitted probes.

    Arguments:
        folds: Of sky cells; each is held out once.
        shuffles: Of each property, for what an embedding that knows nothing gets.
        neighbours, knn_objects: Of the nearest-neighbour probe, and how many objects at most it looks at (exact distances
            cost the square of this).
        overlap_neighbours, permutations, compared_objects: Of the comparison of models.
        resamples: Of sky cells, for the intervals.
        min_objects: With a vector and a known value, below which a property is not probed.

    Writes predictions/test.parquet (held-out predictions and projections of every object, and all tables in its metadata),
    predictions/probes.parquet, join_report.json, checkpoints/best.pt (the linear probes) and figures/.
    """
    from skyloom.data.tables import write_columns
    from skyloom.training.workflow import draw_figures

    _begin(run, data)
    properties, skipped = _enough(data, min_objects)
    fold = grouped_folds(data.groups, folds, seed)
    columns: dict[str, np.ndarray] = {**data.ids, "group": data.groups, "fold": fold, **data.text}
    columns |= {f"truth.{name}": values for name, values in properties.items()}
    rows: Table = []
    readouts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    explained: dict[str, list[float]] = {}
    mean_r2: dict[str, list[float]] = {}
    for step, e in enumerate(data.embeddings):
        found, columns_of, mean_r2[e.name], readouts[e.name] = _probe_linear(
            data, e, properties, fold, shuffles, resamples, seed
        )
        _probe_neighbours(found, e, properties, data.groups, neighbours, knn_objects, folds, resamples, seed)
        components = principal_components(e, e.present)
        explained[e.name] = components.explained.tolist()
        columns |= {**columns_of, f"pca.{e.name}": components.coordinates}
        rows += found
        run.append({"step": step, f"probe/mean_r2/{e.name}": mean_r2[e.name][0]})
    about = {
        "synthetic": data.synthetic,
        "properties": [{"name": n, "axis": property_named(n).axis, "colours": property_named(n).colours} for n in properties],
        "embeddings": [e.name for e in data.embeddings],
        "objects": len(data),
        "cells": len(np.unique(data.groups)),
        "skipped": skipped,
        "explained": explained,
        "mean_r2": mean_r2,
        "probes": rows,
        "similarities": _compare(data, overlap_neighbours, permutations, compared_objects, seed),
        "differences": _differences(data, columns, list(properties), resamples, seed),
    }
    write_columns(run.directory / "predictions" / "test.parquet", columns, about)
    write_columns(run.directory / "predictions" / "probes.parquet", _by_column(rows), {"synthetic": data.synthetic})
    _keep(run, data, list(properties), readouts)
    if evaluation is not None:
        draw_figures(evaluation, columns, about, run.directory / "figures")
    if trackers is not None and rows:
        trackers.table("probes", list(rows[0]), [list(row.values()) for row in rows])
    return _metrics(about)


# ------------------------------------------------------------------------------------------------------------------- steps


def _begin(run: Run, data: Sample) -> None:
    digest = hashlib.sha256()
    for name, values in sorted({**data.ids, **data.properties}.items()):
        digest.update(f"{name}|{values.dtype.str}|".encode() + np.ascontiguousarray(values).tobytes())
    for e in data.embeddings:
        some = np.flatnonzero(e.present)[:: max(int(e.present.sum()) // 1000, 1)]  # vectors may not fit into memory
        digest.update(f"{e.name}|{e.shape}|".encode() + np.ascontiguousarray(e[some]).tobytes())
    run.update(synthetic=data.synthetic, splits={"objects": len(data), "groups": len(np.unique(data.groups))})
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "data_fingerprint": digest.hexdigest()[:16]})
    run.write_json("join_report.json", list(data.join_report))


def _enough(data: Sample, at_least: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """The properties known for enough objects of every embedding, and the names of the others."""
    if not data.embeddings:
        raise DataError("the sample has no embedding.")
    fewest = {
        name: min(int((np.isfinite(values) & e.present).sum()) for e in data.embeddings)
        for name, values in data.properties.items()
    }
    kept = {name: values for name, values in data.properties.items() if fewest[name] >= at_least and np.nanstd(values) > 0}
    if not kept:
        counts = ", ".join(f"{name} {count}" for name, count in fewest.items())
        raise DataError(
            f"no property varies and is known for min_objects={at_least} objects of every embedding; they have: {counts}."
        )
    return kept, [name for name in data.properties if name not in kept]


def _probe_linear(
    data: Sample, e: Embedding, properties: dict[str, np.ndarray], fold: np.ndarray, shuffles: int, resamples: int, seed: int
) -> tuple[Table, dict[str, np.ndarray], list[float], tuple[np.ndarray, np.ndarray]]:
    """Rows of the table, held-out predictions as columns, mean R2 with its interval, and the fit to all objects."""
    names = list(properties)
    y = np.stack([properties[name] for name in names], axis=1)
    both = np.hstack([y, *shuffled(y, e.present, shuffles, seed)])
    fit = cross_validated_ridge(e, both, fold, e.present, standardise=e.standardise)
    pairs = {str(t): (both[:, t], fit.predictions[:, t]) for t in range(both.shape[1])}
    means = {"all": [str(t) for t in range(len(names))]}
    scores = held_out_scores(pairs, data.groups, means=means, resamples=resamples, seed=seed)
    rows = []
    for t, name in enumerate(names):
        null = [float(scores[f"r2/{t + len(names) * (copy + 1)}"]) for copy in range(shuffles)]
        rows.append(
            _row(e, "ridge", name, scores[f"r2/{t}"], scores[f"mae/{t}"], int((np.isfinite(y[:, t]) & e.present).sum()))
            | {"null_r2": max(null, key=abs), "known_r2": data.known_r2.get(e.name, {}).get(name, np.nan)}
        )
    columns = {f"ridge.{e.name}.{name}": fit.predictions[:, t] for t, name in enumerate(names)}
    mean = scores["mean/all"]
    return rows, columns, [float(mean), mean.low, mean.high], (fit.weights[:, : len(names)], fit.intercepts[: len(names)])


def _probe_neighbours(
    rows: Table,
    e: Embedding,
    properties: dict[str, np.ndarray],
    groups: np.ndarray,
    neighbours: int,
    objects: int,
    folds: int,
    resamples: int,
    seed: int,
) -> None:
    """Append the rows of the nearest-neighbour probe, on at most `objects` objects."""
    there = np.flatnonzero(e.present)
    if len(there) > objects:
        there = np.sort(numpy_generator(seed, "knn objects").choice(there, objects, replace=False))
    found = probe(
        e[there], {name: v[there] for name, v in properties.items()}, groups[there], "knn",
        neighbours=neighbours, folds=folds, shuffles=1, resamples=resamples, seed=seed,
    )  # fmt: skip
    for name in properties:
        row = _row(e, "knn", name, found.r2[name], found.mae[name], found.objects[name])
        rows.append(row | {"null_r2": found.null_r2[name], "known_r2": np.nan})


def _row(e: Embedding, kind: str, name: str, r2: Any, mae: Any, objects: int) -> dict[str, Any]:
    return {
        "embedding": e.name, "model": e.model, "modality": e.modality, "probe": kind, "property": name,
        "r2": float(r2), "r2_low": r2.low, "r2_high": r2.high, "mae": float(mae), "mae_low": mae.low, "mae_high": mae.high,
        "objects": objects,
    }  # fmt: skip


def _compare(data: Sample, k: int, permutations: int, objects: int, seed: int) -> Table:
    """CKA and neighbour overlap of the models' embeddings of the same objects."""
    rows: Table = []
    for a, b in data.pairs():
        common = np.flatnonzero(a.present & b.present)
        if len(common) > objects:
            common = np.sort(numpy_generator(seed, "compared objects").choice(common, objects, replace=False))
        if len(common) <= 2 * k:
            continue
        pair = f"{a.name} ~ {b.name}"
        for found in compare(a[common], b[common], k, permutations, rows=None, seed=seed).values():
            known = data.known_cka.get(pair, np.nan) if found.measure == "cka_unbiased" else np.nan
            rows.append({"pair": pair, "first": a.name, "second": b.name, "known": known, **vars(found)})
    return rows


def _differences(data: Sample, columns: dict[str, np.ndarray], properties: list[str], resamples: int, seed: int) -> Table:
    """Per pair of models and property: R2 of the first minus R2 of the second on the objects that both have, paired."""
    rows: Table = []
    for a, b in data.pairs():
        pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        differences: dict[str, tuple[str, str]] = {}
        for name in properties:
            first, second = columns[f"ridge.{a.name}.{name}"], columns[f"ridge.{b.name}.{name}"]
            truth = np.where(np.isfinite(first) & np.isfinite(second), columns[f"truth.{name}"], np.nan)
            pairs |= {f"a {name}": (truth, first), f"b {name}": (truth, second)}
            differences[name] = (f"a {name}", f"b {name}")
        if not any(np.isfinite(truth).any() for truth, _ in pairs.values()):
            continue
        scores = held_out_scores(pairs, data.groups, differences, resamples=resamples, seed=seed)
        known = [data.known_r2.get(e.name, {}) for e in (a, b)]
        for name in properties:
            found = scores[f"difference/{name}"]
            rows.append(
                {"first": a.name, "second": b.name, "property": name, "difference": float(found), "low": found.low,
                 "high": found.high, "known": known[0].get(name, np.nan) - known[1].get(name, np.nan)}
            )  # fmt: skip
    return rows


def _keep(run: Run, data: Sample, properties: list[str], fits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """The linear probes as a checkpoint, so that `predict` and `export` work on the run."""
    from embeddings.readout import Readout
    from skyloom.training import checkpoints

    entries = [{"name": e.name, "dimension": int(e.shape[1]), "properties": properties} for e in data.embeddings]
    about = {"readouts": entries, "synthetic": data.synthetic, "columns": list(data.columns)}
    readout = Readout(about)
    for name, (weights, intercepts) in fits.items():
        readout.set(name, weights, intercepts)
    checkpoints.save({"task": readout.state_dict(), "about": about, "metrics": {}}, run.checkpoints, "best")
    run.update(parameters=sum(b.numel() for b in readout.buffers()))


def _metrics(about: dict[str, Any]) -> dict[str, float]:
    """`test/...` are the few to read first; `probe/<r2|mae>/<probe>/<embedding>/<property>` are all."""
    from skyloom.metrics import Estimate

    rows, metrics = about["probes"], {}
    ridge = [row for row in rows if row["probe"] == "ridge"]
    metrics["test/null_r2"] = max(abs(row["null_r2"]) for row in ridge)
    gaps = [abs(row["r2"] - row["known_r2"]) for row in ridge if np.isfinite(row["known_r2"])]
    if gaps:
        metrics["test/r2_gap"] = max(gaps)
    known = [abs(s["value"] - s["known"]) for s in about["similarities"] if np.isfinite(s["known"])]
    if known:
        metrics["test/cka_gap"] = max(known)
    metrics["test/mean_r2"] = float(np.mean([row["r2"] for row in ridge]))
    for name in about["embeddings"]:
        metrics[f"test/mean_r2/{name}"] = Estimate(*about["mean_r2"][name])
    for s in about["similarities"]:
        if s["measure"] != "cka":
            metrics[f"test/{s['measure']}/{s['pair'].replace(' ', '')}"] = s["value"]
    for row in rows:
        where = f"{row['probe']}/{row['embedding']}/{row['property']}"
        metrics[f"probe/r2/{where}"] = Estimate(row["r2"], row["r2_low"], row["r2_high"])
        metrics[f"probe/mae/{where}"] = Estimate(row["mae"], row["mae_low"], row["mae_high"])
    return metrics


def _by_column(rows: Table) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
