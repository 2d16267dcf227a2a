"""The forward equation of densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from scipy import sparse

from .. import checks
from ..geometry import Density
from ..solution import Solution
from .boundaries import read_boundary
from .equations import DriftDiffusion, Equation
from .generator import Generator
from .grids import cell_grid, on_sphere
from .problem import Problem
from .spectrum import Spectrum

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
    Walls reflect ("no-flux") or absorb (("dirichlet", 0)). Errors are relative in the norm of L2(m p^-drift dvol),
    in which the flow is symmetric. A solution's stats["mass"] is the integral of rho at each time. `solve` refuses a wall
    that holds another value than 0, and on a line a rho that falls off no faster than p^(drift/2): that norm is then
    infinite.

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

        Columns sum to zero: mass is conserved (but next to a Dirichlet wall). Where all cells have one volume it is the
        operator on rho, too.

        Examples
        --------
        >>> import attnflow as af
        >>> np.allclose(af.FokkerPlanck(af.VonMises(1.0)).operator(8).sum(axis=0), 0)
        True
        """
        return sparse.csr_array(self.backward.operator(grid, boundary).T)

    def spectrum(self, k: int, grid: int | Sequence[int] | None = None, boundary=None) -> Spectrum:
        """As `DriftDiffusion.spectrum`: the same eigenvalues, the eigenfunctions times the invariant density p^drift / m.

        The integral of m psi^2 / p^drift dvol is 1. Without Dirichlet walls the first is p^drift / m, up to a constant.

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

    def _asked(self, initial, t, shape: tuple[int, ...] | None, boundary, backend: str, progress: bool) -> Problem:
        for pair in read_boundary(boundary, self.space):
            for side in pair or ():
                if side is not None and (callable(side.value) or np.any(side.value)):
                    raise ValueError(
                        f"boundary must be 'no-flux' or ('dirichlet', 0) for a density, got {checks.short(boundary)}"
                    )
        if callable(initial):
            self._check_tails(initial)
            initial = partial(_divided, self, initial)
        else:
            values = checks.array(initial, "initial", bools=True).astype(float)
            sizes = values.shape[: self.space.dim]
            if sizes == shape:  # else it is refused below
                nodes = cell_grid(self.space, sizes, self.ranges(checks.output_times(t)[-1])).points
                initial = values / self._invariant(nodes).reshape(*sizes, *[1] * (values.ndim - len(sizes)))
        problem = super()._asked(initial, t, shape, boundary, backend, progress)
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

    def _invariant(self, x: np.ndarray) -> np.ndarray:
        """p^drift (over the mobility): (N,)."""
        return np.exp(self.log_weight(x) - np.log(self._volume(x)))

    def _volume(self, x: np.ndarray) -> np.ndarray:
        return np.ones(len(x)) if self.space.flat else self.space.volume_element(x)

    def _check_tails(self, initial: Callable) -> None:
        if on_sphere(self.space) or np.isfinite(self.space.bounds).all():
            return
        nodes = cell_grid(self.space, (64,) * self.space.dim, self.ranges())
        rho = checks.evaluate(initial, nodes.points, "initial")
        with np.errstate(divide="ignore"):
            share = 2 * np.log(np.abs(rho).max(axis=1)) - self.log_weight(nodes.points)
        share = share.reshape(nodes.shape)
        ends = [np.take(share, end, axis=k).max() for k in range(share.ndim) for end in (0, -1)]
        if max(ends) > share.max() + np.log(_FLAT_TAIL):
            raise ValueError(
                "initial must fall off faster than p^(drift/2) and be gone where that ends: initial^2 / p^drift still is "
                f"e^{max(ends) - share.max():.0f} of its largest there; use a narrower one, or a Box"
            )


def _divided(equation: FokkerPlanck, initial: Callable, x: np.ndarray) -> np.ndarray:
    values = checks.evaluate(initial, x, "initial")
    return values / equation._invariant(x)[:, None]


def _scaled_errors(backward: Solution, factor: np.ndarray) -> np.ndarray:
    errors = backward.node_errors()
    assert errors is not None
    return errors * factor


def _multiplied(dense: Callable, factor: np.ndarray, times: np.ndarray) -> np.ndarray:
    return dense(times) * factor
