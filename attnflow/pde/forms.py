"""The same operator in two other forms: heat flow in a conformal metric, and the forward equation of densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import checks
from ..geometry import Density, Remetrised
from ..solution import Solution
from .boundaries import read_boundary
from .coefficients import build_grid, on_sphere
from .equations import DriftDiffusion
from .finite_volume import KINDS
from .problem import read_shape

_FLAT_TAIL = 1e-9  # of rho^2 / p^drift, at the cut of a line relative to its maximum


class ConformalHeat(DriftDiffusion):
    """Drift-diffusion as heat flow: dH/dt = c Delta_G H in the metric G = c g, c = p^(2 drift / (n - 2)).

    With drift 2, G = p^(4 / (n - 2)) g and 1/c is the heat capacity (Ruan & Zhang 2024, Theorem 4). The solution is
    that of DriftDiffusion(density, drift); where c spans many decades, that form is the one to compute with.

    Parameters
    ----------
    density : Density
        p, on a space of dimension n != 2 (or a uniform p).
    drift : float

    Raises
    ------
    ValueError
        For n = 2 and a p that is not constant: no metric conformal to g has p^-2 div(p^2 grad) as a multiple of its
        Laplacian there. Use DriftDiffusion, whose form holds in every dimension.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> H0 = lambda x: np.cos(x[:, 0])
    >>> p, x = af.VonMises(1.0), np.array([[0.5]])
    >>> heat, drift = (pde.solve(H0, t=0.1).at(x) for pde in (af.ConformalHeat(p), af.DriftDiffusion(p)))
    >>> bool(abs(heat - drift) < 1e-9)
    True
    """

    def __init__(self, density: Density, drift: float = 2.0) -> None:
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow Density, got {type(density).__name__}")
        drift, space = checks.real(drift, "drift"), density.space
        if on_sphere(space):
            probe = space.probe_points(64)
        else:
            probe = space.from_unit_cube(np.random.default_rng(0).random((64, space.dim)), density.extent)
        log_p = density.log_pdf(probe)
        if space.dim == 2 and drift and np.ptp(log_p) > 1e-9:
            raise ValueError(
                "density must be constant in dimension 2 for the heat form: the conformal factor p^(4 / (n - 2)) does "
                "not exist at n = 2; use DriftDiffusion, dH/dt = p^-2 div(p^2 grad H), which holds in every dimension"
            )
        power = 0.0 if space.dim == 2 else 2 * drift / (space.dim - 2)
        factor = _Factor(density, power, float(log_p.max()))
        super().__init__(_Constant(Remetrised(space, factor.metric), density), 0.0, factor)
        object.__setattr__(self, "_pull", drift)

    @property
    def pull(self) -> float:
        """The power of p in the weight, which is that of DriftDiffusion(density, drift)."""
        return self._pull


@dataclass(frozen=True)
class _Factor:
    """c = (p / top)^power, in units of its size at one point: G changes by a constant factor, the equation does not."""

    density: Density
    power: float
    log_top: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self.power * (self.density.log_pdf(x) - self.log_top)) if self.power else np.ones(x.shape[:-1])

    def metric(self, x: np.ndarray) -> np.ndarray:
        """G = c g."""
        return self(x)[..., None, None] * np.asarray(self.density.space.metric(x), dtype=float)


class _Constant(Density):
    """The constant density, which on a line reaches as far as the tokens do."""

    def __init__(self, space: Remetrised, tokens: Density) -> None:
        super().__init__(space, _zeros)
        self._tokens = tokens

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        return self._tokens.extent


def _zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape[:-1])


class FokkerPlanck(DriftDiffusion):
    """The forward equation d rho/dt = div(p^drift grad(rho / p^drift)) of a density rho of walkers.

    Walkers follow dX = drift grad log p dt + sqrt(2) dW; p^drift is their invariant density, not p. rho is taken
    with respect to the Riemannian volume. rho / p^drift obeys the backward equation DriftDiffusion(density, drift).

    Parameters
    ----------
    density : Density
        p.
    drift : float

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> p = af.VonMises(1.0)
    >>> rho = af.FokkerPlanck(p).solve(lambda x: 1 + np.sin(x[:, 0]), t=20.0)
    >>> x = np.array([[0.3]])
    >>> bool(abs(rho.at(x) / rho.at(x + 1) - np.exp(2 * (np.cos(x) - np.cos(x + 1)))) < 1e-8)
    True
    """

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
        """rho at the times t, from rho at time 0; arguments as for `DriftDiffusion.solve`.

        Walls reflect ("no-flux") or absorb (("dirichlet", 0)). The error is relative in the norm of
        L2(p^-drift dvol), in which the flow is symmetric. stats["mass"] is the integral of rho at each time.

        Raises
        ------
        ValueError
            Also if a wall holds another value than 0, or if on a line rho falls off no faster than p^(drift/2): that
            norm is then infinite.
        """
        self.check_solvable()
        for pair in read_boundary(boundary, self.space):
            for side in pair or ():
                if side is not None and (callable(side.value) or np.any(side.value)):
                    raise ValueError(f"boundary must be 'no-flux' or ('dirichlet', 0) for a density, got {checks.short(boundary)}")
        if callable(initial):
            self._check_tails(initial)
            initial = partial(_divided, self, initial)
        else:
            values = checks.array(initial, "initial", bools=True).astype(float)
            sizes = values.shape[: self.space.dim]
            if sizes == read_shape(grid, self.space):  # else it is refused below
                nodes = build_grid(self.space, KINDS, sizes, self.ranges(checks.output_times(t)[-1])).points
                initial = values / self._invariant(nodes).reshape(*sizes, *[1] * (values.ndim - len(sizes)))
        backward = super().solve(initial, t, grid, boundary, rtol, method, progress, backend)
        shape = (*backward.grid.shape, 1)
        invariant = self._invariant(backward.grid.points).reshape(shape)
        stats = {key: value for key, value in backward.stats.items() if key != "mean"} | {"quantity": "density"}
        if "mean" in backward.stats:
            nodes = backward.grid.points
            total = float(np.sum(backward.grid.weights * self._invariant(nodes) * self._volume(nodes)))
            stats["mass"] = (total * np.array(backward.stats["mean"])).tolist()
        dense = None if backward.dense is None else partial(_multiplied, backward.dense, invariant)
        return Solution(
            backward.t, backward.y * invariant, grid=backward.grid, status=backward.status, message=backward.message,
            stats=stats, embedding=backward.embedding, dense=dense,
            local_error=None if backward.local_error is None else partial(_scaled_errors, backward, invariant),
        )  # fmt: skip

    @property
    def norm_name(self) -> str:
        return f"the norm weighted by p^{-self.drift:g}" if self.drift else super().norm_name

    def _invariant(self, x: np.ndarray) -> np.ndarray:
        """p^drift (over the mobility), up to a constant that keeps it finite: (N,)."""
        return np.exp(self.log_weight(x) - np.log(self._volume(x)))

    def _volume(self, x: np.ndarray) -> np.ndarray:
        return np.ones(len(x)) if self.space.flat else self.space.volume_element(x)

    def _check_tails(self, initial: Callable) -> None:
        if on_sphere(self.space) or np.isfinite(self.space.bounds).all():
            return
        nodes = build_grid(self.space, KINDS, (64,) * self.space.dim, self.ranges())
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


def _divided(pde: FokkerPlanck, initial: Callable, x: np.ndarray) -> np.ndarray:
    values = checks.evaluate(initial, x, "initial")
    return values / pde._invariant(x)[:, None]


def _scaled_errors(backward: Solution, factor: np.ndarray) -> np.ndarray:
    return backward.node_errors() * factor


def _multiplied(dense: Callable, factor: np.ndarray, times: np.ndarray) -> np.ndarray:
    return dense(times) * factor

