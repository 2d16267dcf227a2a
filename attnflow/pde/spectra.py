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

from .. import checks
from ..grid import Grid
from .boundaries import Walls
from .cell_spectra import Found, cell_spectrum, held, lost_digits, relative_change, unseen
from .chain import SMALLEST
from .coefficients import on_sphere
from .harmonics import harmonic_spectrum
from .hermite import hermite_spectrum
from .propagator import eigenpairs
from .smooth import grown, smooth_sizes, solvable
from .spectral import spectral_grid, symmetric_form, wrapping

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_TOLERANCE = 1e-10
_ENOUGH = {1: 1e-10, 2: 1e-7, 3: 1e-7}  # relative error from which on no other method is tried: they do no better
_WARN = 1e-6
_COARSE = 0.1  # discretisation error of a given grid that is warned of
_DENSE = {1: 400, 2: 2500, 3: 2500}  # unknowns of an eigendecomposition, at most a few seconds
_HIDDEN = 1e-5  # of the weight, between nodes that should show all of it


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
    for method in (_harmonic, _hermite, _spectral, cell_spectrum):
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
    conserved = not held(walls)
    _warn(best, conserved, shape is not None)
    return Spectrum(-best.sizes, _normalised(pde, best.functions, best.grid), best.grid, best.error, conserved)


def _warn(found: Found, conserved: bool, given: bool) -> None:
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


def _harmonic(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """Spherical harmonics on S^2."""
    found = harmonic_spectrum(pde, k, _TOLERANCE) if pde.on_globe and shape is None else None
    if found is None:
        return None
    values, functions, grid, error, bound = found
    return Found(-values, functions.reshape(k, -1), grid, error, lost_digits(bound, -values, walls))


def _hermite(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """Hermite functions on lines, planes and space."""
    if shape is not None or on_sphere(pde.space) or not pde.space.flat or np.isfinite(pde.space.bounds).any():
        return None
    found = hermite_spectrum(pde, k, _TOLERANCE if pde.space.dim == 1 else 10 * _TOLERANCE)
    return None if found is None else Found(*found)


def _spectral(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
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
    if shape is None and unseen(pde, found.grid) > _HIDDEN:
        return None  # not so smooth as it seemed
    while error > max(_TOLERANCE, found.round_off) and np.prod(grown(pde, sizes)) <= _DENSE[pde.space.dim]:
        sizes = grown(pde, sizes)
        finer = _modes(pde, k, sizes, walls)
        error = max(relative_change(found.sizes, finer.sizes), unseen(pde, finer.grid))
        if shape is not None:
            break
        found = finer
    return found._replace(discretisation=error)


def _modes(pde: DriftDiffusion, k: int, sizes: tuple[int, ...], walls: Walls) -> Found:
    form = symmetric_form(pde, spectral_grid(pde, sizes), walls)
    values, vectors = eigenpairs(form)
    functions = (vectors[:, :k] / form.root.reshape(-1, 1)).T
    return Found(-values[:k], functions, form.grid, np.inf, lost_digits(form.bound, -values[:k], walls))


def _normalised(pde: DriftDiffusion, functions: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, *grid): unit weighted norm, positive at the first node where they exceed half their maximum."""
    half = pde.log_weight(grid.points) / 2
    root = np.exp(half - half.max()) * np.sqrt(grid.weights)
    functions = functions / np.abs(functions * root).max(axis=1, keepdims=True)  # w may span more than a number does
    functions = functions / np.linalg.norm(functions * root, axis=1, keepdims=True) * np.exp(-half.max())
    first = np.argmax(np.abs(functions) > 0.5 * np.abs(functions).max(axis=1, keepdims=True), axis=1)
    signs = np.sign(functions[np.arange(len(functions)), first])
    return (functions * signs[:, None]).reshape(len(functions), *grid.shape)
