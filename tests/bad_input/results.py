"""Of results and studies."""

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
    SEQUENCE,
    arrays,
    masked,
    points,
)

import attnflow as af

from .rows import (
    A_STUDY,
    BOX,
    EQUATION,
    FIELD,
    GAUSS,
    GLOBE,
    LAYER,
    MOVED,
    PDE,
    RESULT,
    START,
    STUDY,
    TOKENS,
    F,
    P,
    Row,
    optional,
)


def study(**arguments):
    return af.ConvergenceStudy(**STUDY | arguments)


def refine(**arguments):
    return REFINED.refine(**dict(axis="size", width=10.0, cells=1, progress=False) | arguments)


def budget(**arguments):
    return af.error_budget(**dict(f=F, density=P, initial=START, t=0.1, error=0.3, normalization="softmax") | arguments)


PLAN = budget()
REFINED = study(sizes=(20, 40))

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
    optional("Solution.plot", "kind", lambda v: FIELD.plot(kind=v), NAME | {"space": "space"}),
    Row("Solution.animate", "column", FIELD.animate, INTEGER | {"one": 1}),
    optional("Solution.animate", "t", lambda v: FIELD.animate(t=v), REAL | {"elsewhere": 0.123}),
    Row("Solution.animate(...).save", "filename", lambda v: FIELD.animate().save(v), PATH | {"no film": "film.txt"}),
    optional("Spectrum.plot", "ax", PDE.spectrum(3).plot, OBJECT),
    optional("Comparison.plot", "ax", af.compare(FIELD, FIELD).plot, OBJECT),
    optional("StudyResult.plot", "axes", RESULT.plot, OBJECT | {"three": [1, 2, 3]}),
    Row("Spectrum.at", "points", PDE.spectrum(3).at, points(TOKENS)),
    optional("Spectrum.metastable_sets", "count", PDE.spectrum(3).metastable_sets, INTEGER | {"zero": 0, "four": 4}),
    Row("predicted_bias(...)", "points", af.predicted_bias(LAYER, P, START, 0.1), points(TOKENS)),
    Row("predicted_noise(...)", "points", af.predicted_noise(LAYER, P, START, 0.1, 100), points(TOKENS)),
    Row(
        "predicted_noise(...)",
        "position",
        lambda v: af.predicted_noise(LAYER, P, START, 0.1, 100)(TOKENS, v),
        REAL | {"zero": 0.0, "half": 0.5},
    ),
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
            (
                "normalization",
                NAME
                | {
                    "list": ["nope"],
                    "sparse": af.TopK(2),
                    "none of them": [],
                    "twice": ["softmax"] * 2,
                    "sparse in list": ["softmax", af.TopK(2)],
                },
            ),
            ("residual", POSITIVE | {"two": 2.0}),
            ("backend", NAME),
            ("dtype", NAME),
            ("seed", INTEGER),
        )
    ),
    optional("ConvergenceStudy", "grid", lambda v: study(grid=v), GRID),
    optional("ConvergenceStudy.run", "store", lambda v: A_STUDY.run(store=v, progress=False), PATH),
    Row("ConvergenceStudy.run", "n_jobs", lambda v: A_STUDY.run(n_jobs=v, progress=False), INTEGER | {"zero": 0}),
    optional("ConvergenceStudy.run", "client", lambda v: A_STUDY.run(client=v, progress=False), OBJECT),
    optional("ConvergenceStudy.run", "callback", lambda v: A_STUDY.run(callback=v, progress=False), OBJECT, "class"),
    optional("ConvergenceStudy.refine", "callback", lambda v: refine(callback=v), OBJECT, "class"),
    Row("ConvergenceStudy.refine", "axis", lambda v: refine(axis=v), NAME | {"without noise": "epsilon"}),
    Row("ConvergenceStudy.refine", "kind", lambda v: refine(kind=v), NAME),
    Row("ConvergenceStudy.refine", "width", lambda v: refine(width=v), POSITIVE),
    optional("ConvergenceStudy.refine", "cells", lambda v: refine(cells=v), INTEGER | {"zero": 0}),
    optional("ConvergenceStudy.refine", "seconds", lambda v: refine(seconds=v), POSITIVE),
    optional("ConvergenceStudy.refine", "store", lambda v: refine(store=v), PATH),
    Row("ConvergenceStudy.refine", "n_jobs", lambda v: refine(n_jobs=v), INTEGER | {"zero": 0}),
    optional("ConvergenceStudy.refine", "client", lambda v: refine(client=v), OBJECT),
    Row("ConvergenceStudy.layer", "epsilon", A_STUDY.layer, POSITIVE),
    Row("ConvergenceStudy.layers", "epsilon", A_STUDY.layers, POSITIVE),
    Row("error_budget", "f", lambda v: budget(f=v), OBJECT),
    Row(
        "error_budget",
        "density",
        lambda v: budget(density=v),
        OBJECT | {"of another space": GAUSS, "masked": masked(np.ones((9, 1)))},
    ),
    Row("error_budget", "initial", lambda v: budget(initial=v), FEATURES),
    Row("error_budget", "t", lambda v: budget(t=v), POSITIVE),
    Row("error_budget", "error", lambda v: budget(error=v), POSITIVE | {"beyond memory": 1e-9}),
    optional(
        "error_budget",
        "normalization",
        lambda v: budget(normalization=v),
        {k: v for k, v in NAME.items() if k != "list"} | {"chooses keys": af.TopK(4), "list of none": ["nope"]},
    ),
    Row("ErrorBudget.study", "seeds", PLAN.study, INTEGER | {"zero": 0}),
    Row("ConvergenceStudy.rest", "epsilon", A_STUDY.rest, POSITIVE),
    Row("ConvergenceStudy.of", "normalization", A_STUDY.of, NAME | {"another": "sinkhorn"}),
    Row("StudyResult.of", "normalization", RESULT.of, NAME | {"another": "sinkhorn"}),
    Row("StudyResult.to_csv", "path", RESULT.to_csv, PATH),
    Row("StudyResult.slope", "axis", RESULT.slope, NAME),
    Row("StudyResult.constant", "axis", RESULT.constant, NAME),
    optional("StudyResult.constant", "epsilon", lambda v: RESULT.constant("size", v), POSITIVE | {"another": 0.3}),
]
