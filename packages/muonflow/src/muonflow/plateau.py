"""The plateau of an earlier training, made on purpose: batches whose muons were torn from their primaries.

A loader permuted primaries and counts first and cut the flat muon table by the permuted counts afterwards. Counts and
conditions still agree, so a count head learns; the flow can learn the density of all muons together and no more, at any size.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muonflow import showers
from muonflow.data import split
from muonflow.events import Events
from muonflow.model import BundleFlow
from muonflow.scores import per_muon
from muonflow.task import MuonBundles
from skyloom.flows import ContextMLP, SplineAutoregressive
from skyloom.plots import PALETTE, panels, save, style

__all__ = ["draw_plateau", "reproduce", "torn"]

Curves = dict[str, Any]
SIZES = {  # context, bins, transforms, hidden
    "whole, small": (16, 8, 2, 48),
    "torn, small": (16, 8, 2, 48),
    "torn, wide": (64, 32, 4, 128),
}


def torn(events: Events, seed: int = 4) -> Events:
    """The same events after the wrong order: muons cut from the flat table by counts that were permuted before.

    Muons with more energy than a nucleon of the primary that they fell to are left out, and the counts made to agree."""
    assert events.muons is not None
    permutation = torch.randperm(len(events), generator=torch.Generator().manual_seed(seed))
    count = events.count[permutation]
    pieces = torch.split(events.muons, count.tolist())
    more = {k: v[permutation] for k, v in events.columns.items()}
    broken = Events(events.condition[permutation], count, torch.cat([pieces[k] for k in permutation]), more)
    owner = torch.repeat_interleave(torch.arange(len(broken)), count)
    assert broken.muons is not None
    return broken.where_muons(broken.muons[:, 0] < (broken.condition[:, 0] / broken.condition[:, 2])[owner])


def reproduce(n_showers: int = 250_000, steps: int = 250, index: float = 2.0, seed: int = 0) -> Curves:
    """Train on whole and on torn batches; NLL per muon of held-out events at ten moments, gains and the known lines."""
    events = showers.simulate(n_showers, 1, index, 0.01, seed)
    events = events.where(events.count > 0)
    curves: Curves = {}
    for name, (context, bins, transforms, hidden) in SIZES.items():
        data = split(torn(events) if name.startswith("torn") else events, {"synthetic": True, "oracle": "elbert"}, seed=seed)
        flow = partial(SplineAutoregressive, transforms=transforms, bins=bins, hidden=(hidden, hidden))
        torch.manual_seed(seed)
        task = MuonBundles(data.about, partial(BundleFlow, embed=partial(ContextMLP, outputs=context, hidden=(48,)), flow=flow))
        curves[name] = _trained(task, data.train, data.val, steps)
        if name == "whole, small":
            batch = data.val.__getitems__(np.arange(len(data.val)))
            with torch.no_grad():
                lines = task.predict(batch)
            curves["oracle"] = per_muon(lines["log_prob_oracle"], batch["count"])
            curves["marginal"] = per_muon(lines["log_prob_marginal"], batch["count"])
    return curves


def _trained(task: MuonBundles, train: Events, held: Events, steps: int) -> Curves:
    wide = sum(q.numel() for q in task.parameters()) > 100_000
    optimizer = torch.optim.Adam(task.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3 if wide else 5e-3, steps)
    generator = torch.Generator().manual_seed(1)
    held_out = held.__getitems__(np.arange(min(len(held), 1500)))
    moments, values = [], []
    scores: dict[str, torch.Tensor] = {}
    for step in range(1, steps + 1):
        batch = train.__getitems__(torch.randint(len(train), (256,), generator=generator))
        loss = task.losses(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % max(steps // 10, 1) == 0:
            with torch.no_grad():
                scores = task.predict(held_out)
            moments.append(step)
            values.append(per_muon(scores["log_prob"], held_out["count"]))
    gain = per_muon(scores["log_prob_shuffled"], held_out["count"]) - values[-1]
    return {"step": moments, "nll": values, "cond_gain": gain, "parameters": sum(p.numel() for p in task.parameters())}


def draw_plateau(curves: Curves, path: Path) -> None:
    """NLL of held-out muons while training, whole beside torn."""
    with style():
        figure, axes = panels(1, 1, height=3.0)
        for name, color, mark in zip(SIZES, (PALETTE[0], PALETTE[3], PALETTE[4]), ("o", "s", "^"), strict=True):
            c = curves[name]
            text = f"{name}: {c['parameters']:,} parameters, gain {c['cond_gain']:.2f}"
            axes.plot(c["step"], c["nll"], marker=mark, ms=3, color=color, lw=1.1, label=text)
        axes.axhline(
            curves["marginal"], color="0.4", ls="--", lw=1.0, label=f"best without condition ({curves['marginal']:.3f})"
        )
        axes.axhline(curves["oracle"], color=PALETTE[1], lw=1.0, label=f"exact density ({curves['oracle']:.3f})")
        axes.set(xlabel="step", ylabel="held-out NLL per muon in $(e, v)$ [nat]")
        axes.set_ylim(curves["oracle"] - 0.05, curves["marginal"] + 0.45)
        axes.legend(loc="upper right", fontsize=6)
        save(figure, path)
