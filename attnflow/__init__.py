"""The drift-diffusion limit of attention: particles, equations and predicted error bars.

Type a pseudo-metric, a density and a temperature; run the tokens; solve the limit equation; see, with
error bars that were predicted beforehand, that the two agree, and where they stop agreeing.
"""

from importlib import import_module

from .attention import (
    Attention,
    DensityCorrected,
    MultiHead,
    Perplexity,
    Screening,
    Sinkhorn,
    Sparse,
    TopK,
    attention_costs,
    efficient_attention,
    epsilon_for_perplexity,
    optimised_attention,
    standard_attention,
    super_attention,
)
from .continuum import (
    MeanField,
    NoisyTokens,
    limit,
    predicted_bias,
    predicted_error,
    predicted_fraction,
    predicted_noise,
    predicted_rates,
)
from .geometry import (
    Box,
    Chart,
    Circle,
    Density,
    Euclidean,
    Gaussian,
    KernelDensity,
    Mixture,
    Sphere,
    Torus,
    Uniform,
    VonMises,
    VonMisesFisher,
    geodesic,
)
from .kernels import backends
from .particles import GaussianTokens, error_bars, evolve, evolve_continuous, extrapolate, feynman_kac, langevin, propagate
from .pde import ConformalHeat, DriftDiffusion, FokkerPlanck, General, Heads, Heat
from .sharded import Sharded
from .similarity import (
    Additive,
    Cosine,
    DotProduct,
    LogDistance,
    Mahalanobis,
    PowerDistance,
    PseudoMetric,
    SquaredDistance,
    SquaredMap,
)
from .solution import Solution, load
from .studies import Comparison, ConvergenceStudy, ErrorBudget, StudyResult, compare, error_budget, parity

__version__ = "0.1.0"

__all__ = [
    "Additive",
    "Attention",
    "Box",
    "Chart",
    "Circle",
    "Comparison",
    "ConformalHeat",
    "ConvergenceStudy",
    "Cosine",
    "Density",
    "DensityCorrected",
    "DotProduct",
    "DriftDiffusion",
    "ErrorBudget",
    "Euclidean",
    "FokkerPlanck",
    "Gaussian",
    "GaussianTokens",
    "General",
    "Heads",
    "Heat",
    "KernelDensity",
    "LogDistance",
    "Mahalanobis",
    "MeanField",
    "Mixture",
    "MultiHead",
    "NoisyTokens",
    "Perplexity",
    "PowerDistance",
    "PseudoMetric",
    "Screening",
    "Sharded",
    "Sinkhorn",
    "Solution",
    "Sparse",
    "Sphere",
    "SquaredDistance",
    "SquaredMap",
    "StudyResult",
    "TopK",
    "Torus",
    "Uniform",
    "VonMises",
    "VonMisesFisher",
    "attention_costs",
    "backends",
    "compare",
    "efficient_attention",
    "epsilon_for_perplexity",
    "error_bars",
    "error_budget",
    "evolve",
    "evolve_continuous",
    "extrapolate",
    "feynman_kac",
    "geodesic",
    "langevin",
    "limit",
    "load",
    "optimised_attention",
    "parity",
    "predicted_bias",
    "predicted_error",
    "predicted_fraction",
    "predicted_noise",
    "predicted_rates",
    "propagate",
    "standard_attention",
    "super_attention",
]


# what brings another package along (sympy, scikit-learn), or stands beside the layers, is imported when it is first asked
# for, not by `import *`
_LATER = {
    "theory": ".theory",
    "families": ".families",
    "learning": ".learning",
    "DiffusionMap": ".learning.diffusion_map",
    "LiveFigure": ".plotting.live",
    "LivePage": ".plotting.live",
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name], __name__)
    return getattr(module, name, module)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LATER, "__version__"})
