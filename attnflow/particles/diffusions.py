"""One step of dX = drift grad_g log p dt + sqrt(2) dW on each kind of space, its weak order, and how long it may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import capacity
from ..geometry import Density, Remetrised, Space, Sphere

_SHARE = 0.2  # of the statistical error that the weak error may take, all features being of order one
_LONGEST = 0.25  # times the rate: the longest step that is chosen
_SHORTEST = 0.002  # times the rate: no shorter step is chosen, however many paths there are
_PILOTS = 64
_BOUNCES = 4  # at each wall in one step; steps that need more are too long anyway, and are folded


class Scheme(NamedTuple):
    """A way to take one step.

    Attributes
    ----------
    name : str
    weak_order : int
        q where the error of E[H0(X_t)] falls as h^q for smooth H0 (that obeys the no-flux condition at walls).
    draws : int
        Arrays of standard normal numbers, of the shape of x, that a step takes; they drive equal shares of its length.
    advance : callable
        Points (N, columns), h and normal numbers (draws, N, columns) -> points (N, columns).
    longest : float
        Steps must be shorter than this.
    """

    name: str
    weak_order: int
    draws: int
    advance: Callable
    longest: float = np.inf


def build_scheme(density: Density, drift: float) -> Scheme:
    """The scheme for a density's space.

    Torus, Circle, Euclidean: Heun's scheme, weak order 2 because the noise is additive. Box: the same with p
    reflected at the walls; exact for uniform p, order 1 where p has a slope at a wall. Sphere: `_geodesic`, order 2.
    Chart and other metrics: `_divergence_form`, order 1.

    Examples
    --------
    >>> from attnflow.geometry import VonMises
    >>> build_scheme(VonMises(1.0), 2.0).weak_order
    2
    """
    space = density.space
    if isinstance(space, Remetrised):
        return Scheme("Euler in divergence form", 1, 1, _divergence_form(density, drift))
    if isinstance(space, Sphere):
        longest = 3 / (space.dim - 1) if space.dim > 1 else np.inf
        return Scheme("geodesic splitting", 2, 2, _geodesic(density, drift), longest)
    return Scheme("Heun", 1 if space.has_boundary else 2, 1, _heun(density, drift))


def settle(space: Space, x: np.ndarray) -> np.ndarray:
    """Points (N, columns) brought back: wrapped where a coordinate wraps, folded at walls, normalised on a sphere."""
    return space.project(x) if _spherical(space) else _fold(space, x)[0]


def choose_steps(
    density: Density, drift: float, scheme: Scheme, points: np.ndarray, t: float, paths: int, extrapolated: bool = False
) -> int:
    """Equal steps to time t that keep the weak error below the statistical error of `paths` paths.

    The weak error is taken as 0.1 (rate h)^2 (order 2, or extrapolated) or 0.2 rate h (order 1) of the features'
    spread, and held to a fifth of paths^(-1/2); rate h is kept in [0.002, 0.25]. The rate is the largest of `_rate`
    over the starting points and the places where a few pilot paths come by. An estimate, no bound: the constants are
    fitted to features as smooth as p and the metric; rougher ones need shorter steps.
    """
    rng = np.random.default_rng(0)  # the choice depends on the arguments alone
    x = points[np.linspace(0, len(points) - 1, _PILOTS).astype(int)]
    fastest = _rate(density, drift, x).max()
    with np.errstate(over="ignore"):
        count = int(np.clip(np.ceil(t * fastest / _LONGEST), 16, 400))
    h = min(t / count, _LONGEST / fastest if fastest > 0 else np.inf)
    for k in range(count):
        x = scheme.advance(x, h, rng.normal(size=(scheme.draws, *x.shape)))
        x = x[np.isfinite(x).all(axis=1)]
        if len(x) == 0:
            break
        if k % max(1, count // 8) == 0:
            fastest = max(fastest, _rate(density, drift, x).max())
    bias = _SHARE / np.sqrt(paths)
    longest = np.sqrt(bias / 0.1) if scheme.weak_order == 2 or extrapolated else bias / 0.2
    steps = float(t) * float(fastest) / float(np.clip(longest, _SHORTEST, _LONGEST))
    capacity.ends(steps, "t", 2e-5)
    return max(10, int(np.ceil(steps)))


def _heun(density: Density, drift: float) -> Callable:
    """x + (h/2)(b(x) + b(x + h b(x) + dW)) + dW, dW = sqrt(2h) xi: weak order 2 for additive noise (Platen).

    A reflected path is the fold of a path on the whole line under the evenly continued p.
    """
    space = density.space

    def velocity(z: np.ndarray) -> np.ndarray:
        x, sign = _fold(space, z)
        return drift * sign * density.score(x)

    def advance(x: np.ndarray, h: float, xi: np.ndarray) -> np.ndarray:
        noise = np.sqrt(2 * h) * xi[0]
        if drift == 0:
            return _fold(space, x + noise)[0]
        here = velocity(x)
        there = velocity(x + h * here + noise)
        return _fold(space, x + 0.5 * h * (here + there) + noise)[0]

    return advance


def _geodesic(density: Density, drift: float) -> Callable:
    """Strang splitting on S^n: half a Brownian step, the flow of the drift (Heun, projected), half a Brownian step."""
    space = density.space

    def advance(x: np.ndarray, h: float, xi: np.ndarray) -> np.ndarray:
        x = brownian_step(space, x, h / 2, xi[0])
        if drift != 0:
            here = drift * density.score(x)
            there = drift * density.score(space.project(x + h * here))
            x = space.project(x + 0.5 * h * (here + there))
        return brownian_step(space, x, h / 2, xi[1])

    return advance


def brownian_step(space: Space, x: np.ndarray, h: float, xi: np.ndarray) -> np.ndarray:
    """Points (N, n + 1) on a Sphere S^n after the time h of dX = sqrt(2) P_x o dW, from normal numbers xi: weak order 2.

    The step is the geodesic exp_x(sqrt(2h') xi) with tangent Gaussian xi. Its mean cosine, 1 - n h' + n (n + 2) h'^2 / 6
    + ..., is e^(-nh) + O(h^3) for h' = h - (n - 1) h^2 / 3; being a function of the Laplacian, the step is then
    e^(h Delta) + O(h^3) on harmonics of every degree.
    """
    v = np.sqrt(2 * (h - (space.dim - 1) * h**2 / 3)) * _tangential(x, xi)
    r = np.linalg.norm(v, axis=1, keepdims=True)
    return space.project(np.cos(r) * x + np.sinc(r / np.pi) * v)


def _divergence_form(density: Density, drift: float) -> Callable:
    """Euler's scheme for b^i = w^-1 d_j (w g^ij), w = p^drift sqrt(det g), without derivatives of the metric.

    With v = sqrt(2h) g^(-1/2) xi at x and y = x + v, the mean of (1/2)(sqrt(det g(y) / det g(x)) g(y)^-1 g(x) v - v)
    is h (det g)^(-1/2) d_j (sqrt(det g) g^ij) + O(h^2) (the kinetic form of the noise, Hutter and Oettinger 1998).
    Where y would be behind a wall, y = x - v and the opposite sign do the same. Points behind a wall are mirrored
    along the conormal g^-1 n, which is what no flux means: weak order 1 (Bossy, Gobet and Talay 2004).
    On a sphere the tensors are those of the surrounding space, and the points are projected.
    """
    space = density.space

    def advance(x: np.ndarray, h: float, xi: np.ndarray) -> np.ndarray:
        g, root = _metric_and_root(space, x)
        v = np.sqrt(2 * h) * _solve(np.swapaxes(root, 1, 2), xi[0])
        if _spherical(space):
            v = _tangential(x, v)
        side = np.where(_behind_wall(space, x + v), -1.0, 1.0)[:, None]
        y = settle(space, x + side * v)
        g_there, root_there = _metric_and_root(space, y)
        raised = _solve(g_there, np.einsum("aij,aj->ai", g, v))
        if _spherical(space):
            raised = _tangential(y, raised)
        stretch = np.prod(_diagonal(root_there) / _diagonal(root), axis=1, keepdims=True)
        x_new = x + v + 0.5 * side * (stretch * raised - v)
        if drift != 0:
            x_new += drift * h * _solve(g, density.score(x))
        return settle(space, _mirror(space, x_new))

    return advance


def _rate(density: Density, drift: float, x: np.ndarray) -> np.ndarray:
    """How fast the coefficients change along a path, in 1/time, at points (N, columns): (N,).

    |drift| |Hess log p| + |dg|^2 in Frobenius norms of an orthonormal frame, plus drift^2 |grad log p|^2 / 4 between
    walls, where the drift turns round, plus the decay of the slowest features on a curved space: tr g^-1 on a sphere
    (n if it is round), g^kk (pi / width)^2 on the narrowest axis of a chart.
    """
    space = density.space
    step = np.full(space.columns, 1e-3)
    if not _spherical(space):
        low, high = np.array(space.bounds).T
        step *= np.minimum(1.0, high - low)
        x = np.where(space.periodic, x, np.clip(x, low + step, high - step))
    curved = isinstance(space, Remetrised)
    frame = np.linalg.inv(_metric_and_root(space, x)[1]) if curved else np.eye(space.columns)[None]
    steepness, bending = [], []
    for k, h in enumerate(step):
        shift = h * np.eye(space.columns)[k]
        ahead, back = settle(space, x + shift), settle(space, x - shift)
        if drift != 0:
            steepness.append((density.score(ahead) - density.score(back)) / (2 * h))
        if curved:
            bending.append((space.metric(ahead) - space.metric(back)) / (2 * h))
    rate = np.zeros(len(x))
    if _spherical(space):
        rate += np.sum(frame**2, axis=(1, 2)) - 1
    elif curved:
        rate += np.max(np.sum(frame**2, axis=1) * (np.pi / (high - low)) ** 2, axis=1)
    if drift != 0:
        hessian = np.stack(steepness, axis=2)
        rate += abs(drift) * np.linalg.norm(frame @ hessian @ np.swapaxes(frame, 1, 2), axis=(1, 2))
        if space.has_boundary:
            rate += drift**2 / 4 * np.sum(np.einsum("aij,aj->ai", frame, density.score(x)) ** 2, axis=1)
    if curved:
        bent = frame[:, None] @ np.stack(bending, axis=1) @ np.swapaxes(frame, 1, 2)[:, None]
        rate += np.sum(np.einsum("aij,ajkl->aikl", frame, bent) ** 2, axis=(1, 2, 3))
    return rate


def _spherical(space: Space) -> bool:
    return space.columns > space.dim


def _tangential(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The part of v tangential to the sphere at x."""
    return v - np.sum(x * v, axis=1, keepdims=True) * x


def _metric_and_root(space: Space, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g, made regular on a sphere by x x' on the normal space, and its lower Cholesky factor."""
    g = space.metric(x)
    if _spherical(space):
        g = g + x[:, :, None] * x[:, None, :]
    return g, np.linalg.cholesky(g)


def _solve(matrix: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.linalg.solve(matrix, v[:, :, None])[:, :, 0]


def _diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=1, axis2=2)


def _walls(space: Space) -> list[tuple[int, float, float]]:
    """(axis, low, high) of each coordinate that ends."""
    return [(k, *pair) for k, pair in enumerate(space.bounds) if not space.periodic[k] and np.isfinite(pair).any()]


def _behind_wall(space: Space, x: np.ndarray) -> np.ndarray:
    behind = np.zeros(len(x), dtype=bool)
    for k, low, high in _walls(space) if space.has_boundary else []:
        behind |= (x[:, k] < low) | (x[:, k] > high)
    return behind


def _mirror(space: Space, x: np.ndarray) -> np.ndarray:
    """Points behind a wall mirrored at it along g^-1 n, and at the next wall if they are behind that one then."""
    walls = _walls(space) if space.has_boundary else []
    for k, low, high in walls * _BOUNCES:
        rows = np.flatnonzero((x[:, k] < low) | (x[:, k] > high))
        if rows.size:
            foot = settle(space, x[rows])
            inset = 1e-6 * min(1.0, high - low)  # coordinates may be singular on the wall itself
            foot[:, k] = np.clip(x[rows, k], low + inset, high - inset)
            conormal = np.linalg.inv(space.metric(foot))[:, :, k]
            depth = np.clip(x[rows, k], low, high) - x[rows, k]
            x[rows] += 2 * (depth / conormal[:, k])[:, None] * conormal
    return x


def _fold(space: Space, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point of the domain that z is an image of, and per coordinate -1 where an odd number of walls is between."""
    x, sign = z.copy(), np.ones_like(z)
    for k, (low, high) in enumerate(space.bounds):
        width = high - low
        if space.periodic[k]:
            x[:, k] = (z[:, k] - low) % width
            x[:, k] = low + np.where(x[:, k] < width, x[:, k], 0.0)  # -1e-20 % 1.0 is 1.0
            continue
        if np.isfinite(width):
            above = (z[:, k] - low) % (2 * width)
            turned = above > width
            x[:, k] = np.clip(low + np.where(turned, 2 * width - above, above), low, high)
        else:
            turned = (z[:, k] < low) | (z[:, k] > high)
            x[turned, k] = 2 * np.clip(z[turned, k], low, high) - z[turned, k]
        sign[turned, k] = -1.0
    return x, sign
