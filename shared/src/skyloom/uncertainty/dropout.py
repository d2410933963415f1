"""Monte Carlo dropout that leaves a model as it found it: only dropout is random, nothing is learned or counted on the way.

Switching a whole model to training mode would also make batch normalisation use the statistics of this batch and update its
running averages; here every other module stays in evaluation mode, every flag is put back, and no buffer, parameter or global
random state changes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_map

from skyloom.errors import ConfigError

__all__ = ["dropout_only", "last_layer_moments", "mc_dropout"]

_DEPTH = ("DropPath", "StochasticDepth")  # of timm and of torchvision


def _is_random(module: nn.Module, drop_path: bool) -> bool:
    """Whether the module drops something when its own flag says training."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return module.dropout > 0
    inner = getattr(module, "attn_drop", None)  # timm's attention reads its own flag for the fused kernel
    if isinstance(inner, _DropoutNd) and hasattr(module, "fused_attn"):
        return inner.p > 0
    return drop_path and type(module).__name__ in _DEPTH


@contextlib.contextmanager
def dropout_only(model: nn.Module, *, drop_path: bool = False) -> Iterator[list[nn.Module]]:
    """Within the block dropout is active (stochastic depth too, if `drop_path`) and all else is in evaluation mode.

    Yields the modules that are random. Flags come back one by one as they were, also after an exception. PyTorch's fused
    encoder kernel, which knows no dropout, is off within the block.
    """
    flags = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    chosen = [module for module, _ in flags if _is_random(module, drop_path)]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for module, _ in flags:
            module.training = False
        for module in chosen:
            module.training = True
        yield chosen
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in flags:
            module.training = training


@torch.no_grad()
def mc_dropout(
    model: nn.Module,
    *inputs: Any,
    samples: int,
    seed: int,
    drop_path: bool = False,
    call: Callable[..., Any] | None = None,
) -> Any:
    """`samples` stochastic passes, stacked first: [samples, B, ...] for each tensor that the model returns.

    `call` is what to run (`task.predict`, say) if it is not the model itself. The same seed gives the same draws; the global
    random state is put back. A model without dropout is refused: its passes would all be the same. What varies is what the
    trained dropout masks: with dropout before the last layer alone, see `last_layer_moments`, the variance grows with the
    activations and says little of unfamiliar inputs.
    """
    cuda = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with dropout_only(model, drop_path=drop_path) as chosen, torch.random.fork_rng(devices=cuda):
        if not chosen:
            raise ConfigError("this model has no dropout of a rate above 0, so that Monte Carlo dropout has nothing to vary.")
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds devices that are not put back
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        passes = [(call or model)(*inputs) for _ in range(samples)]
    return tree_map(lambda *tensors: torch.stack(tensors), *passes)


def last_layer_moments(features: Tensor, weight: Tensor, bias: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Mean and variance over masks of a logit w.m*x/(1 - p) + b, m ~ Bernoulli(1 - p), without drawing any:
    b + w.x and p/(1 - p) sum_j (w_j x_j)^2. Features [B, F], weight [F], bias [] give two [B].
    """
    terms = features * weight
    return terms.sum(-1) + bias, p / (1 - p) * (terms**2).sum(-1)
