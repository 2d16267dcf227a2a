"""Spectral solutions of known accuracy: as many nodes as density, metric and initial values need, then a few more.

Smoothness is read off the coefficients of each field on a sample grid; two solutions on growing grids
say how accurate the finer one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from ... import checks
from ...grid import Grid, bandwidth
from ...resolution import interpolation_error
from ...solution import Solution
from ..boundaries import Walls
from ..generator import Generator, tensor_fields
from ..grids import node_grid, relative_error, transfer, weighted_norm, wrapping
from ..peaks import missed_peaks, unseen
from ..problem import Problem
from ..propagator import compared_growth, predicted_seconds, propagate
from ..refinement import BUDGET, EXACT, JUDGED, MOST_CELLS, ROUND_OFF, interpolation_round_off, refinements
from ..report import report, report_interrupted, warn_if_coarse
from .operator import SymmetricForm, symmetric_form
from .sampling import sample_on
from .walls import wall_gains, wall_values

# nodes per axis on which smoothness is judged, one after the other
_SAMPLED = {1: (64, 512, 2**12, 2**15), 2: (32, 96, 384), 3: (16, 32, 80)}
_LARGEST = {1: 800, 2: 400**2, 3: 48**3}  # unknowns, where each time step costs products with dense matrices;
_LARGEST_FREE = 2**21  # where the Fourier transform is all;
_USUAL = {1: 800, 2: 96**2, 3: 40**3}  # up to which grids grow to more than twice what data seemed to need
_PATIENCE = {1: 0.1, 2: 0.004, 3: 0.05}  # seconds at rtol = 1e-4, about what finite volumes take
_MANY = 16  # cells per node: if finite volumes would need more than they have, they cannot do better


def solve_refined(generator: Generator, problem: Problem, rtol: float, insist: bool = False) -> Solution | None:
    """Grow the grid until two solutions agree to rtol; the finer one is returned.

    None if the fields are not smooth, or no two agree up to the largest affordable grid, or finite volumes would be
    faster; unless told to `insist` on the best there is.
    """
    dim = generator.space.dim
    judged = _judge(generator, problem, 0.1 * rtol)
    if judged is None and not insist:
        return None
    first, seen = judged or (allowed_sizes(generator, (15,) * dim), None)
    tol = min(1e-2 * rtol, 1e-6)
    crowded = _MANY * max(first) > MOST_CELLS[dim]
    patience = np.inf if insist else BUDGET if crowded else _PATIENCE[dim] * (1e-4 / rtol) ** 0.6

    solved: list[_Solved] = []

    def solve(sizes: tuple[int, ...]) -> _Solved | None:
        found = _solve(generator, problem, sizes, tol, patience)
        solved.extend([] if found is None else [found])
        return found

    def larger(sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        sizes = next_sizes(generator, sizes)
        hopeless = math.prod(sizes) > max(_USUAL[dim], 2**dim * math.prod(first))
        hopeless |= solved[-1].round_off > rtol and (not insist or len(solved) > 1)  # which more nodes do not lower
        return sizes if is_affordable(generator, sizes, problem.walls) and not hopeless else None

    def difference(coarse: _Solved, fine: _Solved) -> float:
        # of the finer one: half the digits are added that geometric convergence would add
        error = _difference(coarse, fine)
        growth = min(n / m for n, m in zip(fine.grid.shape, coarse.grid.shape))
        return (error ** ((1 + growth) / 2) if error < 1 else error) + fine.round_off

    best, lowest = None, np.inf
    try:
        for best, lowest in refinements(solve, first, larger, difference, rtol):
            pass
    except KeyboardInterrupt:
        if best is None:
            raise
        return report_interrupted(problem.times, best.fields, best.grid, _stats(best, lowest))
    if best is None or (not insist and lowest > rtol):
        return None
    seen = _unseen(generator, problem, best) if seen is None else seen
    lowest = max(lowest, seen, interpolation_round_off(best.grid))
    dense = partial(_fields_at, generator, problem, best.grid.shape, tol, None)
    before = next(coarse for coarse, fine in zip(solved, solved[1:]) if fine is best)
    stats = compared_growth(_stats(best, lowest), before.stats)
    return report(generator, problem, best.fields, best.grid, rtol, stats, best.mass, dense)


def solve_given(generator: Generator, problem: Problem, shape: tuple[int, ...]) -> Solution:
    """On the given nodes. An even size on an axis that wraps is solved with one node more and interpolated back."""
    sizes = allowed_sizes(generator, shape)
    here = _solve(generator, problem, sizes, EXACT)
    larger = next_sizes(generator, sizes)
    others = (
        larger
        if is_affordable(generator, larger, problem.walls)
        else allowed_sizes(generator, tuple(int(0.7 * n) for n in sizes))
    )
    other = _solve(generator, problem, others, EXACT)
    assert here is not None and other is not None  # patience has no end
    error = _difference(*sorted((here, other), key=lambda solved: solved.grid.size)) + here.round_off
    error = max(error, _unseen(generator, problem, here), interpolation_round_off(here.grid))
    grid = node_grid(generator.space, shape)
    warn_if_coarse(generator, grid, generator.log_weight(grid.points))
    stats = {**compared_growth(_stats(here, error), other.stats), "grid": list(shape)}
    dense = partial(_fields_at, generator, problem, sizes, EXACT, grid)
    return report(generator, problem, transfer(here.fields, here.grid, grid), grid, None, stats, dense=dense)


def smooth_sizes(generator: Generator, problem: Problem | None, rtol: float) -> tuple[int, ...] | None:
    """Nodes per axis to start from: they hold sqrt(w), the metric and the initial values to rtol.

    None if only too many would do, on an endless line, and where sqrt(w) spans more than rtol / 1e-15:
    in the wells of the weight the features are lost in rounding errors, from where global interpolation spreads them.
    """
    judged = _judge(generator, problem, rtol)
    return None if judged is None else judged[0]


def _judge(generator: Generator, problem: Problem | None, rtol: float) -> tuple[tuple[int, ...], float] | None:
    """Those sizes, and how far what they hold is from its samples on finer nodes, between those."""
    if not np.isfinite(generator.space.bounds).all():
        return None
    walls = problem.walls if problem else ()
    peaks = problem.peaks if problem else generator.peaks(generator.ranges())
    given = problem.initial if problem and not callable(problem.initial) else None
    for size in _SAMPLED[generator.space.dim]:
        sample = sample_on(node_grid(generator.space, (size,) * generator.space.dim))
        nodes, x = sample.nodes, sample.points
        log_w, tensor = generator.coefficients(x)
        top = log_w[:nodes].max()
        if top - log_w[:nodes].min() > 2 * np.log(max(rtol, 1e-12) / ROUND_OFF):
            return None
        # what solutions are made of, and after it the metric, if it changes
        columns = [np.exp((log_w - top) / 2)[:, None]]
        if problem and given is None:
            columns.append(checks.evaluate(problem.initial, x, "initial"))
        if problem and problem.source is not None:
            columns.append(problem.source.fields(x))
        expanded = sum(column.shape[1] for column in columns)
        if tensor is not None:
            columns.append(tensor_fields(tensor))
        fields = np.concatenate(columns, axis=1)
        values = sample.unfolded(fields[:nodes])
        # what solutions are made of has modes of its own, twice as many nodes; the metric may alias into their upper
        # half: it is multiplied by, not expanded
        widths, shares = [bandwidth(values[..., :expanded], rtol)], [2.0]
        if values.shape[-1] > expanded:
            widths.append(bandwidth(values[..., expanded:], rtol))
            shares.append(1.0)
        if given is not None:
            widths.append(bandwidth(given, rtol))  # on its own grid, which wraps
            shares.append(2.0)
        if None in widths:
            continue
        apart = interpolation_error(fields[nodes:], sample.angles, values, JUDGED)
        missed = float(apart[:expanded].max()), float(apart[expanded:].max(initial=0.0))
        missed = max(missed[0], missed_peaks(peaks, sample.angles, sample.places, sample.turned)), missed[1]
        if max(missed) > max(10 * rtol, interpolation_round_off(sample.angles)):
            continue
        most = [max(s * k for s, k in zip(shares, along)) for along in zip(*widths)]
        needed = [k + 3 if wraps else k / 2 + 3 for k, wraps in zip(most, wrapping(generator.space))]
        sizes = allowed_sizes(generator, tuple(int(np.ceil(k)) for k in needed))
        while unseen(peaks, node_grid(generator.space, sizes)):  # walls, of which no width is known
            sizes = next_sizes(generator, sizes)
            if not is_affordable(generator, sizes, walls):
                return None
        return (sizes, max(missed)) if is_affordable(generator, next_sizes(generator, sizes), walls) else None
    return None


def next_sizes(generator: Generator, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The next larger sizes worth a comparison."""
    return allowed_sizes(generator, tuple(int(np.ceil(1.2 * n + 2)) for n in sizes))


def is_affordable(generator: Generator, sizes: tuple[int, ...], walls: Walls = ()) -> bool:
    """Whether that many nodes are a matter of seconds at most."""
    return math.prod(sizes) <= (
        _LARGEST_FREE if generator.is_laplacian and not any(walls) and all(wrapping(generator.space)) else _LARGEST[len(sizes)]
    )


def allowed_sizes(generator: Generator, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """At least three nodes per axis, an odd number where it wraps."""
    return tuple(max(3, n | 1) if wraps else max(3, n) for n, wraps in zip(sizes, wrapping(generator.space)))


@dataclass(frozen=True)
class _Solved:
    """Fields (T, *grid, c) on a grid from initial values there, w and the nodes' share of it, how, and what rounding errors
    may take from the largest norm, relatively."""

    grid: Grid
    initial: np.ndarray
    fields: np.ndarray
    log_weight: np.ndarray
    mass: np.ndarray
    stats: dict
    round_off: float


def _solve(
    generator: Generator, problem: Problem, sizes: tuple[int, ...], tol: float, patience: float = np.inf
) -> _Solved | None:
    """None if that would take more than `patience` seconds."""
    grid = node_grid(generator.space, sizes)
    form = symmetric_form(generator, grid, problem.walls, problem.backend)
    initial = problem.sample(grid)
    gain = wall_gains(generator, grid, problem.walls, initial)
    if problem.source is not None:
        constant, rate = problem.source.parts(grid.points)
        form = form.less(-rate.reshape(grid.shape)) if rate.any() else form
        gain = constant.reshape(initial.shape) + (0 if gain is None else gain)
    if predicted_seconds(form, problem.times, tol) > patience:
        return None
    fields, stats, lost = _evolve(form, gain, initial, problem, tol)
    round_off = relative_error(lost, weighted_norm(np.concatenate([initial[None], fields]), form.mass))
    return _Solved(grid, initial, fields, form.log_weight, form.mass, stats, round_off)


def _evolve(form: SymmetricForm, gain: np.ndarray | None, initial: np.ndarray, problem: Problem, tol: float):
    """Fields (T, *grid, c) at the problem's times from initial values (*grid, c), with `gain` (*grid, c) added to dH/dt,
    how they were computed, and what rounding errors may take from their norms (T, c)."""
    xp, walls = form.xp, problem.walls
    start = xp.asarray(_columns_first(initial)) * form.root
    source = None if gain is None else xp.asarray(_columns_first(gain)) * form.root
    if form.moves is not None:
        wall = xp.asarray(_columns_first(wall_values(form.grid, walls, initial))) * form.root
        start = form.moves * start
        source = form.moves * (form.apply_without_walls(wall) + (0 if source is None else source))
    fields, stats, lost = propagate(form, start, source, problem.times, tol, problem.progress)
    fields = xp.stack(fields) / form.root
    if form.moves is not None:
        fields = fields * form.moves + (1 - form.moves) * (wall / form.root)
    fields = fields if xp is np else xp.asnumpy(fields)
    return fields.transpose(0, *range(2, fields.ndim), 1), stats, lost


def _columns_first(fields: np.ndarray) -> np.ndarray:
    """(*grid, c) as (c, *grid)."""
    return fields.transpose(fields.ndim - 1, *range(fields.ndim - 1))


def _fields_at(
    generator: Generator, problem: Problem, sizes: tuple[int, ...], tol: float, target: Grid | None, times: np.ndarray
) -> np.ndarray:
    """Dense output: fields at the times, solved on the same nodes and carried over to the target's."""
    solved = _solve(generator, problem.at_times(times, False), sizes, tol)
    assert solved is not None
    return solved.fields if target is None else transfer(solved.fields, solved.grid, target)


def _difference(coarse: _Solved, fine: _Solved) -> float:
    """Relative error of the coarse fields: the larger of the plain and the weighted L2 norm.

    The plain one counts because interpolation spreads an error wherever it is.
    """
    gap = transfer(coarse.fields, coarse.grid, fine.grid) - fine.fields
    weights = np.stack([fine.grid.weights / fine.grid.weights.sum(), fine.mass])
    known = np.concatenate([fine.initial[None], fine.fields])
    return relative_error(weighted_norm(gap, weights), weighted_norm(known, weights))


def _unseen(generator: Generator, problem: Problem, solved: _Solved) -> float:
    """How far root of the weight, metric and initial values are from their interpolants on the nodes of a solution."""
    top, grid = solved.log_weight.max(), solved.grid

    def fields(x: np.ndarray) -> np.ndarray:
        log_w, tensor = generator.coefficients(x)
        parts = [np.exp((log_w - top) / 2)[:, None], *([] if tensor is None else [tensor_fields(tensor)])]
        parts += [checks.evaluate(problem.initial, x, "initial")] if callable(problem.initial) else []
        parts += [problem.source.fields(x)] if problem.source is not None else []
        return np.concatenate(parts, axis=1)

    missed = missed_peaks(problem.peaks, grid)
    return max(missed, float(interpolation_error(fields, grid, fields(grid.points), JUDGED).max()))


def _stats(solved: _Solved, error: float) -> dict:
    return {
        "method": "spectral",
        "grid": list(solved.grid.shape),
        "estimated_error": error,
        "round_off": solved.round_off,
        **solved.stats,
    }
