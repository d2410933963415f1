"""The trained closure, as a simulation calls it: four-fluxes in physical units and any frame in, the same out.

    closure = Closure.load("runs/dodo_closure/equivariant/…")
    final = closure(F, u)               # [B, 2, 3, 4] in any unit, u [B, 4]; any device, float32 or float64

`GraphClosure` is the same as one graph without branches, for torch.export, TorchScript and ONNX.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dodo_closure.boosts import check_velocity, from_comoving, to_comoving
from dodo_closure.box3d import STEEPEST, electron_change
from dodo_closure.conserve import limit
from dodo_closure.conversion import Conversion, convert, crossing_frames
from dodo_closure.fluxes import heavy_average, is_physical, total_density
from dodo_closure.minerbo import maximum_entropy
from dodo_closure.model import combined
from dodo_closure.quadrature import CrossingAware
from dodo_closure.rows import GROWTH_UNIT
from dodo_closure.states import draw_states
from skyloom.errors import DataError

__all__ = ["Answer", "Closure", "GraphClosure", "example_input"]

_ROWS = 8192  # at once on a CPU: what the cache holds


class Answer(NamedTuple):
    """What the closure says of B states."""

    final: Tensor
    """[B, 2, 3, 4] in the unit and frame of the input; NaN where no state can be so."""
    error: Tensor
    """[B, 2, 3, 4] half-width of the 68% interval of each component, in the same unit and frame; 0 where stable."""
    unstable: Tensor
    """[B]: the lepton number crosses, so something happens; other rows are returned as they came."""
    fallen_back: Tensor
    """[B]: the network expected a larger error of itself than of Box3D, whose answer this is."""
    valid: Tensor
    """[B]: a physical state came in."""
    growth: Tensor
    """[B]: estimated growth rate in 1/s, if the input is in 1/cm^3."""


def answer(task: Any, F: Tensor, u: Tensor, convert_electrons: Callable[[Tensor], Conversion]) -> Answer:
    """Boost, normalise, Box3D, correct, judge, limit, and back; no step depends on how many rows there are."""
    local = to_comoving(F, u)
    valid = is_physical(local)
    four = valid[:, None, None, None]
    filler = local.new_tensor([0.0, 0.0, 0.0, 1 / 6]).expand_as(local)
    total = torch.where(valid, total_density(local), torch.ones_like(local[:, 0, 0, 0]))[:, None, None, None]
    unit = torch.where(four, local / total, filler)
    found = convert_electrons(heavy_average(unit))
    electron = found.change[:, :, None]
    box = limit(unit, unit + torch.cat([electron, -electron / 2, -electron / 2], dim=-2))
    correction = task.residual(unit, box, found.smaller, found.larger)
    mean, bar, trusted = combined(*correction)
    learned = torch.where(trusted[:, None, None, None], limit(box, mean), box)
    bar = torch.where(trusted[:, None, None, None], bar, correction.box_error.mean(dim=0))
    unstable = found.unstable & valid
    changed = unstable[:, None, None, None]
    final = torch.where(changed, from_comoving(learned * total, u), torch.where(four, F, torch.full_like(F, torch.nan)))
    error = torch.where(changed, _spread(bar, u) * total, torch.zeros_like(F))
    growth = torch.where(unstable, torch.sqrt(found.smaller * found.larger), torch.zeros_like(found.smaller))
    return Answer(final, error, unstable, unstable & ~trusted, valid, growth * total[:, 0, 0, 0] * GROWTH_UNIT)


def _spread(bar: Tensor, u: Tensor) -> Tensor:
    """Independent errors of the components, seen from the frame of the input."""
    columns = [from_comoving(bar * _unit(k, bar), u) ** 2 for k in range(4)]
    return torch.sqrt(columns[0] + columns[1] + columns[2] + columns[3])


def _unit(k: int, like: Tensor) -> Tensor:
    return torch.stack([like.new_ones(()) if k == j else like.new_zeros(()) for j in range(4)])


class Closure:
    """A trained closure. `rows` and `fallen_back` count what it has been asked, and how often Box3D answered in its place.

    Args:
        task: a trained `ClosureTask`
        about: what it knows of its data
    """

    def __init__(self, task: Any, about: dict[str, Any] | None = None):
        self.task = task.eval()
        self.about = about or task.about
        self.rows = self.unstable = self.fallen_back = self.invalid = 0

    @classmethod
    def load(cls, run: str | Path) -> "Closure":
        """From a run's directory, which is all it needs."""
        from skyloom.run import Run
        from skyloom.training.saved import load_task

        return cls(*load_task(Run.open(run) if isinstance(run, (str, Path)) else run))

    def __call__(self, F: Tensor, u: Tensor | None = None) -> Tensor:
        """Final four-fluxes [..., 2, 3, 4] of initial ones, in their unit, where the fluid moves with u [..., 4]."""
        return self.answer(F, u).final

    def answer(self, F: Tensor, u: Tensor | None = None) -> Answer:
        """The final state with its error, and how it came about."""
        if F.shape[-3:] != (2, 3, 4):
            raise DataError(
                f"four-fluxes must have shape [..., 2, 3, 4] (nu/nubar, flavor, xyzt), not {list(F.shape)}; a public file's "
                "[N, 4, 2, 3] is put in order by dodo_closure.fluxes.from_public."
            )
        lead = F.shape[:-3]
        rows = F.reshape(-1, 2, 3, 4)
        if u is not None:
            check_velocity(u)
        rest = rows.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rows), 4)
        u = rest if u is None else torch.broadcast_to(u.to(rows), (*lead, 4)).reshape(-1, 4)
        if next(self.task.parameters()).device != F.device:
            self.task = self.task.to(F.device)
        size = _ROWS if F.device.type == "cpu" else 1 << 17
        with torch.no_grad():
            parts = [
                answer(self.task, part, v, lambda moments: electron_change(moments, None))
                for part, v in zip(rows.split(size), u.split(size), strict=True)
            ]
        whole = Answer._make(torch.cat(columns) for columns in zip(*parts, strict=True))
        self.rows += len(rows)
        self.unstable += int(whole.unstable.sum())
        self.fallen_back += int(whole.fallen_back.sum())
        self.invalid += int((~whole.valid).sum())
        return Answer._make(column.reshape(*lead, *column.shape[1:]) for column in whole)


class GraphClosure(nn.Module):
    """The closure as one graph: `F` [B, 2, 3, 4] and `u` [B, 4] in, the fields of `Answer` out, as dictionaries.

    Box3D's integrals use the same number of nodes for every state: meridians cut at most twice.
    """

    def __init__(self, task: nn.Module, azimuths: int = 16, panel: int = 8, samples: int = 16):
        super().__init__()
        self.task = task
        self.rule = CrossingAware(azimuths, panel, samples, cuts=2, steps=8)

    def _convert(self, moments: Tensor) -> Conversion:
        closure = maximum_entropy(moments, STEEPEST)
        return convert(closure.along, moments, crossing_frames(moments, closure), self.rule)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = answer(self.task, batch["F"], batch["u"], self._convert)._asdict()
        return {name: value.to(batch["F"]) for name, value in found.items()}


def example_input(rows: int = 4) -> dict[str, Tensor]:
    """Synthetic states in a moving fluid, float64."""
    F = draw_states("merger", rows, seed=0)
    u = F.new_tensor([0.1, -0.2, 0.05, 0.0]).expand(rows, 4).clone()
    u[:, 3] = torch.sqrt(1 + (u[:, :3] ** 2).sum(dim=1))
    return {"F": from_comoving(F, u), "u": u}
