"""Of pseudo-metrics."""

import numpy as np
import sympy
from bad_values import (
    INTEGER,
    NAME,
    OBJECT,
    PAIRS,
    POSITIVE,
    TENSORS,
    VECTORS,
    arrays,
    points,
)

import attnflow as af

from .rows import LINE, TOKENS, F, Row, optional


def additive(**arguments):
    return af.Additive(**{"a1": [1.0, 2.0], "a2": [0.0, 1.0], "P": [[1.0], [2.0]]} | arguments)


SIMILARITY = [
    *(Row(kind.__name__, "space", kind, OBJECT) for kind in (af.SquaredDistance, af.LogDistance)),
    Row("PowerDistance", "space", lambda v: af.PowerDistance(v, 2), OBJECT),
    Row("PowerDistance", "q", lambda v: af.PowerDistance(LINE, v), POSITIVE),
    Row(
        "Mahalanobis",
        "G",
        af.Mahalanobis,
        arrays(np.eye(2), bools=np.eye(2) > 0, asymmetric=[[1, 1], [0, 1]], large=-np.eye(64)),
    ),
    optional("DotProduct", "W", af.DotProduct, arrays(np.eye(2), oblong=np.ones((2, 3)), bools=np.eye(2) > 0)),
    optional(
        "DotProduct",
        "W_K",
        lambda v: af.DotProduct(np.ones((2, 3)) if v is not None else np.eye(3), v),
        arrays(np.ones((2, 3)), other=np.ones((3, 2)), bools=np.ones((2, 3)) > 0),
    ),
    optional("DotProduct", "bias", lambda v: af.DotProduct(np.eye(2), bias=v), arrays([1.0, 2.0], long=np.ones(3), number=1.0)),
    Row("DotProduct.metric", "W", lambda v: af.DotProduct(v).metric(np.ones((1, 64))), {"indefinite": -np.eye(64)}),
    Row("geodesic", "metric", lambda v: af.geodesic(v, [0.0], [1.0], 4), TENSORS),
    Row(
        "geodesic",
        "start",
        lambda v: af.geodesic(af.Mahalanobis(np.eye(2)).metric, v, [1.0, 1.0], 4),
        arrays([0.0, 0.5], flat=0.0),
    ),
    Row(
        "geodesic",
        "end",
        lambda v: af.geodesic(af.Mahalanobis(np.eye(2)).metric, [1.0, 1.0], v, 4),
        arrays([0.0, 0.5], flat=0.0),
    ),
    Row(
        "geodesic", "segments", lambda v: af.geodesic(af.Mahalanobis(np.eye(1)).metric, [0.0], [1.0], v), INTEGER | {"zero": 0}
    ),
    *(
        Row("Additive", name, lambda v, name=name: additive(**{name: v}), arrays([1.0, 2.0], long=np.ones(3), number=1.0))
        for name in ("a1", "a2")
    ),
    Row("Additive", "P", lambda v: additive(P=v), arrays(np.eye(2), flat=np.ones(2))),
    Row("Additive", "activation", lambda v: additive(activation=v), NAME),
    Row("Additive", "activation", lambda v: additive(activation=v)(TOKENS, TOKENS), {"constant": lambda r: 1.0}),
    optional("Additive", "derivative", lambda v: additive(activation=np.tanh, derivative=v), OBJECT, "class"),
    Row("Additive", "derivative", lambda v: additive(derivative=v), {"of a name": np.tanh}),
    Row("Additive.slope", "x", additive().slope, points(TOKENS)),
    Row("PseudoMetric.slope", "x", af.SquaredDistance(LINE).slope, points(TOKENS)),
    Row("SquaredMap", "phi", lambda v: af.SquaredMap(v)(TOKENS, TOKENS), VECTORS),
    Row("SquaredMap.metric", "phi", lambda v: af.SquaredMap(v).metric(TOKENS), VECTORS, ("of another shape",)),
    optional("SquaredMap", "jacobian", lambda v: af.SquaredMap(lambda x: x, v).metric(TOKENS), TENSORS, "of another shape"),
    optional("SquaredMap", "vjp", lambda v: af.SquaredMap(lambda x: x, vjp=v), OBJECT, "class"),
    Row(
        "PseudoMetric",
        "f",
        lambda v: af.PseudoMetric(v, 1)(TOKENS, TOKENS),
        PAIRS | {"matrix": sympy.eye(2), "function": sympy.cos, "stray": sympy.Symbol("z")},
        ("nan", "infinite"),
    ),
    Row("PseudoMetric", "dim", lambda v: af.PseudoMetric(lambda x, y: x[..., 0] * y[..., 0], v), INTEGER | {"zero": 0}),
    *(
        Row(
            f"{type(f).__name__}.{name}",
            "x",
            call,
            points(f.space.probe_points(3) if f.space else np.ones((3, 2))),
            ("columns",) if f.dim is None else (),
        )
        for f in (F, af.Mahalanobis(np.eye(2)), af.Cosine(), af.DotProduct(), af.SquaredMap(lambda x: x))
        for name, call in (("__call__", lambda v, f=f: f(v, v)), ("metric", f.metric))
    ),
    Row("PseudoMetric.__call__", "y", lambda v: F(TOKENS, v), points(TOKENS)),
    Row("PseudoMetric.lean", "x", af.PseudoMetric(lambda x, y: (x[..., 0] - y[..., 0]) ** 2, 1).lean, points(TOKENS)),
    *(
        Row(f"{type(f).__name__}.{name}", "epsilon", lambda v, f=f, name=name: getattr(f, name)(v, 1), POSITIVE)
        for f in (F, af.PowerDistance(LINE, 3), af.LogDistance(LINE))
        for name in ("moments", "second_moment")
    ),
    *(
        optional(f"{type(f).__name__}.{name}", "dim", lambda v, f=f, name=name: getattr(f, name)(0.1, v), INTEGER | {"zero": 0})
        for f in (F, af.PowerDistance(LINE, 3), af.LogDistance(LINE))
        for name in ("moments", "second_moment")
    ),
    Row("PseudoMetric.defects", "tokens", F.defects, points(TOKENS)),
    Row("PseudoMetric.is_symmetric", "tokens", F.is_symmetric, points(TOKENS)),
]
