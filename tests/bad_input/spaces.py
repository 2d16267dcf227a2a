"""Of spaces and densities."""

import numpy as np
import sympy
from bad_values import (
    BOUNDS,
    GRID,
    INTEGER,
    OBJECT,
    POSITIVE,
    REAL,
    SCALARS,
    SEEDS,
    SEQUENCE,
    TENSORS,
    VECTORS,
    arrays,
    points,
)

import attnflow as af

from .rows import CIRCLE, GAUSS, GLOBE, LINE, PLANE, POINT, START, TOKENS, UNIFORM, P, Row, optional

GEOMETRY = [
    Row("Circle", "length", af.Circle, POSITIVE | {"too long": 1e200, "too short": 1e-200}),
    Row(
        "Torus",
        "lengths",
        af.Torus,
        {k: v for k, v in POSITIVE.items()} | {"in a list": [1.0, True], "four": [1.0] * 4, "text in list": [1.0, "1"]},
    ),
    Row("Euclidean", "dim", af.Euclidean, INTEGER | {"zero": 0}),
    Row("Sphere", "dim", af.Sphere, INTEGER | {"zero": 0}),
    Row("Box", "bounds", af.Box, BOUNDS | {"infinite": [(0, np.inf)]}),
    Row(
        "Chart",
        "metric",
        lambda v: af.Chart(v, [(0, 1)]),
        TENSORS | {"indefinite": lambda x: -np.ones((len(x), 1, 1)), "matrix": sympy.eye(2), "array": np.eye(1)},
    ),
    Row("Chart", "bounds", lambda v: af.Chart(lambda x: np.ones((len(x), 1, 1)), v), BOUNDS),
    Row(
        "Chart",
        "periodic",
        lambda v: af.Chart(lambda x: np.ones((len(x), 1, 1)), [(0, 1)], v),
        OBJECT | {"ragged": [[True], True], "two": [True, True]},
    ),
    Row("Chart.pullback", "phi", lambda v: af.Chart.pullback(v, [(0, 1)]), VECTORS, ("of another shape",)),
    optional("Chart.pullback", "jacobian", lambda v: af.Chart.pullback(lambda x: x, [(0, 1)], v), TENSORS, "of another shape"),
    Row("Chart.pullback", "bounds", lambda v: af.Chart.pullback(lambda x: x, v), BOUNDS),
    Row("Chart.pullback", "periodic", lambda v: af.Chart.pullback(lambda x: x, [(0, 1)], periodic=v), OBJECT),
    *(
        Row(f"{type(s).__name__}.{name}", "x", getattr(s, name), points(s.probe_points(3)))
        for s in (CIRCLE, GLOBE)
        for name in ("metric", "volume_element")
    ),
    *(
        Row(f"{type(s).__name__}.distance", letter, call, points(s.probe_points(3)))
        for s in (CIRCLE, GLOBE)
        for letter, call in (
            ("x", lambda v, s=s: s.distance(v, s.probe_points(3))),
            ("y", lambda v, s=s: s.distance(s.probe_points(3), v)),
        )
    ),
    Row("PLANE.distance", "x, y", lambda v: PLANE.distance(np.ones((3, 2)), v), {"shapes": np.ones((4, 2))}, says="x and y"),
    Row("Circle.grid", "shape", CIRCLE.grid, GRID | {"none": None}, says="grid"),
    Row("Sphere.grid", "shape", GLOBE.grid, GRID | {"none": None, "odd": (4, 5)}, says="grid"),
    optional("Euclidean.grid", "extent", lambda v: LINE.grid(8, v), BOUNDS | {"two": [(0, 1)] * 2, "infinite": [(0, np.inf)]}),
]

DENSITIES = [
    Row("Density", "space", lambda v: af.Density(v, START), OBJECT),
    Row("Density", "log_pdf", lambda v: af.Density(CIRCLE, v), SCALARS),
    Row("Uniform", "space", af.Uniform, OBJECT | {"endless": LINE}),
    Row("VonMises", "kappa", af.VonMises, REAL | {"negative": -1.0}),
    Row("VonMises", "loc", lambda v: af.VonMises(1.0, v), REAL),
    Row(
        "VonMisesFisher",
        "mu",
        lambda v: af.VonMisesFisher(v, 1.0),
        arrays(POINT, bools=POINT > 0, number=1.0, long=2 * POINT, one=[1.0]),
    ),
    Row("VonMisesFisher", "kappa", lambda v: af.VonMisesFisher(POINT, v), REAL | {"negative": -1.0}),
    Row("Gaussian", "mean", lambda v: af.Gaussian(v, np.eye(2)), arrays(np.zeros(2), bools=[True, False], matrix=np.eye(2))),
    Row(
        "Gaussian",
        "cov",
        lambda v: af.Gaussian(np.zeros(2), v),
        arrays(
            np.eye(2),
            bools=np.eye(2) > 0,
            number=1.0,
            asymmetric=[[1, 1], [0, 1]],
            tiny=1e-320 * np.eye(2),
            large=-np.ones((2, 2)),
        ),
    ),
    Row(
        "Mixture",
        "densities",
        lambda v: af.Mixture(v, [1.0]),
        SEQUENCE | {"one": P, "strings": ["a"] * 500, "rng": np.random.default_rng()},
    ),
    Row(
        "Mixture",
        "weights",
        lambda v: af.Mixture([P, P], v),
        arrays([0.5, 0.5], negative=[-1, 2], number=1.0, many=np.ones(500), sum=[1, 1]),
    ),
    Row("KernelDensity", "tokens", af.KernelDensity, points(TOKENS, flat=TOKENS[:, 0]), ("columns",)),
    optional(
        "KernelDensity", "bandwidth", lambda v: af.KernelDensity(TOKENS, v), POSITIVE | {"tiny": 1e-320, "many": np.ones(500)}
    ),
    *(
        Row(f"{type(p).__name__}.{name}", "x", getattr(p, name), points(p.space.probe_points(3)))
        for p in (P, GAUSS, af.KernelDensity(TOKENS), af.VonMisesFisher(POINT, 1.0), af.Density(CIRCLE, START))
        for name in ("pdf", "score")
    ),
    *(Row(f"Density.{name}", "x", getattr(P, name), points(TOKENS)) for name in ("log_pdf", "relative_log_pdf")),
    *(
        Row(f"{type(p).__name__}.sample", "n", p.sample, INTEGER | {"zero": 0})
        for p in (P, UNIFORM, GAUSS, af.KernelDensity(TOKENS), af.Density(CIRCLE, START))
    ),
    *(
        Row(f"{type(p).__name__}.sample", "rng", lambda v, p=p: p.sample(3, v), SEEDS)
        for p in (P, UNIFORM, GAUSS, af.Mixture([P, P], [0.5, 0.5]))
    ),
    Row("Density.grid", "shape", P.grid, GRID | {"none": None}, says="grid"),
]
