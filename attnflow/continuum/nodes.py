"""Nodes on which an infinite-token layer is few numbers: its dense weights, or directions in which its tokens' mass may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import capacity
from ..attention import Attention, BoundLayer, MultiHead, Sinkhorn
from ..attention.circulant import Circulant
from ..attention.heads import heads_of, replace_heads
from ..attention.infinite import bind_density, check_same_space
from ..attention.masks import check_unmasked
from ..attention.selected import SelectedLayer
from ..geometry import Density
from ..grid import Grid
from ..kernels.reference_engine import dense_logits, softmax
from ..norms import unit
from .derivative import Derivative, of_chosen, of_matrix, of_sums
from .hopf import HopfGrid, bind_three_sphere, is_three_sphere
from .on_nodes import NO_TOKEN

_RESOLUTION = 1.3  # nodes per kernel width: quadrature error below 1e-14, and the matrices stay small
_LARGEST = 3000  # nodes: a dense product of matrices per layer
MOST_NODES = 2**17  # beyond which a grid is refused
MOST_WORK = 2e12  # products of matrices * nodes^3: a minute or two
_DIRECTIONS, _PAIRS = (64, 256), 1e11  # at least and at most; layers * nodes^2 * directions beyond which there are fewer
_EXACT = 1e-12  # rtol
_MOST_FEATURES = 3e9  # layers * nodes * directions: minutes by the fastest engine


def check_predictable(layer: Attention, density: Density, what: str) -> None:
    """Layer and density live on one space, which has no boundary; `what` is predicted of them."""
    check_same_space(layer, density)
    check_unmasked(layer, what)
    if density.space.has_boundary:
        raise ValueError(f"density must live on a space without boundary for {what}, got {density.space}")


def exact(layer: Attention | MultiHead) -> Attention | MultiHead:
    """The layer that predictions are of: in double precision, with Sinkhorn's own weights, whatever the layer's tolerances.

    Without its mask.
    """

    def head(head: Attention) -> Attention:
        rule, rtol = head.normalization, min(head.rtol, _EXACT)
        if isinstance(rule, Sinkhorn) and rule.tol is not None:
            rule = replace(rule, tol=min(rule.tol, rtol))
        return Attention(head.f, head.epsilon, rule, head.residual, rtol=rtol)

    return replace_heads(layer, [head(one) for one in heads_of(layer)])


def centred(layer: Attention | MultiHead, features: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (m, c) less their p-means, which weights that sum to one carry along; and a unit for each column, (c,).

    Columns that mixing couples have one unit.
    """
    features = features - mass @ features / mass.sum()
    size = unit(features, axis=0)
    if isinstance(layer, MultiHead) and layer.columns is not None:
        size = np.full_like(size, size.max())
    return features, size


def bind_nodes(
    layer: Attention | MultiHead,
    density: Density,
    values: Callable | None = None,
    largest: int = _LARGEST,
    n_tokens: float | None = None,
) -> tuple[Any, Grid | HopfGrid, np.ndarray]:
    """The infinite-token layer, `exact`, on few nodes, at most `largest`, the nodes, and their masses p dvol (m,).

    `n_tokens` is for layers whose queries choose among them.
    """
    grid: Grid | HopfGrid
    layer = exact(layer)
    if is_three_sphere(density.space):
        bound, grid = bind_three_sphere(layer, density, values, _RESOLUTION, largest)
    else:
        chosen = n_tokens if any(head.normalization.selects for head in heads_of(layer)) else None
        bound, grid = bind_density(layer, density, None, values, _RESOLUTION, largest, chosen)
    mass = density.pdf(grid.points) * density.space.volume_element(grid.points) * grid.weights
    return bound, grid, np.maximum(mass, mass.max() * 1e-300)  # far tails of a line: nothing, but divisible by


def weights_and_response(bound: BoundLayer, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A (m, m) on the nodes and eta (m, m), eta[y, z]."""
    layer, nodes = bound.layer, bound.tokens
    if isinstance(bound.plan, Circulant):  # a cusp, which nodes do not sample: its Fourier coefficients are known
        one = np.eye(len(nodes))
        return (A := bound.attend(one).mean), layer.normalization.response(
            A, lambda _: bound.plan(one, np.log(mass)).mean, mass
        )
    A, _ = softmax(dense_logits(layer.f, layer.epsilon, nodes, nodes, bound.key_bias))

    def plain(transposed: bool) -> np.ndarray:
        f = layer.f.transposed() if transposed else layer.f
        return softmax(dense_logits(f, layer.epsilon, nodes, nodes, np.log(mass)))[0]

    return A, layer.normalization.response(A, plain, mass)


def derivatives_of(
    heads: Sequence[BoundLayer], mass: np.ndarray, layers: int, max_nodes: int | None
) -> tuple[list[Derivative], int]:
    """How each head answers in k directions xi, the mean of xi xi' being diag(1 / mass); the first of them are summed.

    All directions, and all summed, on up to `max_nodes` nodes (None: 3000, if matrices for so many layers are quick).
    """
    size, work = len(mass), len(heads) * layers * len(mass) ** 3
    if size <= max_nodes if max_nodes is not None else size <= _LARGEST and work <= MOST_WORK:
        capacity.fits(32 * size**2 * len(heads), "max_nodes")
        return [_in_all_directions(head, mass) for head in heads], size
    xi, summed = _directions(heads[0], mass, layers * len(heads))
    return [_along(head, xi) for head in heads], summed


def _directions(head: BoundLayer, mass: np.ndarray, layers: int) -> tuple[np.ndarray, int]:
    """xi (m, k), the mean of xi xi' being diag(1 / mass); and how many of them, the first, are no random numbers.

    These are smooth, orthonormal in p dz: the range of A^2, as far as random signs tell (Meyer et al. 2021). The others are
    random signs, less what they have of it. Fixed, so that a prediction is one. Where no token ever is they are 0: engines
    round off relative to the largest value.
    """
    least, most = _DIRECTIONS
    count = int(np.clip(_PAIRS / (max(layers, 1) * len(mass) ** 2), least, most)) // 2
    if layers * len(mass) * 2 * count > _MOST_FEATURES:
        raise ValueError(
            "epsilon must be larger, or initial smoother, for a predicted noise: "
            f"{layers} sums over {len(mass)} nodes in {2 * count} directions"
        )
    there = (mass > NO_TOKEN * mass.max())[:, None]
    root = np.sqrt(mass)[:, None]
    signs = there * (np.random.default_rng(0).integers(0, 2, (2, len(mass), count)) * 2.0 - 1)
    smooth = np.linalg.qr(there * root * head.attend(head.attend(signs[0] / root).mean).mean)[0]
    rest = signs[1] - smooth @ (smooth.T @ signs[1])
    return np.concatenate([smooth, rest / np.sqrt(count)], axis=1) / root, smooth.shape[1]


def _in_all_directions(head: BoundLayer, mass: np.ndarray) -> Derivative:
    if isinstance(head, SelectedLayer):
        return of_chosen(head, np.diag(1 / np.sqrt(mass)))
    head.layer.normalization.require("response", "predicted noise")
    return of_matrix(*weights_and_response(head, mass), mass)


def _along(head: BoundLayer, xi: np.ndarray) -> Derivative:
    if isinstance(head, SelectedLayer):
        return of_chosen(head, xi)
    head.layer.normalization.require("response_to", "predicted noise on so many nodes")
    return of_sums(head, xi)
