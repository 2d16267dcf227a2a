"""Tokens through many layers."""

from .error_bars import ErrorBars, error_bars
from .evolution import evolve
from .extrapolation import extrapolate
from .flow import evolve_continuous
from .gaussian import GaussianRun, GaussianTokens
from .langevin import FeynmanKac, feynman_kac, langevin
from .propagation import propagate

__all__ = [
    "ErrorBars",
    "FeynmanKac",
    "GaussianRun",
    "GaussianTokens",
    "error_bars",
    "evolve",
    "evolve_continuous",
    "extrapolate",
    "feynman_kac",
    "langevin",
    "propagate",
]
