"""Eigenvalues and eigenfunctions of L, its spectral gap, and the sets it takes long to leave.

==================== ========================================================= ==================================
where                how                                                       eigenvalues known to
==================== ========================================================= ==================================
smooth, few unknowns dense eigendecomposition on spectral nodes, harmonics     round-off of |L|: 1e-16 |L| / |lambda|
one dimension        subtraction-free elimination on cells, extrapolated       a relative 1e-12, however small
lines, planes, space Hermite functions of a Gaussian fitted to the weight      round-off of |L|
other                Lanczos iteration on cells, shifted, inverted,            what the last two grids say, and
                     extrapolated to spacing zero                              round-off of |L|
==================== ========================================================= ==================================

The first that reaches its tolerance is taken, or the one that says it is the most accurate.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh, splu

from .. import checks
from ..grid import Grid
from ..resolution import between, interpolation_error
from .boundaries import Walls
from .chain import SMALLEST, chain_eigenpairs
from .coefficients import log_weight, on_sphere
from .finite_volume import Cells
from .harmonics import harmonic_spectrum
from .hermite import hermite_spectrum
from .nested import grid_shapes, romberg_orders
from .smooth import grown, smooth_sizes, solvable
from .propagator import eigenpairs
from .spectral import spectral_grid, symmetric_form, wrapping

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_TOLERANCE = 1e-10
_ENOUGH = {1: 1e-10, 2: 1e-7, 3: 1e-7}  # relative error from which on no other method is tried: they do no better
_WARN = 1e-6
_COARSE = 0.1  # discretisation error of a given grid that is warned of
_ROUGH = 40.0  # range of log w above which eigenvectors of the symmetric form lose their tails
_DENSE = {1: 400, 2: 2500, 3: 2500}  # unknowns of an eigendecomposition, at most a few seconds
_FINEST = {1: 2**15, 2: 256, 3: 24}  # cells per axis of a factorisation
_DISTINCT = 2048  # cells of a line that eigenfunctions get at least: they are not extrapolated
_GONE = 1e-8  # of an eigenfunction times the root of the weight, where a line is cut
_WIDENINGS = 24  # by a tenth each
_EPS = np.finfo(float).eps


class _Pair(NamedTuple):
    eigenvalues: np.ndarray
    eigenfunctions: np.ndarray


class Spectrum(_Pair):
    """(eigenvalues (k,), eigenfunctions (k, *grid)), with the grid and the eigenvalues' estimated error beside them.

    Attributes
    ----------
    grid : Grid
        Where the eigenfunctions are sampled.
    estimated_error : float
        The largest relative error of the eigenvalues, the constant's left out.
    conserved : bool
        Whether constants stay, so that the first eigenvalue is exactly 0: without Dirichlet walls.
    """

    grid: Grid
    estimated_error: float
    conserved: bool

    def __new__(
        cls,
        eigenvalues: np.ndarray,
        eigenfunctions: np.ndarray,
        grid: Grid,
        estimated_error: float,
        conserved: bool = True,
    ):
        self = super().__new__(cls, eigenvalues, eigenfunctions)
        self.grid, self.estimated_error, self.conserved = grid, estimated_error, conserved
        return self

    def __getnewargs__(self):
        return (*self, self.grid, self.estimated_error, self.conserved)

    @property
    def gap(self) -> float:
        """Size of the largest eigenvalue but the constant's: the rate at which features forget all but their mean.

        Raises
        ------
        ValueError
            If only the constant's eigenvalue was computed.
        """
        first = int(self.conserved)
        if len(self.eigenvalues) <= first:
            raise ValueError(f"k must be at least 2 to tell the spectral gap, got {len(self.eigenvalues)}")
        return float(-self.eigenvalues[first])

    def metastable_sets(self, count: int | None = None) -> np.ndarray:
        """Labels 0, ..., count - 1 of the sets that exchange features slowest, (*grid).

        Each eigenfunction of a slow mode is nearly constant on each of them; the labels are the nearest corners
        of the simplex that the first `count` eigenfunctions span (Weber & Galliat 2002; Deuflhard & Weber 2005).
        None counts the eigenvalues before the largest relative jump.

        Raises
        ------
        ValueError
            If count is not between 1 and the number of eigenvalues.

        Examples
        --------
        >>> import numpy as np, attnflow as af
        >>> wells = af.Density(af.Circle(), lambda x: 2 * np.cos(2 * x[..., 0]))
        >>> spectrum = af.DriftDiffusion(wells).spectrum(5)
        >>> len(np.unique(spectrum.metastable_sets()))
        2
        """
        size = np.abs(self.eigenvalues)
        if count is None:
            count = 1 + int(np.argmax(size[2:] / np.maximum(size[1:-1], 1e-300))) + 1 if len(size) > 2 else 1
        count = checks.integer(count, "count", least=1)
        if count > len(size):
            raise ValueError(f"count must be at most the {len(size)} eigenvalues computed, got {count}")
        rows = self.eigenfunctions[:count].reshape(count, -1).T
        left, corners = rows.copy(), []
        for k in range(count):
            if k == 1:  # the simplex lies in a plane off the origin: move it there
                left = rows - rows[corners[0]]
            elif k > 1:
                direction = left[corners[-1]] / np.linalg.norm(left[corners[-1]])
                left = left - np.outer(left @ direction, direction)
            corners.append(int(np.argmax(np.linalg.norm(left, axis=1))))
        memberships = np.linalg.solve(rows[corners].T, rows.T)
        return np.argmax(memberships, axis=0).reshape(self.eigenfunctions.shape[1:])



def compute_spectrum(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    """The k smallest eigenpairs; on a given shape those of that grid, otherwise refined.

    Warns (AccuracyWarning) when the eigenvalues are not good to 1e-6, by round-off alone or, where the grid was not
    given, at all; a given grid that misses them by more than a per cent; and when some are too small for a number.
    """
    endless = not on_sphere(pde.space) and not np.isfinite(pde.space.bounds).all()
    if endless and pde.drift <= 0:
        raise ValueError(f"drift must be positive for a discrete spectrum on a line, got {pde.drift}")
    if shape is not None and k > np.prod(shape) - 2:
        raise ValueError(f"k must be at most {np.prod(shape) - 2} on a grid of {list(shape)}, got {k}")
    best = None
    for method in (_harmonic, _hermite, _spectral, _finite_volume):
        try:
            found = method(pde, k, shape, walls)
        except ValueError:  # cells that are too few for k or for p
            if best is None:
                raise
            break
        if found is not None and (best is None or found.error < best.error):
            best = found
        if best is not None and best.error <= _ENOUGH[pde.space.dim]:
            break
    conserved = not _held(walls)
    _warn(best, conserved, shape is not None)
    return Spectrum(-best.sizes, _normalised(pde, best.functions, best.grid), best.grid, best.error, conserved)


class _Found(NamedTuple):
    """Minus the eigenvalues (k,), the constant's exactly 0; functions (k, n), not normalised; relative errors."""

    sizes: np.ndarray
    functions: np.ndarray
    grid: Grid
    discretisation: float
    round_off: float

    @property
    def error(self) -> float:
        return max(self.discretisation, self.round_off)


def _warn(found: _Found, conserved: bool, given: bool) -> None:
    sizes, shape = found.sizes[int(conserved) :], list(found.grid.shape)
    lost = int((sizes < SMALLEST).sum())
    if found.round_off > _WARN:
        message = (
            f"eigenvalues are good to {found.error:.1g} of themselves only: the smallest, {-sizes.min():.3g}, is lost in "
            f"the round-off of the largest on a grid of {shape}"
        )
    elif lost:
        message = f"{lost} eigenvalues besides the constant's are below {SMALLEST:g} in size and given as 0"
    elif found.error > (_COARSE if given else _WARN):
        remedy = "use a finer one, or none" if given else "ask for fewer of them, or give a smoother density"
        message = f"eigenvalues are good to {found.error:.1g} of themselves only on a grid of {shape}; {remedy}"
    else:
        return
    warnings.warn(message, checks.AccuracyWarning, stacklevel=4)


def _harmonic(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> _Found | None:
    """Spherical harmonics on S^2."""
    found = harmonic_spectrum(pde, k, _TOLERANCE) if pde.on_globe and shape is None else None
    if found is None:
        return None
    values, functions, grid, error, bound = found
    return _Found(-values, functions.reshape(k, -1), grid, error, _lost(bound, -values, walls))


def _hermite(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> _Found | None:
    """Hermite functions on lines, planes and space."""
    if shape is not None or on_sphere(pde.space) or not pde.space.flat or np.isfinite(pde.space.bounds).any():
        return None
    found = hermite_spectrum(pde, k, _TOLERANCE if pde.space.dim == 1 else 10 * _TOLERANCE)
    return None if found is None else _Found(*found)


def _spectral(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> _Found | None:
    """Spectral nodes, refined until the eigenvalues stand, or those given, with their error from finer ones."""
    if pde.on_globe or not (shape is None or all(wrapping(pde))):  # a given grid elsewhere is one of cells
        return None
    sizes = smooth_sizes(pde, None, _TOLERANCE)
    if sizes is None:
        return None
    least = int(np.ceil(2 * (k + 1) ** (1 / pde.space.dim)))
    sizes = solvable(pde, tuple(max(n, least) for n in sizes) if shape is None else shape)
    if np.prod(sizes) > _DENSE[pde.space.dim]:
        return None
    found, error = _modes(pde, k, sizes, walls), np.inf
    while error > max(_TOLERANCE, found.round_off) and np.prod(grown(pde, sizes)) <= _DENSE[pde.space.dim]:
        sizes = grown(pde, sizes)
        finer = _modes(pde, k, sizes, walls)
        error = max(_relative_change(found.sizes, finer.sizes), _unseen(pde, finer.grid))
        if shape is not None:
            break
        found = finer
    return found._replace(discretisation=error)


def _modes(pde: DriftDiffusion, k: int, sizes: tuple[int, ...], walls: Walls) -> _Found:
    form = symmetric_form(pde, spectral_grid(pde, sizes), walls)
    values, vectors = eigenpairs(form)
    functions = (vectors[:, :k] / form.root.reshape(-1, 1)).T
    return _Found(-values[:k], functions, form.grid, np.inf, _lost(form.bound, -values[:k], walls))


def _finite_volume(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> _Found | None:
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
        change = np.abs(np.expm1(rows[-1][-1] - rows[-1][-2])) + _unseen(pde, found.grid) + found.round_off
        better = change < errors
        here = np.where(found.sizes > 0, np.exp(rows[-1][-1]), 0.0)
        sizes, errors = np.where(better, here, here if sizes is None else sizes), np.minimum(change, errors)
        done = errors.max() <= max(_TOLERANCE, 2 * found.round_off)
        if done and (dim > 1 or shape[0] >= _DISTINCT):
            break
    if dim > 1:
        cut = _at_the_cut(pde, found, cells).max()
    return found._replace(sizes=sizes, discretisation=float(max(errors.max(), cut)))


def _given_cells(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls) -> _Found:
    """As they are. The error is a third of the change from half as many along each axis where changes fall by four,
    and no less than that change where the grids are too coarse for it."""
    found, _ = _on_cells(pde, k, shape, walls)
    sizes = [found.sizes]
    for part in (2, 4):
        coarser = tuple(max(4, 2 * (n // (2 * part))) for n in shape)
        if np.prod(coarser) <= k + 2:
            break
        sizes.append(_on_cells(pde, k, coarser, walls)[0].sizes)
    changes = [_relative_change(coarse, found.sizes) for coarse in sizes[1:]]
    if not changes:
        return found
    falls = len(changes) == 2 and 3.5 * changes[0] < changes[1] < 8 * changes[0]  # 1 + 4, of changes from the finest
    return found._replace(discretisation=changes[0] * (0.5 if falls else 1.0))


def _reach(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls):
    """Where to cut a line for k eigenfunctions: where they times the root of the weight are gone as well. Also the error
    that is left, 1 where they never end: the spectrum is not discrete."""
    ranges = pde.ranges()
    if ranges is None or np.isfinite(pde.space.bounds).all():
        return ranges, 0.0
    for _ in range(_WIDENINGS):
        touched = _at_the_cut(pde, *_on_cells(pde, k, shape, walls, ranges))[0] > _GONE
        if not touched.any():
            return ranges, 0.0
        (low, high), = ranges
        low, high = np.array([low, high]) + touched * (high - low) * np.array([-0.1, 0.1])
        ranges = ((float(low), float(high)),)
    return ranges, 1.0


def _at_the_cut(pde: DriftDiffusion, found: _Found, cells: Cells) -> np.ndarray:
    """Largest eigenfunction times the root of the weight at both ends of each axis, over its maximum: (dim, 2), 0 where
    no line is cut."""
    dim, shape = len(cells.grid.shape), (len(found.functions), *cells.grid.shape)
    share = np.abs(found.functions * np.exp((cells.log_weight - cells.log_weight.max()) / 2))
    share = (share / share.max(axis=1, keepdims=True)).reshape(shape)
    ends = [[share.take(end, axis=j + 1).max() for end in (0, -1)] for j in range(dim)]
    return np.where(cells.grid.endless or [(False, False)] * dim, ends, 0.0)


def _on_cells(pde: DriftDiffusion, k: int, shape: tuple[int, ...], walls: Walls, ranges=None) -> tuple[_Found, Cells]:
    cells = pde.cells(shape, walls, ranges=ranges)
    if len(shape) == 1:
        values, functions = chain_eigenpairs(cells, k)
        round_off = 8 * _EPS * (shape[0] * (1 + shape[0] / 1000) + np.ptp(cells.log_weight))
    else:
        values, vectors = _nearest_zero(cells, k)
        if cells.source is None:
            values[0] = 0.0
        functions, round_off = _functions(cells, values, vectors), _lost(cells.bound, -values, walls)
    return _Found(-values, functions, cells.grid, np.inf, round_off), cells


def _lost(bound: float, sizes: np.ndarray, walls: Walls) -> float:
    """What rounding errors of a matrix of norm `bound` are, relative to the least eigenvalue but the constant's."""
    least = sizes[int(not _held(walls)) :].min(initial=bound)
    return float(_EPS * bound / least) if least > 0 else np.inf


def _unseen(pde: DriftDiffusion, grid: Grid) -> float:
    """How far the weight between the nodes is from what they say of it: of its root, in one dimension of log w."""
    log_w = log_weight(pde, grid.points)
    if len(grid.axes) > 1:
        root = np.exp((log_w - log_w.max()) / 2)
        return float(interpolation_error(lambda x: np.exp((log_weight(pde, x) - log_w.max()) / 2), grid, root, "density")[0])
    middle = log_w.mean()
    points = between(grid)
    axis = grid.axes[0]
    if axis.kind in ("cells", "lobatto"):  # next to a wall p may end in a power, which no polynomial follows
        points = points[(points[:, 0] > axis.low + 4 * axis.spacing) & (points[:, 0] < axis.high - 4 * axis.spacing)]
    error = interpolation_error(lambda x: log_weight(pde, x) - middle, grid, log_w - middle, "density", points)[0]
    return float(error * np.abs(log_w - middle).max())


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


def _normalised(pde: DriftDiffusion, functions: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, *grid): unit weighted norm, positive at the first node where they exceed half their maximum."""
    half = pde.log_weight(grid.points) / 2
    root = np.exp(half - half.max()) * np.sqrt(grid.weights)
    functions = functions / np.abs(functions * root).max(axis=1, keepdims=True)  # w may span more than a number does
    functions = functions / np.linalg.norm(functions * root, axis=1, keepdims=True) * np.exp(-half.max())
    first = np.argmax(np.abs(functions) > 0.5 * np.abs(functions).max(axis=1, keepdims=True), axis=1)
    signs = np.sign(functions[np.arange(len(functions)), first])
    return (functions * signs[:, None]).reshape(len(functions), *grid.shape)


def _relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of positive numbers, relative to the second; where both are 0 there is none."""
    return float(np.max(np.abs(a - b) / np.where(b > 0, b, np.where(a > 0, a, 1.0)), initial=0.0))


def _held(walls: Walls) -> bool:
    return any(side is not None for pair in walls for side in pair or ())
