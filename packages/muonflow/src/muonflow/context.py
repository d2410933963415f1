"""Networks between the conditions and the flow: FiLM, beside the perceptron and the residual blocks of `skyloom.flows`."""

import torch
from torch import Tensor, nn

__all__ = ["ContextFiLM"]


class ContextFiLM(nn.Module):
    """Blocks whose hidden units the condition itself scales and shifts (Perez et al. 2018, arXiv 1709.07871):

        h <- h + elu((1 + gamma(c)) norm(W h) + beta(c)).

    >>> ContextFiLM(7, outputs=16)(torch.zeros(3, 7)).shape
    torch.Size([3, 16])
    """

    def __init__(self, context: int, outputs: int = 16, blocks: int = 2, width: int = 48) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(context, width), nn.Linear(width, outputs)
        self.inner = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for _ in range(blocks))
        self.film = nn.ModuleList(nn.Linear(context, 2 * width) for _ in range(blocks))
        for layer in self.film:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.outputs = outputs

    def forward(self, c: Tensor) -> Tensor:
        h = nn.functional.elu(self.enter(c))
        for inner, film in zip(self.inner, self.film, strict=True):
            gamma, beta = film(c).chunk(2, -1)
            h = h + nn.functional.elu((1 + gamma) * inner(h) + beta)
        return nn.functional.elu(self.leave(torch.as_tensor(h)))
