"""Networks that turn images into vectors: timm's, a Skyloom finder of a run, and foundation models where they are installed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embeddings.vectors.pooling import pool
from skyloom.errors import ConfigError, DataError

__all__ = ["Network", "network_named"]

ADAPTERS = {
    "aion": ("aion", "pip install polymathic-aion, and its weights"),
    "astropt": ("astropt", "pip install astropt, and its weights"),
    "astroclip": ("astroclip", "AstroCLIP's own pinned environment, and its weights"),
}
"""Foundation models: the package that each needs, and where it comes from."""


class Network:
    """Images [B, bands, size, size] to vectors [B, D]; tokens [B, T, D] are pooled."""

    def __init__(self, forward: Callable[[Any], Any], bands: int, size: int, pooling: str, device: Any, usual: Any = None):
        self.forward, self.bands, self.size, self.pooling, self.device, self.usual = (
            forward,
            bands,
            size,
            pooling,
            device,
            usual,
        )

    def embed(self, images: np.ndarray, normalise: str = "per_image") -> np.ndarray:
        import torch
        from torch.nn.functional import interpolate

        x = torch.as_tensor(images, dtype=torch.float32, device=self.device)
        if x.shape[1] != self.bands:
            if x.shape[1] != 1:
                raise DataError(f"the network takes {self.bands} bands, the images have {x.shape[1]}.")
            x = x.expand(-1, self.bands, -1, -1)
        if x.shape[2:] != (self.size, self.size):
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        with torch.inference_mode():
            found = self.forward(self._normalised(x, normalise))
        vectors = found.float().cpu().numpy()
        return pool(vectors, self.pooling) if vectors.ndim == 3 else vectors

    def _normalised(self, x: Any, how: str) -> Any:
        if how == "none":
            return x
        if how == "per_image":
            mean, deviation = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
            return (x - mean) / deviation.clamp(min=1e-12)
        if how == "timm":
            if self.usual is None:
                raise ConfigError("normalise=timm is for timm's networks; this one brings no mean and deviation.")
            mean, deviation = (x.new_tensor(v)[None, :, None, None] for v in self.usual)
            return (x - mean) / deviation
        raise ConfigError(f"normalise={how!r}: there are per_image, timm, none.")


def network_named(
    name: str,
    bands: int,
    size: int,
    weights: str | None = None,
    pretrained: bool = False,
    pooling: str = "mean",
    device: str = "auto",
) -> Network:
    """See `embeddings.extract.extract`."""
    import torch

    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    kind, _, which = name.partition(":")
    if kind == "timm":
        return _timm(which, bands, size, weights, pretrained, pooling, place)
    if kind == "run":
        return _finder(Path(which), pooling, place)
    if kind in ADAPTERS:
        return _foundation(kind, bands, size, weights, pooling, place)
    raise ConfigError(f"network={name!r}: say timm:<name>, run:<directory>, {', '.join(ADAPTERS)}.")


def _timm(name: str, bands: int, size: int, weights: str | None, pretrained: bool, pooling: str, device: Any) -> Network:
    from skyloom.backbones import image_encoder

    encoder = image_encoder(name, bands, size, outputs=0, pretrained=pretrained, weights=weights).to(device).eval()
    config = getattr(encoder.network, "pretrained_cfg", None) or {}
    usual = (config["mean"], config["std"]) if len(config.get("mean", ())) == bands else None
    return Network(encoder, bands, size, pooling, device, usual)


def _finder(directory: Path, pooling: str, device: Any) -> Network:
    """What the last linear layer of a run's task sees."""
    from skyloom.training.saved import load_task

    task, about = load_task(directory)
    if "bands" not in about or "size" not in about:
        raise DataError(f"{directory} is not a run on images: it knows no bands and no size.")
    bands = about["bands"] if isinstance(about["bands"], int) else len(about["bands"])
    return Network(Penultimate(task.to(device)), bands, int(about["size"]), pooling, device)


class Penultimate:
    """The input of the linear layer that a task calls last with one vector per image."""

    def __init__(self, task: Any):
        from torch import nn

        self.task = task
        self.seen: list[Any] = []
        for module in task.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: self.seen.append(inputs[0]))

    def __call__(self, images: Any) -> Any:
        self.seen.clear()
        self.task.predict({"image": images})
        vectors = [x for x in self.seen if x.ndim == 2 and len(x) == len(images)]
        if not vectors:
            raise DataError("the run's network has no linear layer that takes one vector per image.")
        return vectors[-1]


def _foundation(kind: str, bands: int, size: int, weights: str | None, pooling: str, device: Any) -> Network:
    package, advice = ADAPTERS[kind]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"network={kind} needs the package {package!r}, which is not installed: {advice}.")
    if weights is None or not Path(weights).exists():
        raise ConfigError(f"network={kind} needs weights=<path of its weights on this machine>, found {weights}.")
    return {"aion": _aion, "astropt": _astropt, "astroclip": _astroclip}[kind](weights, bands, size, pooling, device)


def _aion(weights: str, bands: int, size: int, pooling: str, device: Any) -> Network:
    """Images as HSC's grizy tokens, and the mean over encoder tokens; fluxes must be on HSC's scale."""
    from aion import AION
    from aion.codecs import CodecManager
    from aion.modalities import HSCImage

    model, codecs = AION.from_pretrained(weights).to(device).eval(), CodecManager(device=device)
    names = ["HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y"][:bands]

    def forward(x: Any) -> Any:
        return model.encode(codecs.encode(HSCImage(flux=x, bands=names)), num_encoder_tokens=600)

    return Network(forward, bands, 96 if size is None else size, pooling, device)


def _astropt(weights: str, bands: int, size: int, pooling: str, device: Any) -> Network:
    """A checkpoint of a model of images alone, read weights-only: beside tensors it may name its modalities and no more."""
    import torch
    from astropt.model import GPT, GPTConfig, ModalityConfig, ModalityRegistry

    with torch.serialization.safe_globals([ModalityConfig, ModalityRegistry]):
        kept = torch.load(weights, map_location="cpu", weights_only=True)
    registry = kept["modality_registry"]
    if registry.names() != ["images"]:
        raise DataError(f"{weights} is a model of {', '.join(registry.names())}; images alone are embedded here.")
    model = GPT(GPTConfig(**kept["model_args"]), registry)
    model.load_state_dict({name.removeprefix("_orig_mod."): v for name, v in kept["model"].items()})
    model = model.to(device).eval()
    patch = registry.get_config("images").patch_size
    positions = torch.arange((size // patch) ** 2, device=device)

    def forward(x: Any) -> Any:
        rows = x.unfold(2, patch, patch).unfold(3, patch, patch)
        tokens = rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        asked = {"images": tokens, "images_positions": positions.expand(len(x), -1)}
        return model.generate_embeddings(asked, reduction="none")["images"]

    return Network(forward, bands, size, pooling, device)


def _astroclip(weights: str, bands: int, size: int, pooling: str, device: Any) -> Network:
    from astroclip.models import AstroClipModel

    model = AstroClipModel.load_from_checkpoint(weights).to(device).eval()
    return Network(lambda x: model(x, input_type="image"), bands, 144 if size is None else size, pooling, device)
