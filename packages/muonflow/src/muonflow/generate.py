"""Bundles for given primaries and depths: counts, then all muons of all events in one call, within what energy allows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muonflow.coordinates import ceilings
from muonflow.data import check_conditions
from muonflow.events import Events
from muonflow.task import MuonBundles
from skyloom.errors import DataError, UserError
from skyloom.run.seeds import torch_generator

__all__ = ["BundleGenerator", "Bundles"]

ATTEMPTS = 64  # bundles drawn anew at most, while their energies sum to more than the primary's


@dataclass(frozen=True)
class Bundles:
    """`N` bundles with `M` muons together; `owner[k]` says which bundle muon `k` belongs to."""

    condition: Tensor  # [N, 4] E0 (GeV), zenith (rad), A, depth (m)
    count: Tensor  # [N]
    energy: Tensor  # [M] GeV
    radius: Tensor  # [M] m, from the shower axis
    azimuth: Tensor  # [M] rad, around the axis: uniform
    owner: Tensor  # [M]
    extrapolated: Tensor  # [N] outside what the model was trained on
    redrawn: int  # bundles whose first draw had more energy than the primary

    @property
    def x(self) -> Tensor:
        """r cos(phi), m, in the plane perpendicular to the axis."""
        return self.radius * torch.cos(self.azimuth)

    @property
    def y(self) -> Tensor:
        """r sin(phi), m."""
        return self.radius * torch.sin(self.azimuth)

    def events(self) -> Events:
        """The same as events whose muons are (E, r, phi)."""
        return Events(self.condition, self.count, torch.stack([self.energy, self.radius, self.azimuth], 1))


class BundleGenerator:
    """Muon bundles from a trained model.

        generator = BundleGenerator.from_run("runs/muonflow/nsf_small/<id>")
        bundles = generator(energy=[1e6, 1e7], zenith=0.3, mass_number=[1, 56], depth=1950.0, seed=1)

    No muon has as much energy as a nucleon of its primary (by the coordinates of the flow), and no bundle more than the
    primary (it is drawn anew; `redrawn` counts how many were).
    """

    def __init__(self, task: MuonBundles) -> None:
        self.task = task.eval()

    @classmethod
    def from_run(cls, run: str | Path) -> "BundleGenerator":
        """The best weights of a run directory."""
        from skyloom.training.saved import load_task

        return cls(load_task(run)[0])

    @torch.no_grad()
    def __call__(
        self, energy: Any, zenith: Any, mass_number: Any, depth: Any, seed: int = 0, extrapolate: bool = False
    ) -> Bundles:
        """One bundle for each primary; the arguments are numbers or sequences of one length.

        Args:
            energy: of the primary, GeV
            zenith: rad, measured at depth
            mass_number: A of the primary: 1, 4, 14, 27 or 56
            depth: vertical, m of ice
            seed: the same seed and primaries give the same bundles
            extrapolate: allow conditions outside the training range; they are flagged either way
        """
        condition = conditions(energy, zenith, mass_number, depth).to(self._device)
        check_conditions(condition)
        outside = self.outside_training(condition)
        if bool(outside.any()) and not extrapolate:
            raise DataError(self._refusal(condition, outside))
        generator = torch_generator(seed, "muonflow", "bundles", device=self._device)
        count = self.task.counts(condition).sample(generator)
        owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        shared = self.task.shared(condition, generator)
        muons = self.task.sample_muons(shared[owner], ceilings(condition)[owner], generator)
        redrawn = self._keep_energy(muons, condition, shared, owner, generator)
        azimuth = 2 * torch.pi * torch.rand(len(owner), generator=generator, device=self._device)
        energies, radii = muons.unbind(1)
        return Bundles(condition, count, energies, radii, azimuth, owner, outside, redrawn)

    def outside_training(self, condition: Tensor) -> Tensor:
        """Whether each condition [N, 4] lies outside the ranges of the training split, or has a mass unknown to it."""
        support = self.task.about["support"]
        low, high = (condition.new_tensor(support[end]) for end in ("low", "high"))
        slack = 1e-5 * high.abs()
        beyond = ((condition < low - slack) | (condition > high + slack)).any(1)
        known = condition.new_tensor(support["mass_numbers"])
        return beyond | (condition[:, 2:3] != known).all(1)

    def _keep_energy(self, muons: Tensor, condition: Tensor, shared: Tensor, owner: Tensor, generator: torch.Generator) -> int:
        """Draw bundles anew, in place, while their energies sum to more than the primary's; how many there were at first."""
        limit, first = condition[:, 0].double(), 0
        for _ in range(ATTEMPTS):
            total = torch.zeros_like(limit).index_add(0, owner, muons[:, 0].double())
            again = (total > limit)[owner]
            if not bool(again.any()):
                return first
            first = first or int((total > limit).sum())
            mine = owner[again]
            muons[again] = self.task.sample_muons(shared[mine], ceilings(condition)[mine], generator)
        raise UserError(
            f"after {ATTEMPTS} draws {int((total > limit).sum())} bundles still have more energy than their primary "
            f"(first: event {int(torch.nonzero(total > limit)[0])}): the model is not trained, or far outside its range."
        )

    def _refusal(self, condition: Tensor, outside: Tensor) -> str:
        support, row = self.task.about["support"], int(torch.nonzero(outside)[0])
        ranges = ", ".join(
            f"{name} {low:g} to {high:g}"
            for name, low, high in zip(self.task.about["conditions"], support["low"], support["high"], strict=True)
        )
        values = ", ".join(f"{v:g}" for v in condition[row].tolist())
        return (
            f"event {row} ({values}) and {int(outside.sum()) - 1} more lie outside what the model was trained on ({ranges}; "
            f"A one of {support['mass_numbers']}). Pass extrapolate=True to have them all the same, flagged."
        )

    @property
    def _device(self) -> torch.device:
        return next(self.task.parameters()).device


def conditions(energy: Any, zenith: Any, mass_number: Any, depth: Any) -> Tensor:
    """Conditions [N, 4] of numbers and sequences that broadcast."""
    columns = [torch.as_tensor(v, dtype=torch.float32).flatten() for v in (energy, zenith, mass_number, depth)]
    lengths = {len(c) for c in columns} - {1}
    if len(lengths) > 1:
        raise DataError(
            f"energy, zenith, mass_number and depth have lengths {[len(c) for c in columns]}; give one length, or 1."
        )
    return torch.stack(torch.broadcast_tensors(*columns), 1)
