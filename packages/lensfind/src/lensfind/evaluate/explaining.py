"""Where a finder looks, and whether that is where its score comes from.

A map is no explanation by default. Each is tested by deletion (Petsiuk et al. 2018, arXiv:1806.07421): the share of pixels that
it holds most important is replaced by sky, a little more at every step; the area under the curve of the probability is small
for a map that points at what matters, and is compared with that of a random order of pixels. And it must change when the last
layer's weights are drawn anew (Adebayo et al. 2018, arXiv:1810.03292).
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensfind.training.task import LensFinder
from skyloom.data import Batch
from skyloom.errors import ConfigError
from skyloom.run import Run
from skyloom.run.files import write_json

__all__ = ["attention", "deletion", "explain", "randomised", "saliency"]

Map = Callable[[LensFinder, Batch], Tensor]


def saliency(finder: LensFinder, batch: Batch, draws: int = 8, noise: float = 0.3) -> Tensor:
    """Gradient of the logit times the image, over noisy copies (SmoothGrad: Smilkov et al. 2017), summed over bands in absolute
    value and smoothed by a pixel: [B, H, W]. The noise is in units of that of an empty pixel."""
    from lensfind.models.ridges import gaussian_blur

    images = batch["image"]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(images)
    for _ in range(draws):
        extra = torch.randn(images.shape, generator=generator).to(images) * finder.noise * noise
        seen = (images + extra).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(finder.predict({**batch, "image": seen})["logit"].sum(), seen)
        total += gradient * seen.detach()
    return gaussian_blur(total.abs().sum(dim=1, keepdim=True), 1.0)[:, 0]


def attention(finder: LensFinder, batch: Batch) -> Tensor:
    """What tokens or tiles are attended to, at the size of the image: [B, H, W]."""
    if not hasattr(finder.encoder, "attention_maps") or not hasattr(
        getattr(finder.encoder, "backbone", None), "attention_maps"
    ):
        raise ConfigError("this network has no attention over places: its saliency can be had.")
    with torch.no_grad():
        maps = finder.encoder.attention_maps(finder.stretch(batch["image"]))  # type: ignore[operator]
    return F.interpolate(maps[:, None], size=batch["image"].shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def deletion(finder: LensFinder, batch: Batch, importance: Tensor, steps: int = 10, seed: int = 0) -> Tensor:
    """Probability after the most important 0, 1/steps, ... 1/2 of the pixels became sky: [B, steps + 1].

    Sky is noise of an empty pixel, the same for every map; ties are broken by place."""
    images = batch["image"]
    b, _, h, w = images.shape
    order = importance.reshape(b, -1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).reshape(b, 1, h, w)
    generator = torch.Generator().manual_seed(seed)
    sky = torch.randn(images.shape, generator=generator).to(images) * finder.noise
    found = []
    with torch.no_grad():
        for step in range(steps + 1):
            gone = order < round(0.5 * step / steps * h * w)
            found.append(torch.sigmoid(finder.predict({**batch, "image": torch.where(gone, sky, images)})["logit"]))
    return torch.stack(found, dim=1)


def randomised(finder: LensFinder, seed: int = 0) -> LensFinder:
    """The same finder with the weights of its last linear layer drawn anew."""
    other = copy.deepcopy(finder)
    last = [module for module in other.encoder.modules() if isinstance(module, nn.Linear)][-1]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        last.weight.copy_(last.weight.std() * torch.randn(last.weight.shape, generator=generator))
    return other


def _area(curve: Tensor) -> float:
    """Mean score along the curves, over that at their start."""
    return float(curve.mean() / curve[:, 0].mean())


def explain(run: Run, n: int = 6, steps: int = 10, output: str | None = None) -> dict[str, Any]:
    """Draw the maps of the `n` best ranked cutouts of a synthetic test split, test them, write explain.png and explain.json.

    Gives for each map the area under its deletion curve, that of random orders, and the correlation of the map with that of
    randomised weights.
    """
    from lensfind.evaluate import figures
    from skyloom.data.tables import read_columns
    from skyloom.plots import labelled
    from skyloom.training.saved import load_task

    finder, about = load_task(run)
    if not isinstance(finder, LensFinder):
        raise ConfigError("maps are of a single network: train one, or explain a member's run.")
    columns, _ = read_columns(run.directory / "predictions" / "test.parquet")
    if "seed" not in columns or not about.get("synthetic"):
        raise ConfigError("cutouts are drawn again from their seeds: maps are of runs on simulated data.")
    unlabeled = np.flatnonzero(columns["labelled"] == 0)
    rows = unlabeled[np.argsort(-columns["logit"][unlabeled], kind="stable")[:n]]
    batch: Batch = {"image": figures.cutouts(rows, columns, about)}
    batch |= {name: torch.from_numpy(columns[name][rows]) for name in finder.conditions}
    maps: dict[str, Map] = {"saliency": saliency}
    if hasattr(getattr(finder.encoder, "backbone", None), "attention_maps"):
        maps["attention"] = attention
    folder = Path(output) if output else run.directory / "explain"
    folder.mkdir(parents=True, exist_ok=True)
    drawn, curves, report = {}, {}, {}
    generator = torch.Generator().manual_seed(1)
    chance = [deletion(finder, batch, torch.rand(batch["image"][:, 0].shape, generator=generator), steps) for _ in range(4)]
    curves["random order"] = torch.stack(chance).mean(dim=0)
    other = randomised(finder)
    for name, make in maps.items():
        drawn[name] = make(finder, batch)
        curves[name] = deletion(finder, batch, drawn[name], steps)
        again = make(other, batch)
        pairs = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(drawn[name], again, strict=True)]
        report[name] = {"deletion_area": _area(curves[name]), "correlation_with_randomised": float(torch.stack(pairs).mean())}
    report["random order"] = {"deletion_area": _area(curves["random order"])}
    write_json(folder / "explain.json", {"synthetic": True, "rows": rows.tolist(), **report})
    with labelled(synthetic=True):
        _draw(folder / "explain.png", batch["image"].numpy(), drawn, curves, about)
    areas = {f"{name}, deletion area": round(values["deletion_area"], 3) for name, values in report.items()}
    return {**areas, "written": f"{folder}: explain.png, explain.json"}


def _draw(path: Path, images: np.ndarray, maps: dict[str, Tensor], curves: dict[str, Tensor], about: dict[str, Any]) -> None:
    from lensfind.evaluate import figures
    from skyloom.plots import PAGE, panels, save, style

    lines = 1 + len(maps)
    with style():
        canvas, axes = panels(lines, len(images) + 2, width=PAGE, height=PAGE / (len(images) + 2) * lines + 0.5, squeeze=False)
        pictures = figures.rgb(images, figures.colour_weights(about))
        for k in range(len(images)):
            axes[0, k].imshow(pictures[k], origin="lower", interpolation="nearest")
            for line, values in enumerate(maps.values(), start=1):
                axes[line, k].imshow(values[k].numpy(), origin="lower", cmap="magma", interpolation="nearest")
        for line, name in enumerate(["image", *maps]):
            axes[line, 0].set_ylabel(name, fontsize=7)
        for axis in axes[:, :-2].flat:
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        for axis in axes[:, -2:].flat:
            axis.set_visible(False)
        grid = axes[0, -2].get_gridspec()
        right = canvas.add_subplot(grid[:, -2:])
        for name, curve in curves.items():
            share = np.linspace(0, 50, curve.shape[1])
            right.plot(share, curve.mean(dim=0).numpy(), label=name, ls="--" if name == "random order" else "-")
        right.set(xlabel="pixels made sky / %", ylabel="mean score", ylim=(0, 1))
        right.legend(fontsize=6)
        save(canvas, path)
