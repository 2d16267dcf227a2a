"""How features after many layers respond to the masses of the tokens: along directions, and of single outputs.

Let the logarithms of the masses change at the rates xi, those of the key weights at beta = xi + db, db the key bias' own
response. Then features h and their response D follow, layer by layer,

    d(A h) = A (D + beta h) - (A beta) (A h),       D <- (1 - a) D + a d(A h),

one application of A with the columns of all directions. For single outputs the same backwards: with lambda the row of an
output, from the last layer to the first,

    G_j += a [(A' lambda)_j h(j) - (A' (lambda A h))_j],        lambda <- (1 - a) lambda + a A' lambda,

and the response of the output to the mass of token j is G_j + (db' G)_j. It adds up to zero over j: what counts is how
masses differ.

Source: derived for this package; the infinitesimal jackknife is Jaeckel 1972, influence functions Hampel 1974.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import capacity
from ..attention import Attention, BoundHeads, BoundLayer, MultiHead, heads_of
from ..attention.masks import Labels
from ..attention.mixing import Mix
from ..attention.sparse import Screening
from ..norms import unit
from ..progress import track

_EXACT = 256  # outputs up to which errors are exact
_PROBES, _COLUMNS, _FEWEST = 64, 256, 16  # directions beyond, fewer of more columns than that in all, but not fewer
_NUMBERS = 2**23  # that the responses along some directions hold at most


def check_jackknife(layer: Attention | MultiHead) -> None:
    """Refuse layers on whose tokens weights do not change smoothly, or whose tokens are not alike."""
    for head in heads_of(layer):
        if head.normalization.selects or isinstance(head.normalization, Screening):
            raise ValueError(
                f"normalization must weigh all keys for error bars, got {head.normalization}: which keys it chooses "
                "changes with the tokens"
            )
        head.normalization.require("key_bias_jvp", "standard error")
        head.normalization.require("key_bias_vjp", "standard error")
        if head.mask is not None and not isinstance(head.mask, Labels):
            raise ValueError(f"mask must be None or labels for error bars, of tokens that are alike, got {head.mask!r}")
    if isinstance(layer, MultiHead) and layer.token_mixing is not None:
        raise ValueError(f"layer must not mix tokens for error bars, of tokens that are alike, got {layer}")


def standard_errors(
    runs: Sequence[tuple[BoundLayer | BoundHeads, int]],
    features: np.ndarray,
    combinations: np.ndarray,
    queries: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, float]:
    """Standard errors of combinations of features that several runs make of the same tokens.

    The variance is the sum of squares of the responses to every token's mass. Of few outputs each is known; of many it is
    the mean square of responses along random signs.

    Parameters
    ----------
    runs : sequence of (BoundLayer or BoundHeads, int)
        Layers on tokens that weigh the same, and how many.
    features : (N, c) array
        At the start.
    combinations : (k, runs) array
    queries : (M, n) array, optional
        Where the last layers, of residual 1, are evaluated.
    rng : Generator
    progress : bool

    Returns
    -------
    (k, M, c) array, float
        Standard errors, and their own relative standard error: 0, or (2 k)^(-1/2) of k directions.
    """
    scale = unit(features)
    features = features / scale
    features = features - centre(runs[0][0].layer, features)
    size, columns = features.shape
    outputs = columns * (size if queries is None else len(queries))
    numbers = all(mix.shape is None for bound, _ in runs for _, mix in _heads(bound))
    if numbers and outputs <= _EXACT:
        longest = max(layers for _, layers in runs)
        capacity.fits(8 * size * (2 * columns * longest + 6 * outputs), "layers")
        each = [of_outputs(bound, features, layers, queries, progress) for bound, layers in runs]
        return scale * _root_sum(combinations, each), 0.0
    count = min(size, probes(columns))
    block = max(1, _NUMBERS // features.size)
    rng = np.random.default_rng() if rng is None else rng
    directions = np.eye(size) if count == size else rng.choice([-1.0, 1.0], (size, count)) / np.sqrt(count)
    variance: np.ndarray | float = 0.0
    for first in range(0, count, block):
        some = directions[:, first : first + block]
        each = [along(bound, features, layers, some, queries, progress) for bound, layers in runs]
        variance = variance + _root_sum(combinations, each) ** 2
    return scale * np.sqrt(variance), 0.0 if count == size else float(np.sqrt(1 / (2 * count)))


def probes(columns: int) -> int:
    """How many are taken of features of so many columns, where tokens are not fewer."""
    return min(_PROBES, max(_FEWEST, _COLUMNS // columns))


def centre(layer: Attention | MultiHead, features: np.ndarray) -> np.ndarray:
    """Means (c,) of the columns of features (N, c) where layers keep constants, whose digits are of no use then; else 0."""
    return features.mean(axis=0) if adds_up(layer) else np.zeros(features.shape[1])


def adds_up(layer: Attention | MultiHead) -> bool:
    """Whether mixing adds up to one: a layer is a small step then, and keeps constants."""
    if not isinstance(layer, MultiHead):
        return True
    if layer.columns is not None and layer.columns[0] != layer.columns[1]:
        return False
    one = np.eye(1 if layer.columns is None else layer.columns[0])
    return bool(np.abs(sum(W if W.ndim else W * one for W in layer.mixing) - one).max() < 1e-9)


def _root_sum(combinations: np.ndarray, responses: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([np.sqrt(np.sum(sum(w * D for w, D in zip(row, responses)) ** 2, axis=0)) for row in combinations])


def along(
    bound: BoundLayer | BoundHeads,
    features: np.ndarray,
    layers: int,
    directions: np.ndarray,
    queries: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Responses of the features after `layers` layers along directions of the logarithms of the tokens' masses.

    Parameters
    ----------
    bound : BoundLayer or BoundHeads
        On tokens that weigh the same.
    features : (N, c) array
    layers : int
        At least 1.
    directions : (N, k) array
    queries : (M, n) array, optional
        Where the last layer, of residual 1, is evaluated.
    progress : bool

    Returns
    -------
    (k, M, c) array
    """
    heads, a = _heads(bound), bound.layer.residual
    betas = [directions + head.layer.normalization.key_bias_jvp(head, directions) for head, _ in heads]
    averages = [head.attend(beta).mean for (head, _), beta in zip(heads, betas)]
    h, D = features, np.zeros((*directions.shape, features.shape[1]))
    for layer in track(range(1, layers + 1), progress, layers):
        there = queries if layer == layers else None
        both: Any = 0.0
        for (head, mix), beta, average in zip(heads, betas, averages):
            columns = np.concatenate([h[:, None], D + beta[:, :, None] * h[:, None]], axis=1)
            mean = _columns(lambda v: head.attend(v, there).mean, mix.read(columns))
            if there is not None:
                average = head.attend(beta, there).mean
            mean[:, 1:] -= average[:, :, None] * mean[:, :1]
            both = both + mix.write(mean)
        h, D = (both[:, 0], both[:, 1:]) if a == 1 else (h + a * (both[:, 0] - h), D + a * (both[:, 1:] - D))
    return D.transpose(1, 0, 2)


def of_outputs(
    bound: BoundLayer | BoundHeads,
    features: np.ndarray,
    layers: int,
    queries: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """As `along` all unit vectors, by transposed applications: for few outputs, of heads that mix columns by numbers alone.

    Returns
    -------
    (N, M, c) array
    """
    heads, a = _heads(bound), bound.layer.residual
    passed, h = [], features
    for _ in range(layers - (queries is not None)):
        means = [head.attend(h).mean for head, _ in heads]
        passed.append((h, means))
        h = h + a * (sum(mix.write(mean) for mean, (_, mix) in zip(means, heads)) - h)
    if queries is None:
        rows = np.eye(len(features))
        G = [np.zeros((*rows.shape, features.shape[1])) for _ in heads]
    else:
        weights = [head.weights(queries) for head, _ in heads]
        means = [S @ h for S in weights]
        G = [mix.write(S.T[:, :, None] * (h[:, None] - mean)) for S, mean, (_, mix) in zip(weights, means, heads)]
        rows = np.sum([mix.write(S.T) for S, (_, mix) in zip(weights, heads)], axis=0)
    for before, means in track(passed[::-1], progress, len(passed)):
        moved = (1 - a) * rows
        for k, ((head, mix), mean) in enumerate(zip(heads, means)):
            lam = mix.write(a * rows)[:, :, None]
            back = _columns(head.attend_transposed, np.concatenate([lam, lam * mean[:, None]], axis=2))
            G[k] += back[:, :, :1] * before[:, None] - back[:, :, 1:]
            moved += back[:, :, 0]
        rows = moved
    for (head, _), own in zip(heads, G):
        for column in own.reshape(len(own), -1).T:
            column += _through_key_bias(head, column)
    return np.sum(G, axis=0)


def _heads(bound: BoundLayer | BoundHeads) -> list[tuple[BoundLayer, Mix]]:
    """Each head with how it mixes columns; a single one leaves them as they are."""
    return list(zip(bound.heads, bound.layer.mixes)) if isinstance(bound, BoundHeads) else [(bound, Mix(None, None, None))]


def _columns(sums: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Sums over tokens of (N, k, c) values: (M, k, c)."""
    result = sums(values.reshape(len(values), -1))
    return result.reshape(len(result), *values.shape[1:])


def _through_key_bias(bound: BoundLayer, cotangent: np.ndarray) -> np.ndarray:
    """(db / d log mass)' of a (N,) cotangent that adds up to zero: through each log-sum-exp that the key bias is made of."""
    result = np.zeros_like(cotangent)
    for bias, transposed, r in bound.layer.normalization.key_bias_vjp(bound, cotangent):
        sums, back = (bound.transposed, bound.plan) if transposed else (bound.plan, bound.transposed)
        mean, log_sum_exp = back(r[:, None], -sums(None, bias).log_sum_exp)
        result += np.exp(bias + log_sum_exp) * mean[:, 0]
    return result
