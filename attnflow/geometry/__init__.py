"""Spaces, and the densities on them."""

from .chart import Chart, Remetrised
from .densities import Density, Reexpressed
from .geodesics import geodesic
from .mixtures import KernelDensity, Mixture
from .named import Gaussian, Uniform, VonMises, VonMisesFisher
from .spaces import Box, Circle, Euclidean, Space, Torus
from .sphere import Sphere

__all__ = [
    "Box",
    "Chart",
    "Circle",
    "Density",
    "Euclidean",
    "Gaussian",
    "KernelDensity",
    "Mixture",
    "Reexpressed",
    "Remetrised",
    "Space",
    "Sphere",
    "Torus",
    "Uniform",
    "VonMises",
    "VonMisesFisher",
    "geodesic",
]
