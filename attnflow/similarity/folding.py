"""Whether f sends distant tokens nearly to one point: its chords beside the lengths of straight lines.

For f = |phi(x) - phi(y)|^2 the chord is |phi(x) - phi(y)|, the length that of the image of a line under g = J'J. A layer
has a limit where phi is an embedding with room around it; where its image nearly meets itself, features jump across.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_TOKENS = 100  # of all: 4950 pairs
_SEGMENTS = 32  # of a line: its image is a polygon of as many
_BLOCK = 2**22  # numbers held at once


def folding(f: Any, tokens: np.ndarray) -> float:
    """Shortest chord over length among (at most 100 of) the tokens, nan where f, a PseudoMetric, has no metric.

    The chord is the root of `separations`, f itself for a map; the length is that of the straight line between the
    tokens, or of the shortest path where f has a space. Coordinates that wrap count as a fold: 0 and 2 pi are one point.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> angles = np.linspace(0.0, 1.5 * np.pi, 50)[:, None]   # three quarters of a circle
    >>> arc = af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1))
    >>> round(folding(arc, angles), 3)   # sqrt(2) / (1.5 pi)
    0.3
    """
    if f.exponent not in (2.0, None):  # f is not quadratic near y = x
        return np.nan
    tokens = tokens[np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), _TOKENS)).astype(int))]
    i, j = np.triu_indices(len(tokens), 1)
    x, y = tokens[i], tokens[j]
    try:
        if f.space is None:
            with np.errstate(invalid="ignore"):  # of an infinite f
                f.metric(tokens)  # says if there is none
            lengths = line_lengths(f, x, y)
        else:
            lengths = f.space.distance(x, y)
        chords = np.sqrt(separations(f, x, y))
    except ValueError:  # no metric, or no value of f somewhere along a line
        return np.nan
    apart = lengths > 0
    return float((chords[apart] / lengths[apart]).min()) if apart.any() else np.nan


def separations(f: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(f(x, y) + f(y, x) - f(x, x) - f(y, y)) / 2 of points (N, n): (N,); f itself where it is a squared distance."""
    return _separations(f, *_features(f, x), *_features(f, y))


def line_lengths(f: Any, x: np.ndarray, y: np.ndarray, project: Callable | None = None) -> np.ndarray:
    """Length under f's metric of the straight lines from x to y (N, n), by the chords of 32 parts of each: (N,).

    `project` puts the points of a line on the space; by it lines on a sphere are great circles.
    """
    steps, lengths = np.linspace(0.0, 1.0, _SEGMENTS + 1)[:, None], np.empty(len(x))
    block = max(1, _BLOCK // (len(steps) * x.shape[1]))
    for part in (slice(k, k + block) for k in range(0, len(x), block)):
        line = (x[part, None] + steps * (y - x)[part, None]).reshape(-1, x.shape[1])
        line = line if project is None else project(line)
        u, s = (features.reshape(-1, len(steps), features.shape[1]) for features in _features(f, line))
        lengths[part] = np.sqrt(_separations(f, u[:, :-1], s[:, :-1], u[:, 1:], s[:, 1:])).sum(axis=1)
    return lengths


def _features(f: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of x as a query, and as a key."""
    u = f.query_features(x)
    return u, (u if f.symmetric and f.pair.reduction == "squared" else f.key_features(x))


def _separations(f: Any, u: np.ndarray, s: np.ndarray, v: np.ndarray, t: np.ndarray) -> np.ndarray:
    """From features of x (u, s) and of y (v, t), (..., m)."""
    with np.errstate(invalid="ignore"):  # inf - inf: two tokens that see neither each other nor themselves
        return np.maximum((f.paired(u, t) + f.paired(v, s) - f.paired(u, s) - f.paired(v, t)) / 2, 0.0)
