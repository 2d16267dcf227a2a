"""Of equations and limits."""

import numpy as np
from bad_values import (
    FEATURES,
    GRID,
    INTEGER,
    NAME,
    OBJECT,
    POSITIVE,
    REAL,
    SCALARS,
    SEQUENCE,
    TIME,
    VECTORS,
    arrays,
    masked,
)

import attnflow as af

from .rows import BOX, FLAT, GAUSS, GLOBE, LAYER, LINE, PDE, START, WALLED, P, Row, optional


def solve(pde=PDE, **arguments):
    return pde.solve(**{"initial": START, "t": 0.1} | arguments)


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
            {"number": 3, "text": "a", "unknown": ("periodic", 1.0), "mapping": {1: 2}, "many": ["no-flux"] * 500},
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
            ("predicted_error", af.predicted_error),
        )
        for argument, kinds in (
            ("layer", OBJECT),
            ("density", OBJECT | {"elsewhere": GAUSS}),
            ("initial", FEATURES),
            ("t", REAL | {"negative": -1.0, "list": [0.1, 0.2], "array": np.ones(2)}),
        )
    ),
    Row("predicted_noise", "n_tokens", lambda v: af.predicted_noise(LAYER, P, START, 0.1, v), INTEGER | {"zero": 0}),
    Row(
        "predicted_error",
        "n_tokens",
        lambda v: af.predicted_error(LAYER, P, START, 0.1, v),
        INTEGER | {"one": 1},
        ("infinite",),
    ),
    optional(
        "predicted_noise",
        "max_nodes",
        lambda v: af.predicted_noise(LAYER, P, START, 0.1, 100, max_nodes=v),
        INTEGER | {"negative": -1},
    ),
    Row("predicted_rates", "layer", lambda v: af.predicted_rates(v, P, 2, 100), OBJECT),
    Row("predicted_rates", "density", lambda v: af.predicted_rates(LAYER, v, 2, 100), OBJECT | {"elsewhere": GAUSS}),
    Row("predicted_rates", "k", lambda v: af.predicted_rates(LAYER, P, v, 100), INTEGER | {"zero": 0, "many": 101}),
    Row("predicted_rates", "n_tokens", lambda v: af.predicted_rates(LAYER, P, 2, v), INTEGER | {"zero": 0}),
    Row("MeanField", "layer", lambda v: af.MeanField(v, GAUSS), OBJECT),
    Row("MeanField", "density", lambda v: af.MeanField(FLAT, v), OBJECT | {"elsewhere": P}),
    Row("MeanField.solve", "t", lambda v: af.MeanField(FLAT, GAUSS).solve(v), TIME),
    optional("MeanField.solve", "grid", lambda v: af.MeanField(FLAT, GAUSS).solve(0.1, v), GRID | {"coarse": 4}),
    Row("MeanField.solve", "rtol", lambda v: af.MeanField(FLAT, GAUSS).solve(0.1, rtol=v), POSITIVE),
    *(
        optional(
            f"{type(pde).__name__}.solve",
            "source",
            lambda v, pde=pde: solve(pde, source=v),
            OBJECT
            | {
                "one column flat": lambda x, t, H: H[:, 0],
                "long": lambda x, t, H: np.ones((len(H) + 1, H.shape[1])),
                "wide": lambda x, t, H: np.ones((len(H), 2)),
                "text": lambda x, t, H: "a",
                "nan": lambda x, t, H: np.nan * H,
                "infinite": lambda x, t, H: np.inf + H,
                "complex": lambda x, t, H: 1j * H,
                "masked": lambda x, t, H: masked(H),
            },
            "class",
        )
        for pde in (PDE, af.FokkerPlanck(P), af.General(P, np.ones_like))
    ),
    *(
        Row(
            "DriftDiffusion.solve",
            "boundary",
            lambda v, wall=wall: solve(WALLED, boundary=wall(v)),
            {k: v for k, v in kinds.items() if k != "none"},
        )
        for wall, kinds in (
            (lambda v: ("neumann", v), {k: v for k, v in FEATURES.items() if k not in ("number", "infinite")}),
            (lambda v: ("robin", 1.0, v), {k: v for k, v in FEATURES.items() if k not in ("number", "infinite")}),
            (
                lambda v: ("robin", v, 0.0),
                {k: v for k, v in REAL.items() if k != "infinite"} | {"flat": lambda x: np.ones((len(x), 1))},
            ),
        )
    ),
    Row(
        "FokkerPlanck.solve",
        "boundary",
        lambda v: solve(af.FokkerPlanck(af.Uniform(BOX)), boundary=v),
        {"let in": ("neumann", 1.0), "held": ("dirichlet", 1.0), "pushed": ("robin", 1.0, 2.0)},
    ),
]
