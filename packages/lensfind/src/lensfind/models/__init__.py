"""Networks of the lens finder: `finder` builds them for any bands and size, logits [B]."""

from lensfind.models.attention import AdaptiveAttention, EvidenceAttention, MultiScaleAttention, PlainAttention, attention
from lensfind.models.bags import Bags, GatedPooling, tiles
from lensfind.models.film import ConditionedResNet, Modulation
from lensfind.models.finder import Finder, finder
from lensfind.models.heads import HeteroscedasticHead, LinearHead, RadiusHead, logit_normal, sampled_probability
from lensfind.models.light_transformer import Block, DropPath, LightTransformer
from lensfind.models.ridges import OrientedRidges, StructureTensor, structure_evidence

__all__ = [
    "AdaptiveAttention",
    "Bags",
    "Block",
    "ConditionedResNet",
    "DropPath",
    "EvidenceAttention",
    "Finder",
    "GatedPooling",
    "HeteroscedasticHead",
    "LightTransformer",
    "LinearHead",
    "Modulation",
    "MultiScaleAttention",
    "OrientedRidges",
    "PlainAttention",
    "RadiusHead",
    "StructureTensor",
    "attention",
    "finder",
    "logit_normal",
    "sampled_probability",
    "structure_evidence",
    "tiles",
]
