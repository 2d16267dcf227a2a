"""A layer = similarity + normalisation + kernel engine."""

from .layer import Attention, BoundLayer
from .normalizations import Column, DensityCorrected, Sinkhorn, Softmax
from .perplexity import epsilon_for_perplexity, perplexity

__all__ = [
    "Attention", "BoundLayer", "Column", "DensityCorrected", "Sinkhorn", "Softmax", "epsilon_for_perplexity", "perplexity",
]
