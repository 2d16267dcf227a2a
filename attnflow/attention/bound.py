"""A layer with its tokens: what is computed of them once, and one step on the features they carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import checks, display
from ..kernels import Attended, Mask, attend, plan
from ..kernels.reference_engine import shifted_logits, softmax
from ..kernels.scaling import rescale


class _Sums(Protocol):
    """What is asked of a plan; a `Plan` is one."""

    @property
    def engine(self) -> str: ...

    @property
    def run(self) -> Callable: ...

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray) -> Attended: ...


@dataclass
class BoundLayer:
    """A layer with its tokens, their key bias (log mass included) and the engine's plan for them.

    A step gives the same bits however often it was taken before, and by however many threads. `log_sum_exp` (N,) are
    the logarithms of the row sums, once they were asked for; `log_mass` (N,) those of the tokens' masses, None for equal.
    """

    layer: Any  # the Attention, whose file needs this one
    tokens: np.ndarray
    key_bias: np.ndarray
    plan: _Sums
    stats: dict[str, Any] = field(default_factory=dict)
    log_sum_exp: np.ndarray | None = None
    log_mass: np.ndarray | None = None
    mask: Mask | None = None

    def __repr__(self) -> str:
        return display.cut(f"BoundLayer({display.cut(repr(self.layer), 85)} on {len(self.tokens)} tokens)")

    @cached_property
    def symmetric(self) -> bool:
        """Whether f(x, y) = f(y, x), and who sees a token is seen by it."""
        return (self.mask is None or self.mask.symmetric) and self.layer.f.is_symmetric(self.tokens)

    @property
    def self_adjoint(self) -> bool:
        """Whether it is, in the conserved weight: symmetric, and every key has a weight."""
        return self.symmetric and bool(np.isfinite(self.key_bias).all())

    @property
    def definite(self) -> bool:
        """Whether the similarity is known to be positive (semi)definite: the eigenvalues of S are not negative then."""
        return self.layer.f.positive_definite and (self.mask is None or self.mask.disjoint)

    @cached_property
    def transposed(self) -> _Sums:
        """The plan of column sums: of f(y, x), over those who see a token."""
        return _transposed(self.layer, self.tokens, self.plan, self.mask)

    def attend(self, values: np.ndarray | None, queries: np.ndarray | None = None) -> Attended:
        """Weighted means of the values at the queries (None: at the tokens), and the log-sum-exp."""
        if queries is None:
            attended = self.plan(values, self.key_bias)
            self.stats.update(getattr(self.plan.run, "stats", {}))  # such as rows left to another engine
            return attended
        layer = self.layer
        layer.check_queries(queries)
        return attend(
            layer.f, layer.epsilon, queries, self.tokens, values, self.key_bias, layer.backend, layer.dtype, layer.rtol
        )

    def step(self, values: np.ndarray) -> np.ndarray:
        """One layer: values + residual * (S values - values)."""
        mean, log_sum_exp = self.attend(values)
        self.note_isolated(log_sum_exp)
        a = self.layer.residual
        return mean if a == 1 else values + a * (mean - values)

    def weights(self, queries: np.ndarray | None = None, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Dense weights (M, N) of queries, or of the tokens in some `rows`."""
        layer, seen = self.layer, None if self.mask is None else self.mask.dense(rows)
        queries = self.tokens[rows] if queries is None else queries
        f, epsilon = rescale(layer.f, layer.epsilon, queries, self.tokens)
        bias = self.key_bias - self.key_bias.max()
        return softmax(shifted_logits(f, epsilon, queries, self.tokens, bias, seen)[0])[0]

    def conserved_weight(self) -> np.ndarray:
        """w_i = exp(b_i) sum_j K_ij exp(b_j), scaled to sum one: (N,), positive.

        For symmetric f and mask the layer is self-adjoint in the inner product sum_i w_i u_i v_i and keeps sum_i w_i H_i.
        For others sums are kept with the tokens' masses where columns sum to one; nothing is known of other layers.

        Raises
        ------
        ValueError
            If f or the mask is asymmetric and columns do not sum to one.
        """
        if not self.symmetric:
            if not self.layer.normalization.doubly_stochastic:
                if self.mask is not None and not self.mask.symmetric:
                    raise ValueError(f"mask must go both ways for a conserved weight, got {self.layer.mask!r}")
                name = type(self.layer.f).__name__
                raise ValueError(f"f must be symmetric for a conserved weight of {self.layer.normalization}, got {name}")
            log_mass = np.zeros(len(self.tokens)) if self.log_mass is None else self.log_mass
            return _shares(log_mass)
        if self.log_sum_exp is None:
            self.log_sum_exp = self.attend(None).log_sum_exp
        return _shares(self.key_bias + self.log_sum_exp)

    def note_isolated(self, log_sum_exp: np.ndarray) -> None:
        """Count isolated tokens into `stats`, once, from the logarithms of the row sums."""
        if "isolated" not in self.stats:
            self.stats["isolated"] = self.count_isolated(log_sum_exp)

    def count_isolated(self, log_sum_exp: np.ndarray) -> int:
        """Tokens whose own weight exceeds 1 - 1e-6: nothing reaches them, epsilon is below their spacing.

        Those that see nobody else by their mask are not counted, nor the first half of a causal one.
        """
        alone = attends_alone(self.layer, self.tokens, self.key_bias, log_sum_exp)
        if self.mask is not None:
            alone &= self.mask.sociable
        return warn_isolated(int(alone.sum()), len(alone), self.layer.epsilon)

    def attend_transposed(self, values: np.ndarray) -> np.ndarray:
        """sum_i S_ij v_i for values (N, c): with Z the row sums, exp(b_j) sum_i K_ij exp(-log Z_i) v_i."""
        if self.log_sum_exp is None:
            self.log_sum_exp = self.attend(None).log_sum_exp
        mean, log_sum_exp = self.transposed(values, -self.log_sum_exp)
        return np.exp(self.key_bias + log_sum_exp)[:, None] * mean

    def own_weights(self) -> np.ndarray:
        """S_ii (N,), of tokens that see themselves."""
        return np.exp(self._own_logits() - self.attend(None).log_sum_exp)

    def _own_logits(self) -> np.ndarray:
        return _own_logits(self.layer, self.tokens, self.key_bias)


def attends_alone(layer: Any, tokens: np.ndarray, key_bias: np.ndarray, log_sum_exp: np.ndarray) -> np.ndarray:
    """Which tokens' own weight exceeds 1 - 1e-6: (N,)."""
    alone = _own_logits(layer, tokens, key_bias) - log_sum_exp > -1e-6
    if layer.f.pair.reduction == "general":
        alone &= np.abs(log_sum_exp) < 1e9  # beside a larger constant of f that can not be seen
    return alone


def warn_isolated(count: int, size: int, epsilon: float) -> int:
    """The count of isolated tokens, which is told if there are any; one token alone is not isolated."""
    if size == 1 or not count:
        return 0
    checks.warn(
        f"{count} of {size} tokens attend only to themselves: epsilon = {epsilon:g} is below their spacing",
        checks.IsolatedTokensWarning,
    )
    return count


def _own_logits(layer: Any, tokens: np.ndarray, key_bias: np.ndarray | float) -> np.ndarray:
    return -layer.f.diagonal(tokens) / (2 * layer.epsilon) + key_bias


def _shares(logarithm: np.ndarray) -> np.ndarray:
    """Positive numbers with these logarithms, but for a factor: they sum to one."""
    weight = np.maximum(np.exp(logarithm - logarithm.max()), np.finfo(float).tiny)
    return weight / weight.sum()


def read_log_mass(value, size: int) -> np.ndarray:
    """(N,) logarithms of masses, -inf for none."""
    log_mass = checks.reals(value, "log_mass").astype(float, copy=False)
    if log_mass.shape != (size,):
        raise ValueError(f"log_mass must have shape ({size},), one for each token, got {log_mass.shape}")
    if not (log_mass < np.inf).all() or log_mass.max() == -np.inf:
        raise ValueError(f"log_mass must be finite or -inf, and somewhere finite, got {checks.entries(log_mass)}")
    return log_mass


def bind(layer: Any, tokens: np.ndarray, log_mass: np.ndarray | None) -> BoundLayer:
    f = layer.f
    if layer.normalization.needs_symmetry and not f.is_symmetric(tokens):
        raise ValueError(
            f"normalization {type(layer.normalization).__name__.lower()!r} needs a symmetric f, got {type(f).__name__} with f(x, y) != f(y, x); "
            "use Sinkhorn(potentials=2) or 'column', or symmetrise f"
        )
    mask = None if layer.mask is None else layer.mask.of(len(tokens))
    mass = np.zeros(len(tokens)) if log_mass is None else log_mass

    own = plan(f, layer.epsilon, None, tokens, layer.backend, layer.dtype, layer.rtol, mask=mask)
    across = None

    def log_sum(bias: np.ndarray, transposed: bool = False) -> np.ndarray:
        nonlocal across
        if not transposed:
            return own(None, bias + mass).log_sum_exp
        across = across or _transposed(layer, tokens, own, mask)
        sums = across(None, bias + mass).log_sum_exp
        return np.where(sums == -np.inf, 0.0, sums)  # of a token that nobody sees: its bias does not matter

    bias, stats = layer.normalization.key_bias_of_masses(log_sum, mass, layer.rtol)
    kept = bias > -np.inf
    if mask is not None and not kept.all() and (blind := mask.seen(kept) == 0).any():
        raise ValueError(
            f"fraction must be larger for each token to see a key that is kept, got {layer.normalization}: token "
            f"{int(blind.argmax())} sees none"
        )
    stats = {"engine": own.engine, "dtype": layer.dtype, **stats}
    return BoundLayer(layer, tokens, bias + mass, own, stats, log_mass=log_mass, mask=mask)


def _transposed(layer: Any, tokens: np.ndarray, own: _Sums, mask: Mask | None) -> _Sums:
    if layer.f.symmetric and (mask is None or mask.symmetric):
        return own
    seen_by = None if mask is None else mask.transposed()
    return plan(layer.f.transposed(), layer.epsilon, None, tokens, layer.backend, layer.dtype, layer.rtol, mask=seen_by)
