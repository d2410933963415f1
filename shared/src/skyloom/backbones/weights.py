"""Trained weights from a file, and first layers that see other bands than the three they were trained on."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skyloom.errors import DataError, MissingFile, UserError

__all__ = ["FirstLayer", "read_weights", "spread_kernels", "transplant"]

FirstLayer = Literal["averaged", "cyclic", "new"]
_PREFIXES = ("module.", "model.", "network.", "encoder.", "backbone.", "timm_encoder.")


def spread_kernels(kernels: Tensor, bands: int, how: FirstLayer = "cyclic") -> Tensor:
    """Kernels [D, bands, k, k] from kernels [D, C, k, k] of C channels, with the same response to a grey image.

    averaged: every band gets the mean over the channels times C / bands; the network begins blind to colour.
    cyclic: band b gets channel b mod C, divided by the number of bands that share the channel, so that colours are kept
    apart; with fewer bands than channels it is the average. Their sums over the channels are equal, hence a grey image gives
    equal responses.

    >>> kernels = torch.rand(4, 3, 7, 7)
    >>> all(torch.allclose(spread_kernels(kernels, 5, how).sum(1), kernels.sum(1)) for how in ("averaged", "cyclic"))
    True
    """
    channels = kernels.shape[1]
    if bands == channels:
        return kernels.clone()
    if how == "averaged" or bands < channels:
        return kernels.sum(dim=1, keepdim=True).repeat(1, bands, 1, 1) / bands
    source = torch.arange(bands) % channels
    sharing = torch.bincount(source, minlength=channels)[source].to(kernels.dtype)
    return kernels[:, source] / sharing[:, None, None]


def _plain(state: dict[str, Any], names: set[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the network's own names, whatever wrapped it."""
    for key in ("state_dict", "model", "model_state_dict", "task"):
        if isinstance(state.get(key), dict):
            state = state[key]
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    best = tensors
    for _ in range(3):  # model.encoder.… takes two rounds
        shorter = {next((n.removeprefix(p) for p in _PREFIXES if n.startswith(p)), n): v for n, v in best.items()}
        if len(names & shorter.keys()) <= len(names & best.keys()) and len(names & best.keys()) > 0:
            break
        best = shorter
    return best


def read_weights(path: str | Path, network: nn.Module) -> dict[str, Tensor]:
    """The weights for `network` in a checkpoint of timm, Zoobot or Lightning: .safetensors, or .pt/.pth/.ckpt/.bin without
    pickled objects. Says so if it holds another network's."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"the weights {path} do not exist.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: dict[str, Any] = load_file(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle raises many kinds
            raise DataError(
                f"{path} cannot be read as weights ({type(error).__name__}). Nothing is unpickled: save its state_dict() with "
                "torch.save, or as .safetensors."
            ) from error
    names = set(network.state_dict())
    found = _plain(state, names)
    shared = names & found.keys()
    if len(shared) < 0.9 * len(names):
        missing = ", ".join(sorted(names - found.keys())[:3])
        raise DataError(
            f"{path} holds weights of another network: {len(shared)} of {len(names)} names fit (missing {missing}, …)."
        )
    return {name: found[name] for name in shared}


def transplant(state: dict[str, Tensor], network: nn.Module, first_layer: FirstLayer = "cyclic") -> None:
    """Load `state` into `network`, spreading its first convolution over the network's bands and resampling position
    embeddings of another size. Any other difference in shape is an error."""
    own = network.state_dict()
    first = _first_convolution(network)
    fitted = {}
    for name, value in state.items():
        wanted = own[name].shape
        if value.shape == wanted:
            fitted[name] = value
        elif name == first and first_layer == "new":
            continue
        elif name == first and value.shape[0] == wanted[0] and value.shape[2:] == wanted[2:]:
            fitted[name] = spread_kernels(value, wanted[1], first_layer)
        elif name.endswith("pos_embed"):
            from timm.layers import resample_abs_pos_embed

            side = math.isqrt(wanted[1] - network.num_prefix_tokens)  # type: ignore[operator, arg-type]
            fitted[name] = resample_abs_pos_embed(
                value,
                [side, side],
                num_prefix_tokens=network.num_prefix_tokens,  # type: ignore[arg-type]
            )
        else:
            raise UserError(f"weights {name} have shape {list(value.shape)}, the network's {list(wanted)}.")
    network.load_state_dict(fitted, strict=False)


def _first_convolution(network: nn.Module) -> str:
    """The parameter that meets the images."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    return ""
