"""What is analysed: vectors joined to catalogues, from files or synthetic, and made ready once."""

from typing import TYPE_CHECKING

from skyloom.lazily import lazily

if TYPE_CHECKING:
    from embeddings.samples.files import from_files
    from embeddings.samples.joining import join
    from embeddings.samples.latents import GAINS, LATENTS, latent_correlation, population_cka, population_r2
    from embeddings.samples.matching import Matched, match, overlap_table
    from embeddings.samples.prepared import Prepared, prepare
    from embeddings.samples.sample import Embedding, Known, Sample
    from embeddings.samples.synthetic_clusters import map_files
    from embeddings.samples.synthetic_galaxies import catalogue_and_embeddings, synthetic

_HOMES = {
    "files": ("from_files",),
    "joining": ("join",),
    "latents": ("GAINS", "LATENTS", "latent_correlation", "population_cka", "population_r2"),
    "matching": ("Matched", "match", "overlap_table"),
    "prepared": ("Prepared", "prepare"),
    "sample": ("Embedding", "Known", "Sample"),
    "synthetic_clusters": ("map_files",),
    "synthetic_galaxies": ("catalogue_and_embeddings", "synthetic"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "GAINS",
    "LATENTS",
    "Embedding",
    "Known",
    "Matched",
    "Prepared",
    "Sample",
    "catalogue_and_embeddings",
    "from_files",
    "join",
    "latent_correlation",
    "map_files",
    "match",
    "overlap_table",
    "population_cka",
    "population_r2",
    "prepare",
    "synthetic",
]

__getattr__, __dir__ = lazily(__name__, _HOME)
