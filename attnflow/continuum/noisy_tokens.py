"""What noise makes of infinitely many tokens on a sphere: thresholds, ordered states, and where both are stable.

Tokens on S^n in R^d, d = n + 1, that follow dX = K P_x (A x) dt + noise P_x o dW, A of weights exp(beta <x, y>), climb the
potential U of their density rho, P_x A x = grad U,

    U = (1/beta) log integral exp(beta <x, y>) rho(y) dy  (softmax),    without the logarithm for normalization "none",

and stand still where rho is proportional to exp(g U), g = 2 K / noise^2. A density that depends on u = <x, e> alone is known by
its moments m_k, the means of p_k(u) = C_k(u) / C_k(1) (Gegenbauer), and the integral of exp(beta <x, y>) rho is
Z sum_k N_k a_k m_k p_k(u) (Funk & Hecke), N_k harmonics of degree k,

    Z = Gamma(d/2) (2/beta)^(d/2-1) I_(d/2-1)(beta),    a_k = I_(k+d/2-1)(beta) / I_(d/2-1)(beta).

The order R = m_1 is 0 for uniform tokens, which are stable below K# = (noise^2 / 2) beta / a_1 (softmax) or that over Z
(none). A branch of ordered states leaves there: to larger K where the transition is continuous; to smaller K, unstable up to a
fold, where it jumps, with hysteresis between the fold and K#.

Sources: Mun & Rosenzweig 2026 (none); derived for this package (softmax).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import optimize

from .. import checks, display
from ..attention import Attention, Softmax, Unnormalized
from ..attention.masks import check_unmasked
from ..geometry import Density, Sphere
from ..similarity import DotProduct
from .zonal import Zonal, polynomials

_SHARPEST = 200  # beta whose harmonics the nodes see
_LARGEST = 0.995  # order whose density the nodes see
_STRIDE = 0.01  # of the order, from state to state
_FEW = 1e-4  # order below which K - K# is as its square: the branch is even in it, and Newton's steps are rounding errors
_ROUNDING = 1e-14  # of couplings, relative


class NoisyStates(NamedTuple):
    """Stationary states.

    Attributes
    ----------
    order : (M,) array
        R, the length of the mean of the tokens, between 0 and 1.
    coupling : (M,) array
        K of each.
    stable : (M,) array of bool
        Whether all perturbations that depend on u alone decay.
    """

    order: np.ndarray
    coupling: np.ndarray
    stable: np.ndarray

    def __repr__(self) -> str:
        return display.of_fields(self)


@dataclass(frozen=True)
class NoisyTokens:
    """Infinitely many tokens on S^dim that move as `evolve_continuous(..., noise=noise)` and value matrix K let them.

    Parameters
    ----------
    layer : Attention
        DotProduct() at beta = 1 / (2 epsilon), with residual 1, softmax or "none".
    dim : int
        Of the sphere, at least 1.
    noise : float
        Positive.

    Raises
    ------
    ValueError, TypeError
        Naming the argument.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.NoisyTokens(af.Attention(af.DotProduct(), epsilon=0.5, normalization="none"), dim=1)   # beta = 1
    >>> round(tokens.threshold, 6)
    0.884707
    >>> states = tokens.states(1.5 * tokens.threshold)
    >>> states.order.round(3), states.stable
    (array([0.   , 0.815]), array([False,  True]))
    """

    layer: Attention
    dim: int
    noise: float = 1.0

    __repr__ = display.of_fields

    def __post_init__(self) -> None:
        checks.instance(self.layer, Attention, "layer", "an attnflow.Attention")
        f, rule = self.layer.f, self.layer.normalization
        if not isinstance(f, DotProduct) or f.dim is not None:
            raise ValueError(f"layer must have f = DotProduct() for its noisy states, got {f}")
        if not isinstance(rule, (Softmax, Unnormalized)):
            raise ValueError(f"layer must have normalization 'softmax' or 'none' for its noisy states, got {rule}")
        check_unmasked(self.layer, "noisy states")
        if self.layer.residual != 1:
            raise ValueError(f"layer must have residual 1: the flow has no step of its own, got {self.layer.residual}")
        if self.layer.epsilon < 0.5 / _SHARPEST:
            raise ValueError(
                f"layer must have epsilon at least {0.5 / _SHARPEST:g} for its noisy states, got {self.layer.epsilon:g}"
            )
        object.__setattr__(self, "dim", checks.integer(self.dim, "dim", least=1))
        object.__setattr__(self, "noise", checks.positive(self.noise, "noise"))

    @property
    def threshold(self) -> float:
        """K#, the coupling from which on uniform tokens are unstable."""
        return self._coupling(self._zonal.start)

    @property
    def hysteresis(self) -> tuple[float, float]:
        """Couplings between which uniform and ordered tokens are both stable: from the fold to K#, the same if there is none."""
        return float(self._branch[1].min()), self.threshold

    def branch(self, orders: Sequence[float]) -> NoisyStates:
        """The states of given orders on the branch that leaves uniform tokens in their first harmonic.

        Parameters
        ----------
        orders : sequence of float
            In (0, 0.995], in any sequence: the order grows along the branch, the coupling need not.

        Returns
        -------
        NoisyStates

        Examples
        --------
        >>> import attnflow as af
        >>> tokens = af.NoisyTokens(af.Attention(af.DotProduct(), epsilon=0.125, normalization="none"), dim=1)   # beta = 4
        >>> branch = tokens.branch([0.2, 0.5, 0.75])
        >>> (branch.coupling < tokens.threshold), branch.stable
        (array([ True,  True,  True]), array([False, False,  True]))
        """
        wanted = checks.array(orders, "orders", (None,)).astype(float)
        if not ((wanted > 0) & (wanted <= _LARGEST)).all():
            raise ValueError(f"orders must be in (0, {_LARGEST:g}], got {checks.entries(wanted)}")
        found = [self._solve(R) for R in wanted]
        coupling = [self._coupling(g) for _, g in found]
        stable = [self._zonal.stable(m, g) for m, g in found]
        return NoisyStates(wanted, np.array(coupling), np.array(stable))

    def density(self, order: float) -> Density:
        """The density of the state of an order, about the last axis, on Sphere(dim)."""
        order = checks.real(order, "order")
        if not 0 < order <= _LARGEST:
            raise ValueError(f"order must be in (0, {_LARGEST:g}], got {order!r}")
        zonal = self._zonal
        m, g = self._solve(order)

        def log_pdf(x: np.ndarray) -> np.ndarray:
            p = polynomials(x[..., -1].ravel(), len(zonal.a), self.dim)[0]
            return g * zonal.potential(zonal.row_sums(m, p)).reshape(x.shape[:-1])

        return Density(Sphere(self.dim), log_pdf)

    def states(self, coupling: float) -> NoisyStates:
        """All states of this branch at a coupling, uniform tokens first.

        Parameters
        ----------
        coupling : float
            K; negative lets tokens repel each other.

        Returns
        -------
        NoisyStates

        Raises
        ------
        ValueError
            If tokens are ordered beyond 0.995.
        """
        coupling, (orders, couplings) = checks.real(coupling, "coupling"), self._branch
        if coupling > couplings[-1]:
            raise ValueError(f"coupling must be at most {couplings[-1]:.4g}, for an order of {_LARGEST:g}, got {coupling:g}")
        excess = couplings - coupling
        excess[np.abs(excess) <= _ROUNDING * abs(coupling)] = 0.0
        known = dict(zip(orders.tolist(), excess.tolist()))  # solved from elsewhere it might have another sign

        def beyond(R: float) -> float:
            return known[R] if R in known else self._coupling_at(R) - coupling

        turns = np.flatnonzero(np.sign(excess[:-1]) * np.sign(excess[1:]) <= 0)
        found = {optimize.brentq(beyond, *orders[k : k + 2].tolist(), xtol=1e-14) for k in turns} - {0.0}
        ordered = self.branch(sorted(found)) if found else NoisyStates(np.empty(0), np.empty(0), np.empty(0, bool))
        stable = np.append(coupling < self.threshold, ordered.stable).astype(bool)
        return NoisyStates(np.append(0.0, ordered.order), np.full(len(stable), coupling), stable)

    def _solve(self, order: float) -> tuple[np.ndarray, float]:
        if order < _FEW:
            (m, g), share, start = self._solve(_FEW), order / _FEW, self._zonal.start
            return m * share ** np.arange(1, len(m) + 1), start + share**2 * (g - start)
        return self._zonal.solve(order, *self._path[int(order / _STRIDE)])

    def _coupling_at(self, order: float) -> float:
        return self._coupling(self._solve(order)[1])

    def _coupling(self, g: float) -> float:
        return self.noise**2 * g / 2

    @cached_property
    def _zonal(self) -> Zonal:
        return Zonal(1 / (2 * self.layer.epsilon), self.dim, isinstance(self.layer.normalization, Softmax))

    @cached_property
    def _path(self) -> list[tuple[np.ndarray, float]]:
        """Moments and g at the orders 0, 0.01, ...: each is near enough to start those up to the next from."""
        path = [(np.zeros(len(self._zonal.a) - 1), self._zonal.start)]
        for k in range(1, int(_LARGEST / _STRIDE) + 1):
            path.append(self._zonal.solve(k * _STRIDE, *path[-1]))
        return path

    @cached_property
    def _branch(self) -> tuple[np.ndarray, np.ndarray]:
        """Orders and couplings along the branch, from uniform tokens on, the fold among them: monotone between two of them."""
        orders = np.append(_STRIDE * np.arange(len(self._path)), _LARGEST)
        couplings = np.append([self._coupling(g) for _, g in self._path], self._coupling_at(_LARGEST))
        k = int(np.argmin(couplings))
        bounds = orders[max(k - 1, 0)], orders[min(k + 1, len(orders) - 1)]
        fold = optimize.minimize_scalar(self._coupling_at, bounds=bounds, method="bounded", options={"xatol": 1e-9})
        if fold.fun >= couplings[k]:
            return orders, couplings
        at = int(np.searchsorted(orders, fold.x))
        return np.insert(orders, at, fold.x), np.insert(couplings, at, fold.fun)
