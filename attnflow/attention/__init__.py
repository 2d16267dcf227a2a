"""A layer = similarity + normalisation + kernel engine."""

from .bound import BoundLayer
from .infinite import bind_density, check_same_space
from .layer import Attention
from .normalizations import Column, DensityCorrected, Normalization, Sinkhorn, Softmax
from .perplexity import epsilon_for_perplexity, perplexity
from .sparse import Perplexity, Screening, Sparse, TopK
from .spectrum import LayerSpectrum

__all__ = [
    "Attention",
    "BoundLayer",
    "Column",
    "DensityCorrected",
    "LayerSpectrum",
    "Normalization",
    "Perplexity",
    "Screening",
    "Sinkhorn",
    "Softmax",
    "Sparse",
    "TopK",
    "bind_density",
    "check_same_space",
    "epsilon_for_perplexity",
    "perplexity",
]
