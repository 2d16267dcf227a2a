"""Of tokens through layers, and of random paths."""

import numpy as np
from bad_values import (
    FEATURES,
    GRID,
    INTEGER,
    NAME,
    OBJECT,
    PATH,
    POSITIVE,
    REAL,
    SEEDS,
    TIME,
    arrays,
    points,
)

import attnflow as af

from .rows import FLAT, GAUSS, HEADS, LAYER, LINKED, SPARSE, START, TOKENS, UNIFORM, P, Row, optional


def paths(function, **arguments):
    return function(**{"density": P, "points": TOKENS, "t": 0.1, "paths": 10} | arguments)


DOT, SUMS = af.Attention(af.DotProduct(), 0.5), af.Attention(FLAT.f, 0.5, "none")
NORMAL = af.GaussianTokens([0.0], [[1.0]])

WATCHED = {
    "propagate": lambda **how: af.propagate(LAYER, TOKENS, TOKENS, 1, **how),
    "evolve": lambda **how: af.evolve(FLAT, TOKENS, 1, **how),
    "evolve_continuous": lambda **how: af.evolve_continuous(FLAT, TOKENS, 1, **how),
    "langevin": lambda **how: paths(af.langevin, **how),
    "DriftDiffusion.solve": lambda **how: af.Heat(af.Circle()).solve(START, 0.1, **how),
    "FokkerPlanck.solve": lambda **how: af.FokkerPlanck(P).solve(START, 0.1, **how),
}
FEWER = {"number": 0} | {key: value for key, value in NAME.items() if key != "number"}  # a number of layers is one

PARTICLES = [
    *(Row(name, "save", lambda v, call=call: call(save=v), FEWER) for name, call in WATCHED.items()),
    Row("propagate", "save", lambda v: af.propagate(LAYER, TOKENS, TOKENS, 1, 2, save=v), {"beside save_every": 2}),
    *(optional(name, "callback", lambda v, call=call: call(callback=v), OBJECT, "class") for name, call in WATCHED.items()),
    *(
        optional(
            name,
            "store",
            lambda v, call=call: call(store=v),
            PATH | {"missing folder": "no such folder/run", "a file": __file__, "a folder": "/", "single": "run.npz"},
        )
        for name, call in WATCHED.items()
    ),
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
    optional("predicted_bias", "n_tokens", lambda v: af.predicted_bias(SPARSE, P, START, 0.1, v), POSITIVE),
    Row("predicted_bias", "n_tokens", lambda v: af.predicted_bias(SPARSE, P, START, 0.1, v), {"none": None}),
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
    Row("evolve_continuous", "noise", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, noise=v), REAL | {"negative": -0.1}),
    Row("evolve_continuous", "rng", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, noise=0.1, rng=v), SEEDS),
    optional(
        "evolve_continuous", "steps", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, noise=0.1, steps=v), INTEGER | {"zero": 0}
    ),
    Row("evolve_continuous", "steps", lambda v: af.evolve_continuous(FLAT, TOKENS, 1, steps=v), {"no noise": 10}),
    Row("evolve", "constrain", lambda v: af.evolve(SUMS, TOKENS, 1, constrain=v), {"none": None}),
    Row("limit", "normalization", lambda v: af.limit(v, GAUSS), {"none": SUMS}),
    Row("GaussianTokens", "mean", lambda v: af.GaussianTokens(v, [[1.0]]), arrays([0.0], number=0.0)),
    Row("GaussianTokens", "cov", lambda v: af.GaussianTokens([0.0], v), arrays([[1.0]], negative=[[-1.0]], square=np.eye(2))),
    Row("GaussianTokens.evolve", "layer", lambda v: NORMAL.evolve(v, 1), OBJECT),
    Row("GaussianTokens.evolve", "layers", lambda v: NORMAL.evolve(FLAT, v), INTEGER),
    optional("GaussianTokens.evolve", "value_matrix", lambda v: NORMAL.evolve(FLAT, 1, v), arrays([[1.0]], square=np.eye(2))),
    Row("NoisyTokens", "layer", lambda v: af.NoisyTokens(v, 1), OBJECT | {"f": FLAT}),
    Row("NoisyTokens", "dim", lambda v: af.NoisyTokens(DOT, v), INTEGER | {"zero": 0}),
    Row("NoisyTokens", "noise", lambda v: af.NoisyTokens(DOT, 1, v), POSITIVE),
    Row("NoisyTokens.branch", "orders", lambda v: af.NoisyTokens(DOT, 1).branch(v), arrays([0.5], one=[1.0], number=0.5)),
    Row("NoisyTokens.density", "order", lambda v: af.NoisyTokens(DOT, 1).density(v), REAL | {"one": 1.0, "zero": 0.0}),
    Row("NoisyTokens.states", "coupling", lambda v: af.NoisyTokens(DOT, 1).states(v), REAL | {"large": 1e6}),
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
    Row("error_bars", "layer", lambda v: af.error_bars(v, TOKENS, TOKENS, 1), OBJECT),
    Row(
        "error_bars", "tokens", lambda v: af.error_bars(LAYER, v, TOKENS, 1), points(TOKENS) | {"one": TOKENS[:1], "density": P}
    ),
    Row("error_bars", "values", lambda v: af.error_bars(LAYER, TOKENS, v, 1), arrays(TOKENS, few=TOKENS[1:])),
    Row("error_bars", "values", lambda v: af.error_bars(LAYER, TOKENS, v, 1), FEATURES),
    Row("error_bars", "layers", lambda v: af.error_bars(LAYER, TOKENS, TOKENS, v), INTEGER | {"zero": 0}),
    optional("error_bars", "queries", lambda v: af.error_bars(LAYER, TOKENS, TOKENS, 1, v), points(TOKENS)),
    optional("error_bars", "rng", lambda v: af.error_bars(LAYER, TOKENS, TOKENS, 1, rng=v), SEEDS),
    Row("extrapolate", "layer", lambda v: af.extrapolate(v, P, START, 1), OBJECT),
    Row("extrapolate", "tokens", lambda v: af.extrapolate(LAYER, v, TOKENS, 1), points(TOKENS)),
    Row("extrapolate", "values", lambda v: af.extrapolate(LAYER, TOKENS, v, 1), arrays(TOKENS, few=TOKENS[1:])),
    Row("extrapolate", "values", lambda v: af.extrapolate(LAYER, P, v, 1), FEATURES),
    Row("extrapolate", "layers", lambda v: af.extrapolate(LAYER, P, START, v), INTEGER | {"zero": 0}),
    optional("extrapolate", "rng", lambda v: af.extrapolate(LAYER, P, START, 1, rng=v), SEEDS),
]
