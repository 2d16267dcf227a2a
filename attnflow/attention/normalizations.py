"""The four normalisations of attention, each with all that is known of it: they differ only in the key bias b_j.

With row sums q_i = sum_j K_ij and column sums c_j = sum_i K_ij over the tokens,

=================  ============================  ==========================  ==================
normalisation      b_j                           limit generator             conserved weight
=================  ============================  ==========================  ==================
softmax            0                             Delta + 2 grad log p.grad   p^2
DensityCorrected   -alpha log q_j                Delta + 2(1-alpha) ...      p^(2-2 alpha)
column (then row)  -log c_j                      Delta (symmetric f)         1
Sinkhorn           log v_j, v_i (K v)_i = 1      Delta + grad log p.grad     p
=================  ============================  ==========================  ==================

Sources: Coifman & Lafon 2006 (alpha); Sander et al. 2022 (Sinkhorn).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks

# log_sum(bias, transposed=False): log sum_j K_ij exp(bias_j) per token, columns when transposed
LogSum = Callable[..., np.ndarray]


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

    def first_order(self) -> tuple[float, float]:
        return 0.0, 1.0

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return np.zeros_like(weights)

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return np.zeros_like(mass)


@dataclass(frozen=True)
class Column(Normalization):
    """Columns first, then rows (doubly-normalised attention); no drift for symmetric f."""

    drift = 0.0

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -log_sum(np.zeros(size), transposed=True), {}

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", checks.real(self.alpha, "alpha"))

    @property
    def drift(self) -> float:
        return 2 * (1 - self.alpha)

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return -self.alpha * log_sum(np.zeros(size)), {}

    def first_order(self) -> tuple[float, float]:
        return self.alpha, 1.0

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -self.alpha * plain(False) / mass

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return (1 + 1 / self.alpha) / 2 * (eta**2 @ mass) if self.alpha else np.zeros_like(mass)


@dataclass(frozen=True)
class Sinkhorn(Normalization):
    """Rows and columns sum to one: v_i sum_j K_ij v_j = 1, for symmetric f; drift factor 1.

    The symmetric iteration v <- sqrt(v / (K v)) at least halves the error per sweep for a positive
    definite K.

    Parameters
    ----------
    tol : float, optional
        Largest deviation of log v_i (K v)_i from 0; None takes the layer's rtol.
    max_iter : int
        Sweeps before it gives up with a ConvergenceWarning.
    """

    tol: float | None = None
    max_iter: int = 1000

    drift = 1.0
    needs_symmetry = True
    order = 2

    def __post_init__(self) -> None:
        if self.tol is not None:
            object.__setattr__(self, "tol", checks.positive(self.tol, "tol"))
        object.__setattr__(self, "max_iter", checks.integer(self.max_iter, "max_iter", least=1))

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        tol = tol if self.tol is None else self.tol
        log_v = -log_sum(np.zeros(size)) / 2
        for sweep in range(1, self.max_iter + 1):
            log_kv = log_sum(log_v)
            gap = float(np.abs(log_v + log_kv).max())
            # the sums themselves carry round-off of their own size: no tolerance below it can be met
            if gap <= max(tol, 4e-16 * float(np.abs(log_kv).max())):
                break
            log_v = (log_v - log_kv) / 2
        else:
            checks.warn(
                f"Sinkhorn stopped after {self.max_iter} sweeps with row sums off by {gap:.1g}, tol {tol:.1g}: "
                "raise max_iter or epsilon",
                checks.ConvergenceWarning,
            )
        return log_v, {"sinkhorn_sweeps": sweep, "sinkhorn_gap": gap}

    def first_order(self) -> tuple[float, float]:
        return 0.5, 0.5

    def response(self, weights: np.ndarray, plain: Callable[[bool], np.ndarray], mass: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(np.eye(len(weights)) + weights, weights / mass)

    def second_response(self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
        return np.linalg.solve(np.eye(len(weights)) + weights, eta**2 @ mass - weights @ np.diagonal(eta))


_NAMED = {"softmax": Softmax, "column": Column, "sinkhorn": Sinkhorn}


def normalization(value: str | Normalization) -> Normalization:
    """A normalisation from its name or itself."""
    if isinstance(value, Normalization):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"normalization must be a name, DensityCorrected(alpha) or Sinkhorn(tol, max_iter), got {type(value).__name__}"
        )
    return _NAMED[checks.choice(value, "normalization", _NAMED)]()
