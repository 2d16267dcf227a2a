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

for symmetric f; what an asymmetric one adds to the limit stands in `attnflow.limit`.

Sources: Coifman & Lafon 2006 (alpha); Sander et al. 2022 (Sinkhorn).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from . import sinkhorn
from .bound import BoundLayer
from .sinkhorn import LogSum


class Normalization:
    """A rule for the key bias, its limit and its errors. A new one overrides what it knows; the rest says what is missing.

    What is asked of it without an answer raises NotImplementedError, which names the member.

    Attributes
    ----------
    drift : float
        Of the limit generator Delta + drift grad log p . grad, for symmetric f; the conserved weight is p^drift.
    needs_symmetry : bool
        Whether f must be symmetric for the iteration to make sense.
    general : bool
        Whether the limit of an asymmetric f is known: that of `General`.
    doubly_stochastic : bool
        Whether columns sum to one as rows do, whatever f: the sum of the features is conserved.
    order : int
        Of the error of infinitely many tokens in the time step, for a similarity that is a flat Gaussian.
    selects : bool
        Whether each query chooses the keys that it weighs: weights are then no softmax with a key bias, see `sparse`.
    needs_tokens : bool
        Whether infinitely many tokens must say for how many they stand.

    Examples
    --------
    Keys divided by the root of their row sum, which is `DensityCorrected(1 / 2)`:

    >>> import attnflow as af
    >>> class Half(Normalization):
    ...     drift = 1.0
    ...
    ...     def key_bias(self, log_sum, size, tol):
    ...         return -log_sum(np.zeros(size)) / 2, {}
    >>> tokens = af.VonMises(1.0).sample(100, rng=0)
    >>> own, known = (af.Attention(af.SquaredDistance(af.Circle()), 0.1, rule) for rule in (Half(), af.DensityCorrected(0.5)))
    >>> bool(abs(own(tokens) - known(tokens)).max() < 1e-12)
    True
    """

    needs_symmetry = False
    general = False
    doubly_stochastic = False
    order = 1
    selects = False
    needs_tokens = False

    if TYPE_CHECKING:  # a class's, an instance's or computed

        @property
        def drift(self) -> float: ...

    else:

        def __getattr__(self, name: str):
            if name == "drift":
                raise self._unknown(name, "limit")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        """By its parameters, not its place in memory: studies are known by it."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(vars(self).items()))})"

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        """The key bias (size,) of a token set, and what its computation tells of itself.

        Parameters
        ----------
        log_sum : callable
            bias (size,), transposed=False -> log sum_j K_ij exp(bias_j) per token (size,); over columns if transposed.
        size : int
            Tokens.
        tol : float
            The largest error a weight may have by it.
        """
        raise self._unknown("key_bias", "layer")

    def key_bias_of_masses(self, log_sum: LogSum, log_mass: np.ndarray, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        """As `key_bias`, which does not ask for the masses (their logarithms, (N,)) that `log_sum` has in it."""
        return self.key_bias(log_sum, len(log_mass), tol)

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        """The log-sum-exps that the key bias is made of, with the gradients of a loss with respect to them.

        Parameters
        ----------
        bound : BoundLayer
        cotangent : (N,) array
            dLoss / d key bias; it adds up to zero, as a constant changes no weight.

        Returns
        -------
        list of (bias (N,), transposed, gradient (N,))
            Of log sum_j K_ij exp(bias_j), over columns if transposed.
        """
        raise self._unknown("key_bias_vjp", "gradient")

    def first_order(self) -> tuple[float, float]:
        """(k, s) of the term -k m2 grad(Delta r / r) . grad H, r = p^s, of the first-order error; see `predicted_bias`."""
        raise self._unknown("first_order", "predicted bias")

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        """eta (m, m): how one more token at node z changes the logarithm of the key weight at y, eta[y, z].

        Parameters
        ----------
        weights : (m, m) array
            Of the layer on its nodes, rows summing to one.
        plain : callable
            Whether transposed -> the weights without a key bias beside the masses.
        mass : (m,) array
            p dvol of the nodes.
        """
        raise self._unknown("response", "predicted noise")

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """The second order of `response`, averaged over where the token is: (m,), relative to the key weight.

        With p + t (delta_z - p) in place of p the key weight is exp(b) (1 + t eta_z + t^2 zeta_z + ...): the mean of zeta_z(y)
        over z from p.

        Parameters
        ----------
        weights : (m, m) array
        eta : (m, m) array
            The `response`, less its mean over z.
        mass : (m,) array
        """
        raise self._unknown("second_response", "predicted mean")

    def require(self, member: str, what: str) -> None:
        """NotImplementedError if this class has no such member of its own, which a `what` needs."""
        if getattr(type(self), member) is getattr(Normalization, member):
            raise self._unknown(member, what)

    def _unknown(self, member: str, what: str) -> NotImplementedError:
        return NotImplementedError(
            f"normalization must have `{member}` for a {what}, got {type(self).__name__}, which has none"
        )


@dataclass(frozen=True)
class Softmax(Normalization):
    """Rows sum to one: the transformer's own. The limit drifts up the density, drift factor 2."""

    drift = 2.0
    general = True

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(size), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return []

    def first_order(self) -> tuple[float, float]:
        return 0.0, 1.0

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return np.zeros_like(weights)

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return np.zeros_like(mass)


@dataclass(frozen=True)
class Column(Normalization):
    """Columns first, then rows (doubly-normalised attention); no drift up the density."""

    drift = 0.0
    general = True

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -log_sum(np.zeros(size), transposed=True), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return [(np.zeros_like(cotangent), True, -cotangent)]

    def first_order(self) -> tuple[float, float]:
        return 1.0, 1.0

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -plain(True) / mass

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return eta**2 @ mass


@dataclass(frozen=True)
class DensityCorrected(Normalization):
    """Keys divided by (row sum)^alpha; alpha = 0 is softmax, alpha = 1 removes the density's drift.

    Parameters
    ----------
    alpha : float
        Exponent; the drift factor of the limit is 2 (1 - alpha).
    """

    alpha: float
    general = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", checks.real(self.alpha, "alpha"))

    @property
    def drift(self) -> float:
        return 2 * (1 - self.alpha)

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -self.alpha * log_sum(np.zeros(size)), {}

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        return [(np.zeros_like(cotangent), False, -self.alpha * cotangent)]

    def first_order(self) -> tuple[float, float]:
        return self.alpha, 1.0

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -self.alpha * plain(False) / mass

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return (1 + 1 / self.alpha) / 2 * (eta**2 @ mass) if self.alpha else np.zeros_like(mass)


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

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        scale = sinkhorn.one_potential if self.potentials == 1 else sinkhorn.two_potentials
        return scale(log_sum, size, tol if self.tol is None else self.tol, self.max_iter)

    def key_bias_vjp(self, bound: BoundLayer, cotangent: np.ndarray) -> list[tuple[np.ndarray, bool, np.ndarray]]:
        """By the equations of the potentials, S the weights: one, (1 + S) d log v = -d(row sums); two, see `sinkhorn.response`."""

        def rows(v: np.ndarray) -> np.ndarray:
            return bound.attend(v[:, None]).mean[:, 0]

        if self.potentials == 1:
            return [(bound.key_bias, False, -sinkhorn.solve(lambda v: v + rows(v), cotangent, bound.layer.rtol))]

        def remainder(v: np.ndarray) -> np.ndarray:
            # S'S of tokens that see nobody else is the identity: then not by zero is rounding divided
            return (1 + 1e-14) * v - bound.attend_transposed(rows(v)[:, None])[:, 0]

        of_columns = sinkhorn.solve(remainder, cotangent, bound.layer.rtol)
        log_u = -bound.attend(None).log_sum_exp
        return [(log_u, True, -of_columns), (bound.key_bias, False, rows(of_columns))]

    def first_order(self) -> tuple[float, float]:
        return 0.5, 0.5

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        if self.potentials == 2:
            return sinkhorn.response(weights, mass)
        return -np.linalg.solve(np.eye(len(weights)) + weights, weights / mass)

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        if self.potentials == 2:
            return sinkhorn.second_response(weights, eta, mass)
        return np.linalg.solve(np.eye(len(weights)) + weights, eta**2 @ mass - weights @ np.diagonal(eta))


_NAMED = {"softmax": Softmax, "column": Column, "sinkhorn": Sinkhorn}


def normalization(value: str | Normalization) -> Normalization:
    """A normalisation from its name or itself."""
    if isinstance(value, Normalization):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"normalization must be a name or a Normalization such as DensityCorrected(alpha) or TopK(k), got {type(value).__name__}"
        )
    return _NAMED[checks.choice(value, "normalization", _NAMED)]()
