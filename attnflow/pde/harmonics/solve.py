"""Spectral solutions on the sphere S^2: spherical harmonics up to the degree that density and initial values need.

Smoothness is read off the coefficients of each field on a sample grid; solutions of two degrees, compared coefficient
by coefficient, say how accurate the one of the higher degree is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ... import checks
from ...grid import Grid, bandwidth
from ...resolution import interpolation_error
from ...solution import Solution
from ..generator import Generator
from ..grids import node_grid, relative_error
from ..peaks import missed_peaks
from ..problem import Problem
from ..propagator import propagate
from ..refinement import EXACT, JUDGED, ROUND_OFF, interpolation_round_off, refinements
from ..report import report, report_interrupted
from .operator import HarmonicForm, Harmonics, RoundForm, harmonic_form, tangent_frame, tangent_tensor

_SAMPLED = (32, 64, 192)  # colatitudes on which smoothness is judged
_LARGEST = 34  # degree: about a second
_LARGEST_FREE = 200  # where harmonics are the modes


def solve_refined(generator: Generator, problem: Problem, rtol: float, insist: bool = False) -> Solution | None:
    """Raise the degree until two solutions agree to rtol; the finer one is returned.

    None if the fields are not smooth or no two agree up to the largest degree, unless told to `insist` on the best
    there is.
    """
    found = _judge(generator, problem, 0.1 * rtol)
    if found is None and not insist:
        return None
    degree, width, seen = found or (7, _SAMPLED[1], None)
    solve = partial(_solve, generator, problem, width, min(1e-3 * rtol, 1e-6))
    best, error = None, np.inf
    try:
        for best, error in refinements(solve, degree, partial(next_degree, largest=_largest(generator)), _difference, rtol):
            pass
    except KeyboardInterrupt:
        if best is None:
            raise
        grid = natural_grid(generator, best.form.basis.degree, width)
        return report_interrupted(problem.times, best.fields(grid), grid, best.report(grid, error))
    if best is None and insist:
        raise _too_concentrated(generator)
    if best is None or (error > rtol and not insist):
        return None
    grid = natural_grid(generator, best.form.basis.degree, width)
    error = max(
        error, _unseen(generator, problem, best.form.basis.degree) if seen is None else seen, interpolation_round_off(grid)
    )
    return report(generator, problem, best.fields(grid), grid, rtol, best.report(grid, error), dense=partial(best.at, grid))


def solve_given(generator: Generator, problem: Problem, shape: tuple[int, int]) -> Solution:
    """On the given colatitudes and longitudes, by harmonics of the largest degree they (and a second) hold."""
    degree = min(shape[0] - 1, shape[1] // 2 - 1, _largest(generator))
    _, width = smooth_degree(generator, None, ROUND_OFF) or (degree, _SAMPLED[1])
    here, other = (
        _solve(generator, problem, width, EXACT, n)
        for n in (degree, next_degree(degree, _largest(generator)) or int(0.8 * degree))
    )
    if here is None or other is None:
        raise _too_concentrated(generator)
    error = _difference(*sorted((here, other), key=lambda solved: solved.form.basis.degree))
    error = max(error, _unseen(generator, problem, degree), interpolation_round_off(node_grid(generator.space, shape)))
    grid = node_grid(generator.space, shape)
    return report(generator, problem, here.fields(grid), grid, None, here.report(grid, error), dense=partial(here.at, grid))


def smooth_degree(generator: Generator, problem: Problem | None, rtol: float) -> tuple[int, int] | None:
    """A degree to start from, which holds sqrt(w), T and the initial values to rtol, and that of w T to round-off.

    None if only too large ones would do, and where sqrt(w) spans more than rtol / 1e-15, as on the torus.
    """
    judged = _judge(generator, problem, rtol)
    return None if judged is None else judged[:2]


def _judge(generator: Generator, problem: Problem | None, rtol: float) -> tuple[int, int, float] | None:
    """Those degrees, and how far what they hold is from its samples on finer nodes, between those."""
    peaks = problem.peaks if problem else generator.peaks(None)
    for size in _SAMPLED:
        grid, tops = node_grid(generator.space, (size, 2 * size)), []

        def fields(x: np.ndarray) -> np.ndarray:
            """Of sqrt(w) and sqrt(w) T, and of initial values."""
            log_w = generator.log_weight(x)
            tops.append((log_w.max(), log_w.min()))
            frame = tangent_frame(x)
            ambient = (frame @ tangent_tensor(generator, x) @ frame.swapaxes(1, 2)).reshape(len(x), 9)  # smooth at the poles
            tops.append(np.abs(ambient).max())
            ambient += tops[1]  # entries are judged by the largest of them
            root = np.exp((log_w - tops[0][0]) / 2)[:, None]
            more = []
            if problem is not None and callable(problem.initial):
                more = [checks.evaluate(problem.initial, x, "initial").astype(float)]
            return np.concatenate([root, root * ambient, *more], axis=1)

        values = fields(grid.points)
        if tops[0][0] - tops[0][1] > 2 * np.log(max(rtol, 1e-12) / ROUND_OFF):
            return None
        root = values[:, :1]
        needed: list[float | None] = [_degree(grid, root, rtol), _degree(grid, values[:, 1:10], rtol)]
        width = _degree(grid, root * np.concatenate([root, values[:, 1:10]], axis=1), 0.0)
        if width is None and size == _SAMPLED[1]:
            width = size
        # the equation's coefficients may alias into the upper half: products with H are integrated, not expanded
        needed = [n and n / 2 for n in needed]
        if values.shape[1] > 10:
            needed.append(_degree(grid, values[:, 10:], rtol))
        if width is None or None in needed:
            continue
        missed = max(float(interpolation_error(fields, grid, values, JUDGED).max()), missed_peaks(peaks, grid))
        if missed <= max(10 * rtol, interpolation_round_off(grid)):
            degree = int(np.ceil(max(n for n in needed if n is not None))) + 2
            return (degree, width, missed) if next_degree(degree, _largest(generator)) else None
    return None


def _unseen(generator: Generator, problem: Problem, degree: int) -> float:
    """How far root of the weight and initial values are from their interpolants on nodes that hold a degree."""
    grid = node_grid(generator.space, (degree + 1, 2 * degree + 2))
    top = generator.log_weight(grid.points).max()

    def fields(x: np.ndarray) -> np.ndarray:
        given = [checks.evaluate(problem.initial, x, "initial")] if callable(problem.initial) else []
        return np.concatenate([np.exp((generator.log_weight(x) - top) / 2)[:, None], *given], axis=1)

    missed = float(interpolation_error(fields, grid, fields(grid.points), JUDGED).max())
    return max(missed, missed_peaks(problem.peaks, grid))


def next_degree(degree: int, largest: int = _LARGEST) -> int | None:
    """The next larger degree worth a comparison; None beyond the affordable."""
    larger = int(np.ceil(1.2 * degree + 1))
    return larger if larger <= largest else None


def _largest(generator: Generator) -> int:
    return _LARGEST_FREE if generator.is_laplacian else _LARGEST


@dataclass(frozen=True)
class _Solved:
    """Coefficients h (T, c, modes) at the times, u (c, modes) at time 0, how they were computed, and what rounding errors
    may take from the largest norm, relatively."""

    form: HarmonicForm | RoundForm
    start: np.ndarray
    coefficients: np.ndarray
    stats: dict
    tol: float
    round_off: float

    def fields(self, grid: Grid, coefficients: np.ndarray | None = None) -> np.ndarray:
        """(T, *grid, c)."""
        coefficients = self.coefficients if coefficients is None else coefficients
        return np.moveaxis(Harmonics.on(grid, self.form.basis.degree).values(coefficients), 1, -1)

    def at(self, grid: Grid, times: np.ndarray) -> np.ndarray:
        """Dense output: times -> fields on the grid."""
        evolved, _, _ = propagate(self.form, self.start, None, times, self.tol)
        return self.fields(grid, self.form.coefficients(np.stack(evolved)))

    def report(self, grid: Grid, error: float) -> dict:
        return {
            "method": "spectral",
            "grid": list(grid.shape),
            "degree": self.form.basis.degree,
            "estimated_error": error,
            "round_off": self.round_off,
            **self.stats,
        }


def _solve(generator: Generator, problem: Problem, width: int, tol: float, degree: int) -> _Solved | None:
    form = harmonic_form(generator, degree, width)
    if form is None:
        return None
    fields = np.moveaxis(_initial(generator, problem, form.basis), -1, 0)
    start = form.start(fields)
    evolved, stats, lost = propagate(form, start, None, problem.times, tol, problem.progress)
    norms = np.linalg.norm([start, *evolved], axis=-1)
    return _Solved(form, start, form.coefficients(np.stack(evolved)), stats, tol, relative_error(lost, norms))


def _initial(generator: Generator, problem: Problem, basis: Harmonics) -> np.ndarray:
    """Initial values on the quadrature nodes, (n, k, c)."""
    x = basis.points
    if callable(problem.initial):
        values = checks.evaluate(problem.initial, x, "initial").astype(float)
    else:
        values = node_grid(generator.space, problem.initial.shape[:2]).interpolate(problem.initial, x)
    return values.reshape(len(basis.colatitudes), len(basis.longitudes), -1)


def _difference(coarse: _Solved, fine: _Solved) -> float:
    """Relative error of the coarse solution: the larger of the plain and the weighted L2 norm."""
    known = np.concatenate([fine.form.coefficients(fine.start)[None], fine.coefficients])
    gap = fine.coefficients.copy()
    gap[..., : coarse.form.size] -= coarse.coefficients
    norms = (lambda h: np.linalg.norm(h, axis=-1)), fine.form.norms
    return max(relative_error(norm(gap), norm(known)) for norm in norms) + fine.round_off


def _too_concentrated(generator: Generator) -> ValueError:
    log_w = generator.log_weight(node_grid(generator.space, (_SAMPLED[0], 2 * _SAMPLED[0])).points)
    return ValueError(
        "method must be 'auto' or 'finite-volume' for a density that concentrated: the logarithm of the weight p^drift "
        f"spans {np.ptp(log_w):.3g}, too much for harmonics, got 'spectral'"
    )


def natural_grid(generator: Generator, degree: int, width: int) -> Grid:
    """Holds harmonics of the degree, and integrates w H^2."""
    size = 2 * degree + 2 + width
    return node_grid(generator.space, (size, size + size % 2))


def _degree(grid: Grid, field: np.ndarray, rtol: float) -> int | None:
    """The degree that holds a field (N, c) to rtol; None if it is not smooth on the grid.

    Continued over the poles, half way round, harmonics are trigonometric in both angles.
    """
    field = field.reshape(*grid.shape, -1)
    beyond = np.roll(field[::-1], grid.shape[1] // 2, axis=1)
    widths = bandwidth(np.concatenate([field, beyond]), rtol)
    return None if widths is None else max(widths)
