"""The limit equations dH/dt = L H as objects: solve them, look at their operator, at their spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from .. import checks, display
from ..geometry import Density, Space, Uniform
from .boundaries import homogeneous, read_boundary
from .equation import Equation, flow_latex, where_latex
from .generator import Generator
from .grids import on_sphere
from .problem import read_shape
from .spectrum import Spectrum, compute_spectrum


@dataclass(frozen=True)
class DriftDiffusion(Equation):
    """dH/dt = m (Delta_g H + drift <grad log p, grad H>_g) = w^-1 d_i (w m g^ij d_j H), w = p^drift sqrt(det g) / m.

    The limit of attention layers: drift 2 for softmax, 1 for Sinkhorn, 2 (1 - alpha) with density
    correction, m = 1. Layers that keep the k nearest or a sparse few keys diffuse faster where tokens are rare: with
    drift 2 and a mobility m(x), their second moment over its reference. The integral of H w is conserved (where
    all walls are no-flux), extrema never grow, and H tends to its w-weighted mean.

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

    def __repr__(self) -> str:
        mobility = {} if self.mobility is None else {"mobility": self.mobility}
        return display.shown(type(self).__name__, self.density, drift=self.drift, **mobility)

    @property
    def latex(self) -> str:
        flow = flow_latex(self.density.space, self.drift, self.mobility is not None)
        return f"\\partial_t H = {flow}{where_latex(self.density, bool(self.drift))}"

    @cached_property
    def generator(self) -> Generator:
        """What L is made of."""
        return Generator(self.density.space, self.density, self.drift, self.mobility)

    def operator(self, grid: int | Sequence[int], boundary=None) -> sparse.csr_array:
        """The finite-volume operator on `grid` cells (an int or one per axis), without what walls' values add.

        Rows sum to zero (minus the loss next to a Dirichlet or Robin wall), off-diagonals are >= 0 (in a skew metric where its
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
        return self.cells(shape, homogeneous(read_boundary(boundary, self.space))).operator()

    def spectrum(self, k: int, grid: int | Sequence[int] | None = None, boundary=None) -> Spectrum:
        """The k largest eigenvalues of L, smallest in magnitude where none is positive, and their eigenfunctions.

        Parameters
        ----------
        k : int
        grid : int, sequence of int or None
            None: chosen so that eigenvalues are good to 1e-10 of themselves, or 1e-7 in two and three dimensions, where
            that is affordable. In one dimension they are, however small: down to 1e-300.
        boundary
            As for `solve`; values and g count as zero, so that Neumann's walls are no-flux.

        Returns
        -------
        eigenvalues : (k,) array
            From the largest down; <= 0 but where a Robin wall's b is negative.
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
        GrowthWarning
            If one is positive.

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

    def __repr__(self) -> str:
        return display.shown("Heat", self.space)
