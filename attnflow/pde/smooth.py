"""Spectral solutions of known accuracy: as many nodes as density, metric and initial values need, then a few more.

Smoothness is read off the coefficients of each field on a sample grid; two solutions on growing grids
say how accurate the finer one is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..grid import Grid, bandwidth
from ..solution import Solution
from .coefficients import at_points, coefficients, log_weight, on_sphere, relative_error
from .coefficients import transfer, weighted_norm
from .nested import warn_if_coarse
from .problem import Problem, finished, hidden, interrupted, later
from .propagator import seconds
from .spectral import evolve, spectral_grid, symmetric_form, wrapping

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_SAMPLED = {1: (64, 512), 2: (32, 96), 3: (16, 32)}  # nodes per axis on which smoothness is judged
_LARGEST = {1: 800, 2: 96**2, 3: 40**3}  # unknowns: seconds at most
_PATIENCE = {1: 0.1, 2: 0.004, 3: 0.05}  # seconds at rtol = 1e-4, about what finite volumes take
_ROUNDOFF = 1e-15
_EXACT = 1e-15  # of the time integration on a given grid


def solve_smooth(pde: DriftDiffusion, problem: Problem, rtol: float, insist: bool = False) -> Solution | None:
    """Grow the grid until two solutions agree to rtol; the finer one is returned.

    None if the fields are not smooth, or no two agree up to the largest affordable grid, or finite volumes would be
    faster; unless told to `insist` on the best there is.
    """
    sizes = smooth_sizes(pde, problem, 0.1 * rtol)
    if sizes is None and not insist:
        return None
    sizes = sizes or solvable(pde, (15,) * pde.space.dim)
    tol = min(1e-2 * rtol, 1e-6)
    patience = np.inf if insist else _PATIENCE[pde.space.dim] * (1e-4 / rtol) ** 0.6

    def solve(sizes: tuple[int, ...]):
        return _solve(pde, problem, sizes, tol, patience)

    def larger(sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        sizes = grown(pde, sizes)
        return sizes if affordable(sizes) else None

    def difference(coarse: _Solved, fine: _Solved) -> float:
        # of the finer one: half the digits are added that geometric convergence would add
        error = _difference(coarse, fine)
        growth = min(n / m for n, m in zip(fine.grid.shape, coarse.grid.shape))
        return error ** ((1 + growth) / 2) if error < 1 else error

    best, lowest = None, np.inf
    try:
        for best, lowest in refinements(solve, sizes, larger, difference, rtol):
            pass
    except KeyboardInterrupt:
        if best is None:
            raise
        return interrupted(problem.times, best.fields, best.grid, _stats(best, lowest))
    if best is None or (not insist and (lowest > rtol or hidden(pde, problem, best.initial, best.log_weight))):
        return None
    dense = _dense(pde, problem, best.grid.shape, tol)
    return finished(pde, problem, best.fields, best.grid, rtol, _stats(best, lowest), best.mass, dense)


def solve_smooth_on(pde: DriftDiffusion, problem: Problem, shape: tuple[int, ...]) -> Solution:
    """On the given nodes. An even size on an axis that wraps is solved with one node more and interpolated back."""
    sizes = solvable(pde, shape)
    here = _solve(pde, problem, sizes, _EXACT)
    larger = grown(pde, sizes)
    other = larger if affordable(larger) else solvable(pde, tuple(int(0.7 * n) for n in sizes))
    other = _solve(pde, problem, other, _EXACT)
    error = _difference(*sorted((here, other), key=lambda solved: solved.grid.size))
    grid = spectral_grid(pde, shape)
    warn_if_coarse(pde, grid, log_weight(pde, grid.points))
    stats = {**_stats(here, error), "grid": list(shape)}
    dense = _dense(pde, problem, sizes, _EXACT, grid)
    return finished(pde, problem, transfer(here.fields, here.grid, grid), grid, None, stats, dense=dense)


def refinements(
    solve: Callable, size, larger: Callable, difference: Callable, tol: float
) -> Iterator[tuple[object, float]]:
    """Better and better solutions, each with its difference from the one of the size before, until that is below tol.

    Ends where `solve` or `larger` says None: too expensive.
    """
    coarse, best, lowest = solve(size), None, np.inf
    while coarse is not None and lowest > tol:
        size = larger(size)
        fine = None if size is None else solve(size)
        if fine is None:
            return
        error = difference(coarse, fine)
        if best is None or error < lowest:
            best, lowest = fine, error
            yield best, lowest
        coarse = fine


def smooth_sizes(pde: DriftDiffusion, problem: Problem | None, rtol: float) -> tuple[int, ...] | None:
    """Nodes per axis to start from: they hold sqrt(w), the metric and the initial values to rtol.

    None if only too many would do, on an endless line, and where sqrt(w) spans more than rtol / 1e-15:
    in the wells of the weight the features are lost in rounding errors, from where global interpolation spreads them.
    """
    if not np.isfinite(pde.space.bounds).all():
        return None
    for size in _SAMPLED[pde.space.dim]:
        shape, points = _sample(pde, size)
        around = on_sphere(pde.space)
        log_w, tensor = coefficients(pde, spectral_grid(pde, shape)) if around else at_points(pde, points)
        if np.ptp(log_w) > 2 * np.log(max(rtol, 1e-12) / _ROUNDOFF):
            return None
        # what solutions are made of has modes of its own, twice as many nodes; the metric may alias into their upper
        # half: it is multiplied by, not expanded
        expanded, given = [np.exp((log_w - log_w.max()) / 2)[:, None]], problem and not callable(problem.initial)
        if problem and not given:
            expanded.append(checks.evaluate(problem.initial, points, "initial"))
        expanded = [_unfolded(pde, np.concatenate(expanded, axis=1).reshape(*shape, -1))]
        if given:
            expanded.append(problem.initial)  # on its own grid, which wraps
        widths = [bandwidth(field, rtol) for field in expanded]
        if tensor is not None:
            widths.append(bandwidth(_unfolded(pde, tensor.reshape(*shape, -1)), rtol))
        if all(width is not None for width in widths):
            share = [2.0] * len(expanded) + [1.0]
            sizes = [max(s * k for s, k in zip(share, along)) for along in zip(*widths)]
            sizes = [k + 3 if wraps else k / 2 + 3 for k, wraps in zip(sizes, wrapping(pde))]
            sizes = solvable(pde, tuple(int(np.ceil(k)) for k in sizes))
            return sizes if affordable(grown(pde, sizes)) else None
    return None


def grown(pde: DriftDiffusion, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The next larger sizes worth a comparison."""
    return solvable(pde, tuple(int(np.ceil(1.2 * n + 2)) for n in sizes))


def affordable(sizes: tuple[int, ...]) -> bool:
    """Whether that many nodes are a matter of seconds at most."""
    return math.prod(sizes) <= _LARGEST[len(sizes)]


def solvable(pde: DriftDiffusion, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """At least three nodes per axis, an odd number where it wraps."""
    return tuple(max(3, n | 1) if wraps else max(3, n) for n, wraps in zip(sizes, wrapping(pde)))


def _sample(pde: DriftDiffusion, size: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and points of a tensor grid, equispaced where it wraps and Chebyshev's nodes between walls."""
    if all(wrapping(pde)):
        grid = spectral_grid(pde, (size,) * pde.space.dim)
        return grid.shape, grid.points
    nodes = []
    for (low, high), wraps in zip(pde.space.bounds, wrapping(pde)):
        unit = np.arange(size) / size if wraps else (1 - np.cos(np.pi * np.arange(size + 1) / size)) / 2
        nodes.append(low + (high - low) * unit)
    return tuple(map(len, nodes)), np.stack([x.ravel() for x in np.meshgrid(*nodes, indexing="ij")], axis=-1)


def _unfolded(pde: DriftDiffusion, field: np.ndarray) -> np.ndarray:
    """Fields (*sample, c) continued evenly in the angle of Chebyshev's nodes, so that all axes wrap."""
    for k, wraps in enumerate(wrapping(pde)):
        if not wraps:
            mirror = field.take(range(field.shape[k] - 2, 0, -1), axis=k)
            field = np.concatenate([field, mirror], axis=k)
    return field


@dataclass(frozen=True)
class _Solved:
    """Fields (T, *grid, c) on a grid from initial values there, w and the nodes' share of it, and how."""

    grid: Grid
    initial: np.ndarray
    fields: np.ndarray
    log_weight: np.ndarray
    mass: np.ndarray
    stats: dict


def _solve(
    pde: DriftDiffusion, problem: Problem, sizes: tuple[int, ...], tol: float, patience: float = np.inf
) -> _Solved | None:
    """None if that would take more than `patience` seconds."""
    grid = spectral_grid(pde, sizes)
    form = symmetric_form(pde, grid, problem.walls, problem.backend)
    if seconds(form, problem.times, tol) > patience:
        return None
    initial = problem.sample(grid)
    fields, stats = evolve(form, initial, problem.times, tol, problem.walls, problem.progress)
    return _Solved(grid, initial, fields, form.log_weight, form.mass, stats)


def _dense(pde: DriftDiffusion, problem: Problem, sizes: tuple[int, ...], tol: float, target: Grid | None = None):
    """Dense output: times -> fields on the same nodes."""

    def fields_at(times: np.ndarray) -> np.ndarray:
        solved = _solve(pde, later(problem, times, False), sizes, tol)
        return solved.fields if target is None else transfer(solved.fields, solved.grid, target)

    return fields_at


def _difference(coarse: _Solved, fine: _Solved) -> float:
    """Relative error of the coarse fields: the larger of the plain and the weighted L2 norm.

    The plain one counts because interpolation spreads an error wherever it is.
    """
    gap = transfer(coarse.fields, coarse.grid, fine.grid) - fine.fields
    weights = np.stack([fine.grid.weights / fine.grid.weights.sum(), fine.mass])
    known = np.concatenate([fine.initial[None], fine.fields])
    return relative_error(weighted_norm(gap, weights), weighted_norm(known, weights))


def _stats(solved: _Solved, error: float) -> dict:
    return {"method": "spectral", "grid": list(solved.grid.shape), "estimated_error": error, **solved.stats}
