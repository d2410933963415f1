"""Names under which producers keep identifiers, redshifts, masks and vectors, and what we call them."""

from collections.abc import Iterable

__all__ = ["IDENTIFIERS", "MASKS", "REDSHIFTS", "VECTORS", "first"]

IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "object_id": ("object_id", "object_ids", "ids"),
    "TARGETID": ("TARGETID", "targetid", "target_id", "target_ids", "targetids"),
    "name": ("filenames", "names"),
}
REDSHIFTS = ("redshift", "redshifts", "z", "Z")
MASKS = {"image": "has_image", "spectrum": "has_spectrum"}
VECTORS: dict[str, tuple[str, ...]] = {
    "image": ("embedding_hsc", "embedding_image", "embedding_images", "image_embeddings", "image"),
    "spectrum": ("embedding_spectrum", "embedding_spectra", "spectrum_embeddings", "spectrum"),
    "fused": ("embedding_hsc_desi", "embedding_joint", "joint_embeddings", "fused_embeddings", "fused"),
    "embedding": ("embeddings", "embedding", "features", "vectors"),
}


def first(names: Iterable[str], known: Iterable[str]) -> str | None:
    """The first of `names` among `known`."""
    there = set(known)
    return next((name for name in names if name in there), None)
