"""Shortest paths under a metric tensor, where no closed form is known: of a chart, of a learned map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from .. import checks

_COARSEST = 4  # segments to begin with, doubled until there are enough
_STEP = 1e-4  # of the distance between the ends: for differences of the metric
_ITERATIONS = 2000


def geodesic(metric: Callable, start: np.ndarray, end: np.ndarray, segments: int = 64) -> tuple[np.ndarray, float]:
    """The path of least length between two points that the straight line relaxes to, and its length.

    Of the polygons z_0 = start, ..., z_m = end it minimises the energy m sum_k d_k' g((z_k + z_(k+1)) / 2) d_k,
    d_k = z_(k+1) - z_k, which keeps segments equally long; its root is the length, good to O(1/m^2). A shorter path on
    another side of an obstacle is not looked for.

    Parameters
    ----------
    metric : callable
        g at points (N, n) -> (N, n, n), such as `f.metric` or `chart.metric`, on all of the line's surroundings.
    start, end : (n,) array
    segments : int
        m, a power of two times 4, or the next one above.

    Returns
    -------
    path : (m + 1, n) array
    length : float

    Raises
    ------
    ValueError
        If the ends are no two points of n coordinates, or the metric is not positive definite on the way.

    Warns
    -----
    ConvergenceWarning
        If the path is still getting shorter when it is given up.

    Examples
    --------
    The half-plane of Poincare, whose geodesics are circles around points of the axis:

    >>> import numpy as np, attnflow as af
    >>> half_plane = lambda x: np.eye(2) / x[..., 1, None, None] ** 2
    >>> path, length = af.geodesic(half_plane, [-1.0, 1.0], [1.0, 1.0])
    >>> bool(abs(np.hypot(*path.T) - np.sqrt(2)).max() < 1e-3), round(length, 3), round(np.arccosh(3.0), 3)
    (True, 1.763, np.float64(1.763))
    """
    checks.function(metric, "metric", "callable on points (N, n)")
    start = checks.array(start, "start", (None,)).astype(float)
    end = checks.array(end, "end", (len(start),)).astype(float)
    segments = checks.integer(segments, "segments", least=1, largest=2**14)
    step = _STEP * float(np.linalg.norm(end - start))
    path, count = np.stack([start, end]), 1
    if step == 0:
        return np.repeat(path[:1], segments + 1, axis=0), 0.0
    while count < segments or count < _COARSEST:
        count = max(2 * count, _COARSEST)
        fine = np.linspace(0, len(path) - 1, count + 1)
        path = np.stack([np.interp(fine, np.arange(len(path)), column) for column in path.T], axis=-1)
        relaxed = minimize(
            _energy, path[1:-1].ravel(), (metric, start, end, step), "L-BFGS-B", jac=True,
            options={"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-10},
        )  # fmt: skip
        path = np.concatenate([start[None], relaxed.x.reshape(-1, len(start)), end[None]])
    if relaxed.status == 1:
        checks.warn(f"the geodesic is still getting shorter after {relaxed.nit} steps", checks.ConvergenceWarning)
    return path, float(np.sqrt(relaxed.fun))


def _energy(inner: np.ndarray, metric: Callable, start: np.ndarray, end: np.ndarray, step: float) -> tuple[float, np.ndarray]:
    """The energy of a polygon and its gradient in the inner points, flat; the metric's derivative by differences."""
    n = len(start)
    path = np.concatenate([start[None], inner.reshape(-1, n), end[None]])
    d, middle = np.diff(path, axis=0), (path[1:] + path[:-1]) / 2
    shifts = step * np.concatenate([np.zeros((1, n)), np.eye(n), -np.eye(n)])
    points = (middle + shifts[:, None]).reshape(-1, n)
    g = checks.array(metric(points), "metric(points)", (len(points), n, n)).reshape(len(shifts), len(d), n, n)
    checks.spd(g[0], "metric", middle)
    squares = np.einsum("ki,skij,kj->sk", d, g, d)
    slope = (squares[1 : n + 1] - squares[n + 1 :]).T / (2 * step)  # of d' g d as the middle moves
    pull = 2 * np.einsum("kij,kj->ki", g[0], d)
    gradient = (pull + slope / 2)[:-1] + (slope / 2 - pull)[1:]
    return len(d) * float(squares[0].sum()), len(d) * gradient.ravel()
