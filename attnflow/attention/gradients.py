"""The gradient of a layer by the one primitive: streamed sums, and no N x N array.

With features u_i, w_j of queries and keys, the logits are l_ij = -f / (2 eps) + b_j, and G_i = dLoss / d mean_i:

    dLoss / dl_ij = s_ij = S_ij (G_i . v_j - D_i),     D_i = G_i . mean_i.

Every gradient is a sum of s_ij over one side. Since s_ij is S_ij times an inner product of a row of (-D, G) with one of
(1, v), that is a weighted mean whose values are products of columns; sums over queries are those with queries and keys
exchanged and the key bias -log Z_i, Z the row sums:

    sum_j s_ij w_j = sum_c (-D, G)_ic mean_i((1, v)_c w),
    sum_i s_ij u_i = C_j sum_c (1, v)_jc mean_j((-D, G)_c u),     C_j = exp(b_j + log-sum-exp_j).

Where b depends on the tokens it is made of log-sum-exps, whose logits' gradient is r_i S_ij: the same with (r) and (1).
As f is homogeneous in the features, of degree two, dLoss / d eps = -(sum u . du + sum w . dw) / (2 eps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks, display
from ..similarity import PseudoMetric
from .bound import BoundLayer

_NUMBERS = 2**24  # that the columns of one sum hold at most
_ROUNDING = 1e-7  # of weights, the most that is not reported


@dataclass(frozen=True, repr=False)
class Gradients:
    """Of a loss, with respect to what went into a layer.

    Attributes
    ----------
    tokens : (N, n) array
        Through f and the key bias; where the tokens are their own values, through these too.
    values : (N, c) array
        Where the tokens are the values, their part of `tokens`.
    epsilon : float
    parameters : object
        Of f: (n, n) of Mahalanobis and of DotProduct(W), a pair of (r, n) of its factors, with that of its bias after them;
        what `vjp` of a SquaredMap returned; None where there is nothing to learn.
    """

    tokens: np.ndarray
    values: np.ndarray
    epsilon: float
    parameters: Any

    __repr__ = display.of_fields


def vjp(layer: Any, tokens: np.ndarray, values: np.ndarray | None, cotangent: np.ndarray) -> Gradients:
    """Gradients of a loss from its gradient with respect to the layer's output: the vector-Jacobian product.

    For f that is a squared distance |u - w|^2 of features, or an inner product: SquaredDistance of flat spaces, Mahalanobis,
    SquaredMap, Cosine, DotProduct; for every normalisation that is a key bias, and every mask. Memory grows as N, time as that
    of a layer with (c + 1)(m + 1) columns of values, m those of the features; the engine is the layer's own. Many layers are
    this once each, last layer first, with `.values` as the next cotangent.

    Parameters
    ----------
    tokens : (N, n) array
    values : (N, c) or (N,) array, or None
        Features the tokens carry; the tokens themselves when None, whose gradient then includes both ways.
    cotangent : (N, c) or (N,) array
        dLoss / d layer(tokens, values).

    Returns
    -------
    Gradients
        `.tokens`, `.values`, `.epsilon` and `.parameters`. That of a symmetric G is symmetric: dLoss = sum of
        parameters * dG. The truncation of an engine, rtol of the largest values times features, is divided by epsilon here.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work; also if the layer's dtype is float32, whose digits cancel in these sums.
    NotImplementedError
        Naming f or the normalization, if its gradient is not known: wrapped and geodesic distances, other powers; queries
        that choose their keys.

    Warns
    -----
    ConvergenceWarning
        If Sinkhorn's potentials could not be differentiated to the layer's rtol.
    AccuracyWarning
        If logits are so large, as inner products of tokens far from zero are, that their rounding changes the weights.

    Examples
    --------
    The gradient of a mean square, and its difference quotient along one direction:

    >>> import attnflow as af, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tokens, values, direction = rng.normal(size=(3, 100, 2))
    >>> layer = af.Attention(af.Mahalanobis([[2.0, 0.5], [0.5, 1.0]]), epsilon=0.3)
    >>> gradients = layer.vjp(tokens, values, cotangent=layer(tokens, values))
    >>> above, below = (np.sum(layer(tokens + h * direction, values) ** 2) / 2 for h in (1e-4, -1e-4))
    >>> bool(np.isclose(np.sum(gradients.tokens * direction), (above - below) / 2e-4, rtol=1e-6))
    True
    >>> gradients.parameters.shape
    (2, 2)

    Source: the sums are derived for this package; the rows' are those of Dao et al. 2022 (FlashAttention, appendix B).
    """
    f, pair = layer.f, layer.f.pair
    if (pair.reduction, pair.transform, pair.geodesic) not in (("squared", "identity", False), ("inner", "affine", False)):
        raise NotImplementedError(f"f must be a squared distance of features or an inner product for a gradient, got {f}")
    if type(f).features_vjp is PseudoMetric.features_vjp:
        raise NotImplementedError(f"f must have `features_vjp` for a gradient, got {f}, which has none")
    layer.normalization.require("key_bias_vjp", "gradient")
    if layer.dtype != "float64":
        raise ValueError(f"dtype must be 'float64' for a gradient, whose sums cancel, got {layer.dtype!r}")
    tokens = f.check(tokens, "tokens")
    v = tokens.astype(float) if values is None else checks.features(values, "values", len(tokens)).astype(float)
    cotangent = checks.features(cotangent, "cotangent", len(tokens))
    if cotangent.shape != v.shape:
        raise ValueError(f"cotangent must have the shape of the layer's output, {v.shape}, got {cotangent.shape}")

    bound, a = layer.bind(tokens), layer.residual
    G = a * cotangent
    of_queries, of_keys = _through_logits(bound, v - v.mean(axis=0), G)
    u, w = _features(f, bound.tokens)
    of_values = (1 - a) * cotangent + bound.attend_transposed(G)
    of_tokens, parameters = f.features_vjp(bound.tokens, of_queries, of_keys)
    return Gradients(
        of_tokens + of_values if values is None else of_tokens,
        of_values,
        float(-(np.vdot(u, of_queries) + np.vdot(w, of_keys)) / (2 * layer.epsilon)),
        parameters,
    )


def _features(f: PseudoMetric, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u and w, about a common centre where only differences matter: a large offset of the tokens costs no digits."""
    u, w = f.query_features(tokens), f.key_features(tokens)
    centre = w.mean(axis=0) if f.pair.reduction == "squared" else 0.0
    return u - centre, w - centre


def _through_logits(bound: BoundLayer, v: np.ndarray, G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """du and dw (N, m): the weights' part, then that of each log-sum-exp of which the key bias is made."""
    layer, one = bound.layer, np.ones((len(v), 1))
    u, w = _features(layer.f, bound.tokens)
    mean, log_sum_exp = bound.attend(v)
    bound.note_isolated(log_sum_exp)
    D = (G * mean).sum(axis=1, keepdims=True)
    sums = bound.plan, bound.transposed
    rows, columns = _both_sides(*sums, bound.key_bias, np.hstack([-D, G]), np.hstack([one, v]), u, w)
    for key_bias, transposed, r in layer.normalization.key_bias_vjp(bound, columns[:, 0]):
        if transposed:
            of_keys, of_queries = _both_sides(*sums[::-1], key_bias, r[:, None], one, w, u)
        else:
            of_queries, of_keys = _both_sides(*sums, key_bias, r[:, None], one, u, w)
        rows, columns = rows + of_queries, columns + of_keys
    if layer.f.pair.reduction == "inner":
        return rows[:, 1:] / (2 * layer.epsilon), columns[:, 1:] / (2 * layer.epsilon)
    return (rows[:, 1:] - rows[:, :1] * u) / layer.epsilon, (columns[:, 1:] - columns[:, :1] * w) / layer.epsilon


def _both_sides(forward, backward, key_bias, left, right, u, w) -> tuple[np.ndarray, np.ndarray]:
    """sum_j s_ij (1, w_j) and sum_i s_ij (1, u_i), (N, 1 + m), of s_ij = S_ij left_i . right_j."""
    rows, log_sum_exp = _contracted(forward, key_bias, left, right, w)
    sees = log_sum_exp > -np.inf
    seeing = np.where(sees, -log_sum_exp, -np.inf)  # who sees nobody has no row
    columns, log_share = _contracted(backward, seeing, right, left, u)
    with np.errstate(over="ignore"):  # then reported
        share = np.exp(key_bias + log_share)
    if not abs(share.sum() - sees.sum()) <= _ROUNDING * sees.sum():  # the weights of a row add up to one
        checks.warn(
            f"epsilon leaves logits up to {abs(log_sum_exp[sees]).max():.3g}, whose rounding changes the gradient: weights add "
            f"up to {share.sum():.9g} in {sees.sum()} rows",
            checks.AccuracyWarning,
        )
    return rows, share[:, None] * columns


def _contracted(sums, key_bias, left, right, features) -> tuple[np.ndarray, np.ndarray]:
    """sum_c left_ic mean_i(right_c (1, features)): (N, 1 + m), and the log-sum-exp, so many columns at a time."""
    features = np.hstack([np.ones((len(features), 1)), features])
    size, m = features.shape
    total, block = np.zeros_like(features), max(1, _NUMBERS // (size * m))
    for first in range(0, right.shape[1], block):
        some = slice(first, first + block)
        values = (right[:, some, None] * features[:, None, :]).reshape(size, -1)
        mean, log_sum_exp = sums(values, key_bias)
        total += np.einsum("ic,icm->im", left[:, some], mean.reshape(size, -1, m))
    return total, log_sum_exp
