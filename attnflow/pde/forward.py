"""The forward equation of densities."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from scipy import sparse

from .. import checks, display
from ..geometry import Density
from ..grid import Grid
from ..recording import Step, Watch
from ..solution import Solution
from .boundaries import NO_GROWTH, read_boundary, sides, warn_of_growth
from .equation import Equation, where_latex
from .equations import DriftDiffusion
from .generator import Generator
from .grids import cell_grid, on_sphere
from .masses import Masses
from .methods import METHODS
from .problem import Problem, read_problem, read_shape
from .reach import is_cut, outside, reach, wider
from .sources import Source
from .spectrum import Spectrum

_CONSERVATIVE = ("auto", "finite-volume", "rational")  # methods for masses
_CUTS = 6  # of a line, each wider
_FLAT_TAIL = 1e-9  # of rho^2 / p^drift, at the cut of a line relative to its maximum


@dataclass(frozen=True)
class FokkerPlanck(Equation):
    """The forward equation d rho/dt = div(p^drift grad(m rho / p^drift)) of a density rho of walkers.

    For m = 1 walkers follow dX = drift grad log p dt + sqrt(2) dW; p^drift / m is their invariant density, not p. rho is
    taken with respect to the Riemannian volume. m rho / p^drift obeys the backward equation DriftDiffusion(density,
    drift, mobility), of which `cells`, `ranges` and `log_weight` are.

    Parameters
    ----------
    density : Density
        p.
    drift : float
    mobility : callable or None
        m at points (N, n): (N,), positive; None is 1.

    Notes
    -----
    Walls reflect ("no-flux"), absorb (("dirichlet", 0)), or do one or the other (("robin", b, 0), b / p^drift rho of what
    comes by: p^drift d_nu(m rho / p^drift) + b m rho = 0). Errors are relative in the norm of L2(m p^-drift dvol), in which
    the flow is symmetric, or, where that is infinite, in L1. A solution's stats["mass"] is the integral of rho at each time.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> p = af.VonMises(1.0)
    >>> rho = af.FokkerPlanck(p).solve(lambda x: 1 + np.sin(x[:, 0]), t=20.0)
    >>> x = np.array([[0.3]])
    >>> bool(abs(rho.at(x) / rho.at(x + 1) - np.exp(2 * (np.cos(x) - np.cos(x + 1)))) < 1e-8)
    True
    """

    density: Density
    drift: float = 2.0
    mobility: Callable | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "drift", self.backward.drift)

    def __repr__(self) -> str:
        return repr(self.backward).replace("DriftDiffusion", "FokkerPlanck", 1)

    @property
    def latex(self) -> str:
        walkers, many = ("\\rho", "\\rho") if self.mobility is None else ("m \\rho", "(m \\rho)")
        power = "p" if self.drift == 1 else f"p^{{{display.latex_number(self.drift)}}}"
        flow = f"\\nabla \\cdot \\left({power} \\nabla ({walkers} / {power})\\right)" if self.drift else f"\\Delta {many}"
        return f"\\partial_t \\rho = {flow}{where_latex(self.density, bool(self.drift))}"

    @cached_property
    def backward(self) -> DriftDiffusion:
        """The equation of rho / p^drift."""
        return DriftDiffusion(self.density, self.drift, self.mobility)

    @property
    def generator(self) -> Generator:
        """That of the backward equation, which is what is solved."""
        return self.backward.generator

    def operator(self, grid: int | Sequence[int], boundary=None) -> sparse.csr_array:
        """The finite-volume operator on the masses rho dvol of `grid` cells: the transpose of the backward equation's.

        Columns sum to zero: mass is conserved (but next to a Dirichlet or Robin wall). Where all cells have one volume it
        is the operator on rho, too.

        Examples
        --------
        >>> import attnflow as af
        >>> np.allclose(af.FokkerPlanck(af.VonMises(1.0)).operator(8).sum(axis=0), 0)
        True
        """
        return sparse.csr_array(self.backward.operator(grid, boundary).T)

    def spectrum(self, k: int, grid: int | Sequence[int] | None = None, boundary=None) -> Spectrum:
        """As `DriftDiffusion.spectrum`: the same eigenvalues, the eigenfunctions times the invariant density p^drift / m.

        The integral of m psi^2 / p^drift dvol is 1. Without Dirichlet and Robin walls the first is p^drift / m, up to a
        constant.

        Examples
        --------
        >>> import attnflow as af
        >>> _, functions = (spectrum := af.FokkerPlanck(af.VonMises(1.0)).spectrum(2))
        >>> ratio = functions[0] / np.exp(2 * np.cos(spectrum.grid.points[:, 0]))
        >>> bool(np.ptp(ratio) < 1e-9 * ratio.max())
        True
        """
        backward = self.backward.spectrum(k, grid, boundary)
        return backward.times(self._invariant(backward.grid.points).reshape(backward.grid.shape))

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
        source: Callable | None = None,
        *,
        save: str = "all",
        callback: Callable[[Step], object] | None = None,
        store: str | os.PathLike | None = None,
    ) -> Solution:
        """As `DriftDiffusion.solve`, of rho: the density at the times t.

        On a line a rho that falls off no faster than p^(drift/2), as that of the tokens themselves, is solved for on a
        wider cut, by finite volumes that exchange masses; its errors are relative in L1, and stats["norm"] says so. Mass
        beyond the invariant density's reach is looked for as far as 1000 times that, at distances 0.35 % apart.

        Raises
        ------
        ValueError, TypeError
            As there; if a wall brings something in; if such a wide rho is given more than one dimension, or does not end.
        NotImplementedError
            If it is given a source.

        Examples
        --------
        Walkers that start where the tokens are, and end where these are twice as dense:

        >>> import numpy as np, attnflow as af
        >>> p = af.Gaussian(0.0, 1.0)
        >>> rho = af.FokkerPlanck(p).solve(p.pdf, t=10.0)
        >>> x = np.array([[0.5]])
        >>> bool(abs(rho.at(x) - np.exp(-(x**2)) / np.sqrt(np.pi)) < 1e-8)
        True
        """
        arguments = (initial, t, grid, boundary, rtol, method, progress, backend, source)
        watch = Watch.of_times(save, callback, store)
        self.check_solvable()
        self._check_walls(boundary)
        if not (callable(initial) and self._is_wide(initial)):
            return super().solve(*arguments, save=save, callback=callback, store=store)
        if self.space.dim > 1:
            raise ValueError(
                "initial must fall off faster than p^(drift/2) and be gone where that ends, in more than one dimension; use a "
                "narrower one, or a Box"
            )
        if source is not None:
            raise NotImplementedError("source must be None where initial falls off no faster than p^(drift/2)")
        if checks.choice(method, "method", METHODS) not in _CONSERVATIVE or backend != "numpy":
            raise ValueError(
                f"method must be one of {', '.join(map(repr, _CONSERVATIVE))} on 'numpy' where initial falls off no faster than "
                f"p^(drift/2), got {method!r} on {backend!r}"
            )
        rtol = checks.positive(rtol, "rtol")
        shape = read_shape(grid, self.space)
        ranges_to = partial(reach, self.generator, initial)

        def solve(times: float | Sequence[float]) -> Solution:
            asked = read_problem(
                self.generator, ranges_to, self._peaks, initial, times, shape, boundary, backend, progress, None
            )
            for _ in range(_CUTS):
                assert asked.ranges is not None  # a line has some
                cells = partial(self.cells, walls=asked.walls, columns=asked.columns, ranges=asked.ranges)
                solution = Masses(self.generator, asked, cells, rtol if shape is None else 0.0).solve(shape)
                if solution.status or not is_cut(solution):
                    break
                asked = replace(asked, ranges=wider(asked.ranges, self.space))
            warn_of_growth(asked.walls, self.space, solution.stats.get("growth_between", NO_GROWTH))
            return solution

        return self._watched(watch, solve, initial, progress, t=t, grid=shape, boundary=boundary, rtol=rtol, method=method)

    def _check_walls(self, boundary) -> None:
        for side in sides(read_boundary(boundary, self.space)):
            if callable(side.value) or np.any(side.value):
                raise ValueError(
                    "boundary must be 'no-flux', ('dirichlet', 0) or ('robin', b, 0) for a density, got "
                    f"{checks.short(boundary)}"
                )

    def _asked(self, initial, t, shape: tuple[int, ...] | None, boundary, backend: str, progress: bool, source) -> Problem:
        if callable(initial):
            initial = partial(_divided, self, initial)
        else:
            values = checks.array(initial, "initial", bools=True).astype(float)
            sizes = values.shape[: self.space.dim]
            if sizes == shape:  # else it is refused below
                nodes = cell_grid(self.space, sizes, self.ranges(checks.output_times(t)[-1])).points
                initial = values / self._invariant(nodes).reshape(*sizes, *[1] * (values.ndim - len(sizes)))
        if callable(source):
            source = partial(_source_divided, self, source)
        problem = super()._asked(initial, t, shape, boundary, backend, progress, source)
        if not self.drift:
            return problem
        mobile = "" if self.mobility is None else "mobility "
        return replace(problem, norm_name=f"the norm weighted by {mobile}p^{-self.drift:g}")

    def _presented(self, solution: Solution) -> Solution:
        grid = solution.grid
        assert grid is not None
        nodes = grid.points
        invariant = self._invariant(nodes)
        factor = invariant.reshape(*grid.shape, 1)
        stats = {key: value for key, value in solution.stats.items() if key != "mean"} | {"quantity": "density"}
        if "mean" in solution.stats:
            total = float(np.sum(grid.weights * invariant * self._volume(nodes)))
            stats["mass"] = (total * np.array(solution.stats["mean"])).tolist()
        return replace(
            solution,
            y=solution.y * factor,
            stats=stats,
            dense=None if solution.dense is None else partial(_multiplied, solution.dense, factor),
            local_error=None if solution.local_error is None else partial(_scaled_errors, solution, factor),
        )

    def _weighted(self, grid: Grid) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, np.ndarray]]]:
        cells = grid.weights * self._volume(grid.points)
        return cells / cells.sum(), lambda fields: {"mass": np.einsum("i,tic->tc", cells, fields)}

    def _invariant(self, x: np.ndarray) -> np.ndarray:
        """p^drift (over the mobility): (N,)."""
        return np.exp(self.log_weight(x) - np.log(self._volume(x)))

    def _volume(self, x: np.ndarray) -> np.ndarray:
        return np.ones(len(x)) if self.space.flat else self.space.volume_element(x)

    def _is_wide(self, initial: Callable) -> bool:
        """Whether rho^2 / p^drift, of which the norm is, has not ended where a line is cut, or is back beyond."""
        if on_sphere(self.space) or np.isfinite(self.space.bounds).all():
            return False
        ranges = self.ranges()
        assert ranges is not None
        nodes, far = cell_grid(self.space, (64,) * self.space.dim, ranges), outside(self.space, ranges)

        def shares(x: np.ndarray) -> np.ndarray:
            rho = np.abs(checks.evaluate(initial, x, "initial")).max(axis=1)
            some, result = rho > 0, np.full(len(x), -np.inf)
            if some.any():  # elsewhere p may have vanished, too
                result[some] = 2 * np.log(rho[some]) - self.log_weight(x[some])
            return result

        share = shares(nodes.points).reshape(nodes.shape)
        ends = [np.take(share, end, axis=k).max() for k in range(share.ndim) for end in (0, -1)]
        return bool(max(*ends, shares(far).max(initial=-np.inf)) > share.max() + np.log(_FLAT_TAIL))


def _divided(equation: FokkerPlanck, initial: Callable, x: np.ndarray) -> np.ndarray:
    values = checks.evaluate(initial, x, "initial")
    return values / equation._invariant(x)[:, None]


def _source_divided(equation: FokkerPlanck, source: Callable, x: np.ndarray, t: float, features: np.ndarray):
    invariant = equation._invariant(x)[:, None]
    return Source(source, np.ones(features.shape[1])).at(x, t, features * invariant) / invariant


def _scaled_errors(backward: Solution, factor: np.ndarray) -> np.ndarray:
    errors = backward.node_errors()
    assert errors is not None
    return errors * factor


def _multiplied(dense: Callable, factor: np.ndarray, times: np.ndarray) -> np.ndarray:
    return dense(times) * factor
