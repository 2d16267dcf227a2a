"""Of the field's similarities."""

import numpy as np
from bad_values import (
    INTEGER,
    POSITIVE,
    REAL,
    arrays,
    points,
)

from attnflow import families

from .rows import SQUARE, TOKENS, Row

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
