"""Values that are no number, no array, no name, ...: by what they are, for tests of what is refused."""

from fractions import Fraction

import numpy as np
import sympy
from scipy import sparse


def masked(values, where=0):
    result = np.ma.array(values, mask=False)
    result.reshape(-1)[where] = np.ma.masked
    return result


class Refusing:
    """What another library's arrays may be: on a device, or part of a graph."""

    ndim = 2

    def __array__(self, *_, **__):
        raise KeyError("no")


LONE = {
    "refusing": Refusing(),
    "none": None,
    "text": "a",
    "bytes": b"1",
    "complex": 1j,
    "empty list": [],
    "text 0-d": np.array("1"),
    "bool 0-d": np.array(True),
    "complex 0-d": np.array(1 + 2j),
    "object 0-d": np.array(None, dtype=object),
    "masked 0-d": np.ma.array(1.0, mask=True),
    "date": np.datetime64("2020-01-01"),
    "duration": np.timedelta64(1, "s"),
    "bool": True,
}
REAL = LONE | {
    "nan": np.nan,
    "inf": -np.inf,
    "huge": 10**400,
    "nan 0-d": np.array(np.nan),
    "big fraction": Fraction(10**400, 3),
}
POSITIVE = REAL | {"zero": 0.0, "negative": -1.0}
INTEGER = LONE | {"nan": np.nan, "half": 1.5, "huge": 10**400, "negative": -(10**400), "numpy float": np.float64(2)}
TIME = REAL | {
    "negative": -1.0,
    "falling": [1.0, 0.5],
    "nan in list": [0.0, np.nan],
    "bool in list": [0.0, True],
    "masked": masked([0.0, 1.0]),
}
GRID = {k: v for k, v in INTEGER.items() if k != "none"} | {"too many": [8, 8, 8, 8], "ragged": [8, [8]], "text in list": ["8"]}
OBJECT = {"none": None, "number": 3, "text": "a", "array": np.ones((300, 300)), "class": object, "list": [1] * 1000}
NAME = {
    "none": None,
    "number": 3,
    "unknown": "nope",
    "bytes": b"softmax",
    "list": ["softmax"],
    "array": np.array(["auto", "x"]),
}
PATH = {
    "none": None,
    "number": 3,
    "list": [],
    "bytes": b"a",
    "empty": "",
    "null": "a\0b",
    "long": "a" * 10**6,
    "array": np.ones(3),
}
SEQUENCE = {"none": None, "number": 3, "text": "a", "empty": [], "generator": (x for x in "ab"), "mapping": {1: 2}}
EXPRESSION = {
    "text": "x0",
    "list": [1],
    "complex": 1j,
    "nan": np.nan,
    "sympy nan": sympy.nan,
    "infinite": sympy.oo,
    "bool": True,
    "imaginary": sympy.I,
    "array": np.ones(3),
    "none": None,
    "class": sympy.cos,
}
SEEDS = {
    "text": "a",
    "bool": True,
    "negative": -1,
    "float": 1.5,
    "list": [1, 2],
    "bool 0-d": np.array(True),
    "complex": 1j,
}


def arrays(good, **more):
    """What no array of numbers of the shape of `good` is."""
    good = np.asarray(good, dtype=float)
    spoilt = {name: good.copy() for name in ("nan", "inf")}
    for name, values in spoilt.items():
        values.reshape(-1)[-1] = float(name)
    return spoilt | {
        "none": None,
        "text": "a",
        "strings": good.astype(str),
        "bytes": good.astype("S"),
        "complex": good + 1j,
        "objects": good.astype(object),
        "masked": masked(good),
        "masked parts": [masked(good), masked(good)],
        "bools among numbers": [[True, 0.5]] if good.ndim > 1 else [True, 0.5],
        "ragged": [[1.0], [2.0, 3.0]],
        "bytes in a buffer": bytearray(b"ab"),
        "array of another library": Refusing(),
        "dates": np.zeros(good.shape, dtype="M8[s]"),
        "record": np.zeros(good.shape, dtype=[("a", float)]),
        "sparse": sparse.csr_array(np.atleast_2d(good)),
        "mapping": {"a": 1.0},
        "empty": np.empty((0, *good.shape[1:])),
        "large and complex": np.ones((300, 300)) * 1j,
        **more,
    }


def points(good, **more):
    good = np.asarray(good, dtype=float)
    return arrays(good, bools=good > 0, columns=np.ones((2, 7)), **more)


def returning(shape, **more):
    """Callables that return no array of numbers of the shape that shape(x) says."""
    make = {
        "complex": lambda s: np.ones(s) + 1j,
        "strings": lambda s: np.full(s, "1"),
        "objects": lambda s: np.full(s, None),
        "masked": lambda s: masked(np.ones(s)),
        "nan": lambda s: np.full(s, np.nan),
        "infinite": lambda s: np.full(s, np.inf),
        "of another shape": lambda s: np.ones((*s, 3)),
        "nothing": lambda s: None,
        "text": lambda s: "abc",
    }
    calls = {name: (lambda *x, m=m: m(shape(*x))) for name, m in make.items()}
    return {"none": None, "number": 3, "string": "a"} | calls | more


SCALARS = returning(lambda x: x.shape[:-1])
VECTORS = returning(lambda x: x.shape)
TENSORS = returning(lambda x: (*x.shape, x.shape[-1]))
PAIRS = returning(lambda x, y: np.broadcast_shapes(x.shape, y.shape)[:-1])
FEATURES = {k: v for k, v in SCALARS.items() if k != "of another shape"} | {
    "empty": lambda x: np.empty((len(x), 0)),
    "long": lambda x: np.ones(len(x) + 1),
}
BOUNDS = {
    "none": None,
    "text": "ab",
    "empty": [],
    "strings": [("0", "1")],
    "bools": [(False, True)],
    "nan": [(0, np.nan)],
    "reversed": [(1, 0)],
    "equal": [(1, 1)],
    "single": [0, 1],
    "triple": [(0, 1, 2)],
    "wide": [(-1e308, 1e308)],
    "complex": [(0, 1j)],
    "huge": [(0, 10**400)],
    "ragged": [(0, 1), (0,)],
    "masked": masked([[0.0, 1.0]]),
}

METRIC = {
    "none": None,
    "text": "a",
    "zero": 0,
    "negative": -1,
    "half": 1.5,
    "bool": True,
    "huge": 10**400,
    "list": [1],
    "array": np.eye(2),
    "oblong": sympy.ones(1, 2),
    "asymmetric": sympy.Matrix([[1, 2], [0, 1]]),
    "nan": sympy.diag(1, sympy.nan),
    "empty": sympy.Matrix(0, 0, []),
    "negative matrix": sympy.diag(1, -1),
    "singular": sympy.ones(2, 2),
    "stray": sympy.Matrix([[1 + sympy.Symbol("x3") ** 2]]),
}
DRIFT = EXPRESSION | {"numpy nan": np.float64(np.nan), "bool 0-d": np.array(True)}
THEORY_DIM = INTEGER | {"zero": 0}
