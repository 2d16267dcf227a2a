"""The limit equations dH/dt = L H as objects: solve them, look at their operator, at their spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
from scipy import sparse

from .. import checks
from ..geometry import Density, Space, Uniform
from ..solution import Solution
from .boundaries import Walls, read_boundary
from .generator import Generator
from .grids import on_sphere
from .methods import METHODS, solve_problem
from .problem import Problem, moderated, read_problem, read_shape
from .report import restored
from .spectrum import Spectrum, compute_spectrum
from .volumes.operator import Cells, assemble


class Equation:
    """What all equations have in common: they are solved.

    A new one tells its `generator`, or the `cells` of an operator that has none; one whose features are not those that
    are solved for says in `_asked` what is, and in `_presented` how the answer is.
    """

    self_adjoint: ClassVar[bool] = True
    mixes_columns: ClassVar[bool] = False

    @property
    def generator(self) -> Generator:
        """What L is made of."""
        raise NotImplementedError

    @property
    def space(self) -> Space:
        """Where features live."""
        return self.generator.space

    def ranges(self, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
        """Where the equation is solved up to the time `horizon`: (low, high) per axis, None for spheres."""
        return self.generator.ranges(horizon)

    def cells(self, shape: tuple[int, ...], walls: Walls, columns: int = 1, ranges=None) -> Cells:
        """The finite-volume operator on that many cells per axis, with the walls' sources for `columns` features."""
        return assemble(self.generator, shape, walls, columns, self.ranges() if ranges is None else ranges)

    def log_weight(self, x: np.ndarray) -> np.ndarray:
        """log of the weight w = p^drift sqrt(det g) / m of the self-adjoint part at points (N, n): (N,)."""
        return self.generator.normalised_log_weight(x)

    def check_solvable(self) -> None:
        """Raise NotImplementedError where `solve` would."""
        if self.space.dim > (2 if on_sphere(self.space) else 3):
            raise NotImplementedError(
                "density must live on a torus, box, line or chart of dimension 1, 2 or 3 or on S^1 or S^2 for the "
                f"equation to be solved, got {self.space}"
            )

    def solve(
        self,
        initial: Callable | np.ndarray,
        t: float | Sequence[float],
        grid: int | Sequence[int] | None = None,
        boundary=None,
        rtol: float = 1e-8,
        method: str = "auto",
        progress: bool = False,
        backend: str = "numpy",
    ) -> Solution:
        """Features at the times t, exact in time and to rtol in space.

        Parameters
        ----------
        initial : callable or array
            Features at time 0: points (N, n) -> (N,) or (N, c), or values (*grid,) or (*grid, c) at the
            nodes of the given grid: low + (i + 1/2) h between walls and in colatitude, low + i h on an axis that wraps.
        t : float or sequence of float
            Output time or increasing times >= 0, in units of length squared.
        grid : int, sequence of int or None
            Cells, one number or one per axis (colatitudes and longitudes on S^2). None: refined until the estimated
            error is below rtol. A given grid is kept, and its error, as rtol means it, is in stats["estimated_error"].
        boundary : None, side or sequence
            None: no-flux at every wall. Otherwise a side, "no-flux" or ("dirichlet", value), for all walls, or
            one side or (low, high) pair of sides per axis. A Dirichlet value is a number, one per column, or a
            callable on wall points (M, n), or on wall points and the time.
        rtol : float
            Relative error in the L2 norm weighted by w, that is by p^drift, relative to the largest norm over time
            (on a line with drift < 1, weighted by p). Where p^drift is small the error at a point may be far larger:
            `solution.error(points)` estimates it there.
        method : "auto", "spectral", "finite-volume" or the name of a time integrator
            "auto" is spectral where density, metric and initial values are smooth: Fourier on axes that wrap,
            Legendre between walls, spherical harmonics on S^2 (there only without a given grid; "spectral" takes
            colatitudes and longitudes, and harmonics of the largest degree they hold). "chebyshev" and "rational" are
            finite volumes, exact in time; "BDF", "Radau", "LSODA", "RK45", "RK23" and "DOP853" are solve_ivp's.
        progress : bool
            Show a progress bar.
        backend : "numpy" or "cupy"
            Where the fields are computed; spectral nodes and the "chebyshev" integrator run on a graphics card too.

        Returns
        -------
        Solution
            y is (T, *grid, c), and `at` takes any time. stats has method, grid, integrator, estimated_error, the number
            of applications of L (or of poles, or evaluations), whether finite volumes are `monotone` (no new extrema),
            and at each time the weighted mean and the deviation from it. When interrupted, what was computed.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as above, or p vanishes somewhere.
        NotImplementedError
            In more than three dimensions, and on spheres beyond S^2.

        Warns
        -----
        AccuracyWarning
            If the finest grid does not reach rtol, or a given one is too coarse for p; the message has the numbers.
        """
        self.check_solvable()
        method = checks.choice(method, "method", METHODS)
        rtol = checks.positive(rtol, "rtol")
        shape = read_shape(grid, self.space)
        problem, powers = moderated(self._asked(initial, t, shape, boundary, backend, progress))
        cells = partial(self.cells, walls=problem.walls, columns=problem.columns, ranges=problem.ranges)
        solution = solve_problem(self.generator, problem, shape, rtol, method, cells, self.self_adjoint)
        return self._presented(restored(solution, powers))

    def _asked(self, initial, t, shape: tuple[int, ...] | None, boundary, backend: str, progress: bool) -> Problem:
        problem = read_problem(self.generator, self.ranges, initial, t, shape, boundary, backend, progress)
        return replace(problem, mixed=self.mixes_columns)

    def _presented(self, solution: Solution) -> Solution:
        return solution


@dataclass(frozen=True)
class DriftDiffusion(Equation):
    """dH/dt = m (Delta_g H + drift <grad log p, grad H>_g) = w^-1 d_i (w m g^ij d_j H), w = p^drift sqrt(det g) / m.

    The limit of attention layers: drift 2 for softmax, 1 for Sinkhorn, 2 (1 - alpha) with density
    correction, m = 1. Layers that keep the k nearest or a sparse few keys diffuse faster where tokens are rare: with
    drift 2 and a mobility m(x), their second moment over its reference. The integral of H w is conserved (without
    Dirichlet walls), extrema never grow, and H tends to its w-weighted mean.

    Parameters
    ----------
    density : Density
        p, on a torus, box, line or chart of dimension 1 to 3, or on S^1 or S^2.
    drift : float
    mobility : callable or None
        m at points (N, n): (N,), positive; None is 1.

    Raises
    ------
    TypeError
        If density is not a Density.
    ValueError
        If the mobility is not positive somewhere.

    Notes
    -----
    Any space makes an equation; `solve`, `operator` and `spectrum` raise NotImplementedError on others than these.

    See Also
    --------
    Heat : the same without drift.
    ConformalHeat, FokkerPlanck : other forms of it.
    General, Heads : equations that are not self-adjoint.

    Examples
    --------
    >>> import numpy as np
    >>> from attnflow.geometry import VonMises
    >>> pde = DriftDiffusion(VonMises(1.0))
    >>> solution = pde.solve(lambda x: np.cos(x[:, 0]), t=100.0)
    >>> solution.at(np.array([[0.0]])).round(8)   # I_1(2) / I_0(2)
    array([[0.69777466]])
    """

    density: Density
    drift: float = 2.0
    mobility: Callable | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.density, Density):
            raise TypeError(f"density must be an attnflow Density, got {type(self.density).__name__}")
        object.__setattr__(self, "drift", checks.real(self.drift, "drift"))
        if self.mobility is not None:
            self.generator.mobility_at(self.space.probe_points())

    @cached_property
    def generator(self) -> Generator:
        return Generator(self.density.space, self.density, self.drift, self.mobility)

    def operator(self, grid: int | Sequence[int], boundary=None) -> sparse.csr_array:
        """The finite-volume operator on `grid` cells (an int or one per axis), without Dirichlet sources.

        Rows sum to zero (less than zero next to a Dirichlet wall), off-diagonals are >= 0 (in a skew metric where its
        inverse is diagonally dominant), and w_i L_ij = w_j L_ji. The cells' order is that of a (*grid) array raveled.

        Examples
        --------
        >>> from attnflow.geometry import Box
        >>> Heat(Box([(0, 3)])).operator(3).toarray()
        array([[-1.,  1.,  0.],
               [ 1., -2.,  1.],
               [ 0.,  1., -1.]])
        """
        self.check_solvable()
        shape = read_shape(grid, self.space)
        if shape is None:
            raise ValueError("grid must be the number of cells or one per axis, got None")
        return self.cells(shape, read_boundary(boundary, self.space)).operator()

    def spectrum(self, k: int, grid: int | Sequence[int] | None = None, boundary=None) -> Spectrum:
        """The k eigenvalues of L smallest in magnitude, and their eigenfunctions.

        Parameters
        ----------
        k : int
        grid : int, sequence of int or None
            None: chosen so that eigenvalues are good to 1e-10 of themselves, or 1e-7 in two and three dimensions, where
            that is affordable. In one dimension they are, however small: down to 1e-300.
        boundary
            As for `solve`; Dirichlet values count as zero.

        Returns
        -------
        eigenvalues : (k,) array
            <= 0, from the largest down.
        eigenfunctions : (k, *grid) array
            Normalised: the integral of w phi^2 over the coordinates is 1. The pair also has `.grid`, where they
            are sampled, `.estimated_error`, the largest of the eigenvalues' relative errors (round-off included, the
            constant's 0 left out), `.gap`, and `.metastable_sets()`. On cells of a line eigenfunctions are of second
            order.

        Raises
        ------
        ValueError
            If k or the grid is not as above, k is too large for the grid, or the spectrum is not discrete: on a line
            with drift <= 0.

        Warns
        -----
        AccuracyWarning
            If the eigenvalues are good to less than 1e-6 of themselves, or 0.1 on a given grid, or some are below 1e-300
            and given as 0.

        Examples
        --------
        >>> from attnflow.geometry import Circle
        >>> eigenvalues, eigenfunctions = Heat(Circle()).spectrum(3)
        >>> np.abs(eigenvalues).round(10)
        array([0., 1., 1.])

        Two wells that exchange once in 10**33 units of time:

        >>> from attnflow.geometry import Density
        >>> wells = Density(Circle(), lambda x: 40.5 * np.cos(2 * x[..., 0]))
        >>> print(f"{DriftDiffusion(wells, drift=1).spectrum(3).gap:.8e}")
        6.80498686e-34
        """
        self.check_solvable()
        k = checks.integer(k, "k", least=1)
        return compute_spectrum(self.generator, k, read_shape(grid, self.space), read_boundary(boundary, self.space))


class Heat(DriftDiffusion):
    """The heat equation dH/dt = Delta_g H.

    Parameters
    ----------
    space : Space
        Of finite extent: a torus, box or bounded chart.

    Raises
    ------
    ValueError
        On a line, where nothing says where to cut it.

    Examples
    --------
    >>> from attnflow.geometry import Circle
    >>> Heat(Circle()).solve(lambda x: np.cos(x[:, 0]), t=1.0).at(np.array([[0.0]])).round(8)
    array([[0.36787944]])
    """

    def __init__(self, space: Space) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"space must be an attnflow space, got {type(space).__name__}")
        if not on_sphere(space) and not np.isfinite(space.bounds).all():
            raise ValueError(
                f"space must be bounded for the heat equation to be solved, got {space}; use a Box wide enough, or "
                "DriftDiffusion(density, drift=0), which follows the tokens of a density"
            )
        super().__init__(Uniform(space), 0.0)
