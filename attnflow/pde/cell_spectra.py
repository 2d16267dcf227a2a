"""Spectra on finite volumes: ever finer cells, the eigenvalues extrapolated to spacing zero, or cells as given.

In one dimension eigenpairs come from `chain`, to full relative accuracy; elsewhere by Lanczos iteration on the shifted
and inverted symmetric form, as good as the round-off of |L|.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh, splu

from ..grid import Grid
from ..resolution import between, interpolation_error
from .boundaries import Walls
from .chain import SMALLEST, chain_eigenpairs
from .coefficients import log_weight
from .finite_volume import Cells
from .nested import grid_shapes, romberg_orders

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_TOLERANCE = 1e-10
_ROUGH = 40.0  # range of log w above which eigenvectors of the symmetric form lose their tails
_FINEST = {1: 2**15, 2: 256, 3: 24}  # cells per axis of a factorisation
_DISTINCT = 2048  # cells of a line that eigenfunctions get at least: they are not extrapolated
_IRREGULAR = 0.6  # of the factor by which changes fall as the spacing is halved, off 4
_GONE = 1e-8  # of an eigenfunction times the root of the weight, where a line is cut
_WIDENINGS = 24  # by a tenth each
_ENDLESS = 600.0  # range of log w in which functions should have ended
_PAIR = 1e-6  # of an eigenvalue: the distance to the next, below which both count as one
_EPS = np.finfo(float).eps


class Found(NamedTuple):
    """Minus the eigenvalues (k,), the constant's exactly 0; functions (k, n), not normalised; relative errors."""

    sizes: np.ndarray
    functions: np.ndarray
    grid: Grid
    discretisation: float
    round_off: float

    @property
    def error(self) -> float:
        return max(self.discretisation, self.round_off)


def cell_spectrum(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """Cells, refined and extrapolated to spacing zero, or those given, with their error from coarser ones."""
    dim = pde.space.dim
    if shape is not None:
        return _given_cells(pde, k, shape, walls)
    shapes = grid_shapes(pde, pde.ranges())
    if dim == 3:
        shapes = [tuple(n // 2 for n in shapes[0]), *shapes]
    shapes = [shape for shape in shapes if np.prod(shape) >= 4 * k and max(shape) <= _FINEST[dim]]
    if len(shapes) < 3:
        raise ValueError(f"k must leave three grids of at least 4 k cells to compare, got {k}; give a grid")
    ranges, cut = _reach(pde, k, shapes[min(2, len(shapes) - 1)], walls) if dim == 1 else (None, 0.0)
    rows, sizes, errors = [], None, np.full(k, np.inf)
    for shape in shapes:
        found, cells = _on_cells(pde, k, shape, walls, ranges)
        rows.append([np.log(np.maximum(found.sizes, SMALLEST))])
        for order in romberg_orders(cells)[: len(rows) - 1]:
            fine, coarse = rows[-1][-1], rows[-2][len(rows[-1]) - 1]
            rows[-1].append(fine + (fine - coarse) / (2.0**order - 1))
        if len(rows) < 3:
            continue
        steps = np.diff([row[0] for row in rows[-4:]], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = (np.abs(steps[:-1] / steps[1:] - 4) < _IRREGULAR).all(axis=0)
        # p with a kink or a jump: the error is of the size of the changes, whatever the extrapolation says
        change = np.where(falls, np.abs(np.expm1(rows[-1][-1] - rows[-1][-2])), 2 * np.abs(np.expm1(steps)).max(axis=0))
        change += unseen(pde, found.grid) + found.round_off
        better = change < errors
        here = np.where(found.sizes > 0, np.exp(rows[-1][-1]), 0.0)
        sizes, errors = np.where(better, here, here if sizes is None else sizes), np.minimum(change, errors)
        done = errors.max() <= max(_TOLERANCE, 2 * found.round_off)
        if done and (dim > 1 or shape[0] >= _DISTINCT):
            break
    if dim > 1:
        cut = _at_the_cut(found, cells).max()
    elif (np.diff(sizes) < _PAIR * sizes[1:]).any():  # a double root is known to half the digits
        cut = max(cut, np.sqrt(_EPS))
    return found._replace(sizes=sizes, discretisation=float(max(errors.max(), cut)))


def _given_cells(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls) -> Found:
    """As they are. On a line their error is known. Elsewhere it is half the change from half as many along each axis
    where changes fall by four, and all of it where the grids are too coarse for that."""
    found, _ = _on_cells(pde, k, shape, walls)
    if len(shape) == 1:
        right = cell_spectrum(pde, k, None, walls)
        return found._replace(discretisation=relative_change(found.sizes, right.sizes) + right.error)
    changes = []
    for part in (2, 4):
        coarser = tuple(max(4, 2 * (n // (2 * part))) for n in shape)
        if np.prod(coarser) > k + 2:
            changes.append(relative_change(_on_cells(pde, k, coarser, walls)[0].sizes, found.sizes))
    falls = len(changes) == 2 and changes[1] > 4 * changes[0]
    return found._replace(discretisation=changes[0] * (0.5 if falls else 1.0)) if changes else found


def _reach(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls):
    """Where to cut a line for k eigenfunctions: where they times the root of the weight are gone as well. Also the error
    that is left, 1 where they never end: the spectrum is not discrete."""
    ranges = pde.ranges()
    if ranges is None or np.isfinite(pde.space.bounds).all():
        return ranges, 0.0
    for _ in range(_WIDENINGS):
        found, cells = _on_cells(pde, k, shape, walls, ranges)
        touched = _at_the_cut(found, cells)[0] > _GONE
        if not touched.any():
            return ranges, 0.0
        if np.ptp(cells.log_weight) > _ENDLESS:
            break
        (low, high), = ranges
        low, high = np.array([low, high]) + touched * (high - low) * np.array([-0.1, 0.1])
        ranges = ((float(low), float(high)),)
    return ranges, 1.0


def _at_the_cut(found: Found, cells: Cells) -> np.ndarray:
    """Largest eigenfunction times the root of the weight at both ends of each axis, over its maximum: (dim, 2), 0 where
    no line is cut."""
    dim, shape = len(cells.grid.shape), (len(found.functions), *cells.grid.shape)
    share = np.abs(found.functions * np.exp((cells.log_weight - cells.log_weight.max()) / 2))
    share = (share / share.max(axis=1, keepdims=True)).reshape(shape)
    ends = [[share.take(end, axis=j + 1).max() for end in (0, -1)] for j in range(dim)]
    return np.where(cells.grid.endless or [(False, False)] * dim, ends, 0.0)


def _on_cells(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls, ranges=None) -> tuple[Found, Cells]:
    cells = pde.cells(shape, walls, ranges=ranges)
    if len(shape) == 1:
        values, functions = chain_eigenpairs(cells, k)
        round_off = 8 * _EPS * (shape[0] * (1 + shape[0] / 1000) + np.ptp(cells.log_weight))
    else:
        values, vectors = _nearest_zero(cells, k)
        if cells.source is None:
            values[0] = 0.0
        functions, round_off = _functions(cells, values, vectors), lost_digits(cells.bound, -values, walls)
    return Found(-values, functions, cells.grid, np.inf, round_off), cells


def lost_digits(bound: float, sizes: np.ndarray, walls: Walls) -> float:
    """What rounding errors of a matrix of norm `bound` are, relative to the least eigenvalue but the constant's."""
    least = sizes[int(not held(walls)) :].min(initial=bound)
    return float(_EPS * bound / least) if least > 0 else np.inf


def unseen(pde: DriftDiffusion, grid: Grid) -> float:
    """How far the weight between the nodes is from what they say of it: of its root, in one dimension of log w."""
    log_w = log_weight(pde, grid.points)
    if len(grid.axes) > 1:
        root = np.exp((log_w - log_w.max()) / 2)
        return float(interpolation_error(lambda x: np.exp((log_weight(pde, x) - log_w.max()) / 2), grid, root, "density")[0])
    middle, scale = log_w.mean(), max(1.0, np.ptp(log_w))
    points = between(grid)
    axis = grid.axes[0]
    if axis.kind == "cells":  # next to a wall p may end in a power, which no polynomial follows
        points = points[(points[:, 0] > axis.low + 4 * axis.spacing) & (points[:, 0] < axis.high - 4 * axis.spacing)]

    def relative(log_w: np.ndarray) -> np.ndarray:
        return 1 + (log_w - middle) / scale  # of size 1 where all nodes say the same

    error = interpolation_error(lambda x: relative(log_weight(pde, x)), grid, relative(log_w), "density", points)[0]
    return float(error * scale)


def _nearest_zero(cells: Cells, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,) of the symmetric form sqrt(w) L / sqrt(w) and its orthonormal eigenvectors (n, k)."""
    symmetric = cells.operator(symmetric=True).tocsc()
    # a positive shift of about 1 / length^2: above the whole spectrum and close to its top
    shift = np.median(cells.loss) / (4 * max(cells.grid.shape) ** 2)
    start = np.random.default_rng(0).normal(size=cells.grid.size)  # same eigenvectors every time
    values, vectors = eigsh(symmetric, k, sigma=shift, which="LM", v0=start)
    order = np.argsort(-values)
    return np.minimum(values[order], 0.0), vectors[:, order]


def _functions(cells: Cells, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """phi = v / sqrt(w), (k, n). Where w is so small that v is rounding error, one inverse iteration with L
    itself, whose entries stay moderate, rebuilds phi from where it is known."""
    half = (cells.log_weight - cells.log_weight.max()) / 2
    known = half > -_ROUGH / 4
    functions = np.where(known[:, None], vectors * np.exp(-np.where(known, half, 0.0))[:, None], 0.0)
    if not known.all():
        scale = np.abs(values).max()
        identity = sparse.eye_array(cells.grid.size, format="csc")
        for m, value in enumerate(values):
            shifted = cells.operator().tocsc() - (value + 1e-7 * (scale or 1.0)) * identity
            solver = splu(shifted.tocsc())
            for _ in range(2):
                functions[:, m] = solver.solve(functions[:, m])
                functions[:, m] /= np.abs(functions[known, m]).max()
    return functions.T


def relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of positive numbers, relative to the second; where both are 0 there is none."""
    return float(np.max(np.abs(a - b) / np.where(b > 0, b, np.where(a > 0, a, 1.0)), initial=0.0))


def held(walls: Walls) -> bool:
    return any(side is not None for pair in walls for side in pair or ())
