"""Attention from weight matrices, and with fewer of them: standard, optimised, efficient and super attention.

A token x (N, d) is read by h heads of r = d / h columns, scores scaled by sqrt(r). Matrices are those that networks
store, applied as W x, rows of W_Q, W_K, W_V and columns of W_O going to the heads one after another:

=========  =====================  ==================  =======================  ============  ====================
variant    query                  key                 value                    parameters    multiply-adds
=========  =====================  ==================  =======================  ============  ====================
standard   W_Q x                  W_K x               W_V x                    4 d^2         4 N d^2 + 2 N^2 d
optimised  W_Q x                  W_K x               slice of x               3 d^2         3 N d^2 + 2 N^2 d
efficient  W_Q x                  slice of x          slice of x               2 d^2         2 N d^2 + 2 N^2 d
super      W_Q x                  slice of x          slice of sum_j W_A x_j   2 d^2 + N^2   2 N d^2 + 3 N^2 d
=========  =====================  ==================  =======================  ============  ====================

For one head, W_O W_V and W_Q'W_K are one matrix each: the first three are the same function. For several, slices bind a
head to its own columns. Super attention is tied to N tokens.

Source: Hosseini & Hosseini 2024, "You need to pay better attention", arXiv 2403.01643.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks, display
from ..similarity import DotProduct
from .heads import MultiHead
from .layer import Attention

_MATRICES = {"standard": 4, "optimised": 3, "efficient": 2, "super": 2}  # of d^2 parameters; super has W_A besides


@dataclass(frozen=True)
class Cost:
    """What one layer of a variant takes: parameters, and multiply-adds for so many tokens."""

    variant: str
    parameters: int
    operations: int


@dataclass(frozen=True, repr=False)
class CostTable:
    """Rows of `attention_costs`; prints as a table, with ratios to standard attention."""

    width: int
    n_tokens: int
    rows: tuple[Cost, ...]

    def __repr__(self) -> str:
        return f"CostTable({len(self.rows)} variants, d = {self.width}, N = {self.n_tokens})"

    def _repr_html_(self) -> str:
        rows = [(row.variant, f"{row.parameters:,}", f"{row.operations:,}") for row in self.rows]
        return display.table(f"d = {self.width}, N = {self.n_tokens}", rows, ("variant", "parameters", "multiply-adds"))

    def __str__(self) -> str:
        first = self.rows[0]
        lines = [f"{'d = ' + str(self.width) + ', N = ' + str(self.n_tokens):24}{'parameters':>14}{'':8}{'multiply-adds':>18}"]
        for row in self.rows:
            ratios = row.parameters / first.parameters, row.operations / first.operations
            lines.append(f"{row.variant:24}{row.parameters:>14,}{ratios[0]:>8.2f}{row.operations:>18,}{ratios[1]:>8.2f}")
        return "\n".join(lines)


def attention_costs(width: int, n_tokens: int) -> CostTable:
    """Parameters, and multiply-adds of one layer, of the four variants; without biases, all tokens seeing all.

    They do not depend on the number of heads. The exponentials and sums of the softmax are not counted.

    Parameters
    ----------
    width : int
        d, the columns of a token.
    n_tokens : int
        N.

    Returns
    -------
    CostTable

    Examples
    --------
    >>> import attnflow as af
    >>> print(af.attention_costs(width=512, n_tokens=128))
    d = 512, N = 128            parameters             multiply-adds
    standard                     1,048,576    1.00       150,994,944    1.00
    optimised                      786,432    0.75       117,440,512    0.78
    efficient                      524,288    0.50        83,886,080    0.56
    super                          540,672    0.52        92,274,688    0.61
    """
    d, n = checks.integer(width, "width", least=1), checks.integer(n_tokens, "n_tokens", least=1)
    return CostTable(d, n, tuple(_cost(variant, d, n) for variant in _MATRICES))


def _cost(variant: str, d: int, n: int) -> Cost:
    matrices, mixers = _MATRICES[variant], int(variant == "super")
    return Cost(variant, matrices * d**2 + mixers * n**2, matrices * n * d**2 + (2 + mixers) * n**2 * d)


class WeightedHeads(MultiHead):
    """Heads made of a transformer's weight matrices: a `MultiHead` that knows what it costs.

    Attributes
    ----------
    variant : str
        "standard", "optimised", "efficient" or "super".
    width : int
        d.
    token_mixing : (N, N) array or None
        W_A of super attention.
    """

    variant: str
    width: int

    @property
    def parameters(self) -> int:
        """Entries of its weight matrices."""
        return _cost(self.variant, self.width, 0 if self.token_mixing is None else len(self.token_mixing)).parameters

    def operations(self, n_tokens: int) -> int:
        """Multiply-adds of one layer for so many tokens, all of which see all."""
        n = checks.integer(n_tokens, "n_tokens", least=1)
        if self.token_mixing is not None and n != len(self.token_mixing):
            raise ValueError(f"n_tokens must be {len(self.token_mixing)}, as many as W_A mixes, got {n}")
        return _cost(self.variant, self.width, n).operations

    def __repr__(self) -> str:
        return (
            f"{self.variant}_attention({len(self.layers)} heads, d={self.width}, parameters={self.parameters}, "
            f"residual={self.residual:g})"
        )


def standard_attention(
    W_Q: np.ndarray, W_K: np.ndarray, W_V: np.ndarray, W_O: np.ndarray, heads: int, residual: float = 1.0, **options: Any
) -> WeightedHeads:
    """Multi-head attention: head i has scores (W_Q x).(W_K y) / sqrt(r) and values W_V y of its r = d / heads rows.

    Parameters
    ----------
    W_Q, W_K, W_V, W_O : (d, d) array
        As networks store them: queries are W_Q x, and W_O acts on the heads' results one below the other.
    heads : int
        A divisor of d.
    residual : float
        As of `MultiHead`; a transformer's own x + attention is what `evolve` does with a norm.
    **options
        Of each head's `Attention`, such as backend and dtype.

    Returns
    -------
    WeightedHeads
        A MultiHead with `.parameters` (4 d^2) and `.operations(n_tokens)`. It has a limit for one head only, if
        W_O W_V = 1, W_Q'W_K is symmetric positive definite and x'W_Q'W_K x the same for all tokens: the r < d columns of
        several heads do not tell all tokens apart.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> W_Q, W_K, W_V, W_O = np.random.default_rng(0).normal(size=(4, 6, 6))
    >>> layer = af.standard_attention(W_Q, W_K, W_V, W_O, heads=3)
    >>> layer(np.eye(6)).shape, layer.parameters
    ((6, 6), 144)
    """
    W_Q, slices = _read(W_Q, "W_Q", heads)
    W_K, W_V, W_O = (_square(W, name, len(W_Q)) for W, name in ((W_K, "W_K"), (W_V, "W_V"), (W_O, "W_O")))
    mixing = [(W_V[part].T, W_O[:, part].T) for part in slices]
    return _build("standard", W_Q, W_K, slices, mixing, residual, options)


def optimised_attention(
    W_Q: np.ndarray, W_K: np.ndarray, W_O: np.ndarray, heads: int, residual: float = 1.0, **options: Any
) -> WeightedHeads:
    """Attention without W_V: a head's values are its slice of the input. 3 d^2 parameters.

    For one head W_O W_V is one matrix: optimised_attention(W_Q, W_K, W_O @ W_V, 1) is standard attention. With W_O = 1
    the slices of features do not mix, and each follows the equation of its head, if that has one: with dot products only
    one head has, see `standard_attention`; heads of other pseudo-metrics are
    `MultiHead(layers, [(slice, its rows of the identity), ...])`.

    Parameters
    ----------
    W_Q, W_K, W_O, heads, residual, **options
        As of `standard_attention`.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> W_Q, W_K, W_O = np.random.default_rng(0).normal(size=(3, 6, 6))
    >>> af.optimised_attention(W_Q, W_K, W_O, heads=2).parameters
    108
    """
    W_Q, slices = _read(W_Q, "W_Q", heads)
    W_K, W_O = _square(W_K, "W_K", len(W_Q)), _square(W_O, "W_O", len(W_Q))
    return _build("optimised", W_Q, W_K, slices, _sliced(W_O, slices), residual, options)


def efficient_attention(W_Q: np.ndarray, W_O: np.ndarray, heads: int, residual: float = 1.0, **options: Any) -> WeightedHeads:
    """Attention without W_V and W_K: a head's keys and values are its slice of the input. 2 d^2 parameters.

    For one head x'W_Q'W_K y has one matrix: efficient_attention(W_K.T @ W_Q, W_O @ W_V, 1) is standard attention.

    Parameters
    ----------
    W_Q, W_O, heads, residual, **options
        As of `standard_attention`.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> W_Q, W_O = np.random.default_rng(0).normal(size=(2, 6, 6))
    >>> af.efficient_attention(W_Q, W_O, heads=2)
    efficient_attention(2 heads, d=6, parameters=72, residual=1)
    """
    W_Q, slices = _read(W_Q, "W_Q", heads)
    W_O = _square(W_O, "W_O", len(W_Q))
    return _build("efficient", W_Q, np.eye(len(W_Q)), slices, _sliced(W_O, slices), residual, options)


def super_attention(
    W_Q: np.ndarray, W_A: np.ndarray, W_O: np.ndarray, heads: int, residual: float = 1.0, **options: Any
) -> WeightedHeads:
    """Efficient attention whose values are mixed over tokens first, by W_A for all heads. 2 d^2 + N^2 parameters.

    It takes N tokens and no other number, and has no limit: W_A moves features at once, however small epsilon is. Under a
    causal mask W_A must be lower triangular, or it would carry what comes later.

    Parameters
    ----------
    W_A : (N, N) array
        Token i's value is sum_j W_A[i, j] x_j.
    W_Q, W_O, heads, residual, **options
        As of `standard_attention`.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> W_Q, W_O = np.random.default_rng(0).normal(size=(2, 6, 6))
    >>> layer = af.super_attention(W_Q, np.eye(10), W_O, heads=2)
    >>> layer.parameters, layer.operations(10)
    (172, 2520)
    """
    W_Q, slices = _read(W_Q, "W_Q", heads)
    W_O = _square(W_O, "W_O", len(W_Q))
    W_A = checks.array(W_A, "W_A", (None, None)).astype(float)
    if W_A.shape[0] != W_A.shape[1]:
        raise ValueError(f"W_A must be a square matrix, got shape {W_A.shape}")
    mask = options.get("mask")
    if isinstance(mask, str) and mask == "causal" and np.triu(W_A, 1).any():
        where = np.argwhere(np.triu(W_A, 1))[0].tolist()
        raise ValueError(f"W_A must be lower triangular under a causal mask, got {W_A[tuple(where)]:g} at index {where}")
    layer = _build("super", W_Q, np.eye(len(W_Q)), slices, _sliced(W_O, slices), residual, options)
    layer.token_mixing = W_A
    return layer


def _build(variant: str, W_Q, W_K, slices: list[slice], mixing: list, residual: float, options: dict) -> WeightedHeads:
    """exp(-f / (2 epsilon)) with f = -(W_Q x).(W_K y) is the scaled score for epsilon = sqrt(r) / 2."""
    epsilon = np.sqrt(len(W_Q) / len(slices)) / 2
    heads = [Attention(DotProduct(W_Q[part], W_K[part]), epsilon, **options) for part in slices]
    layer = WeightedHeads(heads, mixing, residual)
    layer.variant, layer.width = variant, len(W_Q)
    return layer


def _sliced(W_O: np.ndarray, slices: list[slice]) -> list[tuple[slice, np.ndarray]]:
    return [(part, W_O[:, part].T) for part in slices]


def _read(W: np.ndarray, name: str, heads: int) -> tuple[np.ndarray, list[slice]]:
    """The first matrix, and the columns of each head."""
    W = _square(W, name)
    heads = checks.integer(heads, "heads", least=1)
    if len(W) % heads:
        raise ValueError(f"heads must divide the {len(W)} columns of tokens, got {heads}")
    r = len(W) // heads
    return W, [slice(k * r, k * r + r) for k in range(heads)]


def _square(W: np.ndarray, name: str, size: int | None = None) -> np.ndarray:
    W = checks.array(W, name, (size, size)).astype(float)
    if W.shape[0] != W.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {W.shape}")
    return W
