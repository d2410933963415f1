"""One seed in the config; every generator is derived from it by name.

`derive(seed, "data", "train")` hashes the names with SHA-256, so that streams with different names are independent, adding a
new one moves no other, and the same name gives the same numbers on every machine.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["derive", "numpy_generator", "torch_generator"]


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every name, in order."""
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str | int, device: "str | torch.device" = "cpu") -> "torch.Generator":
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))
