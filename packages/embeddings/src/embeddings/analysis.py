"""The workflow: what each embedding encodes, how the models compare, which objects stand out, and a record of all three."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.comparing.compared import Compared, Comparing
from embeddings.finding.found import Finding, Found
from embeddings.finding.mapped import Mapping2D, axes, map_all
from embeddings.machine.memory import analysis_bytes, require
from embeddings.machine.threads import threads_for, use_threads
from embeddings.objects.folds import grouped_folds
from embeddings.objects.properties import property_named
from embeddings.probes.encoded import Encoded, Probing
from embeddings.samples.prepared import prepare
from embeddings.samples.question import Table
from embeddings.samples.sample import Sample
from skyloom.errors import DataError
from skyloom.run import Run
from skyloom.training.progress import said

__all__ = ["analyse"]

_TABLES = (
    "probes", "partial", "labels", "similarities", "differences", "joint", "retrieval", "axes", "dimensions", "nearest",
)  # fmt: skip


def analyse(
    run: Run,
    data: Sample,
    evaluation: Callable[..., list[Any]] | None = None,
    trackers: Any = None,
    seed: int = 0,
    threads: int | str = "auto",
    components: int = 128,
    min_objects: int = 100,
    probes: Probing | None = None,
    comparison: Comparing | None = None,
    maps: Mapping2D | None = None,
    finding: Finding | None = None,
    page_objects: int = 50_000,
    memory_limit: float | None = None,
) -> dict[str, float]:
    """Probe every embedding for every property, compare the models, map, find outliers, draw, and keep the fitted probes.

    Arguments:
        threads: `auto`: one where the sample is small, else every core.
        components: Principal components of each embedding that the costlier parts work on (all is asked of the linear probes,
            the neighbours and the similarities); label-free.
        min_objects: With a vector and a known value, below which a property is not probed.
        probes, comparison, maps, finding: Settings of the parts; null leaves one out (`probes` cannot be).
        page_objects: On the interactive page, at most; 0: no page.
        memory_limit: In bytes; null: 70 percent of what is free.

    Writes predictions/test.parquet (per object: held-out predictions, maps, scores; all tables in its metadata), predictions/
    <table>.parquet and outliers.csv, join_report.json, checkpoints/best.pt (the linear probes), figures/, explore.html.
    """
    how = probes or Probing()
    numbers = float(len(data) * max((e.shape[1] for e in data.embeddings), default=0))
    with use_threads(threads_for(threads, numbers)):
        _begin(run, data)
        properties, skipped = _enough(data, min_objects)
        _fits_into_memory(data, len(properties), how, memory_limit)
        asked = data, prepare(data, components), grouped_folds(data.groups, how.folds, seed)
        encoded = Encoded(*asked, how, seed)
        compared = Compared(*asked, comparison or Comparing(), seed)
        found = Found(*asked, finding or Finding(), seed)
        _ask_each(run, encoded, properties, min_objects)
        columns = _columns(encoded)
        if comparison is not None:
            compared.ask(properties, columns)
            said("comparison: done")
        if finding is not None:
            found.ask()
            said("outliers and neighbours: done")
        columns |= compared.columns | found.columns
        about = _about(encoded, properties, skipped) | compared.tables | found.tables
        about["maps"] = map_all(data, encoded.prepared, maps, columns)
        about["axes"] = axes(data, columns, list(data.properties), about["maps"])
        _write(run, data, columns, about, evaluation, page_objects, seed)
        _keep(run, data, encoded.readouts)
        if trackers is not None and about["probes"]:
            trackers.table("probes", list(about["probes"][0]), [list(row.values()) for row in about["probes"]])
        return _metrics(about)


# ------------------------------------------------------------------------------------------------------------------- steps


def _begin(run: Run, data: Sample) -> None:
    digest = hashlib.sha256()
    for name, values in sorted({**data.ids, **data.properties}.items()):
        digest.update(f"{name}|{values.dtype.str}|".encode() + np.ascontiguousarray(values).tobytes())
    for e in data.embeddings:
        some = np.flatnonzero(e.present)[:: max(int(e.present.sum()) // 1000, 1)]  # vectors may not fit into memory
        digest.update(f"{e.name}|{e.shape}|".encode() + np.ascontiguousarray(e[some]).tobytes())
    status = "degraded" if data.degraded else "complete"
    run.update(
        synthetic=data.synthetic,
        splits={"objects": len(data), "groups": len(np.unique(data.groups))},
        analysis={"status": status, "reasons": list(data.degraded)},
        caveats=[f"degraded: {reason}" for reason in data.degraded],
    )
    if run.provenance:
        run.write_json("provenance.json", {**run.provenance, "data_fingerprint": digest.hexdigest()[:16]})
    report = {"status": status, "reasons": list(data.degraded), "objects": len(data), "models": list(data.join_report)}
    run.write_json("join_report.json", report)
    for reason in data.degraded:
        said(f"degraded: {reason}")


def _fits_into_memory(data: Sample, properties: int, how: Probing, limit: float | None) -> None:
    on_disk = all(isinstance(e.vectors, np.memmap) or not isinstance(e.vectors, np.ndarray) for e in data.embeddings)
    needed = analysis_bytes(len(data), [e.shape[1] for e in data.embeddings], properties, how.shuffles, 30, on_disk)
    require(needed, "the analysis", limit)


def _enough(data: Sample, at_least: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """The properties known for enough objects of some embedding, and the names of the others."""
    if not data.embeddings:
        raise DataError("the sample has no embedding.")
    most = {
        name: max(int((np.isfinite(values) & e.present).sum()) for e in data.embeddings)
        for name, values in data.properties.items()
    }
    kept = {name: values for name, values in data.properties.items() if most[name] >= at_least and np.nanstd(values) > 0}
    if not kept and not data.degraded:
        counts = ", ".join(f"{name} {count}" for name, count in most.items())
        raise DataError(f"no property varies and is known for min_objects={at_least} objects; they have: {counts}.")
    return kept, [name for name in data.properties if name not in kept]


def _ask_each(run: Run, encoded: Encoded, properties: Mapping[str, np.ndarray], at_least: int) -> None:
    for step, p in enumerate(encoded.prepared.values()):
        own = {name: v for name, v in properties.items() if (np.isfinite(v) & p.present).sum() >= at_least}
        if own:
            encoded.ask(p, own)
            run.append({"step": step, f"probe/mean_r2/{p.name}": encoded.mean_r2[p.name][0]})
        said(f"probes of {p.name}: done ({step + 1} of {len(encoded.prepared)})")


def _columns(encoded: Encoded) -> dict[str, np.ndarray]:
    """Of every object: what it is called, what is true of it, and what the probes predict."""
    data = encoded.data
    columns: dict[str, np.ndarray] = {**data.ids, "group": data.groups, "fold": encoded.fold, **data.text}
    columns |= {f"truth.{name}": data.properties[name] for name in data.properties}
    columns |= {f"class.{kind}": labels for kind, labels in data.classes.items()}
    for name, p in encoded.prepared.items():
        columns[f"pca.{name}"] = p.coordinates(min(10, p.reduced.shape[1]))
    return columns | encoded.columns


def _about(encoded: Encoded, properties: Mapping[str, Any], skipped: list[str]) -> dict[str, Any]:
    data, labels = encoded.data, {n: property_named(n) for n in [*properties, *skipped]}
    return {
        "synthetic": data.synthetic,
        "degraded": list(data.degraded),
        "properties": [{"name": n, "axis": labels[n].axis, "colours": labels[n].colours} for n in properties],
        "embeddings": [e.name for e in data.embeddings],
        "one_each": [e.name for e in data.one_each()],
        "identifiers": list(data.ids),
        "classes_of": list(data.classes),
        "objects": len(data),
        "cells": len(np.unique(data.groups)),
        "skipped": skipped,
        "explained": {name: p.explained[:10].tolist() for name, p in encoded.prepared.items()},
        "dimension": {name: int(p.embedding.shape[1]) for name, p in encoded.prepared.items()},
        "mean_r2": encoded.mean_r2,
        **encoded.tables,
    }


def _write(
    run: Run,
    data: Sample,
    columns: dict[str, np.ndarray],
    about: dict[str, Any],
    evaluation: Callable[..., list[Any]] | None,
    page_objects: int,
    seed: int,
) -> None:
    from embeddings.finding.page import write_page
    from skyloom.data.tables import write_columns
    from skyloom.training.workflow import draw_figures

    folder = run.directory / "predictions"
    listed = about.pop("listed")
    _write_outliers(run.directory / "outliers.csv", listed, columns)
    about["outliers"] = [row for row in listed if row["rank"] <= 20]
    write_columns(folder / "test.parquet", columns, about)
    for name in _TABLES:
        if about[name]:
            write_columns(folder / f"{name}.parquet", _by_column(about[name]), {"synthetic": data.synthetic})
    if evaluation is not None:
        draw_figures(evaluation, columns, about, run.directory / "figures")
    if page_objects:
        write_page(run.directory / "explore.html", columns, about, page_objects, seed)


def _write_outliers(path: Path, listed: Table, columns: Mapping[str, np.ndarray]) -> None:
    """CSV: identifiers, what found the object, its rank, percentile and sigma, and its place in the maps."""
    import csv
    import io

    from skyloom.run.files import write_text

    if not listed:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, [*listed[0], "map_1", "map_2"])
    writer.writeheader()
    for row in listed:
        xy = columns.get(f"map.{row['embedding']}", columns.get(f"pca.{row['embedding']}"))
        place = dict(zip(("map_1", "map_2"), xy[row["row"]], strict=True)) if xy is not None else {}
        writer.writerow({**row, **place})
    write_text(path, text.getvalue())


def _keep(run: Run, data: Sample, fits: Mapping[str, tuple[list[str], np.ndarray, np.ndarray]]) -> None:
    """The linear probes as a checkpoint, so that `predict` and `export` work on the run."""
    from embeddings.probes.readout import Readout
    from skyloom.training import checkpoints

    entries = [
        {"name": e.name, "dimension": int(e.shape[1]), "properties": fits[e.name][0]} for e in data.embeddings if e.name in fits
    ]
    about = {"readouts": entries, "synthetic": data.synthetic, "columns": list(data.columns)}
    readout = Readout(about)
    for name, (_, weights, intercepts) in fits.items():
        readout.set(name, weights, intercepts)
    checkpoints.save({"task": readout.state_dict(), "about": about, "metrics": {}}, run.checkpoints, "best")
    run.update(parameters=sum(b.numel() for b in readout.buffers()))


def _metrics(about: dict[str, Any]) -> dict[str, float]:
    """`test/...` are the few to read first; `probe/<r2|mae>/<probe>/<embedding>/<property>` are all."""
    from skyloom.metrics import Estimate

    rows, metrics = about["probes"], {}
    ridge = [row for row in rows if row["probe"] == "ridge"]
    if not ridge:
        return {"test/objects": float(about["objects"])}
    metrics["test/null_r2"] = max(abs(row["null_r2"]) for row in ridge)
    for name, table, value, known in (
        ("r2_gap", ridge, "r2", "known_r2"),
        ("partial_r2_gap", about["partial"], "partial_r2", "known"),
        ("joint_gain_gap", about["joint"], "gain", "known_gain"),
        ("cka_gap", about["similarities"], "value", "known"),
    ):
        gaps = [abs(row[value] - row[known]) for row in table if np.isfinite(row[known])]
        if gaps:
            metrics[f"test/{name}"] = max(gaps)
    metrics["test/mean_r2"] = float(np.mean([row["r2"] for row in ridge]))
    for name, found in about["mean_r2"].items():
        metrics[f"test/mean_r2/{name}"] = Estimate(*found)
    for row in about["classes"]:
        where = f"{row['kind'].replace(' ', '_')}/{row['embedding']}"
        metrics[f"test/macro_f1/{where}"] = Estimate(row["macro_f1"], row["low"], row["high"])
    for s in about["similarities"]:
        if s["measure"] in ("cka_unbiased", "overlap") and s["kind"] == "models":
            metrics[f"test/{s['measure']}/{s['pair'].replace(' ', '')}"] = s["value"]
    for row in about["maps"]:
        metrics[f"test/trustworthiness/{row['method']}/{row['embedding']}"] = row["trustworthiness"]
    for row in rows:
        where = f"{row['probe']}/{row['embedding']}/{row['property']}"
        metrics[f"probe/r2/{where}"] = Estimate(row["r2"], row["r2_low"], row["r2_high"])
        metrics[f"probe/mae/{where}"] = Estimate(row["mae"], row["mae_low"], row["mae_high"])
        if np.isfinite(row["nmad"]):
            metrics[f"test/nmad/{row['embedding']}"] = Estimate(row["nmad"], row["nmad_low"], row["nmad_high"])
            metrics[f"test/redshift_outliers/{row['embedding']}"] = Estimate(
                row["outliers"], row["outliers_low"], row["outliers_high"]
            )
    return metrics


def _by_column(rows: Table) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
