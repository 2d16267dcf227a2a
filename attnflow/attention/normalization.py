"""What a normalisation has to know: its key bias, its limit, and its terms in what is predicted.

Those of attention stand in `normalizations`; one of your own is a subclass of `Normalization`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .bound import BoundLayer
from .sinkhorn import LogSum


class Normalization:
    """A rule for the key bias, its limit and its errors. A new one overrides what it knows; the rest says what is missing.

    What is asked of it without an answer raises NotImplementedError, which names the member.

    Attributes
    ----------
    name : str
        By which it is asked for in words, if it is.
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

    name = ""
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

    def __init_subclass__(cls, **options: Any) -> None:
        """TypeError where a class changes what the weights are of a rule whose limit and errors are known: they are not its own."""
        super().__init_subclass__(**options)
        ours = [parent for parent in cls.__mro__[1:] if parent.__module__.startswith(f"{__package__}.")]
        known = [parent for parent in ours if "key_bias" in vars(parent) and parent is not Normalization]
        if known and "key_bias" in vars(cls):
            raise TypeError(
                f"key_bias must not be overridden in a class derived from {known[0].__name__}, whose limit and predictions "
                f"{cls.__name__} would inherit: derive it from attnflow.attention.Normalization"
            )

    def __repr__(self) -> str:
        """By its parameters, not its place in memory: studies are known by it."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(vars(self).items()))})"

    def weights_latex(self, kernel: str) -> str:
        """The weights S_ij in LaTeX, of the similarity K_ij that is `kernel`."""
        return rf"S_{{ij}} \propto {kernel} e^{{b_j}}"

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

    def key_bias_jvp(self, bound: BoundLayer, direction: np.ndarray) -> np.ndarray:
        """How the key bias changes along changes of the logarithms of the tokens' masses, both (N, k).

        Parameters
        ----------
        bound : BoundLayer
            Of tokens that weigh the same.
        direction : (N, k) array
        """
        raise self._unknown("key_bias_jvp", "standard error")

    def first_order(self) -> tuple[float, float]:
        """(k, s) of the term -k m2 grad(Delta r / r) . grad H, r = p^s, of the first-order error; see `predicted_bias`."""
        raise self._unknown("first_order", "predicted bias")

    def wall_mass(self) -> float:
        """m: what a wall has of the conserved weight beside p^drift, over sqrt(m2), for a Gaussian similarity.

        The integral of w(u) - 1, u the distance from the wall over sqrt(m2), where weights are p^drift w(u).
        """
        raise self._unknown("wall_mass", "predicted bias at walls")

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

    def response_to(self, bound: BoundLayer, xi: np.ndarray) -> np.ndarray:
        """As `response` to many tokens at once, without a matrix: integral of eta_z(y) p(z) xi(z) dz, (m, k).

        Parameters
        ----------
        bound : BoundLayer
            The layer on its nodes, whose `log_mass` are p dvol.
        xi : (m, k) array
            Relative changes of the tokens' mass, one a column.
        """
        raise self._unknown("response_to", "predicted noise on so many nodes")

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

    def response_series(
        self, weights: np.ndarray, eta: np.ndarray, mass: np.ndarray, fluctuation: np.ndarray, order: int
    ) -> list[np.ndarray]:
        """The powers of t in the key weights, relative to theirs, when tokens have the density p (1 + t xi): [e_1, e_2, ...].

        The first is that of `response`, e_1(y) = integral eta_z(y) xi(z) p(z) dz.

        Parameters
        ----------
        weights : (m, m) array
        eta : (m, m) array
            The `response`.
        mass : (m,) array
        fluctuation : (m, k) array
            xi, of p-mean 0.
        order : int
            The highest power.
        """
        raise self._unknown("response_series", "predicted error of next order")

    def knows(self, member: str) -> bool:
        """Whether this class has such a member of its own."""
        return getattr(type(self), member) is not getattr(Normalization, member)

    def require(self, member: str, what: str) -> None:
        """NotImplementedError if this class has no such member of its own, which a `what` needs."""
        if not self.knows(member):
            raise self._unknown(member, what)

    def _unknown(self, member: str, what: str) -> NotImplementedError:
        asked = repr(self.name) if self.name else type(self).__name__
        return NotImplementedError(f"normalization must have `{member}` for a {what}, got {asked}, which has none")
