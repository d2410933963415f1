"""Properties of new objects from their embeddings, by the linear probes of a run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.readers import read
from embeddings.vectors.sets import EmbeddingSet
from skyloom.data import Columns
from skyloom.data.tables import write_columns
from skyloom.errors import ConfigError, DataError, nearest

__all__ = ["predict"]


def predict(
    task: Any,
    about: Mapping[str, Any],
    input: Path,
    output: Path,
    apply: Callable[[Any], dict[str, np.ndarray]],
    model: str | None = None,
) -> dict[str, Any]:
    """Write a Parquet table: identifiers, and `<modality>.<property>` for every modality that the run and `input` share.

    Arguments:
        input: Embeddings in any format of `embeddings.readers.read`, by a model that the run knows.
        model: Which of the run's models made them; needed where the run has several and the file is not named after one.
    """
    readouts = {entry["name"]: entry for entry in about["readouts"]}
    models = list(dict.fromkeys(name.partition("/")[0] for name in readouts))
    chosen = _model_of(input, models, model)
    columns = about.get("columns") or None
    new = read(input, chosen, columns)
    shared = [m for m in new.modalities if f"{chosen}/{m}" in readouts]
    if not shared:
        raise DataError(f"{input} has {', '.join(new.modalities)}; the run has {', '.join(readouts)}.")
    table: dict[str, np.ndarray] = dict(new.ids)
    for modality in shared:
        entry = readouts[f"{chosen}/{modality}"]
        if new[modality].shape[1] != entry["dimension"]:
            raise DataError(
                f"{input}: {modality} vectors have {new[modality].shape[1]} dimensions, those of the run's "
                f"{entry['name']} have {entry['dimension']}: another model made them."
            )
        values = np.array(new[modality], dtype=np.float32)
        values[~new.present[modality]] = np.nan
        found = apply(Columns({entry["name"]: values}))[entry["name"]]
        table |= {f"{modality}.{name}": found[:, t] for t, name in enumerate(entry["properties"])}
    write_columns(output, table, {"run_was_synthetic": bool(about["synthetic"]), "model": chosen})
    return {"objects": len(new), "model": chosen, "modalities": ", ".join(shared), **_absent(new, shared)}


def _model_of(input: Path, models: list[str], stated: str | None) -> str:
    if stated is not None:
        if stated not in models:
            raise ConfigError(f"predict.model={stated}: the run has no such model.{nearest(stated, models)}")
        return stated
    if len(models) == 1:
        return models[0]
    named = [m for m in models if m.lower() in input.name.lower()]
    if len(named) != 1:
        raise ConfigError(
            f"the run has models {', '.join(models)}, and which of them made {input.name} cannot be known: vectors of one "
            "mean nothing to another. Put the model's name into the file's name, or train with predict.model=<name>."
        )
    return named[0]


def _absent(new: EmbeddingSet, modalities: list[str]) -> dict[str, int]:
    missing = {f"objects without {m}": int((~new.present[m]).sum()) for m in modalities}
    return {name: count for name, count in missing.items() if count}
