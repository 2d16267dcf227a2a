"""Every argument of every public function, crossed with what it must refuse: by name, in a few words, before work."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import sympy
from bad_values import (
    BOUNDS,
    DRIFT,
    EXPRESSION,
    FEATURES,
    GRID,
    INTEGER,
    METRIC,
    NAME,
    OBJECT,
    PAIRS,
    PATH,
    POSITIVE,
    REAL,
    SCALARS,
    SEEDS,
    SEQUENCE,
    TENSORS,
    THEORY_DIM,
    TIME,
    VECTORS,
    arrays,
    masked,
    points,
)
from scipy import sparse

import attnflow as af
from attnflow import families, learning, theory
from attnflow.attention import Normalization, perplexity
from attnflow.learning.tensor_files import write_tensors

CIRCLE, LINE, PLANE, BOX, GLOBE = af.Circle(), af.Euclidean(1), af.Euclidean(2), af.Box([(0, 1)]), af.Sphere(2)
P, UNIFORM, GAUSS = af.VonMises(1.0), af.Uniform(CIRCLE), af.Gaussian(0.0, 1.0)
F = af.SquaredDistance(CIRCLE)
LAYER = af.Attention(F, 0.1)
FLAT = af.Attention(af.SquaredDistance(LINE), 0.4)
LINKED = af.Attention(F, 9.0, mask=[[i, i] for i in range(6)])
SPARSE = af.Attention(F, 0.1, af.Sparse())
HEADS = af.MultiHead([LAYER, LAYER], [0.5, [[0.5]]])
VARIANTS = {
    "standard_attention": ("W_Q", "W_K", "W_V", "W_O"),
    "optimised_attention": ("W_Q", "W_K", "W_O"),
    "efficient_attention": ("W_Q", "W_O"),
    "super_attention": ("W_Q", "W_A", "W_O"),
}
TOKENS = np.linspace(0.1, 6.0, 6)[:, None]
SQUARE = np.ones((3, 3))
MODEL = str(Path(mkdtemp()) / "model.safetensors")
write_tensors(MODEL, {f"encoder.layer.0.attention.self.{part}.weight": np.eye(4) for part in ("query", "key")})
POINT = np.array([0.0, 0.0, 1.0])
PDE = af.DriftDiffusion(P)
WALLED = af.Heat(BOX)
START = lambda x: np.cos(x[..., 0])  # noqa: E731
FIELD = af.propagate(LAYER, P, START, 1)
EQUATION = PDE.solve(START, 0.1)
MOVED = af.Solution(np.array([0.0]), TOKENS[None])
STUDY = dict(f=F, density=P, initial=START, t=0.5, epsilons=[0.1], sizes=[100])
A_STUDY = af.ConvergenceStudy(**STUDY)
RESULT = af.StudyResult(A_STUDY, [], "finished")
X0, Y0, D, H0 = sympy.Symbol("x0"), sympy.Symbol("y0"), sympy.Symbol("d"), sympy.Function("H")(sympy.Symbol("x0"))
KERNEL = theory.isotropic_kernel(1)
THEORY_LAYER = theory.layer(KERNEL)
L = theory.drift_diffusion(1)
RING = (Y0**2 + sympy.Symbol("y1") ** 2 - 1) ** 2
RING_POINTS, RING_BOUNDS = [sympy.cos(sympy.Symbol("t0")), sympy.sin(sympy.Symbol("t0"))], [(0, 2 * sympy.pi)]


@dataclass
class Row:
    """One argument: who takes it, what it is called with, and the kinds of values it must refuse."""

    owner: str
    argument: str
    call: object
    kinds: dict
    skip: tuple = ()
    says: str = ""  # what the message begins with, where that is not the argument's name


def optional(owner, argument, call, kinds, *skip, says=""):
    """An argument that may be None."""
    return Row(owner, argument, call, kinds, ("none", *skip), says)


def solve(pde=PDE, **arguments):
    return pde.solve(**{"initial": START, "t": 0.1} | arguments)


def paths(function, **arguments):
    return function(**{"density": P, "points": TOKENS, "t": 0.1, "paths": 10} | arguments)


def study(**arguments):
    return af.ConvergenceStudy(**STUDY | arguments)


def additive(**arguments):
    return af.Additive(**{"a1": [1.0, 2.0], "a2": [0.0, 1.0], "P": [[1.0], [2.0]]} | arguments)


def variant(name, **arguments):
    return getattr(af, name)(**dict.fromkeys(VARIANTS[name], np.eye(2)) | {"heads": 1} | arguments)


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


def head_of(path=MODEL, layer=0, head=0, heads=2):
    return learning.from_safetensors(path, layer, head, heads)


LEARNING = [
    Row("learning.from_safetensors", "path", head_of, PATH),
    Row("learning.from_safetensors", "layer", lambda v: head_of(layer=v), INTEGER | {"absent": 1}),
    Row("learning.from_safetensors", "head", lambda v: head_of(head=v), INTEGER | {"absent": 2}),
    optional("learning.from_safetensors", "heads", lambda v: head_of(heads=v), INTEGER | {"zero": 0, "odd": 5}),
    Row("learning.symmetry", "path", learning.symmetry, PATH),
    Row("learning.hidden_states", "folder", lambda v: learning.hidden_states(v, ["a"]), PATH),
    Row("learning.hidden_states", "sentences", lambda v: learning.hidden_states(MODEL, v), SEQUENCE | {"numbers": [1]}),
    Row("learning.anatomy", "head", lambda v: learning.anatomy(v, np.eye(2)), OBJECT | {"other": F}),
    Row("learning.anatomy", "tokens", lambda v: learning.anatomy(head_of(), v), points(np.eye(4), same=np.ones((4, 4)))),
]

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

ATTENTION = [
    Row("Attention", "f", lambda v: af.Attention(v, 0.1), OBJECT),
    Row("Attention", "epsilon", lambda v: af.Attention(F, v), POSITIVE),
    Row("Attention", "normalization", lambda v: af.Attention(F, 0.1, v), NAME),
    Row("Attention", "residual", lambda v: af.Attention(F, 0.1, residual=v), POSITIVE | {"two": 2.0}),
    optional(
        "Attention",
        "mask",
        lambda v: af.Attention(F, 0.1, mask=v),
        {k: v for k, v in NAME.items() if k not in ("list", "array")}
        | {
            "dense": np.ones((6, 6)),
            "empty": [],
            "ragged": [[0, 1], [1]],
            "masked": np.ma.masked_equal([1, 2], 2),
            "nan": [0.0, np.nan],
            "mixed": [1, None],
            "half a node": [[0.0, 1.0]],
            "negative node": [[0, 1], [1, -1]],
            "one that sees nothing": [[0, 1], [2, 1]],
            "oblong": sparse.csr_array(np.eye(3, 4)),
            "edgeless": sparse.csr_array((4, 4)),
        },
    ),
    Row(
        "Attention",
        "mask",
        lambda v: af.Attention(F, 0.1, mask=v)(TOKENS),
        {
            "five labels": np.arange(5),
            "other tokens": [[i, i] for i in range(7)],
            "fewer": [[0, 0]],
            "four": sparse.eye_array(4),
        },
    ),
    Row(
        "Attention",
        "mask",
        lambda v: af.Attention(F, 0.1, "sinkhorn", mask=v),
        {"causal": "causal", "one way": [[0, 0], [0, 1], [1, 1]]},
    ),
    Row("Attention.__call__", "queries", lambda v: af.Attention(F, 0.1, mask="causal")(TOKENS, None, v), {"masked": TOKENS}),
    Row("Attention", "backend", lambda v: af.Attention(F, 0.1, backend=v), NAME),
    optional("Attention", "rtol", lambda v: af.Attention(F, 0.1, rtol=v), POSITIVE),
    Row("Attention", "dtype", lambda v: af.Attention(F, 0.1, dtype=v), NAME),
    Row("DensityCorrected", "alpha", af.DensityCorrected, REAL),
    optional("Sinkhorn", "tol", af.Sinkhorn, POSITIVE),
    Row("Sinkhorn", "max_iter", lambda v: af.Sinkhorn(None, v), INTEGER | {"zero": 0}),
    Row("Sinkhorn", "potentials", lambda v: af.Sinkhorn(None, 10, v), INTEGER | {"zero": 0, "three": 3}),
    Row("TopK", "k", af.TopK, INTEGER | {"zero": 0}),
    Row("TopK", "k", lambda v: af.Attention(F, 0.1, af.TopK(v))(TOKENS), {"all": 6, "more": 7}),
    optional("Sparse", "fraction", af.Sparse, POSITIVE | {"two": 2.0}),
    Row("Sparse", "fraction", lambda v: af.Attention(F, 0.1, af.Sparse(v))(TOKENS), {"less than one key": 0.16}),
    Row("Sparse", "alpha", lambda v: af.Sparse(None, v), REAL | {"softmax": 1.0, "less": 0.5}),
    Row("Screening", "fraction", af.Screening, POSITIVE | {"two": 2.0}),
    Row("Perplexity", "target", af.Perplexity, POSITIVE | {"one": 1.0}),
    Row("Perplexity", "target", lambda v: af.Attention(F, 0.1, af.Perplexity(v))(TOKENS), {"all": 6.0}),
    Row("Attention.__call__", "tokens", LAYER, points(TOKENS, flat=TOKENS[:, 0])),
    optional("Attention.__call__", "values", lambda v: LAYER(TOKENS, v), arrays(TOKENS, few=TOKENS[1:], function=START)),
    optional("Attention.__call__", "queries", lambda v: LAYER(TOKENS, None, v), points(TOKENS)),
    Row("Attention.weights", "tokens", LAYER.weights, points(TOKENS)),
    optional("Attention.weights", "queries", lambda v: LAYER.weights(TOKENS, v), points(TOKENS)),
    Row("Attention.vjp", "tokens", lambda v: FLAT.vjp(v, TOKENS, TOKENS), points(TOKENS, flat=TOKENS[:, 0])),
    optional("Attention.vjp", "values", lambda v: FLAT.vjp(TOKENS, v, TOKENS), arrays(TOKENS, few=TOKENS[1:], function=START)),
    Row("Attention.vjp", "cotangent", lambda v: FLAT.vjp(TOKENS, TOKENS, v), arrays(TOKENS, few=TOKENS[1:], wide=SQUARE)),
    Row("Attention.plan", "tokens", LAYER.plan, points(TOKENS)),
    Row("Attention.plan", "columns", lambda v: LAYER.plan(TOKENS, v), INTEGER | {"zero": 0}),
    Row("Attention.plan", "layers", lambda v: LAYER.plan(TOKENS, 1, v), INTEGER | {"zero": 0}),
    Row("Attention.bind", "tokens", LAYER.bind, points(TOKENS)),
    Row("Attention.operator", "tokens", LAYER.operator, points(TOKENS)),
    Row("Attention.generator", "tokens", LAYER.generator, points(TOKENS)),
    Row("Attention.spectrum", "tokens", lambda v: LAYER.spectrum(v, 2), points(TOKENS)),
    Row("Attention.spectrum", "k", lambda v: LAYER.spectrum(TOKENS, v), INTEGER | {"zero": 0, "five": 5}),
    Row("LayerSpectrum.at", "queries", LAYER.spectrum(TOKENS, 2).at, points(TOKENS)),
    optional("LayerSpectrum.metastable_sets", "count", LAYER.spectrum(TOKENS, 2).metastable_sets, INTEGER | {"three": 3}),
    optional("LayerSpectrum.plot", "ax", LAYER.spectrum(TOKENS, 2).plot, OBJECT),
    Row("DiffusionMap", "n_components", lambda v: af.DiffusionMap(v).fit(TOKENS), INTEGER | {"zero": 0, "four": 4}),
    Row("DiffusionMap", "epsilon", lambda v: af.DiffusionMap(epsilon=v).fit(TOKENS), POSITIVE),
    Row("DiffusionMap", "alpha", lambda v: af.DiffusionMap(alpha=v).fit(TOKENS), REAL),
    Row("DiffusionMap", "t", lambda v: af.DiffusionMap(t=v).fit(TOKENS), POSITIVE),
    optional(
        "Attention.bind",
        "log_mass",
        lambda v: LAYER.bind(TOKENS, v),
        arrays(TOKENS[:, 0], number=1.0, long=np.ones(7), gone=np.full(6, -np.inf)),
    ),
    Row(
        "MultiHead",
        "layers",
        af.MultiHead,
        SEQUENCE
        | {"numbers": [1] * 500, "one": LAYER, "residual": [af.Attention(F, 0.1, residual=0.5)], "spaces": [LAYER, FLAT]},
    ),
    optional(
        "MultiHead",
        "mixing",
        lambda v: af.MultiHead([LAYER], v),
        SEQUENCE
        | {
            "text in list": ["a"],
            "complex": [1j],
            "two": [1.0, 1.0],
            "vector": [np.ones(2)],
            "masked": [masked(np.eye(2))],
            "factors": [(np.ones((2, 1)), np.ones((2, 2)))],
            "slice": [(slice(0, 3), np.ones((2, 4)))],
            "slice alone": [slice(0, 3)],
        },
    ),
    Row("MultiHead", "residual", lambda v: af.MultiHead([LAYER], residual=v), POSITIVE | {"two": 2.0}),
    Row("MultiHead.__call__", "tokens", HEADS, points(TOKENS, flat=TOKENS[:, 0])),
    optional("MultiHead.__call__", "values", lambda v: HEADS(TOKENS, v), arrays(TOKENS, few=TOKENS[1:], function=START)),
    optional("MultiHead.__call__", "queries", lambda v: HEADS(TOKENS, None, v), points(TOKENS)),
    Row("MultiHead.bind", "tokens", HEADS.bind, points(TOKENS)),
    optional(
        "MultiHead.bind",
        "log_mass",
        lambda v: HEADS.bind(TOKENS, v),
        arrays(TOKENS[:, 0], number=1.0, long=np.ones(7), gone=np.full(6, -np.inf)),
    ),
    *(
        Row(
            name,
            W,
            lambda v, name=name, W=W: variant(name, **{W: v}),
            arrays(np.eye(2), bools=np.eye(2) > 0, oblong=np.ones((2, 3))),
        )
        for name, matrices in VARIANTS.items()
        for W in matrices
    ),
    *(
        Row(name, argument, lambda v, name=name, argument=argument: variant(name, **{argument: v}), kinds)
        for name in VARIANTS
        for argument, kinds in (("heads", INTEGER | {"zero": 0, "three": 3}), ("residual", POSITIVE | {"two": 2.0}))
    ),
    *(Row(name, "options", lambda v, name=name: variant(name, backend=v), NAME, says="backend") for name in VARIANTS),
    Row("attention_costs", "width", lambda v: af.attention_costs(v, 8), INTEGER | {"zero": 0}),
    Row("attention_costs", "n_tokens", lambda v: af.attention_costs(8, v), INTEGER | {"zero": 0}),
    Row("epsilon_for_perplexity", "f", lambda v: af.epsilon_for_perplexity(v, TOKENS), OBJECT),
    Row("epsilon_for_perplexity", "tokens", lambda v: af.epsilon_for_perplexity(F, v), points(TOKENS)),
    Row("epsilon_for_perplexity", "target", lambda v: af.epsilon_for_perplexity(F, TOKENS, v), POSITIVE | {"more": 7.0}),
    Row("perplexity", "bound", perplexity, OBJECT),
]

PARTICLES = [
    Row("propagate", "layer", lambda v: af.propagate(v, TOKENS, TOKENS, 1), OBJECT),
    Row("propagate", "tokens", lambda v: af.propagate(LAYER, v, TOKENS, 1), points(TOKENS)),
    Row("propagate", "values", lambda v: af.propagate(LAYER, TOKENS, v, 1), arrays(TOKENS, few=TOKENS[1:])),
    Row("propagate", "values", lambda v: af.propagate(LAYER, P, v, 1), FEATURES),
    Row("propagate", "values", lambda v: af.propagate(LAYER, TOKENS, v, 1), FEATURES),
    Row("propagate", "layers", lambda v: af.propagate(LAYER, TOKENS, TOKENS, v), INTEGER),
    Row("propagate", "save_every", lambda v: af.propagate(LAYER, TOKENS, TOKENS, 1, v), INTEGER | {"zero": 0}),
    optional("propagate", "grid", lambda v: af.propagate(LAYER, P, START, 1, grid=v), GRID | {"coarse": 4}),
    Row("evolve", "layer", lambda v: af.evolve(v, TOKENS, 1), OBJECT),
    Row("evolve", "tokens", lambda v: af.evolve(FLAT, v, 1), points(TOKENS)),
    Row("evolve", "layers", lambda v: af.evolve(FLAT, TOKENS, v), INTEGER),
    optional("evolve", "value_matrix", lambda v: af.evolve(FLAT, TOKENS, 1, v), arrays([[1.0]], square=np.eye(2), number=1.0)),
    optional("evolve", "constrain", lambda v: af.evolve(FLAT, TOKENS, 1, constrain=v), NAME),
    Row("evolve", "save_every", lambda v: af.evolve(FLAT, TOKENS, 1, save_every=v), INTEGER | {"zero": 0}),
    Row(
        "propagate", "values", lambda v: af.propagate(HEADS, TOKENS, v, 1), arrays(TOKENS, few=TOKENS[1:], two=np.ones((6, 2)))
    ),
    optional("evolve", "value_matrix", lambda v: af.evolve(af.MultiHead([FLAT]), TOKENS, 1, v), {"matrix": np.eye(1)}),
    optional("evolve", "norm", lambda v: af.evolve(FLAT, TOKENS, 1, norm=v), NAME),
    Row(
        "evolve",
        "gain",
        lambda v: af.evolve(FLAT, TOKENS, 1, norm="pre", gain=v),
        arrays([1.0], long=np.ones(2), square=np.eye(1)),
    ),
    optional(
        "evolve",
        "map",
        lambda v: af.evolve(FLAT, TOKENS, 1, map=v),
        FEATURES | {"two columns": lambda x: np.ones((len(x), 2)), "one axis": lambda x: x[:, 0]},
    ),
    Row("predicted_fraction", "layer", lambda v: af.predicted_fraction(v, P, 100), OBJECT | {"softmax": LAYER}),
    Row("predicted_fraction", "density", lambda v: af.predicted_fraction(SPARSE, v, 100), OBJECT | {"line": GAUSS}),
    Row("predicted_fraction", "n_tokens", lambda v: af.predicted_fraction(SPARSE, P, v), POSITIVE),
    optional("limit", "n_tokens", lambda v: af.limit(SPARSE, P, v), POSITIVE),
    Row("limit", "n_tokens", lambda v: af.limit(SPARSE, P, v), {"none": None}),
    optional("propagate", "n_tokens", lambda v: af.propagate(SPARSE, P, START, 1, n_tokens=v), POSITIVE),
    Row("propagate", "n_tokens", lambda v: af.propagate(SPARSE, TOKENS, TOKENS, 1, n_tokens=v), {"tokens": 6}),
    Row("propagate", "n_tokens", lambda v: af.propagate(SPARSE, P, START, 1, n_tokens=v), {"none": None}),
    Row("limit", "radius", lambda v: af.limit(LINKED, UNIFORM, radius=v), POSITIVE),
    Row("limit", "radius", lambda v: af.limit(LAYER, P, radius=v), {"no edges": 0.1}),
    Row("limit", "mixing", lambda v: af.limit(af.MultiHead([LAYER, LAYER], v), P), {"sum": [0.5, 0.6]}),
    Row(
        "evolve_continuous",
        "layer",
        lambda v: af.evolve_continuous(v, TOKENS, 1),
        OBJECT | {"residual": af.Attention(FLAT.f, 0.1, residual=0.5)},
    ),
    Row("evolve_continuous", "tokens", lambda v: af.evolve_continuous(FLAT, v, 1), points(TOKENS)),
    Row("evolve_continuous", "t", lambda v: af.evolve_continuous(FLAT, TOKENS, v), TIME),
    Row("evolve_continuous", "method", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, v), NAME),
    Row("evolve_continuous", "rtol", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, rtol=v), POSITIVE),
    Row("evolve_continuous", "atol", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, atol=v), POSITIVE),
    optional(
        "evolve_continuous", "value_matrix", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, value_matrix=v), arrays([[1.0]])
    ),
    optional("evolve_continuous", "constrain", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, constrain=v), NAME),
    *(
        Row(name, argument, lambda v, call=call, argument=argument: paths(call, **{argument: v}), kinds)
        for name, call in (("langevin", af.langevin), ("feynman_kac", lambda **a: af.feynman_kac(initial=START, **a)))
        for argument, kinds in (
            ("density", OBJECT),
            ("points", points(TOKENS)),
            ("t", TIME),
            ("paths", INTEGER | {"one": 1}),
            ("drift", REAL),
            ("rng", SEEDS),
            ("steps", {k: v for k, v in INTEGER.items() if k != "none"} | {"zero": 0}),
        )
    ),
    Row("feynman_kac", "initial", lambda v: paths(af.feynman_kac, initial=v), FEATURES),
]

EQUATIONS = [
    *(
        Row(kind.__name__, "density", lambda v, kind=kind: kind(v), OBJECT)
        for kind in (af.DriftDiffusion, af.ConformalHeat, af.FokkerPlanck)
    ),
    *(
        Row(kind.__name__, "drift", lambda v, kind=kind: kind(P, v), REAL)
        for kind in (af.DriftDiffusion, af.ConformalHeat, af.FokkerPlanck)
    ),
    *(
        optional(
            kind.__name__, "mobility", lambda v, kind=kind: kind(P, 2.0, v), SCALARS | {"negative": lambda x: -np.ones(len(x))}
        )
        for kind in (af.DriftDiffusion, af.FokkerPlanck)
    ),
    Row("Heat", "space", af.Heat, OBJECT | {"endless": LINE}),
    Row("General", "density", lambda v: af.General(v, lambda x: x), OBJECT),
    Row("General", "velocity", lambda v: af.General(P, v), VECTORS),
    optional(
        "General", "mobility", lambda v: af.General(P, np.ones_like, 2.0, v), SCALARS | {"negative": lambda x: -np.ones(len(x))}
    ),
    Row("General", "drift", lambda v: af.General(P, np.ones_like, v), REAL),
    Row("Heads", "equations", lambda v: af.Heads(v, [1.0]), SEQUENCE | {"numbers": [1] * 500, "one": PDE}),
    Row(
        "Heads",
        "mixing",
        lambda v: af.Heads([PDE], v),
        SEQUENCE
        | {
            "text in list": ["a"],
            "complex": [1j],
            "two": [1.0, 1.0],
            "oblong": [np.ones((2, 3))],
            "masked": [masked(np.eye(2))],
        },
    ),
    *(
        Row(f"{type(pde).__name__}.solve", "initial", lambda v, pde=pde: solve(pde, initial=v), FEATURES)
        for pde in (PDE, af.FokkerPlanck(P), af.Heat(GLOBE))
    ),
    Row("DriftDiffusion.solve", "initial without grid", lambda v: solve(initial=v), {"array": np.ones(9)}, says="grid"),
    *(
        Row(
            f"{type(pde).__name__}.solve",
            "initial",
            lambda v, pde=pde: solve(pde, initial=v, grid=9),
            arrays(np.ones(9), number=1.0, long=np.ones(8), cube=np.ones((9, 9, 9))),
        )
        for pde in (PDE, af.FokkerPlanck(P))
    ),
    *(
        Row(f"{type(pde).__name__}.solve", "t", lambda v, pde=pde: solve(pde, t=v), TIME)
        for pde in (PDE, af.FokkerPlanck(P), af.General(P, np.ones_like))
    ),
    optional("DriftDiffusion.solve", "grid", lambda v: solve(grid=v), GRID | {"two": 2}),
    optional("Heat.solve", "grid", lambda v: solve(af.Heat(GLOBE), grid=v), GRID),
    Row("DriftDiffusion.solve", "rtol", lambda v: solve(rtol=v), POSITIVE),
    Row("DriftDiffusion.solve", "method", lambda v: solve(method=v), NAME),
    Row("DriftDiffusion.solve", "backend", lambda v: solve(backend=v), NAME),
    *(
        optional(
            name,
            "boundary",
            call,
            {"number": 3, "text": "a", "unknown": ("neumann", 1.0), "mapping": {1: 2}, "many": ["no-flux"] * 500},
        )
        for name, call in (
            ("DriftDiffusion.solve", lambda v: solve(WALLED, boundary=v)),
            ("DriftDiffusion.operator", lambda v: WALLED.operator(5, v)),
            ("DriftDiffusion.spectrum", lambda v: WALLED.spectrum(2, boundary=v)),
            ("FokkerPlanck.solve", lambda v: solve(af.FokkerPlanck(af.Uniform(BOX)), boundary=v)),
        )
    ),
    Row(
        "DriftDiffusion.solve",
        "boundary",
        lambda v: solve(WALLED, boundary=("dirichlet", v)),
        {k: v for k, v in arrays([1.0, 2.0]).items()} | {k: v for k, v in FEATURES.items() if k not in ("number", "infinite")},
    ),
    Row("DriftDiffusion.operator", "grid", PDE.operator, GRID | {"none": None, "two": 2}),
    Row("DriftDiffusion.spectrum", "k", PDE.spectrum, INTEGER | {"zero": 0}),
    optional("DriftDiffusion.spectrum", "grid", lambda v: PDE.spectrum(2, v), GRID),
    Row("limit", "layer", lambda v: af.limit(v, P), OBJECT),
    Row("limit", "density", lambda v: af.limit(LAYER, v), OBJECT | {"elsewhere": GAUSS}),
    *(
        Row(
            name,
            argument,
            lambda v, call=call, argument=argument: call(
                **{"layer": LAYER, "density": P, "initial": START, "t": 0.5} | {argument: v}
            ),
            kinds,
        )
        for name, call in (
            ("predicted_bias", af.predicted_bias),
            ("predicted_noise", lambda **a: af.predicted_noise(n_tokens=100, **a)),
        )
        for argument, kinds in (
            ("layer", OBJECT),
            ("density", OBJECT | {"elsewhere": GAUSS}),
            ("initial", FEATURES),
            ("t", REAL | {"negative": -1.0, "list": [0.1, 0.2], "array": np.ones(2)}),
        )
    ),
    Row("predicted_noise", "n_tokens", lambda v: af.predicted_noise(LAYER, P, START, 0.1, v), INTEGER | {"zero": 0}),
    Row("predicted_rates", "layer", lambda v: af.predicted_rates(v, P, 2, 100), OBJECT),
    Row("predicted_rates", "density", lambda v: af.predicted_rates(LAYER, v, 2, 100), OBJECT | {"elsewhere": GAUSS}),
    Row("predicted_rates", "k", lambda v: af.predicted_rates(LAYER, P, v, 100), INTEGER | {"zero": 0, "many": 101}),
    Row("predicted_rates", "n_tokens", lambda v: af.predicted_rates(LAYER, P, 2, v), INTEGER | {"zero": 0}),
    Row("MeanField", "layer", lambda v: af.MeanField(v, GAUSS), OBJECT),
    Row("MeanField", "density", lambda v: af.MeanField(FLAT, v), OBJECT | {"elsewhere": P}),
    Row("MeanField.solve", "t", lambda v: af.MeanField(FLAT, GAUSS).solve(v), TIME),
    optional("MeanField.solve", "grid", lambda v: af.MeanField(FLAT, GAUSS).solve(0.1, v), GRID | {"coarse": 4}),
    Row("MeanField.solve", "rtol", lambda v: af.MeanField(FLAT, GAUSS).solve(0.1, rtol=v), POSITIVE),
]

RESULTS = [
    Row("Solution.at", "points", FIELD.at, points(TOKENS)),
    optional(
        "Solution.at",
        "t",
        lambda v: FIELD.at(TOKENS, v),
        REAL
        | {
            "elsewhere": 0.123,
            "in a list": [0.0, True],
            "nan in list": [np.nan],
            "matrix": np.zeros((2, 2)),
            "masked": masked([0.0, 0.0]),
        },
    ),
    Row("Solution.error", "points", FIELD.error, {"no estimate": TOKENS}),
    Row("Solution.error", "points", EQUATION.error, points(TOKENS)),
    optional("Solution.frames", "t", FIELD.frames, REAL | {"elsewhere": 0.123}),
    optional("Solution.plot", "ax", FIELD.plot, OBJECT),
    Row("Solution.plot", "column", lambda v: FIELD.plot(column=v), INTEGER | {"one": 1}),
    optional("Solution.plot", "t", lambda v: FIELD.plot(t=v), REAL | {"elsewhere": 0.123}),
    Row("Solution.animate", "column", FIELD.animate, INTEGER | {"one": 1}),
    optional("Solution.animate", "t", lambda v: FIELD.animate(t=v), REAL | {"elsewhere": 0.123}),
    optional("Comparison.plot", "ax", af.compare(FIELD, FIELD).plot, OBJECT),
    optional("StudyResult.plot", "axes", RESULT.plot, OBJECT | {"three": [1, 2, 3]}),
    Row("Spectrum.at", "points", PDE.spectrum(3).at, points(TOKENS)),
    optional("Spectrum.metastable_sets", "count", PDE.spectrum(3).metastable_sets, INTEGER | {"zero": 0, "four": 4}),
    Row("predicted_bias(...)", "points", af.predicted_bias(LAYER, P, START, 0.1), points(TOKENS)),
    Row("predicted_noise(...)", "points", af.predicted_noise(LAYER, P, START, 0.1, 100), points(TOKENS)),
    Row("Solution.save", "path", FIELD.save, PATH),
    Row("load", "path", af.load, PATH),
    Row("compare", "a", lambda v: af.compare(v, FIELD), OBJECT | {"moving": MOVED}),
    Row("compare", "b", lambda v: af.compare(FIELD, v), OBJECT | {"moving": MOVED}),
    optional(
        "compare",
        "density",
        lambda v: af.compare(FIELD, FIELD, v),
        OBJECT
        | {"line": GAUSS, "another circle": af.Uniform(af.Circle(1.0)), "sphere": af.Uniform(GLOBE), "box": af.Uniform(BOX)},
    ),
    Row("parity", "layer", lambda v: af.parity(v, TOKENS, TOKENS), OBJECT),
    Row("parity", "tokens", lambda v: af.parity(LAYER, v, TOKENS), points(TOKENS)),
    Row("parity", "values", lambda v: af.parity(LAYER, TOKENS, v), arrays(TOKENS)),
    optional(
        "parity",
        "backends",
        lambda v: af.parity(LAYER, TOKENS, TOKENS, v),
        SEQUENCE | {"unknown": ["cuda"], "numbers": [3] * 500},
    ),
    *(
        Row("ConvergenceStudy", name, lambda v, name=name: study(**{name: v}), kinds)
        for name, kinds in (
            ("f", OBJECT),
            ("density", OBJECT),
            ("initial", FEATURES | {"zero": lambda x: np.zeros(len(x))}),
            ("t", POSITIVE),
            (
                "epsilons",
                SEQUENCE
                | {
                    "number": 0.1,
                    "bool": [True],
                    "text in list": ["0.1"],
                    "negative": [-1.0],
                    "nan": [np.nan],
                    "huge": [10**400],
                    "masked": masked([0.1, 0.2]),
                    "nested": [[0.1]],
                },
            ),
            (
                "sizes",
                SEQUENCE
                | {
                    "one": [1],
                    "half": [10.5],
                    "nan": [np.nan],
                    "minus": [-np.inf],
                    "bool": [True],
                    "huge": [10**400],
                    "masked": masked([100, 200]),
                },
            ),
            ("seeds", INTEGER | {"zero": 0}),
            ("normalization", NAME | {"sparse": af.TopK(2)}),
            ("seed", INTEGER),
        )
    ),
    optional("ConvergenceStudy", "grid", lambda v: study(grid=v), GRID),
    optional("ConvergenceStudy.run", "store", lambda v: A_STUDY.run(store=v, progress=False), PATH),
    Row("ConvergenceStudy.run", "n_jobs", lambda v: A_STUDY.run(n_jobs=v, progress=False), INTEGER | {"zero": 0}),
    optional("ConvergenceStudy.run", "client", lambda v: A_STUDY.run(client=v, progress=False), OBJECT),
    Row("ConvergenceStudy.layer", "epsilon", A_STUDY.layer, POSITIVE),
    Row("ConvergenceStudy.layers", "epsilon", A_STUDY.layers, POSITIVE),
    Row("ConvergenceStudy.residual", "epsilon", A_STUDY.residual, POSITIVE),
    Row("StudyResult.to_csv", "path", RESULT.to_csv, PATH),
    Row("StudyResult.slope", "axis", RESULT.slope, NAME),
    Row("StudyResult.constant", "axis", RESULT.constant, NAME),
    optional("StudyResult.constant", "epsilon", lambda v: RESULT.constant("size", v), POSITIVE | {"another": 0.3}),
]

FAMILIES = [
    *(
        Row(
            f"families.{f.__name__}",
            "M",
            f,
            arrays(SQUARE, bools=SQUARE > 0, flat=SQUARE[0], negative=-SQUARE, zeros=0 * SQUARE),
        )
        for f in (families.rows, families.columns, families.two_sided, families.overall)
    ),
    Row(
        "families.inflate",
        "M",
        lambda v: families.inflate(v, 2.0),
        arrays(SQUARE, bools=SQUARE > 0, flat=SQUARE[0], negative=-SQUARE),
    ),
    Row("families.inflate", "r", lambda v: families.inflate(SQUARE, v), POSITIVE),
    Row(
        "families.exponential",
        "M",
        lambda v: families.exponential(v, 1.0),
        arrays(SQUARE, bools=SQUARE > 0, flat=SQUARE[0], far=800 * SQUARE),
    ),
    Row(
        "families.exponential",
        "sigma",
        lambda v: families.exponential(SQUARE, v),
        POSITIVE | {"two": [1.0, 2.0], "a zero": [1.0, 0.0, 1.0]},
    ),
    *(
        Row(f"families.{f.__name__}", "tokens", lambda v, f=f: f(v, 2.0), points(TOKENS, flat=TOKENS[:, 0]), ("columns",))
        for f in (families.diffusion_map, families.laplacian_eigenmap, families.mean_shift)
    ),
    *(
        Row(f"families.{f.__name__}", "epsilon", lambda v, f=f: f(TOKENS, v), POSITIVE)
        for f in (families.diffusion_map, families.laplacian_eigenmap, families.mean_shift)
    ),
    *(
        Row(f"families.{f.__name__}", "tokens", lambda v, f=f, k=k: f(v, k), points(TOKENS, flat=TOKENS[:, 0]), ("columns",))
        for f, k in ((families.sne, 2.5), (families.tsne, 2.5), (families.umap, 3), (families.nearest, 2))
    ),
    *(
        Row(f"families.{f.__name__}", "perplexity", lambda v, f=f: f(TOKENS, v), REAL | {"one": 1.0, "too many": 5.0})
        for f in (families.sne, families.tsne)
    ),
    Row("families.umap", "neighbors", lambda v: families.umap(TOKENS, v), INTEGER | {"itself": 1, "too many": 7}),
    Row("families.nearest", "k", lambda v: families.nearest(TOKENS, v), INTEGER | {"zero": 0, "too many": 7}),
    Row("families.student", "embedding", families.student, points(TOKENS, flat=TOKENS[:, 0], one=TOKENS[:1]), ("columns",)),
    Row(
        "families.fuzzy_c_means",
        "tokens",
        lambda v: families.fuzzy_c_means(v, TOKENS[:2], 2.0),
        points(TOKENS, flat=TOKENS[:, 0]),
        ("columns",),
    ),
    Row(
        "families.fuzzy_c_means",
        "centres",
        lambda v: families.fuzzy_c_means(TOKENS, v, 2.0),
        points(TOKENS[:2], flat=TOKENS[:2, 0]),
    ),
    Row("families.fuzzy_c_means", "m", lambda v: families.fuzzy_c_means(TOKENS, TOKENS[:2], v), POSITIVE | {"one": 1.0}),
    Row(
        "families.markov_clustering",
        "matrix",
        lambda v: families.markov_clustering(v, 2.0),
        arrays(SQUARE, bools=SQUARE > 0, flat=SQUARE[0], oblong=SQUARE[:2], negative=-SQUARE, alone=np.diag([1.0, 1.0, 0.0])),
    ),
    Row("families.markov_clustering", "inflation", lambda v: families.markov_clustering(SQUARE, v), POSITIVE),
]

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


def classifier(**arguments):
    """Of two classes, trained for one iteration without PyTorch."""
    options = {"solver": "lbfgs", "epochs": 1} | arguments
    return af.learning.L2Attention(**options).fit(TOKENS, TOKENS[:, 0] > 3)


LEARNED = classifier()
CLASSIFIERS = [
    *(
        Row("learning.L2Attention", name, lambda v, name=name: classifier(**{name: v}), INTEGER | {"zero": 0})
        for name in ("width", "blocks", "epochs", "n_iter_no_change")
    ),
    Row("learning.L2Attention", "learning_rate", lambda v: classifier(learning_rate=v), POSITIVE),
    *(
        Row("learning.L2Attention", name, lambda v, name=name: classifier(**{name: v}), REAL | {"negative": -1.0})
        for name in ("weight_decay", "tol")
    ),
    Row("learning.L2Attention", "solver", lambda v: classifier(solver=v), NAME),
    optional(
        "learning.MetricAttention",
        "lipschitz",
        lambda v: af.learning.MetricAttention(lipschitz=v).fit(TOKENS, TOKENS[:, 0] > 3),
        POSITIVE | {"one": 1.0, "two": 2},
    ),
    Row("learning.L2Attention.project", "n", lambda v: LEARNED.project(TOKENS, v), INTEGER | {"zero": 0, "eleven": 11}),
    Row("learning.L2Attention.save", "path", LEARNED.save, PATH),
    Row("learning.load", "path", af.learning.load, PATH),
    optional(
        "learning.L2Attention.fit",
        "edges",
        lambda v: af.learning.L2Attention(solver="lbfgs", epochs=1).fit(TOKENS, TOKENS[:, 0] > 3, v),
        {
            "text": "a",
            "one column": [[0], [1]],
            "fractions": [[0.5, 1.0]],
            "beyond": [[0, 6]],
            "negative": [[-1, 0]],
            "ragged": [[0], [0, 1]],
            "empty": [],
            "from one token": [[0, 1]],
        },
    ),
]

ROWS = [
    *GEOMETRY,
    *DENSITIES,
    *SIMILARITY,
    *LEARNING,
    *CLASSIFIERS,
    *ATTENTION,
    *PARTICLES,
    *EQUATIONS,
    *RESULTS,
    *FAMILIES,
    *THEORY,
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.owner}({row.argument})")
def test_what_is_no_such_argument_is_refused_by_name_in_a_few_words(row):
    wrong = {}
    for kind, value in row.kinds.items():
        if kind in row.skip:
            continue
        try:
            row.call(value)
            wrong[kind] = "accepted"
        except (TypeError, ValueError) as error:
            message = str(error)
            if not message.startswith(row.says or row.argument) or len(message) > 400:
                wrong[kind] = message[:500]
    assert wrong == {}


def test_the_table_is_long():
    assert sum(len(set(row.kinds) - set(row.skip)) for row in ROWS) > 3000


# what is public but takes its arguments from the inside of the package, already checked, and what takes anything
INTERNAL = {
    "project",
    "from_unit_cube",
    "probe_points",
    "check",
    "query_features",
    "key_features",
    "features_vjp",
    "evaluate",
    "paired",
    "check_queries",
    "diagonal",
    "transposed",
    "ranges",
    "cells",
    "log_weight",
    "uniform",
    "check_solvable",
    "formal_limit",
    "ingredients",
    "token_stream",
    "fit",  # of estimators: what scikit-learn refuses, by its own checks in tests/learning
    "fit_transform",
    "transform",
}
ANYTHING = {"progress", "self", "cls", "args", "kwargs"}
RESULTS_ONLY = {"Comparison", "Solution", "StudyResult"}  # made by functions; what files may hold is tested beside them


def arguments_of(module, prefix=""):
    """(owner, argument) of all public functions, constructors and methods, a method under the class that defines it."""
    for name in [*module.__all__, *(["DiffusionMap"] if module is af else [])]:  # which a star does not import
        thing = getattr(module, name)
        if not callable(thing):
            continue
        if inspect.isfunction(thing) or name not in RESULTS_ONLY:
            yield from ((f"{prefix}{name}", a) for a in inspect.signature(thing).parameters if a not in ANYTHING)
        asked_by_layers = inspect.isclass(thing) and issubclass(thing, Normalization)
        for method, function in vars(thing).items() if inspect.isclass(thing) and not asked_by_layers else ():
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function) and method not in INTERNAL and not method.startswith("_"):
                parameters = list(inspect.signature(function).parameters)[1:]
                yield from ((f"{prefix}{name}.{method}", a) for a in parameters if a not in ANYTHING)


def test_no_argument_of_a_public_function_is_left_out():
    covered = {(row.owner, row.argument) for row in ROWS}
    # a method that a class inherits, or defines anew with the same argument, is covered by any class's
    methods = {(owner.rpartition(".")[2], argument) for owner, argument in covered if "." in owner}
    missing = [
        (owner, argument)
        for owner, argument in arguments_of(af)
        if (owner, argument) not in covered and not ("." in owner and (owner.rpartition(".")[2], argument) in methods)
    ]
    assert missing == []
    results = {"FuzzyCMeans", "MarkovClustering", "MeanShift"}
    missing = [
        pair for pair in arguments_of(families, "families.") if pair[0].split(".")[1] not in results and pair not in covered
    ]
    assert missing == []
    made = {
        "Kernel",
        "Layer",
        "Operator",
        "Process",
        "HeadSum",
        "TokenFlow",
        "Moments",
        "Identity",
        "ConformalForm",
        "DisplacedLimit",
        "ManifoldAverage",
        "Formula",
    }  # results of the derivations
    missing = [
        (owner, argument)
        for owner, argument in arguments_of(theory, "theory.")
        if owner.split(".")[1] not in made and (owner, argument) not in covered
    ]
    assert missing == []
