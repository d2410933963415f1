"""Conditional normalizing flows with the interface of zuko: `flow(context)` is a distribution.

flow = InUserUnits(GlowCoupling(features=6, context=7), target=..., context=...)
flow(x).log_prob(y)        # natural logarithm, per unit of y
flow(x).sample((300,))     # [300, B, D], in the units of y
"""

from skyloom.flows.glow import GlowCoupling
from skyloom.flows.regression import AroundRegression
from skyloom.flows.transforms import (
    Affine,
    Chain,
    Complement,
    DataTransform,
    Identity,
    Log,
    Logit,
    PerColumn,
    Relative,
    Saturation,
    Standardise,
    Whiten,
    from_json,
)
from skyloom.flows.units import InUserUnits, UserUnitsDistribution

__all__ = [
    "Affine",
    "AroundRegression",
    "Chain",
    "Complement",
    "DataTransform",
    "GlowCoupling",
    "Identity",
    "InUserUnits",
    "Log",
    "Logit",
    "PerColumn",
    "Relative",
    "Saturation",
    "Standardise",
    "UserUnitsDistribution",
    "Whiten",
    "from_json",
]
