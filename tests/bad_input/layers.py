"""Of layers, their normalisations and heads."""

import numpy as np
from bad_values import (
    INTEGER,
    NAME,
    OBJECT,
    POSITIVE,
    REAL,
    SEQUENCE,
    arrays,
    masked,
    points,
)
from scipy import sparse

import attnflow as af
from attnflow.attention import perplexity

from .rows import FLAT, HEADS, LAYER, SQUARE, START, TOKENS, F, Row, optional

VARIANTS = {
    "standard_attention": ("W_Q", "W_K", "W_V", "W_O"),
    "optimised_attention": ("W_Q", "W_K", "W_O"),
    "efficient_attention": ("W_Q", "W_O"),
    "super_attention": ("W_Q", "W_A", "W_O"),
}


def variant(name, **arguments):
    return getattr(af, name)(**dict.fromkeys(VARIANTS[name], np.eye(2)) | {"heads": 1} | arguments)


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
