"""The four normalisations of attention, each with all that is known of it: they differ only in the key bias b_j.

With row sums q_i = sum_j K_ij and column sums c_j = sum_i K_ij over the tokens,

=================  ============================  ==========================  ==================
normalisation      b_j                           limit generator             conserved weight
=================  ============================  ==========================  ==================
softmax            0                             Delta + 2 grad log p.grad   p^2
DensityCorrected   -alpha log q_j                Delta + 2(1-alpha) ...      p^(2-2 alpha)
column (then row)  -log c_j                      Delta                       1
Sinkhorn           log v_j, v_i (K v)_i = 1      Delta + grad log p.grad     p
=================  ============================  ==========================  ==================

for symmetric f; what an asymmetric one adds to the limit stands in `attnflow.limit`. "none" divides by the number of keys
in place of the row sum.

Sources: Coifman & Lafon 2006 (alpha); Sander et al. 2022 (Sinkhorn); Geshkovski et al. 2023 (none: USA).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from . import sinkhorn
from .bound import BoundLayer
from .normalization import Normalization
from .sinkhorn import LogSum
from .walls import wall_mass


class _Divided(Normalization):
    """Keys divided by a sum over the tokens to a power: weights (1 + t x)^-alpha where the sum is 1 + t x."""

    alpha: float

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return (1 + 1 / self.alpha) / 2 * (eta**2 @ mass) if self.alpha else np.zeros_like(mass)

    def response_series(
        self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray, fluctuation: np.ndarray, order: int
    ) -> list[np.ndarray]:
        terms = [first := eta @ (mass[:, None] * fluctuation)]  # -alpha x
        for k in range(1, order):
            terms.append(terms[-1] * first * ((1 + k / self.alpha) / (k + 1) if self.alpha else 0.0))
        return terms


@dataclass(frozen=True)
class Softmax(_Divided):
    """Rows sum to one: the transformer's own. The limit drifts up the density, drift factor 2."""

    name = "softmax"
    alpha = 0.0
    drift = 2.0
    general = True

    def weights_latex(self, kernel: str) -> str:
        return rf"S_{{ij}} \propto K_{{ij}} = {kernel}"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(size), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return []

    def key_bias_jvp(self, bound: BoundLayer, direction: np.ndarray) -> np.ndarray:
        return np.zeros_like(direction)

    def first_order(self) -> tuple[float, float]:
        return 0.0, 1.0

    def wall_mass(self) -> float:
        return wall_mass(0.0)

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return np.zeros_like(weights)

    def response_to(self, bound: BoundLayer, xi: np.ndarray) -> np.ndarray:
        return np.zeros_like(xi)


@dataclass(frozen=True)
class Column(_Divided):
    """Columns first, then rows (doubly-normalised attention); no drift up the density."""

    name = "column"
    alpha = 1.0
    drift = 0.0
    general = True

    def weights_latex(self, kernel: str) -> str:
        return rf"S_{{ij}} \propto K_{{ij}} \, / \, \sum_k K_{{kj}}, \quad K_{{ij}} = {kernel}"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -log_sum(np.zeros(size), transposed=True), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return [(np.zeros_like(cotangent), True, -cotangent)]

    def key_bias_jvp(self, bound: BoundLayer, direction: np.ndarray) -> np.ndarray:
        return -bound.transposed(direction, np.zeros(len(direction))).mean

    def first_order(self) -> tuple[float, float]:
        return 1.0, 1.0

    def wall_mass(self) -> float:
        return wall_mass(1.0)

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -plain(True) / mass

    def response_to(self, bound: BoundLayer, xi: np.ndarray) -> np.ndarray:
        return -bound.transposed(xi, _masses(bound)).mean


@dataclass(frozen=True)
class DensityCorrected(_Divided):
    """Keys divided by (row sum)^alpha; alpha = 0 is softmax, alpha = 1 removes the density's drift.

    Parameters
    ----------
    alpha : float
        Exponent; the drift factor of the limit is 2 (1 - alpha).
    """

    name = "density-corrected"
    alpha: float
    general = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", checks.real(self.alpha, "alpha"))

    @property
    def drift(self) -> float:
        """Of the limit, 2 (1 - alpha)."""
        return 2 * (1 - self.alpha)

    def weights_latex(self, kernel: str) -> str:
        row = rf"\left(\sum_k K_{{jk}}\right)^{{{self.alpha:g}}}"
        return rf"S_{{ij}} \propto K_{{ij}} \, / \, {row}, \quad K_{{ij}} = {kernel}"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -self.alpha * log_sum(np.zeros(size)), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return [(np.zeros_like(cotangent), False, -self.alpha * cotangent)]

    def key_bias_jvp(self, bound: BoundLayer, direction: np.ndarray) -> np.ndarray:
        return -self.alpha * bound.plan(direction, np.zeros(len(direction))).mean

    def first_order(self) -> tuple[float, float]:
        return self.alpha, 1.0

    def wall_mass(self) -> float:
        return wall_mass(self.alpha)

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -self.alpha * plain(False) / mass

    def response_to(self, bound: BoundLayer, xi: np.ndarray) -> np.ndarray:
        return -self.alpha * bound.plan(xi, _masses(bound)).mean


@dataclass(frozen=True)
class Sinkhorn(Normalization):
    """Rows and columns sum to one; drift factor 1.

    One potential, v_i sum_j K_ij v_j = 1, does for symmetric f: the iteration v <- sqrt(v / (K v)) at least halves the
    error per sweep for a positive definite K. Two, S_ij = u_i K_ij v_j, do for any f, by accelerated sweeps of two sums each.

    Parameters
    ----------
    tol : float, optional
        Largest deviation of the logarithm of a row sum (column sum with two potentials) from 0; None takes the layer's
        rtol.
    max_iter : int
        Sweeps before it gives up with a ConvergenceWarning.
    potentials : 1 or 2

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> head = af.DotProduct([[1.0, 0.9], [-0.9, 0.8]])     # not symmetric
    >>> tokens = np.random.default_rng(0).normal(size=(100, 2))
    >>> S = af.Attention(head, 0.5, af.Sinkhorn(potentials=2)).weights(tokens)
    >>> bool(abs(S.sum(axis=0) - 1).max() < 1e-11 and abs(S.sum(axis=1) - 1).max() < 1e-11)
    True
    """

    name = "sinkhorn"
    tol: float | None = None
    max_iter: int = 1000
    potentials: int = 1

    drift = 1.0
    doubly_stochastic = True
    order = 2

    def __post_init__(self) -> None:
        if self.tol is not None:
            object.__setattr__(self, "tol", checks.positive(self.tol, "tol"))
        object.__setattr__(self, "max_iter", checks.integer(self.max_iter, "max_iter", least=1))
        object.__setattr__(self, "potentials", checks.integer(self.potentials, "potentials", least=1, largest=2))

    def __repr__(self) -> str:
        """Stores of studies know one potential by its first two parameters."""
        return f"Sinkhorn(tol={self.tol!r}, max_iter={self.max_iter!r}{', potentials=2' if self.potentials == 2 else ''})"

    @property
    def needs_symmetry(self) -> bool:  # type: ignore[override]
        return self.potentials == 1

    @property
    def general(self) -> bool:  # type: ignore[override]
        return self.potentials == 2

    def weights_latex(self, kernel: str) -> str:
        left, sums = ("v_i", "") if self.potentials == 1 else ("u_i", r" = \sum_i S_{ij}")
        return rf"S_{{ij}} = {left} K_{{ij}} v_j, \quad \sum_j S_{{ij}}{sums} = 1, \quad K_{{ij}} = {kernel}"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        scale = sinkhorn.one_potential if self.potentials == 1 else sinkhorn.two_potentials
        return scale(log_sum, size, tol if self.tol is None else self.tol, self.max_iter)

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        """By the equations of the potentials, S the weights: one, (1 + S) d log v = -d(row sums); two, see `sinkhorn.response`."""

        def rows(v: np.ndarray) -> np.ndarray:
            return bound.attend(v[:, None]).mean[:, 0]

        if self.potentials == 1:
            return [(bound.key_bias, False, -sinkhorn.solve(lambda v: v + rows(v), cotangent, bound.layer.rtol))]
        of_columns = sinkhorn.solve(lambda v: _remainder(bound, v[:, None])[:, 0], cotangent, bound.layer.rtol)
        log_u = -bound.attend(None).log_sum_exp
        return [(log_u, True, -of_columns), (bound.key_bias, False, rows(of_columns))]

    def key_bias_jvp(self, bound: BoundLayer, direction: np.ndarray) -> np.ndarray:
        """One potential: (1 + S) d log v = -S direction; two: (1 - S'S) d log v = S'(S - 1) direction."""

        def rows(v: np.ndarray) -> np.ndarray:
            return bound.attend(v).mean

        seen = rows(direction)
        if self.potentials == 1:
            return sinkhorn.solve(lambda v: v + rows(v), -seen, bound.layer.rtol)
        known = bound.attend_transposed(seen - direction)
        return sinkhorn.solve(lambda v: _remainder(bound, v), known, bound.layer.rtol)

    def first_order(self) -> tuple[float, float]:
        return 0.5, 0.5

    def wall_mass(self) -> float:
        return 0.0  # columns sum to one up to the wall

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        if self.potentials == 2:
            return sinkhorn.response(weights, mass)
        return -np.linalg.solve(np.eye(len(weights)) + weights, weights / mass)

    def response_to(self, bound: BoundLayer, xi: np.ndarray) -> np.ndarray:
        if self.potentials == 2:
            raise NotImplementedError(
                "normalization must be Sinkhorn of one potential for a predicted noise on so many nodes, got two; raise max_nodes"
            )

        def average(v: np.ndarray) -> np.ndarray:
            return bound.attend(v).mean

        return -sinkhorn.averaged_inverse(average, average(xi), np.exp(_masses(bound)), bound.layer.rtol)

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        if self.potentials == 2:
            return sinkhorn.second_response(weights, eta, mass)
        return np.linalg.solve(np.eye(len(weights)) + weights, eta**2 @ mass - weights @ np.diagonal(eta))

    def response_series(
        self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray, fluctuation: np.ndarray, order: int
    ) -> list[np.ndarray]:
        if self.potentials == 2:
            return sinkhorn.response_series_of_two(weights, mass, fluctuation, order)
        return sinkhorn.response_series(weights, fluctuation, order)


def _masses(bound: BoundLayer) -> np.ndarray:
    """Their logarithms, (m,)."""
    assert bound.log_mass is not None  # of nodes
    return bound.log_mass


def _remainder(bound: BoundLayer, v: np.ndarray) -> np.ndarray:
    """(1 - S'S) v for v (N, k); S'S of tokens that see nobody else is the identity: then not by zero is rounding divided."""
    return (1 + 1e-14) * v - bound.attend_transposed(bound.attend(v).mean)


@dataclass(frozen=True)
class Unnormalized(Normalization):
    """No row sums: means (1/N) sum_j K_ij v_j over the keys, or with the masses of keys that have some, see `sums`.

    For tokens that move on a sphere (USA). Constants are not kept, so there is no limit.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> layer = af.Attention(af.DotProduct(), epsilon=0.5, normalization="none")
    >>> layer(np.eye(2), np.ones(2)).round(6)     # (e + 1) / 2
    array([[1.859141],
           [1.859141]])
    """

    name = "none"

    @property
    def drift(self) -> float:
        raise ValueError(
            "normalization must divide by row sums for a limit, got 'none': features change at order one per layer, by the "
            "row sums, however small epsilon is"
        )

    def weights_latex(self, kernel: str) -> str:
        return rf"S_{{ij}} = K_{{ij}} / N, \quad K_{{ij}} = {kernel}"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(size), {}
