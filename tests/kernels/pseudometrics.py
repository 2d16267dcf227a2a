"""One pseudo-metric of each kind, for every test that an engine takes them all."""

import numpy as np
import sympy

import attnflow as af

X, Y = sympy.symbols("x0:3"), sympy.symbols("y0:3")
SKEW = np.array([[1.0, 0.3, 0.0], [-0.2, 1.0, 0.5], [0.0, 0.0, 1.0]])


def of_each_kind(flat, unit):
    """Name -> (f, tokens), from tokens (N, 3) and unit vectors (N, 3)."""
    return {
        "squared": (af.SquaredDistance(af.Euclidean(3)), flat),
        "wrapped": (af.SquaredDistance(af.Torus([2.0, 3.0, 4.0])), flat),
        "angle": (af.SquaredDistance(af.Sphere(2)), unit),
        "power": (af.PowerDistance(af.Euclidean(3), 1.5), flat),
        "log": (af.LogDistance(af.Euclidean(3)), flat),
        "mahalanobis": (af.Mahalanobis(SKEW @ SKEW.T), flat),
        "map": (af.SquaredMap(lambda x: np.concatenate([x, 0.1 * x**2], axis=-1)), flat),
        "dot product": (af.DotProduct(), unit),
        "skew dot product": (af.DotProduct(SKEW), unit),
        "biased dot product": (af.DotProduct(SKEW[:2], SKEW[1:], [0.4, -0.7]), flat),
        "cosine": (af.Cosine(), flat),
        "expression": (af.PseudoMetric(sum(2 - 2 * sympy.cos(a - b) for a, b in zip(X, Y)), 3), flat),
    }
