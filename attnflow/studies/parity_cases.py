"""The layers that every engine is tried on: each normalisation and law, masks, graphs, heads, wide tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from ..attention import (
    Attention,
    DensityCorrected,
    MultiHead,
    Perplexity,
    Screening,
    Sinkhorn,
    Sparse,
    TopK,
)
from ..geometry import Circle, Euclidean, Torus, VonMises
from ..similarity import Additive, DotProduct, SquaredDistance, SquaredMap


class Case(NamedTuple):
    """A layer in words, and what it is applied to."""

    words: str
    layer: Attention | MultiHead
    tokens: np.ndarray
    values: np.ndarray


def cases(size: int) -> Iterator[Case]:
    """About thirty layers on so many tokens each.

    Examples
    --------
    >>> next(cases(100)).words
    'circle, softmax, float64'
    """
    yield from _of_key_biases(size)
    yield from _of_laws(size)
    yield from _of_masks(size)
    yield from _of_heads(size)


def _of_key_biases(size: int) -> Iterator[Case]:
    tokens = VonMises(1.0).sample(size, rng=0)
    values, f = np.concatenate([np.cos(tokens), np.sin(2 * tokens)], axis=1), SquaredDistance(Circle())
    for rule in ("softmax", "sinkhorn"):
        for dtype in ("float64", "float32"):
            yield Case(f"circle, {rule}, {dtype}", Attention(f, 0.05, rule, dtype=dtype), tokens, values)
    for other in ("column", DensityCorrected(0.5), Screening(0.25)):
        yield Case(f"circle, {other}", Attention(f, 0.05, other), tokens, values)


def _of_laws(size: int) -> Iterator[Case]:
    torus, wide = _torus(size), _wide(size)
    k = min(32, size // 3)
    for rule in (TopK(k), Sparse(), Sparse(alpha=1.5), Sparse(0.05), Perplexity(k)):
        yield Case(f"torus, {rule}", Attention(SquaredDistance(Torus((1.0, 1.0))), 0.01, rule), torus, torus)
    for rule in (TopK(k), Sparse(0.05), Perplexity(k)):
        yield Case(f"dot product of 64 columns, {rule}", Attention(DotProduct(), 8.0, rule), wide, wide)


def _of_masks(size: int) -> Iterator[Case]:
    torus, f, wide = _torus(size), SquaredDistance(Torus((1.0, 1.0))), _wide(size)
    labels, graph = np.arange(size) % 7, radius_graph(torus, np.sqrt(20 / (np.pi * size)))
    masks = {"causal": "causal", "seven labels": labels, "radius graph": graph}
    for words, mask in masks.items():
        for rule in ("softmax", "column", "sinkhorn", TopK(4)):
            if (words, rule) != ("causal", "sinkhorn"):  # which needs a mask that goes both ways
                yield Case(f"torus, {words}, {rule}", Attention(f, 0.01, rule, mask=mask), torus, torus)
    a1, a2, P = np.ones(8), np.linspace(-1, 1, 8), np.random.default_rng(0).normal(size=(8, 2))
    yield Case("torus, radius graph, additive", Attention(Additive(a1, a2, P), 0.5, mask=graph), torus, torus)
    yield Case("dot product of 64 columns, causal", Attention(DotProduct(), 8.0, mask="causal"), wide, wide)


def _of_heads(size: int) -> Iterator[Case]:
    wide, plane = _wide(size), np.random.default_rng(0).uniform(-1, 1, (size, 2))
    W_Q, W_K = np.random.default_rng(1).standard_normal((2, 32, 64)) / 8
    head = DotProduct(W_Q, W_K)
    yield Case("a head of 32 columns", Attention(head, 2.0), wide, wide)
    yield Case("the same, two potentials", Attention(head, 2.0, Sinkhorn(potentials=2)), wide, wide)
    yield Case("64 columns, squared distance", Attention(SquaredDistance(Euclidean(64)), 32.0), wide, wide)
    sight = SquaredMap(lambda x: np.concatenate([x, np.sin(3 * x), np.tanh(2 * x)], axis=-1))
    yield Case("the plane in six columns, squared map", Attention(sight, 0.05), plane, plane)
    plain = SquaredDistance(Euclidean(2))
    narrow, broad = Attention(plain, 0.01), Attention(plain, 0.04, "sinkhorn")
    yield Case("two heads", MultiHead([narrow, broad], [0.4, 0.6]), plane, plane)
    sparse = [Attention(plain, 0.01, TopK(min(32, size // 3))), Attention(plain, 0.01, mask="causal")]
    yield Case("two heads, one top-k, one causal", MultiHead(sparse), plane, plane)


def radius_graph(tokens: np.ndarray, radius: float) -> np.ndarray:
    """(E, 2) edges between tokens of the unit torus nearer than the radius, both ways and to themselves."""
    near = cKDTree(tokens, boxsize=1.0).query_pairs(radius, output_type="ndarray")
    own = np.arange(len(tokens))
    return np.concatenate([near, near[:, ::-1], np.stack([own, own], axis=1)])


def _torus(size: int) -> np.ndarray:
    return np.random.default_rng(0).random((size, 2))


def _wide(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size, 64))
