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

from typing import NamedTuple

import numpy as np

from .. import checks, display
from ..grid import Grid
from ..simplex import label_sets
from .boundaries import NO_GROWTH, Walls, homogeneous, sides, warn_of_growth
from .eigenvalues import SMALLEST, Found
from .generator import Generator
from .grids import on_sphere
from .harmonics.spectrum import harmonic_spectrum
from .hermite import hermite_spectrum
from .nodes.spectrum import node_spectrum
from .volumes.spectrum import cell_spectrum

_ENOUGH = {1: 1e-10, 2: 1e-7, 3: 1e-7}  # relative error from which on no other method is tried: they do no better
_WARN = 1e-6
_COARSE = 0.1  # discretisation error of a given grid that is warned of


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
        Whether constants stay, so that the first eigenvalue is exactly 0: where all walls are no-flux.
    """

    grid: Grid
    estimated_error: float
    conserved: bool
    _backward: np.ndarray
    _factor: np.ndarray | float

    def __new__(
        cls,
        eigenvalues: np.ndarray,
        eigenfunctions: np.ndarray,
        grid: Grid,
        estimated_error: float,
        conserved: bool = True,
        factor: np.ndarray | float = 1.0,
    ):
        self = super().__new__(cls, eigenvalues, eigenfunctions * factor)
        self.grid, self.estimated_error, self.conserved = grid, estimated_error, conserved
        self._backward, self._factor = eigenfunctions, factor
        return self

    def __getnewargs__(self):
        return self.eigenvalues, self._backward, self.grid, self.estimated_error, self.conserved, self._factor

    def __repr__(self) -> str:
        values = ", ".join(f"{value + 0.0:.4g}" for value in self.eigenvalues[:4])
        more = ", ..." if len(self.eigenvalues) > 4 else ""
        return f"Spectrum({len(self.eigenvalues)} eigenvalues {values}{more} on {self.grid.size} nodes)"

    def _repr_html_(self) -> str:
        rows = [(k, f"{value + 0.0:.6g}") for k, value in enumerate(self.eigenvalues)]
        return display.table("Spectrum", rows, ("mode", "eigenvalue (1/time)"))

    def times(self, factor: np.ndarray) -> Spectrum:
        """With the eigenfunctions times a function (*grid) that is the same for all."""
        return Spectrum(
            self.eigenvalues, self._backward, self.grid, self.estimated_error, self.conserved, self._factor * factor
        )

    def at(self, points: np.ndarray) -> np.ndarray:
        """Eigenfunctions at points (M, n), interpolated at the grid's own order: (k, M), as a layer's spectrum has them.

        Examples
        --------
        >>> import numpy as np, attnflow as af
        >>> phi = af.Heat(af.Circle()).spectrum(3).at([[0.1], [0.7]])   # 1 and two waves, squares of mean 1 / (2 pi)
        >>> bool(np.allclose(phi[1] ** 2 + phi[2] ** 2, 2 * phi[0] ** 2))
        True
        """
        points = self.grid.check(points)
        return self.grid.interpolate(np.moveaxis(self.eigenfunctions, 0, -1), points).T

    @property
    def gap(self) -> float:
        """Minus the largest eigenvalue but the constant's: the rate at which features forget all but their mean; negative
        where walls let them grow.

        Raises
        ------
        ValueError
            If only the constant's eigenvalue was computed.
        """
        first = int(self.conserved)
        if len(self.eigenvalues) <= first:
            raise ValueError(f"k must be at least 2 to tell the spectral gap, got {len(self.eigenvalues)}")
        return float(-self.eigenvalues[first])

    def plot(self, ax=None):
        """Draw the eigenvalues, with the gap between the constant's and the others; returns the Axes."""
        from ..plotting.spectra import plot_rates

        return plot_rates(self, ax)

    @property
    def rates(self) -> np.ndarray:
        """The eigenvalues (k,), by the name that a layer's spectrum has for them."""
        return self.eigenvalues

    def metastable_sets(self, count: int | None = None) -> np.ndarray:
        """Labels 0, ..., count - 1 of the sets that exchange features slowest, (*grid).

        Each eigenfunction of a slow mode of the backward equation is nearly constant on each of them; the labels are the nearest corners
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
        modes = self._backward.reshape(len(self.eigenvalues), -1)
        labels = label_sets(modes, np.maximum(np.abs(self.eigenvalues), SMALLEST), count)
        return labels.reshape(self.eigenfunctions.shape[1:])


def compute_spectrum(generator: Generator, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    """The k smallest eigenpairs; on a given shape those of that grid, otherwise refined.

    Warns (AccuracyWarning) when the eigenvalues are not good to 1e-6, by round-off alone or, where the grid was not
    given, at all; a given grid that misses them by more than a tenth; and when some are too small for a number.
    """
    endless = not on_sphere(generator.space) and not np.isfinite(generator.space.bounds).all()
    assert generator.pull is not None
    if endless and generator.pull <= 0:
        raise ValueError(f"drift must be positive for a discrete spectrum on a line, got {generator.pull}")
    if shape is not None and k > np.prod(shape) - 2:
        raise ValueError(f"k must be at most {np.prod(shape) - 2} on a grid of {list(shape)}, got {k}")
    best, walls = None, homogeneous(walls)
    for method in (harmonic_spectrum, hermite_spectrum, node_spectrum, cell_spectrum):
        try:
            found = method(generator, k, shape, walls)
        except ValueError:  # cells that are too few for k or for p
            if best is None:
                raise
            break
        if found is not None and (best is None or _is_better(found, best)):
            best = found
        if best is not None and best.error <= _ENOUGH[generator.space.dim]:
            break
    assert best is not None  # cells say None of nothing
    conserved = not sides(walls)
    _warn(best, conserved, shape is not None)
    rate, doubt = -float(best.sizes[0]), best.uncertainty
    warn_of_growth(walls, generator.space, NO_GROWTH if conserved else (rate - doubt, rate + doubt))
    return Spectrum(-best.sizes, _normalised(generator, best.functions, best.grid), best.grid, best.error, conserved)


def _is_better(found: Found, other: Found) -> bool:
    """By relative errors; where walls feed features by what is known of the largest eigenvalue, which may be 0."""
    feeds = min(found.sizes[0], other.sizes[0]) < 0
    return found.uncertainty < other.uncertainty if feeds else found.error < other.error


def _warn(found: Found, conserved: bool, given: bool) -> None:
    sizes, shape = found.sizes[int(conserved) :], list(found.grid.shape)
    lost = int((np.abs(sizes) < SMALLEST).sum())
    if found.round_off > _WARN:
        message = (
            f"eigenvalues are good to {found.error:.1g} of themselves only: the smallest, {-_least(sizes):.3g}, is lost in "
            f"the round-off of the largest on a grid of {shape}"
        )
    elif lost:
        message = f"{lost} eigenvalues besides the constant's are below {SMALLEST:g} in size and given as 0"
    elif found.error > (_COARSE if given else _WARN):
        remedy = "use a finer one, or none" if given else "ask for fewer of them, or give a smoother density"
        message = f"eigenvalues are good to {found.error:.1g} of themselves only on a grid of {shape}; {remedy}"
    else:
        return
    checks.warn(message, checks.AccuracyWarning)


def _least(sizes: np.ndarray) -> float:
    return float(sizes[np.argmin(np.abs(sizes))])


def _normalised(generator: Generator, functions: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, *grid): unit weighted norm, positive at the first node where they exceed half their maximum."""
    half = generator.normalised_log_weight(grid.points) / 2
    root = np.exp(half - half.max()) * np.sqrt(grid.weights)
    functions = functions / np.abs(functions * root).max(axis=1, keepdims=True)  # w may span more than a number does
    functions = functions / np.linalg.norm(functions * root, axis=1, keepdims=True) * np.exp(-half.max())
    first = np.argmax(np.abs(functions) > 0.5 * np.abs(functions).max(axis=1, keepdims=True), axis=1)
    signs = np.sign(functions[np.arange(len(functions)), first])
    return (functions * signs[:, None]).reshape(len(functions), *grid.shape)
