"""Normalisations that choose their keys: each query weighs a few of them, and the others not at all.

With g_ij = f(x_i, x_j) / (2 epsilon), rows summing to one:

=============  =================================================  ==========================================
normalisation  weights                                            limit generator of one layer
=============  =================================================  ==========================================
TopK(k)        softmax over the k smallest f                      (m2(x) / 2) (Delta + 2 grad log p . grad)
Sparse(alpha)  max(0, -(alpha - 1) g - T_i)^(1 / (alpha - 1))     the same
Perplexity     softmax, each row at a temperature of its own      the same
Screening      softmax over keys of the largest column sums       softmax's
=============  =================================================  ==========================================

m2(x) is the second moment of what a query at x sees, which depends on the density there: `attnflow.limit` has it. One layer
of the first three is one unit of time.

Sources: Martins & Astudillo 2016 (sparsemax), Peters et al. 2019 (entmax), Ting, Huang & Jordan 2011 (limits of nearest
neighbours), Hinton & Roweis 2002 (perplexity), Hosseini & Hosseini 2024 (target sparsity).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..kernels.near import Calibrated, Entmax, Law, Nearest
from ..similarity import PseudoMetric
from ..similarity.local_moments import entmax_moment, nearest_moment, perplexity_moment
from .normalization import Normalization
from .sinkhorn import LogSum

_SAME = 10  # digits of log column sums that ties are judged by
_FEW = 64.0  # keys that a row of entmax is first thought to keep
_NOISE = 0.4  # see `_decided_by`


class Selective(Normalization):
    """A normalisation whose weights choose their keys; `law` says how."""

    drift = 2.0
    selects = True
    needs_tokens = True

    def weights_latex(self, kernel: str) -> str:
        """Of keys that each query chooses."""
        return r"S_{ij} = \rho_i(f(x_i, x_j))"

    def law(self, epsilon: float, rtol: float) -> Law:
        """How a row chooses, f and epsilon being in one unit."""
        raise NotImplementedError

    def local_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray, order: int = 2) -> np.ndarray:
        """m2 per coordinate of what a query sees among `tokens` keys per volume (M,), in units of f.metric: (M,); or m4."""
        raise NotImplementedError

    def settling_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray) -> np.ndarray:
        """m (M,): where p is curved a query sees as far as among N p (1 + m Delta p / (2 p)) keys per volume.

        Of the condition that settles how far that is: how many keys a ball has, what weights add up to, their entropy.
        """
        return self.local_moment(f, epsilon, dim, tokens)

    def check_size(self, size: float) -> None:
        """Refuse what can not be met by so many tokens."""


@dataclass(frozen=True)
class TopK(Selective):
    """Each query keeps the softmax weights of its k most similar keys, itself among them; at a large epsilon their average.

    Values of f that agree to 1e-11 of the largest among them are ties, and go by the number of the key. A row that sees fewer keys
    keeps them all.

    Parameters
    ----------
    k : int
        From 1 to N - 1.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> tokens = np.array([[0.0], [1.0], [3.0], [7.0]])
    >>> layer = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1e6, af.TopK(2))
    >>> layer(tokens).ravel().round(3)
    array([0.5, 0.5, 2. , 5. ])
    """

    name = "topk"
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", checks.integer(self.k, "k", least=1))

    def weights_latex(self, kernel: str) -> str:
        return rf"S_{{ij}} \propto {kernel}, \quad j \in N_{{{self.k}}}(i)"

    def law(self, epsilon: float, rtol: float) -> Law:
        return Nearest(self.k, epsilon)

    def local_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray, order: int = 2) -> np.ndarray:
        return nearest_moment(f.exponent, epsilon, dim, self.k, tokens, order)

    def settling_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray) -> np.ndarray:
        return self.local_moment(f, np.inf, dim, tokens)  # of the ball itself

    def check_size(self, size: float) -> None:
        if self.k >= size:
            raise ValueError(
                f"k must be below the number of tokens {size:g}, got {self.k}; all keys are normalization='softmax'"
            )


@dataclass(frozen=True)
class Sparse(Selective):
    """Sparsemax (alpha = 2), entmax-1.5 (alpha = 1.5) and what lies between them and softmax (alpha = 1).

    w_ij = max(0, -(alpha - 1) f_ij / (2 epsilon) - T_i)^(1 / (alpha - 1)), with the T_i for which rows sum to one.

    Parameters
    ----------
    fraction : float or "auto", optional
        Epsilon is found such that this share of all weights is not zero, to 10 / N^2 for N <= 1000 and 1 / N beyond; the
        layer's own is not used, and `Solution.stats["epsilon"]` has what was found. Under a mask it is the share of the
        pairs that see each other. "auto": the share at which predicted bias^2 + noise^2 of one layer's generator is least, for
        features as smooth as the tokens' own; `stats["fraction"]` has it. None: epsilon is the layer's.
    alpha : float
        Above 1.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.VonMises(1.0).sample(300, rng=0)
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), 1.0, af.Sparse(fraction=0.1))
    >>> float((layer.weights(tokens) > 0).mean().round(3))
    0.1
    """

    name = "sparse"
    fraction: float | str | None = None
    alpha: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.fraction, str):
            checks.choice(self.fraction, "fraction", ["auto"])
        elif self.fraction is not None:
            object.__setattr__(self, "fraction", checks.fraction(self.fraction, "fraction"))
        alpha = checks.real(self.alpha, "alpha")
        if alpha <= 1:
            raise ValueError(f"alpha must be above 1, got {alpha!r}; softmax is alpha = 1")
        object.__setattr__(self, "alpha", alpha)

    @property
    def power(self) -> float:
        """m = 1 / (alpha - 1)."""
        return 1 / (self.alpha - 1)

    @property
    def needs_tokens(self) -> bool:  # type: ignore[override]
        return self.fraction is None

    def law(self, epsilon: float, rtol: float) -> Law:
        return Entmax(self.power, epsilon, _FEW)

    def local_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray, order: int = 2) -> np.ndarray:
        return entmax_moment(f.exponent, epsilon, dim, self.power, tokens, order)

    def check_size(self, size: float) -> None:
        if isinstance(self.fraction, float) and self.fraction * size < 1 - 1e-12:
            raise ValueError(f"fraction must be at least 1 / N = {1 / size:.3g}: a row has one weight, got {self.fraction:g}")


@dataclass(frozen=True)
class Perplexity(Selective):
    """Softmax rows, each at the temperature at which its perplexity, exp(entropy), is the target: SNE's rule.

    A query is one of its own keys. Rows that see no more keys than the target weigh them alike; where more keys than that
    have the smallest f, as copies do, these share the row. Epsilon is not used.

    Parameters
    ----------
    target : float
        Between 1 and the number of tokens.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> tokens = af.VonMises(1.0).sample(300, rng=0)
    >>> S = af.Attention(af.SquaredDistance(af.Circle()), 1.0, af.Perplexity(20)).weights(tokens)
    >>> bool(np.allclose(np.exp(-(S * np.log(np.where(S > 0, S, 1))).sum(axis=1)), 20, rtol=1e-8))
    True
    """

    name = "perplexity"
    target: float

    def __post_init__(self) -> None:
        target = checks.real(self.target, "target")
        if target <= 1:
            raise ValueError(f"target must be a perplexity above 1, got {target!r}")
        object.__setattr__(self, "target", target)

    def law(self, epsilon: float, rtol: float) -> Law:
        return Calibrated(self.target, rtol)

    def local_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray, order: int = 2) -> np.ndarray:
        return perplexity_moment(f.exponent, dim, self.target, tokens, order)

    def settling_moment(self, f: PseudoMetric, epsilon: float, dim: int, tokens: np.ndarray) -> np.ndarray:
        """m2 + dm2 / dlog e: the entropy is log Z + dlog Z / dlog e, e = 2 epsilon, Z = N p e^(n/q) (1 + m2 Delta p / (2 p))."""
        m2 = self.local_moment(f, epsilon, dim, tokens)
        return m2 * ((2 + (dim + 2) * m2) if f.exponent is None else 1 + 2 / f.exponent)

    def check_size(self, size: float) -> None:
        if self.target >= size:
            raise ValueError(f"target must be below the number of tokens {size:g}, got {self.target:g}")


@dataclass(frozen=True)
class Screening(Normalization):
    """Softmax over a share of the keys: those with the largest column sums of the softmax weights, the same for all queries.

    Parameters
    ----------
    fraction : float
        round(fraction N) keys are kept, at least one; sums that agree to ten digits are ties and go by the number of the key.

    Notes
    -----
    With a symmetric f column sums are 1 - (epsilon / 2) Delta p / p + O(epsilon^2): infinitely many tokens keep the region
    where Delta p / p is smallest. Where tokens are few their noise decides, and they are thinned at random.
    `Solution.stats["screening"]` says which: "region" or "random", or "ties".

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.VonMises(1.0).sample(300, rng=0)
    >>> S = af.Attention(af.SquaredDistance(af.Circle()), 0.05, af.Screening(0.25)).weights(tokens)
    >>> int((S.sum(axis=0) > 0).sum())
    75
    """

    name = "screening"
    fraction: float
    drift = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", checks.fraction(self.fraction, "fraction"))

    def key_bias(self, log_sum: LogSum, size: int, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        return self.key_bias_of_masses(log_sum, np.zeros(size), tol)

    def key_bias_of_masses(self, log_sum: LogSum, log_mass: np.ndarray, tol: float) -> tuple[np.ndarray, dict[str, Any]]:
        rows = log_sum(np.zeros(len(log_mass)))
        columns = log_sum(-rows, transposed=True)
        order, mass = np.argsort(-np.round(columns, _SAME), kind="stable"), np.exp(log_mass - log_mass.max())
        alike = bool((mass == 1).all())
        wanted = max(round(self.fraction * len(mass)), 1) if alike else self.fraction * mass.sum()
        before = np.cumsum(mass[order]) - mass[order]
        with np.errstate(divide="ignore"):
            share = np.log(np.clip((wanted - before) / mass[order], 0, 1))  # of the last node a part
        bias = np.empty(len(mass))
        bias[order] = share
        return bias, {"kept": int((bias > -np.inf).sum()), "screening": _decided_by(log_sum, rows, columns)}


def _decided_by(log_sum: LogSum, rows: np.ndarray, columns: np.ndarray) -> str:
    """What the column sums differ by: "region", "random", or "ties" where they do not.

    Noise of the sums is white noise of the tokens times e (1 - e), e the Fourier transform of the weights; what one more
    average takes off them has another factor 1 - e. Of noise that is about 0.4 of the variance, for exp(-d^2 / (2 eps)) in
    one to three dimensions; of a smooth field next to nothing.
    """
    sums = np.exp(columns - columns.max())
    spread = sums.var()
    if spread <= (10.0**-_SAME * sums.mean()) ** 2:
        return "ties"
    averages = np.exp(log_sum(columns) - rows - columns.max())
    return "random" if (sums - averages).var() > _NOISE / 2 * spread else "region"
