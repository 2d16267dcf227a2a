"""Pseudo-metrics: how alike two tokens are, and the metric tensor that induces."""

from .additive import Additive
from .distances import LogDistance, Mahalanobis, PowerDistance, SquaredDistance, SquaredMap
from .products import Cosine, DotProduct
from .pseudometrics import PseudoMetric

__all__ = [
    "Additive",
    "Cosine",
    "DotProduct",
    "LogDistance",
    "Mahalanobis",
    "PowerDistance",
    "PseudoMetric",
    "SquaredDistance",
    "SquaredMap",
]
