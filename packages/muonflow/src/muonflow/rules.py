"""What cannot work, said before any data are made or read: settings of the model, and of the precision."""

from collections.abc import Callable
from typing import Any

import torch

from muonflow.coordinates import FEATURES
from skyloom.errors import ConfigError
from skyloom.flows import Box, StudentT
from skyloom.flows.univariate import SplineMap

__all__ = ["check"]


def check(model: Callable[..., Any], precision: Any = "32-true", selection: str = "r") -> None:
    """Refuse a model that cannot be trained, naming the setting.

    Args:
        model: builds the network (see `muonflow.model.BundleFlow`)
        precision: of the hardware (Fabric's names)
        selection: features of a muon: "r" is (E, r), all that a bundle holds; x and y say no more than r, since the azimuth is
            uniform, and a flow of (E, x, y) spends itself on a ring
    """
    if selection != "r":
        raise ConfigError(
            f"selection={selection!r}: muons are (E, r); x and y carry nothing beyond r (the azimuth is uniform, drawn at "
            "generation). Convert tables of x and y with make prepare pkg=muonflow input=<file>."
        )
    state = torch.random.get_rng_state()
    network = model(features=len(FEATURES))
    torch.random.set_rng_state(state)
    splines = [m.univariate for m in network.modules() if isinstance(getattr(m, "univariate", None), SplineMap)]
    _check_splines(splines, str(precision))
    for base in (m for m in network.modules() if isinstance(m, StudentT)):
        lowest = float(base.dof.detach().min())
        if lowest <= 2:
            raise ConfigError(
                f"a Student-t base with dof={lowest:.3g} has no variance, and its gradients drown in the tails: give dof > 2 "
                "(3 to 5 suit muons)."
            )
        if base.raw.requires_grad and base.least < 2:
            raise ConfigError(f"a learned dof may fall to least={base.least:g}: set base.least=2 or more.")
    if any(isinstance(m, Box) for m in network.modules()):
        raise ConfigError("a box has no density outside, and one muon there makes the loss infinite: take Normal or StudentT.")


def _check_splines(splines: list[SplineMap], precision: str) -> None:
    if splines and precision in ("16-mixed", "16-true", "16", "bf16-true"):
        raise ConfigError(
            f"hardware.precision={precision}: bins of a spline collapse in 16 bits. Take 32-true, or bf16-mixed, under which "
            "the flow stays in 32 bits and only the data are moved in 16."
        )
    for spline in splines:
        if spline.bins < 4:
            raise ConfigError(f"a spline flow needs bins >= 4, found bins={spline.bins}.")
