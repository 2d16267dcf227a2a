"""A layer = similarity + normalisation + kernel engine."""

from .bound import BoundLayer
from .gradients import Gradients
from .heads import BoundHeads, MultiHead, heads_of
from .infinite import bind_density, check_same_space
from .layer import Attention
from .normalization import Normalization
from .normalizations import Column, DensityCorrected, Sinkhorn, Softmax, Unnormalized
from .perplexity import epsilon_for_perplexity, perplexity
from .sparse import Perplexity, Screening, Sparse, TopK
from .spectrum import LayerSpectrum
from .variants import attention_costs, efficient_attention, optimised_attention, standard_attention, super_attention

__all__ = [
    "Attention",
    "BoundHeads",
    "BoundLayer",
    "Column",
    "DensityCorrected",
    "Gradients",
    "LayerSpectrum",
    "MultiHead",
    "Normalization",
    "Perplexity",
    "Screening",
    "Sinkhorn",
    "Softmax",
    "Sparse",
    "TopK",
    "Unnormalized",
    "attention_costs",
    "bind_density",
    "check_same_space",
    "efficient_attention",
    "epsilon_for_perplexity",
    "heads_of",
    "optimised_attention",
    "perplexity",
    "standard_attention",
    "super_attention",
]
