"""Tokens through many layers."""

from .evolution import evolve, evolve_continuous
from .propagation import propagate
from .quadrature import bind_density

__all__ = ["bind_density", "evolve", "evolve_continuous", "propagate"]
