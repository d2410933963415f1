"""Conditional normalizing flows with the interface of zuko: `flow(context)` is a distribution.

flow = InUserUnits(GlowCoupling(features=6, context=7), target=..., context=...)
flow(x).log_prob(y)                      # natural logarithm, per unit of y
flow(x).sample((300,))                   # [300, B, D], in the units of y
flow(x).sample_and_log_prob((300,))      # both, by one pass
flow(x).map_estimate()                   # [B, D]
"""

from skyloom.flows.autoregressive import AffineAutoregressive, SplineAutoregressive, SplineCoupling
from skyloom.flows.bases import Box, GaussianMixture, Normal, StudentT
from skyloom.flows.density import Flow, FlowDistribution
from skyloom.flows.embedding import ContextMLP, ContextResidual, MaskedContext, PassThrough, hide
from skyloom.flows.fitting import fit, from_json
from skyloom.flows.glow import GlowCoupling
from skyloom.flows.power import YeoJohnson
from skyloom.flows.quantile import Quantile
from skyloom.flows.regression import AroundRegression
from skyloom.flows.support import OutsideSupport, TrainingSupport
from skyloom.flows.tails import TailTransform, hill
from skyloom.flows.transforms import (
    Affine,
    Chain,
    Complement,
    DataTransform,
    Identity,
    Log,
    Log10,
    Logit,
    PerColumn,
    Relative,
    Saturation,
    Standardise,
    Whiten,
)
from skyloom.flows.units import InUserUnits, UserUnitsDistribution

__all__ = [
    "Affine",
    "AffineAutoregressive",
    "AroundRegression",
    "Box",
    "Chain",
    "Complement",
    "ContextMLP",
    "ContextResidual",
    "DataTransform",
    "Flow",
    "FlowDistribution",
    "GaussianMixture",
    "GlowCoupling",
    "Identity",
    "InUserUnits",
    "Log",
    "Log10",
    "Logit",
    "MaskedContext",
    "Normal",
    "OutsideSupport",
    "PassThrough",
    "PerColumn",
    "Quantile",
    "Relative",
    "Saturation",
    "SplineAutoregressive",
    "SplineCoupling",
    "Standardise",
    "StudentT",
    "TailTransform",
    "TrainingSupport",
    "UserUnitsDistribution",
    "Whiten",
    "YeoJohnson",
    "fit",
    "from_json",
    "hide",
    "hill",
]
