"""The bias where no closed form is known: layers of infinitely many tokens at several temperatures, extrapolated to none.

With T = 1 + a (A - 1) a layer of time step a tau, the features at time t are a smooth function of tau,

    F(tau) = T^(t / (a tau)) H = e^(t L) H + tau F_1 + tau^2 F_2 + ...,

whatever the space and f; F_1 is a integral_0^t e^((t-u) L) (E / a - L^2 / 2) e^(u L) H du, A = 1 + tau L + tau^2 E + ...
A polynomial through F at seven temperatures, a factor of 2.5 in all, has its derivatives at 0: no L or E is formed, and no
equation solved. All of them share their nodes, so that what nodes miss of features is not divided by tau.

T^l for an l that is no whole number is T^floor(l) times the binomial series of (1 + (T - 1))^(l - floor(l)): temperatures are
as the features need them, however short t is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
from scipy import sparse

from .. import checks
from ..attention import Attention, BoundLayer, MultiHead
from ..attention.heads import heads_of, replace_heads
from ..attention.infinite import bind_density
from ..geometry import Density
from ..geometry.spaces import scattered
from ..grid import Grid
from ..norms import column_norms
from .chosen_keys import Averages, ChosenKeys
from .hopf import HopfGrid, is_three_sphere, three_sphere_nodes
from .limits import limit
from .nodes import centred, exact
from .on_nodes import OnNodes, least_held
from .zonal_sums import bind_zonal, is_zonal

_STEPS = 4 / np.arange(4.0, 11.0)  # temperatures of one polynomial, over the largest
_WIDTHS = 9.0  # of the similarity, along the axis on which they are fewest, to begin with
_RESOLUTION = {None: 1.3, "colatitude": 2.2}  # nodes per width: quadrature error below 1e-10 of smooth features
_LARGEST = 30_000  # nodes
_MOST_PAIRS = 2e10  # in all layers of one polynomial: about a minute on one core
_ENOUGH, _WARN = 4e-4, 1e-2  # relative change by the largest temperature, about the error that is left
_UNKNOWN = 0.1  # from which it does not tell even that
_VANISHES = 1e-2  # of the second order, at the smallest temperature
_TERMS, _SMALL = 200, 1e-12  # of the binomial series
_SERIES = 20  # terms of it that are reckoned with
_BEGUN = 10  # sums that computing a matrix, or key weights, is reckoned with
_NOTHING = 1e-18  # a weight
_MOST_KEPT = 4e7  # weights of one matrix: half a gigabyte
_FEW = 0.25  # of all weights, from which on a matrix is sparse
_ROWS = 2**22  # weights at a time
_ROUND_OFF = 1e-14  # of features, after all layers


def extrapolated_bias(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, n_tokens: float | None = None
) -> Callable:
    """The bias to its leading order, as `predicted_bias` has it: the second where the first vanishes.

    Raises
    ------
    ValueError
        If it is not good to ten per cent there.

    Warns
    -----
    AccuracyWarning
        If the bias is not good to one per cent at the smallest temperature that is affordable.
    """
    limit(layer, density, n_tokens)  # says if there is none, and of folds
    layer = exact(layer)
    chosen = [
        ChosenKeys.of(head, density, cast(float, n_tokens)) if head.normalization.selects else None for head in heads_of(layer)
    ]
    smooth = replace_heads(layer, [one.gaussian() if one else head for one, head in zip(chosen, heads_of(layer))])
    largest, found, error = _first_scale(smooth, density), None, np.inf
    while error > _ENOUGH:
        nodes = _Nodes.of(_cooled(smooth, largest * _STEPS[-1]), density, initial)
        layers = t / (largest * _STEPS * layer.time_step)
        work = nodes.sums * (1 + any(chosen)) * float(np.sum((layers + _SERIES) * nodes.kept + _BEGUN))
        if found is not None and (nodes.grid.size > _LARGEST or work > _MOST_PAIRS):
            break
        mass = np.exp(nodes.log_mass - nodes.log_mass.max())
        mass /= mass.sum()
        features, size = centred(layer, checks.evaluate(initial, nodes.grid.points, "initial"), mass)
        features, fields = features / size, []
        for scale, count in zip(largest * _STEPS, layers):
            heads = [_at_scale(one, head, nodes, scale) for one, head in zip(chosen, heads_of(smooth))]
            fields.append(_after(_step(layer, heads, nodes.by_matrices), features, count))
        field, change = _leading(largest * _STEPS, np.array(fields), mass, may_vanish(layer))
        if change >= error and error < _WARN:  # rounding errors take over
            break
        found, grid, error, largest = size * field, nodes.grid, change, largest / 2
    assert found is not None  # the first polynomial is always taken
    if error > _UNKNOWN:
        raise ValueError(
            f"t must be shorter, or f, density and initial smoother, for a predicted bias of {layer} on {density.space}: temperatures "
            f"at which it is to their leading order need more than {grid.size} nodes, and are not affordable"
        )
    if error > _WARN:
        checks.warn(
            f"the predicted bias is good to {error:.1g} of itself: more than {grid.size} nodes would tell it better, or "
            "a smoother density, f or initial",
            checks.AccuracyWarning,
        )
    power = max(head.normalization.drift / 2 for head in heads_of(layer))
    return OnNodes(grid, found.reshape(*grid.shape, -1), density, least=least_held(density, power))


class _Nodes(NamedTuple):
    """Nodes, the logarithms of their masses, and what a sum over them costs, in pairs: of those that are `kept` if by matrices."""

    grid: Grid | HopfGrid
    log_mass: np.ndarray
    sums: float
    kept: float = 1.0
    by_matrices: bool = False
    zonal: bool = False

    @classmethod
    def of(cls, finest: Attention | MultiHead, density: Density, initial: Callable) -> _Nodes:
        if is_three_sphere(density.space):
            zonal = all(is_zonal(head, density.space.probe_points()) for head in heads_of(finest))
            resolution, finer = (0.0, 2) if zonal else (_RESOLUTION[None], 1)  # harmonics need what products of two need
            nodes, log_mass = three_sphere_nodes(finest, density, initial, resolution, 2 * _LARGEST, finer)
            return cls(nodes, log_mass, nodes.size * (nodes.shape[0] if zonal else nodes.size), zonal=zonal)
        resolution = _RESOLUTION["colatitude" if density.space.columns == 3 > density.space.dim else None]
        bound, grid = bind_density(finest, density, None, initial, resolution, 2 * _LARGEST)
        heads = (bound,) if isinstance(finest, Attention) else bound.heads
        hotter = (_STEPS[0] / _STEPS[-1]) ** (density.space.dim / 2)  # near keys of the hottest, whose matrices are the largest
        pairs, kept = float(grid.size) ** 2, min(hotter, 1 / max(map(_kept, heads))) * sum(map(_kept, heads))
        by_matrices = kept * pairs < _MOST_KEPT
        return cls(grid, heads[0].log_mass, pairs, kept if by_matrices else 1.0, by_matrices)

    def bind(self, head: Attention) -> BoundLayer:
        if self.zonal and isinstance(self.grid, HopfGrid):
            return bind_zonal(head, self.grid, self.log_mass)
        return head.bind(self.grid.points, self.log_mass)


def _at_scale(chosen: ChosenKeys | None, head: Attention, nodes: _Nodes, scale: float) -> BoundLayer | Averages:
    """The head with its time step times `scale`; `head` is the Gaussian that stands in where queries choose."""
    near = nodes.bind(cooled(head, scale))
    return near if chosen is None else chosen.averages(near, nodes.bind(cooled(head, 2 * scale)), nodes.grid, scale)


def may_vanish(layer: Attention | MultiHead) -> bool:
    """Whether the first order vanishes on flat spaces."""
    second = all(head.normalization.order == 2 and head.f.exponent in (2.0, None) for head in heads_of(layer))
    return second and layer.residual == 1


def _leading(scales: np.ndarray, fields: np.ndarray, mass: np.ndarray, vanishing: bool) -> tuple[np.ndarray, float]:
    """F_1, or F_2 where F_1 vanishes, for the scale in place of tau, (m, c), and its relative change by the largest.

    Column by column; 0 where there is nothing but round-off. The change is that of the column that changes most.
    """

    def inverse(first: int) -> np.ndarray:
        return np.linalg.inv(np.vander(scales[first:] / scales[-1], increasing=True))[1:3]

    changes = fields - fields[-1]  # what does not change at all leaves no round-off
    best, before = (np.tensordot(inverse(first), changes[first:], axes=1) for first in (0, 1))
    noise = _ROUND_OFF * np.abs(inverse(0)).sum(axis=1)[:, None] * column_norms(mass, fields[-1])
    sizes = np.array([column_norms(mass, field) for field in best])
    second = vanishing & (sizes[0] < np.maximum(_VANISHES * sizes[1], noise[0]))
    there = np.where(second, sizes[1] > noise[1], sizes[0] > noise[0])
    found = np.where(there, np.where(second, best[1], best[0]), 0.0)
    change = column_norms(mass, np.where(there, found - np.where(second, before[1], before[0]), 0.0))
    error = np.max(change / np.where(there, column_norms(mass, found), 1.0))
    return found / scales[-1] ** np.where(second, 2, 1), float(error)


def _after(step: Callable, features: np.ndarray, layers: float) -> np.ndarray:
    """Features after `layers` layers, whole or not."""
    whole = int(layers)
    for _ in range(whole):
        features = step(features)
    term, change = features, np.zeros_like(features)
    for k in range(_TERMS):
        term = (layers - whole - k) / (k + 1) * (step(term) - term)
        change += term
        if np.abs(term).max() <= _SMALL * np.abs(change).max():
            break
    return features + change


def _step(layer: Attention | MultiHead, heads: list[BoundLayer | Averages], by_matrices: bool) -> Callable:
    """One layer, features (m, c) -> (m, c)."""
    a, mixes = layer.residual, layer.mixes if isinstance(layer, MultiHead) else (None,)
    means: list[Callable] = [_matrix(head).__matmul__ if by_matrices else _by_engine(head) for head in heads]

    def step(v: np.ndarray) -> np.ndarray:
        parts = [mean(v) if mix is None else mix.write(mean(mix.read(v))) for mean, mix in zip(means, mixes)]
        return v + a * (sum(parts) - v)

    return step


def _by_engine(head: BoundLayer | Averages) -> Callable:
    return lambda v: head.attend(v).mean


def _kept(head: BoundLayer) -> float:
    """The share of weights that are not next to nothing, from some rows."""
    some = head.weights(None, np.unique(np.linspace(0, len(head.tokens) - 1, 64).astype(int)))
    return float((some > _NOTHING).mean())


def _matrix(head: BoundLayer | Averages) -> np.ndarray | sparse.csr_matrix:
    """Weights, computed once; those that are next to nothing left out where they are most."""
    size = len(head.tokens)
    step, blocks = max(1, _ROWS // size), []
    for first in range(0, size, step):
        rows = np.arange(first, min(first + step, size))
        block = head.weights(None, rows)
        blocks.append(sparse.csr_matrix(np.where(np.abs(block) > _NOTHING, block, 0)))
    A = sparse.vstack(blocks, format="csr")
    return A if A.nnz < _FEW * size**2 else A.toarray()


def _cooled(layer: Attention | MultiHead, scale: float) -> Attention | MultiHead:
    """The layer with its time step, each head's, times `scale`."""
    return replace_heads(layer, [cooled(head, scale) for head in heads_of(layer)])


def cooled(head: Attention, scale: float) -> Attention:
    f, epsilon = head.f, head.epsilon
    if f.exponent is None:  # m2 = e / (2 - (n + 2) e) of log(1 + d^2), e = 2 epsilon
        assert f.dim is not None
        m2 = scale * f.second_moment(epsilon)
        epsilon = m2 / (1 + (f.dim + 2) * m2)
    else:
        epsilon *= scale ** (f.exponent / 2)
    return Attention(f, epsilon, head.normalization, head.residual, rtol=head.rtol)


def _first_scale(layer: Attention | MultiHead, density: Density) -> float:
    """The scale at which the widest head's similarity goes `_WIDTHS` times into the space."""
    space = density.space
    probe = (
        space.probe_points(64) if space.columns != space.dim else space.from_unit_cube(scattered(64, space.dim), density.extent)
    )
    sides = np.pi if space.columns != space.dim else np.ptp(density.extent, axis=1)
    widths = []
    for head in heads_of(layer):
        stretch = np.sqrt(np.median(np.diagonal(head.f.metric(probe), axis1=1, axis2=2), axis=0))
        widths.append(np.max(np.sqrt(head.f.second_moment(head.epsilon, space.dim)) / (stretch * sides)))
    return float(1 / (_WIDTHS * max(widths)) ** 2)
