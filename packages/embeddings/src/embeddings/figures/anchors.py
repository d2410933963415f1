"""What published models reached, to be drawn in grey beside what is measured here: with provenance, and never
as a threshold."""

import functools
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["anchors_of", "published"]


@functools.cache
def published() -> dict[str, Any]:
    """`sources`, `unavailable`, and `entries`: model, modality, input and R2 by property."""
    return yaml.safe_load((files("embeddings.figures") / "anchors.yaml").read_text(encoding="utf-8"))


def anchors_of(model: str, modality: str) -> list[dict[str, Any]]:
    """Entries of published models that a model is named after, for the same modality.

    >>> [entry["model"] for entry in anchors_of("my_aion_run", "fused")]
    ['AION-B', 'AION-L', 'AION-XL']
    """
    return [e for e in published()["entries"] if e["like"] in model.lower() and e["modality"] == modality]
