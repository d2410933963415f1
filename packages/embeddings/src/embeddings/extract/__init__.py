"""Making embeddings: a network over images in a folder, an HDF5 file or shards, written so that it can be taken up again.

    make extract pkg=embeddings network=timm:convnext_tiny images=cutouts/ output=convnext
    make extract pkg=embeddings network=run:runs/lensfind/vit_nnpu/<id> images=cutouts.hdf5 output=finder
    make train pkg=embeddings data=embeddings/files data.embeddings=convnext data.catalog=catalogue.fits

What comes out is a folder of arrays that `embeddings.readers.read` knows: identifiers and `image_embeddings.npy`.
"""

from pathlib import Path
from typing import Any

from embeddings.extract.images import image_source
from embeddings.extract.networks import network_named
from embeddings.extract.writing import Writer

__all__ = ["extract", "image_source", "network_named"]


def extract(
    network: str | None = None,
    images: str | None = None,
    output: str | None = None,
    batch: int = 64,
    weights: str | None = None,
    pretrained: bool = False,
    size: int | None = None,
    normalise: str | None = None,
    pooling: str = "mean",
    limit: int | None = None,
    save_every: int = 20,
    device: str = "auto",
) -> dict[str, Any]:
    """Embed all images, or those that an earlier, stopped call has left.

    Arguments:
        network: `timm:<name>`, `run:<directory of a finder's run>`, `aion`, `astropt`, `astroclip`.
        images: A folder of .png, .jpg or .npy; an HDF5 file with `images` and identifiers; .tar shards, or a folder of them.
        output: Folder of the arrays.
        weights: File of weights for timm; `pretrained` takes those that timm knows, over the network.
        size: Side to which images are resized [pixel]; null: as the network wants.
        normalise: `per_image` (mean 0, deviation 1 of each band), `timm` (that of the weights), `none`; null: `none` for
            networks that scale fluxes themselves (a finder's run, AION), `per_image` for the others.
        pooling: Of tokens, where the network gives these: `mean`, `last`, `exp_decay`.
        limit: Stop after so many images.
        save_every: Batches, after which a stop costs nothing.
    """
    from skyloom.errors import ConfigError

    if network is None or images is None or output is None:
        raise ConfigError("say which network=, which images= and where to write (output=).")
    source = image_source(Path(images))
    model = network_named(network, source.bands, source.size if size is None else size, weights, pretrained, pooling, device)
    if normalise is None:
        normalise = "none" if network.startswith("run:") or network == "aion" else "per_image"
    about = {"network": network, "weights": weights, "normalise": normalise, "size": model.size, "pooling": pooling}
    writer = Writer(Path(output), source, about, save_every)
    for rows in writer.left(batch, limit):
        writer.take(rows, model.embed(source.read(rows), normalise))
    return writer.finish()
