"""What every engine reads off a pseudo-metric: codes of its parts, the rule of a logit, and how far it reaches."""

from __future__ import annotations

import numpy as np

from ..similarity.pairs import Pair

# compiled code, on a card too, tells them by these numbers; "general" by Python, or a loop made for it
REDUCTIONS = {"squared": 0, "wrapped": 1, "inner": 2, "general": 3}
TRANSFORMS = {"identity": 0, "power": 1, "log1p": 2, "root": 3, "affine": 4, "leaky": 5, "elu": 6, "tanh": 7}


def reduction_of(pair: Pair) -> int:
    """One of REDUCTIONS: a sum s + t is the inner product of (s, 1) and (1, t), see `as_products`."""
    return REDUCTIONS["inner" if pair.reduction == "additive" else pair.reduction]


def as_products(pair: Pair, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features whose inner product is the sum of these, which that rounds as the sum; others as they are."""
    if pair.reduction != "additive":
        return u, v
    return np.concatenate([u, np.ones_like(u)], axis=1), np.concatenate([np.ones_like(v), v], axis=1)


def transform_of(pair: Pair) -> tuple[str, float]:
    """One of TRANSFORMS, and its number: the exponent of r, or what r is taken from. Cheap powers have names."""
    if pair.transform != "power":
        return pair.transform, pair.parameter or 0.0
    return {1.0: "root", 2.0: "identity"}.get(pair.parameter, "power"), pair.parameter / 2


def reach_of(pair: Pair, epsilon: float, depth):
    """The distance of features from which on the similarity is below exp(-depth): h(R^2) / (2 epsilon) = depth."""
    with np.errstate(over="ignore", under="ignore"):
        f = np.multiply(2 * epsilon, depth)
        if pair.transform == "power":
            return f ** (1 / pair.parameter)
        if pair.transform == "log1p":
            return np.sqrt(np.expm1(f))
        return np.sqrt(f) if pair.transform == "identity" else np.full_like(f, np.inf)  # what does not grow never ends


def nothing_to_see(query: int) -> ValueError:
    """What is said of a query whose weights all vanish."""
    return ValueError(
        f"f must be finite between query {query} and at least one key, got a row in which every f is infinite, "
        "or every key has a bias of -inf"
    )


def beyond_range(query: int, dtype: np.dtype) -> ValueError:
    """What is said of a query whose sums are no numbers."""
    return ValueError(
        f"epsilon takes query {query} beyond the range of {dtype}: logits or values overflow"
        + ("; use dtype='float64'" if dtype == np.float32 else "")
    )
