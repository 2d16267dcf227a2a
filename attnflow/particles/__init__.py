"""Tokens through many layers."""

from .evolution import evolve, evolve_continuous
from .langevin import FeynmanKac, feynman_kac, langevin
from .propagation import propagate

__all__ = ["FeynmanKac", "evolve", "evolve_continuous", "feynman_kac", "langevin", "propagate"]
