"""Of the derivations."""

import numpy as np
import sympy
from bad_values import (
    DRIFT,
    EXPRESSION,
    METRIC,
    NAME,
    OBJECT,
    REAL,
    SEQUENCE,
    THEORY_DIM,
    points,
)

from attnflow import theory

from .rows import Row, optional

X0, Y0, D, H0 = sympy.Symbol("x0"), sympy.Symbol("y0"), sympy.Symbol("d"), sympy.Function("H")(sympy.Symbol("x0"))
KERNEL = theory.isotropic_kernel(1)
THEORY_LAYER = theory.layer(KERNEL)
L = theory.drift_diffusion(1)
RING = (Y0**2 + sympy.Symbol("y1") ** 2 - 1) ** 2
RING_POINTS, RING_BOUNDS = [sympy.cos(sympy.Symbol("t0")), sympy.sin(sympy.Symbol("t0"))], [(0, 2 * sympy.pi)]

THEORY = [
    Row("theory.coordinates", "dim", theory.coordinates, THEORY_DIM),
    Row(
        "theory.coordinates",
        "letter",
        lambda v: theory.coordinates(1, v),
        {"number": 3, "none": None, "empty": "", "several": "x,y", "range": "x:3"},
    ),
    Row("theory.moments", "h", theory.moments, EXPRESSION | {"no distance": X0}),
    Row("theory.moments", "dim", lambda v: theory.moments(D**2, v), THEORY_DIM),
    Row("theory.isotropic_kernel", "metric", theory.isotropic_kernel, METRIC),
    optional("theory.isotropic_kernel", "h", lambda v: theory.isotropic_kernel(1, v), EXPRESSION | {"linear": D}),
    Row(
        "theory.local_kernel",
        "f",
        lambda v: theory.local_kernel(v, 1),
        EXPRESSION | {"stray": sympy.Symbol("x1"), "displaced": (Y0 - 2 * X0) ** 2},
    ),
    Row("theory.local_kernel", "dim", lambda v: theory.local_kernel((X0 - Y0) ** 2, v), THEORY_DIM),
    Row("theory.local_kernel", "order", lambda v: theory.local_kernel((X0 - Y0) ** 2, 1, v), THEORY_DIM),
    Row("theory.squared_map", "phi", lambda v: theory.squared_map(v, 1), SEQUENCE | {"text in list": ["x0"]}),
    Row("theory.squared_map", "dim", lambda v: theory.squared_map([X0], v), THEORY_DIM),
    Row("theory.layer", "kernel", theory.layer, OBJECT),
    Row("theory.layer", "normalization", lambda v: theory.layer(KERNEL, v), NAME),
    optional("theory.layer", "density", lambda v: theory.layer(KERNEL, "softmax", v), EXPRESSION | {"negative": -1}),
    optional("theory.layer", "alpha", lambda v: theory.layer(KERNEL, "density-corrected", None, v), EXPRESSION),
    Row("theory.Layer.defect", "residual", THEORY_LAYER.defect, EXPRESSION | {"zero": 0, "two": 2}),
    Row("theory.drift_diffusion", "metric", theory.drift_diffusion, METRIC),
    optional("theory.drift_diffusion", "density", lambda v: theory.drift_diffusion(1, v), EXPRESSION | {"zero": 0}),
    Row("theory.drift_diffusion", "drift", lambda v: theory.drift_diffusion(1, None, v), DRIFT),
    Row("theory.conformal_form", "dim", theory.conformal_form, THEORY_DIM),
    Row("theory.conformal_form", "drift", lambda v: theory.conformal_form(3, v), DRIFT),
    Row("theory.conformal_operator", "metric", lambda v: theory.conformal_operator(v, 4), METRIC),
    Row("theory.conformal_operator", "exponent", lambda v: theory.conformal_operator(3, v), EXPRESSION),
    optional("theory.conformal_operator", "density", lambda v: theory.conformal_operator(3, 4, v), EXPRESSION),
    Row("theory.constant_curvature", "metric", theory.constant_curvature, METRIC),
    optional("theory.radial_expansion", "h", theory.radial_expansion, EXPRESSION),
    Row("theory.radial_expansion", "n", lambda v: theory.radial_expansion(None, v), THEORY_DIM),
    Row("theory.radial_expansion", "K", lambda v: theory.radial_expansion(None, 2, v), EXPRESSION),
    Row("theory.spherical_mean", "n", theory.spherical_mean, THEORY_DIM),
    Row("theory.spherical_mean", "K", lambda v: theory.spherical_mean(2, v), EXPRESSION),
    Row("theory.displaced_limit", "f", lambda v: theory.displaced_limit(v, 1), EXPRESSION),
    Row("theory.displaced_limit", "dim", lambda v: theory.displaced_limit((X0 - Y0) ** 2, v), THEORY_DIM),
    optional("theory.displaced_limit", "density", lambda v: theory.displaced_limit((X0 - Y0) ** 2, 1, v), EXPRESSION),
    optional(
        "theory.displaced_limit",
        "place",
        lambda v: theory.displaced_limit((X0 - Y0) ** 2, 1, None, v),
        SEQUENCE | {"text in list": ["x0"], "two": [X0, X0]},
    ),
    Row("theory.symbolic_f", "dim", theory.symbolic_f, THEORY_DIM),
    Row("theory.manifold_average", "f", lambda v: theory.manifold_average(v, 2, RING_POINTS, RING_BOUNDS), EXPRESSION),
    Row("theory.manifold_average", "dim", lambda v: theory.manifold_average(RING, v, RING_POINTS, RING_BOUNDS), THEORY_DIM),
    Row(
        "theory.manifold_average",
        "manifold",
        lambda v: theory.manifold_average(RING, 2, v, RING_BOUNDS),
        SEQUENCE | {"three": [1, 1, 1], "text in list": ["x0", "x1"]},
    ),
    Row(
        "theory.manifold_average",
        "bounds",
        lambda v: theory.manifold_average(RING, 2, RING_POINTS, v),
        SEQUENCE | {"single": [1], "reversed": [(1, 0)], "text in list": [("a", "b")]},
    ),
    optional(
        "theory.manifold_average",
        "density",
        lambda v: theory.manifold_average(RING, 2, RING_POINTS, RING_BOUNDS, v),
        EXPRESSION,
    ),
    Row(
        "theory.head_sum",
        "layers",
        lambda v: theory.head_sum(v, [sympy.eye(1)]),
        SEQUENCE | {"numbers": [1], "one": THEORY_LAYER},
    ),
    Row(
        "theory.head_sum",
        "mixing",
        lambda v: theory.head_sum([THEORY_LAYER], v),
        SEQUENCE
        | {
            "text in list": ["a"],
            "oblong": [sympy.ones(1, 2)],
            "two": [sympy.eye(1)] * 2,
            "nan": [sympy.Matrix([[sympy.nan]])],
        },
    ),
    Row("theory.process", "L", theory.process, OBJECT | {"fourth order": L @ L}),
    Row("theory.invariant_powers", "metric", theory.invariant_powers, METRIC),
    Row("theory.invariant_powers", "drift", lambda v: theory.invariant_powers(1, v), DRIFT),
    Row("theory.token_flow", "layer", theory.token_flow, OBJECT),
    Row("theory.identities", "metric", theory.identities, METRIC),
    optional("theory.identities", "density", lambda v: theory.identities(1, v), EXPRESSION),
    Row("theory.identities", "drift", lambda v: theory.identities(1, None, v), DRIFT),
    Row("theory.variational_derivative", "integrand", lambda v: theory.variational_derivative(v, H0), EXPRESSION),
    Row("theory.variational_derivative", "field", lambda v: theory.variational_derivative(H0, v), OBJECT | {"symbol": X0}),
    Row(
        "theory.Operator",
        "coefficients",
        lambda v: theory.Operator(v, (X0,)),
        OBJECT | {"indices": {(1, 1): X0}, "entries": {(1,): "a"}},
    ),
    Row("theory.Operator", "variables", lambda v: theory.Operator({}, v), OBJECT),
    optional("theory.Operator.__call__", "H", L, EXPRESSION),
    Row("theory.Operator.equals", "other", L.equals, OBJECT | {"in the plane": theory.Operator({}, theory.coordinates(2))}),
    Row("theory.Operator.conjugate", "log_weight", L.conjugate, EXPRESSION),
    Row("theory.Formula", "name", lambda v: theory.Formula(v, X0, ()), OBJECT, ("text",)),
    Row("theory.Formula", "expression", lambda v: theory.Formula("H", v, ()), OBJECT),
    Row("theory.Formula", "variables", lambda v: theory.Formula("H", X0, v), OBJECT),
    Row(
        "theory.Formula.__call__",
        "k",
        lambda v: theory.Formula("H", sympy.Symbol("k"), ())(k=v),
        {k: v for k, v in REAL.items() if k not in ("huge", "big fraction")},
    ),
    Row("theory.Formula.__call__", "points", L(X0), {k: v for k, v in points(np.ones((3, 1))).items() if k != "none"}),
]
