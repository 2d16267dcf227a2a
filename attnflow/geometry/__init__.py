"""Spaces, and the densities on them."""

from .densities import Density, Reexpressed
from .named import Gaussian, Uniform, VonMises
from .spaces import Box, Circle, Euclidean, Space, Torus

__all__ = ["Box", "Circle", "Density", "Euclidean", "Gaussian", "Reexpressed", "Space", "Torus", "Uniform", "VonMises"]
