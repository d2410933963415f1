"""A page of labelled cutouts, so that a person sees what the network will see.

make look pkg=lensfind survey=lsst
make look pkg=lensfind data=prepared
"""

import base64
import html
import io
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensfind.evaluate.figures import rgb
from lensfind.simulation.artefacts import ARTEFACTS
from skyloom.data import Batch, Data, SampleDraws
from skyloom.errors import DataError
from skyloom.run.files import write_text

__all__ = ["look"]

_SIDE = 150  # pixels of a colour picture on the page
_POOL = 512  # rows among which examples are chosen


def look(
    data: Data,
    output: str | Path | None = None,
    n: int = 12,
    augmented: bool = False,
    split: str = "train",
    cache_dir: str | Path = "cache",
) -> dict[str, Any]:
    """Write an HTML page with up to `n` cutouts of each kind: arcsinh colours, each band as the network sees it, truths.

    With `augmented`, cutouts are those of the first epoch, after augmentation. Pictures stand in the page itself.
    """
    about = data.about
    batch = _examples(data, split, augmented)
    groups = _groups(batch, about, n)
    if not groups:
        raise DataError(f"the {split} split is empty: there is nothing to look at.")
    words = "synthetic " if about["synthetic"] else ""
    survey = about["survey"]["name"].upper().replace("_", " ")
    title = f"{survey}: {words}cutouts of the {split} split{', augmented' if augmented else ''}"
    weights = _weights(batch["image"].numpy(), about["statistics"]["noise"])
    sections = [_section(name, rows, batch, about, weights) for name, rows in groups.items()]
    page = files("lensfind").joinpath("look.html").read_text(encoding="utf-8")
    page = (
        page.replace("{{title}}", html.escape(title))
        .replace("{{facts}}", _facts(data, batch))
        .replace("{{sections}}", "\n".join(sections))
    )
    path = (
        Path(output) if output else Path(cache_dir) / "lensfind" / f"look-{about['survey']['name']}-{about['fingerprint']}.html"
    )
    write_text(path, page)
    return {"page": path, "cutouts": sum(len(rows) for rows in groups.values()), "of": ", ".join(groups)}


def _examples(data: Data, split: str, augmented: bool) -> Batch:
    """Up to 512 rows spread over the split."""
    side = getattr(data, split)
    rows = np.unique(np.linspace(0, len(side) - 1, min(len(side), _POOL)).astype(int))
    batch = side.__getitems__(rows)
    if split == "train" and (augmented or data.about.get("fresh")) and data.augment is not None:
        batch = data.augment(batch, SampleDraws(0, 0, torch.as_tensor(rows)))
    return batch


def _groups(batch: Batch, about: Mapping[str, Any], n: int) -> dict[str, np.ndarray]:
    """Rows to show: lenses first, then each kind of non-lens; without kinds, by label."""
    count = len(batch["image"])
    if "kind" in batch:
        kind = batch["kind"].numpy()
        named = {name: np.flatnonzero(kind == k) for k, name in enumerate(about["kinds"])}
    elif "label" in batch:
        label = batch["label"].numpy()
        named = {name: np.flatnonzero(label == value) for name, value in (("lens", 1), ("no lens", 0), ("unlabeled", -1))}
    else:
        labelled = batch["labelled"].numpy() > 0
        named = {"labelled lens": np.flatnonzero(labelled), "unlabeled": np.flatnonzero(~labelled)}
    chosen = {
        name: rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)] for name, rows in named.items() if len(rows)
    }
    return chosen if count else {}


def _weights(images: np.ndarray, noise: list[float]) -> np.ndarray:
    """[bands] so that colours show in any survey, optical or infrared: each band over the square root of its median central
    flux, which leaves half of the median galaxy's colour (in mag) and makes what is bluer than that blue; 1 is the noise."""
    middle = slice(3 * images.shape[-1] // 8, 5 * images.shape[-1] // 8 + 1)
    flux = np.maximum(np.median(images[..., middle, middle].sum(axis=(-2, -1)), axis=0), 1e-6)
    return np.sqrt(np.median(flux) / flux) / np.mean(noise)


def _three(images: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two bands as three, their mean in the middle, weighed already: red, grey and blue, and not red and cyan."""
    if len(weights) != 2:
        return images, weights
    scaled = images * weights[:, None, None]
    return np.stack([scaled[:, 0], scaled.mean(axis=1), scaled[:, 1]], axis=1), np.ones(3)


def _png(pixels: np.ndarray, side: int) -> str:
    """A data URI of an array [H, W] or [H, W, 3] of 0 to 1, north up, each pixel a square; of more than twice `side` pixels on
    a side, means over squares of pixels: a page of 248 pixels a cutout would hold tens of MB that no screen shows."""
    from PIL import Image

    pixels = pixels[..., 0] if pixels.ndim == 3 and (pixels == pixels[..., :1]).all() else pixels  # grey
    picture = Image.fromarray((255 * np.clip(pixels, 0, 1) + 0.5).astype(np.uint8)[::-1])
    factor = max(1, round(side / max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture = picture.reduce(max(1, max(picture.size) // (2 * side)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(pixels: np.ndarray, words: str) -> str:
    words = html.escape(words)
    return f'<figure><img src="{_png(pixels, 60)}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _section(name: str, rows: np.ndarray, batch: Batch, about: Mapping[str, Any], weights: np.ndarray) -> str:
    index = torch.as_tensor(rows)
    images = batch["image"][index].numpy()
    noise, mean, deviation = (np.array(about["statistics"][key])[:, None, None] for key in ("noise", "mean", "deviation"))
    grey = np.clip(((np.arcsinh(images / noise) - mean) / deviation + 1.0) / 5.0, 0, 1)
    seen = np.stack([grey] * 3, axis=-1)
    if "mask" in batch:
        seen[batch["mask"][index].numpy() == 0] = (0.35, 0.1, 0.1)
    coloured = rgb(*_three(images, weights))
    cards = []
    for k, row in enumerate(rows):
        bands = "".join(_figure(seen[k, b], band) for b, band in enumerate(about["bands"]))
        cards.append(
            f'<article><img class="colour" src="{_png(coloured[k], _SIDE)}" alt="colours">'
            f'<div class="bands">{bands}</div><p>{_parameters(batch, int(row), about)}</p></article>'
        )
    heading = f"<h2>{html.escape(name.replace('_', '-'))} <small>{len(rows)} shown</small></h2>"
    return f'<section>{heading}<div class="cards">{"".join(cards)}</div></section>'


_UNITS = {
    "theta_E": "θ<sub>E</sub> {:.2f}″",
    "arc_snr": "arc\u00a0S/N\u00a0{:.0f}",
    "magnification": "μ {:.1f}",
    "flux_ratio": "arc/total {:.2f}",
    "seeing": "seeing ×{:.2f}",
    "psf_fwhm": "PSF {:.2f}″",
    "depth": "depth {:.1f}",
    "z_spec": "z {:.3f}",
    "magnitude": "{:.1f} mag",
}


def _parameters(batch: Batch, row: int, about: Mapping[str, Any]) -> str:
    """What is known of a cutout; what is not is left out."""
    words = []
    if "label" in batch:
        words.append({1: "lens", 0: "no lens", -1: "unlabeled"}[int(batch["label"][row])])
    elif "lens" in batch:
        words.append("lens" if batch["lens"][row] > 0 else "no lens")
    words.append("labelled" if batch["labelled"][row] > 0 else "not labelled")
    for name, form in _UNITS.items():
        if name in batch and math.isfinite(value := float(batch[name][row])):
            words.append(form.format(value))
    if "artefact" in batch and (which := int(batch["artefact"][row])) >= 0:
        words.append(ARTEFACTS[which].replace(" ", "\u00a0"))
    if "row" in batch:
        words.append(f"row {int(batch['row'][row])}")
    elif "seed" in batch:
        words.append(f"seed\u00a0…\u2060{int(batch['seed'][row]) % 10**6:06d}")
    return " · ".join(words)


def _facts(data: Data, batch: Batch) -> str:
    about = data.about
    survey = about["survey"]
    side = about["size"] * survey["pixel_scale"]
    noise = ", ".join(f"{band} {value:.3g}" for band, value in zip(about["bands"], about["statistics"]["noise"], strict=True))
    bands = about["bands"]
    middle = "the mean of both" if len(bands) == 2 else bands[(len(bands) - 1) // 2]
    rows = {
        "images": "synthetic" if about["synthetic"] else "observed",
        "frame": f"{about['size']} pixels of {survey['pixel_scale']:g} arcsec: {side:.1f} arcsec on a side",
        "bands": ", ".join(bands) + (f" (red {bands[-1]}, green {middle}, blue {bands[0]})" if len(bands) > 1 else ""),
        "noise of an empty pixel": f"{noise} ({about['unit']})",
        "share of lenses among the unlabeled": f"{about['class_prior']:.3g}",
        "rows": ", ".join(f"{name} {count}" for name, count in data.sizes().items()),
        "single bands": "arcsinh(flux / noise), standardised as for the network, from -1 (black) to 4 (white) deviations"
        + ("; dark red: not usable" if "mask" in batch else ""),
        "fingerprint": about["fingerprint"],
    }
    return "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in rows.items())
