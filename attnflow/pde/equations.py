"""The limit equations dH/dt = L H as objects: solve them, look at their operator, at their spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from .. import checks
from ..geometry import Density, Space, Uniform
from ..solution import Solution
from .boundaries import Walls, read_boundary
from .coefficients import coefficients, extent, log_weight, loose, mobility, on_sphere, tensor_fields
from .finite_volume import Cells, assemble
from .harmonics import solve_harmonic, solve_harmonic_on
from .march import INTEGRATORS
from .nested import solve_cells, solve_nested
from .problem import Problem, read_problem, read_shape
from .sampling import blind
from .scales import moderated, restored
from .smooth import affordable, smooth_sizes, solve_smooth, solve_smooth_on
from .spectra import Spectrum, compute_spectrum
from .spectral import wrapping

_LOOSE = 5e-6  # rtol above which finite volumes are faster between walls,
_CROWDED = 24  # unless so many per axis see nothing
METHODS = ("auto", "spectral", "finite-volume", *INTEGRATORS)


@dataclass(frozen=True)
class DriftDiffusion:
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
    mixes_columns: ClassVar[bool] = False
    keeps_extrema: ClassVar[bool] = True  # features stay between the initial extrema, if no wall feeds in

    def __post_init__(self) -> None:
        if not isinstance(self.density, Density):
            raise TypeError(f"density must be an attnflow Density, got {type(self.density).__name__}")
        object.__setattr__(self, "drift", checks.real(self.drift, "drift"))
        if self.mobility is not None:
            mobility(self, self.space.probe_points())

    @property
    def space(self) -> Space:
        """The density's space."""
        return self.density.space

    @property
    def on_globe(self) -> bool:
        """Whether the space is S^2, whatever its metric."""
        return on_sphere(self.space) and self.space.dim == 2

    @property
    def pull(self) -> float:
        """The power of p in the weight."""
        return self.drift

    @property
    def norm_name(self) -> str:
        """The norm that errors are measured in, in words."""
        power = 1.0 if loose(self) else self.pull
        if power == 0 and self.mobility is None:
            return "the L2 norm"
        mobile = self.mobility is not None and self.pull == self.drift
        return f"the norm weighted by {'p' if power == 1 else f'p^{power:g}'}{' / mobility' if mobile else ''}"

    def ranges(self, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
        """Where the equation is solved up to the time `horizon`: (low, high) per axis, None for spheres."""
        return extent(self, horizon)

    def cells(self, shape: tuple[int, ...], walls: Walls, columns: int = 1, ranges=None) -> Cells:
        """The finite-volume operator on that many cells per axis, with the walls' sources for `columns` features."""
        return assemble(self, shape, walls, columns, self.ranges() if ranges is None else ranges)

    def ingredients(self, x: np.ndarray, cells: Cells | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What the equation is made of at points (N, n): logarithms of weights (N, k), and other functions (N, m).

        `cells` are those around the points, if there are any already.
        """
        if self.on_globe:  # angles have poles: functions on the sphere
            parts = [] if self.space.flat else [tensor_fields(self.space.metric(x), True)]
            parts += [] if self.mobility is None else [mobility(self, x)[:, None]]
            return log_weight(self, x)[:, None], np.concatenate([np.empty((len(x), 0)), *parts], axis=1)
        log_w, tensor = coefficients(self, x) if cells is None else (cells.log_weight, cells.tensor)
        return log_w[:, None], np.empty((len(x), 0)) if tensor is None else tensor_fields(tensor)

    def log_weight(self, x: np.ndarray) -> np.ndarray:
        """log of the conserved weight w = p^drift sqrt(det g) at points (N, n): (N,)."""
        constant = self.density.log_pdf(x[:1]) - self.density.relative_log_pdf(x[:1]) if self.drift else 0.0
        return log_weight(self, x) + self.drift * constant

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
        problem = read_problem(self, initial, t, shape, boundary, backend, progress)
        problem, powers = moderated(problem, self.mixes_columns)
        return restored(self._solved(problem, shape, rtol, method), powers)

    def _solved(self, problem: Problem, shape: tuple[int, ...] | None, rtol: float, method: str) -> Solution:
        if self._spectral_suits(problem, shape, rtol, method):
            if shape is not None:
                return (solve_harmonic_on if self.on_globe else solve_smooth_on)(self, problem, shape)
            solve = solve_harmonic if self.on_globe else solve_smooth
            solution = solve(self, problem, rtol, insist=method == "spectral")
            if solution is not None:
                return solution
        integrator = method if method in INTEGRATORS else "auto"
        if shape is not None:
            return solve_cells(self, problem, shape, integrator)
        return solve_nested(self, problem, rtol, integrator)

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
        return compute_spectrum(self, k, read_shape(grid, self.space), read_boundary(boundary, self.space))

    def check_solvable(self) -> None:
        """Raise NotImplementedError where `solve` would."""
        if self.space.dim > (2 if on_sphere(self.space) else 3):
            raise NotImplementedError(
                "density must live on a torus, box, line or chart of dimension 1, 2 or 3 or on S^1 or S^2 for the "
                f"equation to be solved, got {self.space}"
            )

    def _spectral_suits(self, problem: Problem, shape: tuple[int, ...] | None, rtol: float, method: str) -> bool:
        if self.on_globe:
            if method == "spectral" and problem.backend != "numpy":
                raise ValueError(f"backend must be 'numpy' for spherical harmonics, got {problem.backend!r}")
            return method == "spectral" or (method == "auto" and shape is None and problem.backend == "numpy")
        bounded = bool(np.isfinite(self.space.bounds).all())
        walled = not all(wrapping(self))
        moving = any(side is not None and side.moves for pair in problem.walls for side in pair or ())
        if method == "spectral" and (not bounded or moving or (walled and not callable(problem.initial))):
            raise ValueError(
                "method must be 'finite-volume' or 'auto' on endless lines, where a wall changes in time, and "
                f"between walls when initial is an array of cell values, got {method!r}"
            )
        if method != "auto" or not bounded or moving:
            return method == "spectral"
        if walled and (shape is not None or not callable(problem.initial)):
            return False  # the nodes of a given grid between walls are cell centres
        if walled and self.space.dim > 1 and rtol > _LOOSE:
            return blind(self, problem, (_CROWDED,) * self.space.dim) and smooth_sizes(self, problem, rtol) is not None
        return shape is None or (affordable(self, shape) and smooth_sizes(self, problem, rtol) is not None)


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
