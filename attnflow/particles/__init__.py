"""Tokens through many layers."""

from .evolution import evolve, evolve_continuous
from .langevin import FeynmanKac, feynman_kac, langevin
from .propagation import propagate
from .quadrature import bind_density

__all__ = ["FeynmanKac", "bind_density", "evolve", "evolve_continuous", "feynman_kac", "langevin", "propagate"]
