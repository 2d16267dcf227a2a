"""The drift-diffusion limit of attention: particles, equations and predicted error bars."""

from .geometry import Box, Circle, Density, Euclidean, Gaussian, Torus, Uniform, VonMises
from .solution import Solution, load

__version__ = "0.1.0"
