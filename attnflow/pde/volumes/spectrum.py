"""Spectra on finite volumes: ever finer cells, the eigenvalues extrapolated to spacing zero, or cells as given.

In one dimension eigenpairs come from `chain`, to full relative accuracy; elsewhere, and where walls let features grow, by
Lanczos iteration on the shifted and inverted symmetric form, as good as the round-off of |L|.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh, splu

from ..boundaries import Walls
from ..eigenvalues import SMALLEST, TOLERANCE, Found, lost_digits, missed_weight, peaks_of, relative_change
from ..generator import Generator
from ..propagator import EPS
from .chain import chain_eigenpairs
from .operator import Cells, assemble
from .solve import grid_shapes, romberg_orders

_ROUGH = 40.0  # range of log w above which eigenvectors of the symmetric form lose their tails
_FINEST = {1: 2**15, 2: 256, 3: 24}  # cells per axis of a factorisation
_DISTINCT = 2048  # cells of a line that eigenfunctions get at least: they are not extrapolated
_IRREGULAR = 0.6  # of the factor by which changes fall as the spacing is halved, off 4
_GONE = 1e-8  # of an eigenfunction times the root of the weight, where a line is cut
_WIDENINGS = 24  # by a tenth each
_ENDLESS = 600.0  # range of log w in which functions should have ended
_PAIR = 1e-6  # of an eigenvalue: the distance to the next, below which both count as one


def cell_spectrum(generator: Generator, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found:
    """Cells, refined and extrapolated to spacing zero, or those given, with their error from coarser ones."""
    dim = generator.space.dim
    if shape is not None:
        return _given_cells(generator, k, shape, walls)
    shapes = grid_shapes(generator, generator.ranges())
    if dim == 3:
        shapes = [tuple(n // 2 for n in shapes[0]), *shapes]
    shapes = [shape for shape in shapes if np.prod(shape) >= 4 * k and max(shape) <= _FINEST[dim]]
    if len(shapes) < 3:
        raise ValueError(f"k must leave three grids of at least 4 k cells to compare, got {k}; give a grid")
    ranges, cut = _reach(generator, k, shapes[min(2, len(shapes) - 1)], walls) if dim == 1 else (None, 0.0)
    peaks = peaks_of(generator, walls)
    rows, sizes, errors = [], None, np.full(k, np.inf)
    for shape in shapes:
        found, cells = _on_cells(generator, k, shape, walls, ranges)
        grows = cells.gains
        rows.append([found.sizes if grows else np.log(np.maximum(found.sizes, SMALLEST))])
        for order in romberg_orders(cells)[: len(rows) - 1]:
            fine, coarse = rows[-1][-1], rows[-2][len(rows[-1]) - 1]
            rows[-1].append(fine + (fine - coarse) / (2.0**order - 1))
        if len(rows) < 3:
            continue
        steps = np.diff([row[0] for row in rows[-4:]], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = (np.abs(steps[:-1] / steps[1:] - 4) < _IRREGULAR).all(axis=0)
        # p with a kink or a jump: the error is of the size of the changes, whatever the extrapolation says
        corrections = np.vstack([rows[-1][-1] - rows[-1][-2], steps])
        corrections = np.abs(corrections / np.maximum(np.abs(found.sizes), SMALLEST) if grows else np.expm1(corrections))
        change = np.where(falls, corrections[0], 2 * corrections[1:].max(axis=0))
        change += missed_weight(generator, found.grid, peaks) + found.round_off
        better = change < errors
        here = rows[-1][-1] if grows else np.where(found.sizes > 0, np.exp(rows[-1][-1]), 0.0)
        sizes, errors = np.where(better, here, here if sizes is None else sizes), np.minimum(change, errors)
        done = errors.max() <= max(TOLERANCE, 2 * found.round_off)
        if done and (dim > 1 or shape[0] >= _DISTINCT):
            break
    assert sizes is not None  # there are three shapes at least
    if dim > 1:
        cut = _at_the_cut(found, cells).max()
    elif (np.diff(sizes) < _PAIR * sizes[1:]).any():  # a double root is known to half the digits
        cut = max(cut, np.sqrt(EPS))
    return found._replace(sizes=sizes, discretisation=float(max(errors.max(), cut)))


def _given_cells(generator: Generator, k: int, shape: tuple[int, ...], walls: Walls) -> Found:
    """As they are. On a line their error is known. Elsewhere it is half the change from half as many along each axis
    where changes fall by four, and all of it where the grids are too coarse for that."""
    found, _ = _on_cells(generator, k, shape, walls)
    if len(shape) == 1:
        right = cell_spectrum(generator, k, None, walls)
        return found._replace(discretisation=relative_change(found.sizes, right.sizes) + right.error)
    changes = []
    for part in (2, 4):
        coarser = tuple(max(4, 2 * (n // (2 * part))) for n in shape)
        if np.prod(coarser) > k + 2:
            changes.append(relative_change(_on_cells(generator, k, coarser, walls)[0].sizes, found.sizes))
    falls = len(changes) == 2 and changes[1] > 4 * changes[0]
    return found._replace(discretisation=changes[0] * (0.5 if falls else 1.0)) if changes else found


def _reach(generator: Generator, k: int, shape: tuple[int, ...], walls: Walls):
    """Where to cut a line for k eigenfunctions: where they times the root of the weight are gone as well. Also the error
    that is left, 1 where they never end: the spectrum is not discrete."""
    ranges = generator.ranges()
    if ranges is None or np.isfinite(generator.space.bounds).all():
        return ranges, 0.0
    for _ in range(_WIDENINGS):
        found, cells = _on_cells(generator, k, shape, walls, ranges)
        touched = _at_the_cut(found, cells)[0] > _GONE
        if not touched.any():
            return ranges, 0.0
        if np.ptp(cells.log_weight) > _ENDLESS:
            break
        ((low, high),) = ranges
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


def _on_cells(generator: Generator, k: int, shape: tuple[int, ...], walls: Walls, ranges=None) -> tuple[Found, Cells]:
    cells = assemble(generator, shape, walls, 1, generator.ranges() if ranges is None else ranges)
    if len(shape) == 1 and not cells.gains:
        values, functions = chain_eigenpairs(cells, k)
        round_off = 8 * EPS * (shape[0] * (1 + shape[0] / 1000) + np.ptp(cells.log_weight))
    else:
        values, vectors = _nearest_zero(cells, k)
        if cells.leak is None:
            values[0] = 0.0
        functions, round_off = _functions(cells, values, vectors), lost_digits(cells.bound, -values, walls)
    return Found(-values, functions, cells.grid, np.inf, round_off), cells


def _nearest_zero(cells: Cells, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,) of the symmetric form sqrt(w) L / sqrt(w) and its orthonormal eigenvectors (n, k)."""
    symmetric = cells.operator(symmetric=True).tocsc()
    # a positive shift of about 1 / length^2: above the whole spectrum and close to its top
    shift = np.median(cells.loss) / (4 * max(cells.grid.shape) ** 2) + 1.01 * cells.growth
    start = np.random.default_rng(0).normal(size=cells.grid.size)  # same eigenvectors every time
    values, vectors = eigsh(symmetric, k, sigma=shift, which="LM", v0=start)
    order = np.argsort(-values)
    return values[order] if cells.gains else np.minimum(values[order], 0.0), vectors[:, order]


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
