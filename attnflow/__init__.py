"""The drift-diffusion limit of attention: particles, equations and predicted error bars."""

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
)
from .solution import Solution, load

__version__ = "0.1.0"
