"""How far apart two solutions are: relative, p-weighted L2 at every common time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks, display
from ..geometry import Density
from ..grid import Grid
from ..norms import norm
from ..solution import Solution


@dataclass(frozen=True)
class Comparison:
    """Relative error of one solution against another.

    Attributes
    ----------
    t : (T,) array
        Common times.
    error : (T,) array
        ||a - b|| / ||b|| in the p-weighted L2 norm.
    """

    t: np.ndarray
    error: np.ndarray

    def __repr__(self) -> str:
        return f"Comparison(relative error {self.error[-1]:.4g} at t = {self.t[-1]:.4g}, of {len(self.t)} times)"

    def _repr_html_(self) -> str:
        some = np.unique(np.linspace(0, len(self.t) - 1, min(len(self.t), 10)).astype(int))
        rows = [(f"{self.t[k]:.4g}", f"{self.error[k]:.3g}") for k in some]
        return display.table("Comparison", rows, ("t", "relative error"))

    def plot(self, ax=None):
        """Draw error against time; returns the Axes."""
        from ..plotting.studies import plot_comparison

        return plot_comparison(self, ax)


def compare(a: Solution, b: Solution, density: Density | None = None) -> Comparison:
    """Compare a with b (the reference) at their common times.

    Parameters
    ----------
    a, b : Solution
        On tokens or on grids, at most one of them on tokens, unless both on the same tokens.
    density : Density, optional
        Weighs a grid by p dvol; None weighs it evenly. Tokens, being samples of p, weigh themselves.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If the solutions have no time in common, live on different tokens, or carry different columns; if points of one lie
        outside the other's domain, or further apart than its axes are long where they wrap.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> p, start = af.VonMises(1.0), lambda x: np.cos(x[..., 0])
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.02)
    >>> run = af.propagate(layer, p, start, layers=50)
    >>> equation = af.limit(layer, p).solve(start, run.t)
    >>> af.compare(run, equation, p).error[-1] < 0.004
    np.True_
    """
    for value, name in ((a, "a"), (b, "b")):
        if not isinstance(value, Solution):
            raise TypeError(f"{name} must be a Solution, got {type(value).__name__}")
    for solution, name in ((a, "a"), (b, "b")):
        if solution.grid is None and solution.points is None:
            raise ValueError(f"{name} must hold features, got tokens that move")
    if density is not None and not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
    if _columns(a) != _columns(b):
        raise ValueError(f"a and b must live on the same space, got points of {_columns(a)} and {_columns(b)} coordinates")
    if density is not None:
        _check_space(density, b if b.grid is not None else a)
    nearest = np.abs(a.t[:, None] - b.t).argmin(axis=1)
    rows = np.flatnonzero(np.abs(a.t - b.t[nearest]) <= 1e-9 * max(a.t[-1], b.t[-1]))
    columns = nearest[rows]
    if len(rows) == 0:
        raise ValueError(f"a and b must share a saved time, got {a.t} and {b.t}")
    if a.y.shape[-1] != b.y.shape[-1]:
        raise ValueError(f"a and b must carry equally many columns, got {a.y.shape[-1]} and {b.y.shape[-1]}")
    sampled = [s.grid is None for s in (a, b)]
    if all(sampled):
        if a.points is None or b.points is None or not np.array_equal(a.points, b.points):
            raise ValueError("a and b must live on the same fixed tokens, or one of them on a grid")
    points, weights = _nodes(b if sampled[1] else a, density)
    for solution in (a, b):
        if solution.grid is not None:
            _check_turns(solution.grid, solution.grid.check(points))
    error = []
    for i, j in zip(rows, columns):
        u, v = (_values(solution, k, points) for solution, k in ((a, i), (b, j)))
        apart, scale = norm(weights, u - v), norm(weights, v)
        error.append(apart / scale if scale > 0 else np.inf if apart > 0 else 0.0)
    return Comparison(a.t[rows], np.array(error))


def _check_turns(grid: Grid, points: np.ndarray) -> None:
    """Points that go round an axis more than once may be those of a longer one: who has turned them can turn them back."""
    spans = np.ptp(points, axis=0)
    for axis, span in () if grid.sphere else zip(grid.axes, spans.tolist()):
        length = axis.high - axis.low
        if axis.kind in ("fourier", "periodic") and span > length * (1 + 1e-9):
            raise ValueError(
                f"a and b must live on the same space, got points over a length of {span:.4g} where the other wraps after "
                f"{length:.4g}"
            )


def _check_space(density: Density, solution: Solution) -> None:
    """A grid tells its space by what wraps and where it ends, tokens by where they lie."""
    space, grid = density.space, solution.grid
    if grid is None:
        space.check(solution.points, "points of the tokens that density is to weigh")
        return
    fits = space.columns == grid.points.shape[1] and (space.columns != space.dim) == grid.sphere
    if fits and not grid.sphere:
        for axis, wraps, bound in zip(grid.axes, space.periodic, space.bounds):
            ends = np.where(np.isfinite(bound), bound, (axis.low, axis.high))
            fits &= wraps == (axis.kind in ("fourier", "periodic")) and np.allclose(ends, (axis.low, axis.high))
    if not fits:
        raise ValueError(f"density must live on the space of a and b, got one on {checks.brief(space)}")


def _columns(solution: Solution) -> int:
    if solution.grid is not None:
        return solution.grid.points.shape[1]
    assert solution.points is not None
    return solution.points.shape[1]


def grid_weights(grid: Grid, density: Density | None) -> np.ndarray:
    """Quadrature weights of p dvol on a grid's points, summing to one; even ones without a density."""
    if density is None:
        weights = grid.weights
    else:
        weights = grid.weights * density.pdf(grid.points) * density.space.volume_element(grid.points)
    return weights / weights.sum()


def _nodes(solution: Solution, density: Density | None) -> tuple[np.ndarray, np.ndarray]:
    if solution.grid is None:
        assert solution.points is not None
        return solution.points, np.full(len(solution.points), 1 / len(solution.points))
    return solution.grid.points, grid_weights(solution.grid, density)


def _values(solution: Solution, index: int | np.integer, points: np.ndarray) -> np.ndarray:
    if solution.grid is None:
        return solution.y[index]
    if np.array_equal(points, solution.grid.points):
        return solution.y[index].reshape(len(points), -1)
    return solution.grid.interpolate(solution.y[index], points)
