"""Optimizers over groups of parameters: what is decayed, and layers that learn more slowly the nearer they are to the input."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from skyloom.errors import ConfigError, nearest

__all__ = ["optimizer", "parameter_groups"]

_NUMBERED = re.compile(r"(?:^|\.)(?:blocks|layers|stages|layer|stage|block)\.?(\d+)")


def _depths(names: list[str]) -> dict[str, int]:
    """0 for what comes before the numbered blocks, 1 + number within them, and one more for what follows."""
    found = {name: _NUMBERED.search(name) for name in names}
    if not any(found.values()):
        raise ConfigError(
            "optimizer.layer_decay needs a model whose parameters name numbered blocks (blocks.3…, layers.3…, layer3…); "
            f"this one has {', '.join(names[:4])}…. Leave layer_decay null."
        )
    last = max(int(match.group(1)) for match in found.values() if match)
    depth, seen_block = {}, False
    for name in names:
        match = found[name]
        seen_block = seen_block or match is not None
        depth[name] = int(match.group(1)) + 1 if match else (last + 2 if seen_block else 0)
    return depth


def parameter_groups(
    module: nn.Module, lr: float, weight_decay: float, layer_decay: float | None = None, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Groups by (depth, decayed): biases, norms and other vectors are not decayed; depth d of D learns at
    lr * layer_decay^(D - d) (Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022, arXiv:2106.08254)."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ConfigError("the model has no trainable parameter; nothing can be learned.")
    exempt = set(getattr(module, "no_weight_decay", set)())
    depth = _depths([name for name, _ in named]) if layer_decay else {}
    deepest = max(depth.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in named:
        decayed = decay_all or (parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt)
        groups[depth.get(name, 0), decayed].append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (layer_decay ** (deepest - d) if layer_decay else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (d, decayed), parameters in sorted(groups.items())
    ]


def optimizer(
    module: nn.Module,
    name: str = "AdamW",
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    layer_decay: float | None = None,
    decay_all: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """Any optimizer of `torch.optim` by its name, over `parameter_groups`.

    Args:
        lr: learning rate of the deepest layers at the schedule's factor 1
        layer_decay: factor per layer towards the input; null gives one rate to all
        decay_all: decay biases and norms too
        options: passed to the optimizer (betas, momentum, fused, …)
    """
    available = [n for n, kind in vars(torch.optim).items() if isinstance(kind, type) and n != "Optimizer"]
    if name not in available:
        raise ConfigError(f"optimizer.name={name} is not in torch.optim.{nearest(name, available)}")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return getattr(torch.optim, name)(parameter_groups(module, lr, weight_decay, layer_decay, decay_all), **options)
