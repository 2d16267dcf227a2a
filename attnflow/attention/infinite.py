"""Infinitely many tokens: the nodes and masses that stand for a density, and how accurate they are.

On a torus the trapezoidal rule is spectrally accurate for the layer's Gaussian: with
sigma = sqrt(m2) and spacing h its error is 2 exp(-2 pi^2 (sigma/h)^2), below round-off from
sigma / h = 2.6 on even when features and density are as rough as the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from .. import checks
from ..geometry import Density
from ..grid import Grid, bandwidth
from ..kernels import attend
from ..norms import column_norms
from ..resolution import interpolation_error
from .bound import BoundLayer
from .circulant import Circulant, bind_circulant, has_cusp
from .heads import BoundHeads, MultiHead, heads_of
from .layer import Attention
from .masks import check_unmasked
from .selected import SelectedLayer
from .sparse import Selective, Sparse, TopK

RESOLUTION = 2.6  # nodes per kernel width that a chosen grid has
_EDGES = {1: 60.0, 2: 6.0, 3: 3.0}  # of what has an edge, by dimension: an error of about their inverse square
_LEAST_RESOLUTION = 2.0  # a given grid below it is refused
_FEWEST = {1: 64, 2: 32, 3: 16}
_FINEST = {1: (1024, 4096, 2**14), 2: (128, 384), 3: (32, 64)}  # nodes per axis on which smoothness is judged
_SEEN = {"cells": 1e-3, None: 1e-6}  # error between the nodes that is let pass: there more than of the layer's averages
_FURTHER = 4  # times finer where something lies between
_LARGEST = 2**17  # nodes that are chosen without being asked for: some seconds per layer


class TooManyNodes(ValueError):
    """Infinitely many tokens would need more quadrature nodes than are chosen: what does without them may go on."""


def bind_density(
    layer: Attention | MultiHead,
    density: Density,
    grid: int | Sequence[int] | None = None,
    values: Callable | None = None,
    resolution: float = RESOLUTION,
    largest: int = _LARGEST,
    n_tokens: float | None = None,
) -> tuple[Any, Grid]:
    """The layer on quadrature nodes of a density: the infinite-token layer. Heads share nodes that are fine enough for each.

    Parameters
    ----------
    layer : Attention or MultiHead
    density : Density
    grid : int, sequence of int or None
        Nodes per axis; None chooses `resolution` nodes per kernel width, and as many as p and p H need.
    values : callable, optional
        The features H that the nodes must resolve.
    resolution : float
    largest : int
        Nodes beyond which a grid is not chosen but must be given.
    n_tokens : float, optional
        How many tokens the nodes stand for, where queries choose among them.

    Returns
    -------
    BoundLayer or BoundHeads, Grid

    Raises
    ------
    ValueError
        If the density and the pseudo-metric live on different spaces, a layer has a mask, a given grid has fewer than two
        nodes per kernel width, or more than `largest` nodes would have to be chosen; if a layer mixes tokens.
    """
    heads = heads_of(layer)
    if isinstance(layer, MultiHead) and layer.token_mixing is not None:
        raise ValueError(f"tokens must be the {len(layer.token_mixing)} that W_A mixes, got a density")
    for head in heads:
        check_same_space(head, density)
        check_unmasked(head, "a Density, whose infinitely many tokens have neither places nor labels nor edges")
    tokens = _tokens_stood_for(heads, n_tokens)
    shapes = [first_grid(head, density, grid, resolution, largest, tokens).shape for head in heads]
    nodes = density.grid(tuple(map(max, zip(*shapes))))
    if grid is None:
        nodes = _resolve(density, values, nodes, largest)
    each = tuple(_bind_nodes(head, density, nodes, tokens) for head in heads)
    bound = BoundHeads(layer, each) if isinstance(layer, MultiHead) else each[0]
    bound.stats.setdefault("isolated", 0)  # nodes stand for a continuum: none is isolated
    return bound, nodes


def _bind_nodes(layer: Attention, density: Density, nodes: Grid, tokens: float) -> BoundLayer:
    bound = None
    if has_cusp(layer):
        bound = bind_circulant(layer, nodes, _log_mass(density, nodes))
    if bound is None:
        bound = layer.bind(nodes.points, _log_mass(density, nodes) + np.log(tokens))
    return bound


def first_grid(
    layer: Attention,
    density: Density,
    grid: int | Sequence[int] | None,
    resolution: float = RESOLUTION,
    largest: int = _LARGEST,
    tokens: float = 1.0,
) -> Grid:
    """The given nodes, or as many as the kernel needs; refused as `bind_density` says."""
    if grid is None:
        return density.grid(_sizes(layer, density, resolution, largest, tokens))
    nodes = density.grid(grid)
    worst = _nodes_per_width(layer, density, nodes, tokens).min()
    if worst < _LEAST_RESOLUTION:
        raise ValueError(
            f"grid must have at least {_LEAST_RESOLUTION:g} nodes per kernel width sqrt(m2), got {worst:.3g} "
            f"with {nodes.shape}; {RESOLUTION:g} or more are safe: use at least "
            f"{tuple(int(np.ceil(n * RESOLUTION / worst)) for n in nodes.shape)}, or None"
        )
    return nodes


def _log_mass(density: Density, nodes: Grid) -> np.ndarray:
    log_mass = density.log_pdf(nodes.points) + np.log(density.space.volume_element(nodes.points) * nodes.weights)
    # nodes of no mass at all would be infinitely light keys; e^-700 is as good as nothing and stays finite
    return np.maximum(log_mass, log_mass.max() - 700)


def check_same_space(layer: Attention, density: Density) -> None:
    """A distance must be that of the density's space, and a map on a torus must be periodic."""
    if not isinstance(layer, Attention):
        raise TypeError(f"layer must be an attnflow.Attention, got {type(layer).__name__}")
    if not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
    space, f = density.space, layer.f
    if f.space is not None and f.space != space:
        raise ValueError(f"density must live on the space of f, {f.space}, got {space}")
    probe = space.probe_points()
    f.check(probe, "density.space")
    if f.space is None and any(space.periodic):
        shift = np.where(
            space.periodic, [high - low if wraps else 0.0 for (low, high), wraps in zip(space.bounds, space.periodic)], 0.0
        )
        here, there = f(probe, probe), f(probe, probe + shift)
        if np.abs(here - there).max() > 1e-9 * max(1.0, np.abs(here).max()):
            raise ValueError(f"f must be periodic on {space}, got {type(f).__name__}, which tells x from x + period")


def _tokens_stood_for(heads: Sequence[Attention], n_tokens: float | None) -> float:
    rules = [head.normalization for head in heads]
    if n_tokens is not None:
        if not any(rule.selects for rule in rules):
            raise ValueError(f"n_tokens must be None for {rules[0]}: infinitely many tokens have one limit")
        tokens = checks.positive(n_tokens, "n_tokens")
        for rule in rules:
            if isinstance(rule, Selective):
                rule.check_size(tokens)
        return tokens
    for rule in rules:
        if rule.needs_tokens:
            raise ValueError(
                f"n_tokens must be given for {rule} on a density: how far a query sees depends on how many tokens there are"
            )
    return 1.0


def _sizes(layer: Attention, density: Density, resolution: float, largest: int, tokens: float = 1.0) -> tuple[int, ...]:
    dim = density.space.dim
    if isinstance(layer.normalization, (TopK, Sparse)):
        resolution = _EDGES[min(dim, 3)]
    elif layer.f.pair.transform not in ("identity", "affine"):
        resolution *= 2  # no Gaussian: its Fourier transform has a heavier tail
    trial = density.grid(_FEWEST[min(dim, 3)])
    sizes = np.array(trial.shape) * resolution / _nodes_per_width(layer, density, trial, tokens)
    chosen = [2 * np.ceil(max(_FEWEST[min(dim, 3)], size) / 2) for size in sizes]
    if np.prod(chosen) > largest:
        raise TooManyNodes(
            f"epsilon must be larger to choose a grid: {'x'.join(f'{n:.0f}' for n in chosen)} nodes would be needed "
            f"at {layer.epsilon:g}, more than {largest}"
        )
    return tuple(int(n) for n in chosen)


def _nodes_per_width(layer: Attention, density: Density, grid: Grid, tokens: float = 1.0) -> np.ndarray:
    """sqrt(m2) / spacing per axis, in the metric of f at its largest."""
    probe = density.space.probe_points(64)
    metric = layer.f.metric(probe)
    if layer.normalization.selects:
        width = np.sqrt(_least_moment(layer, density, grid, tokens))
    else:
        width = np.sqrt(layer.f.second_moment(layer.epsilon, density.space.dim))
    if grid.sphere:
        stretch = np.full(len(grid.axes), np.sqrt(np.linalg.eigvalsh(metric)[..., -1].max()))
    else:
        stretch = np.sqrt(np.max(np.diagonal(metric, axis1=-2, axis2=-1), axis=0))
    return width / (stretch * np.array([axis.spacing for axis in grid.axes]))


def _least_moment(layer: Attention, density: Density, grid: Grid, tokens: float) -> float:
    """The second moment of what a query sees where tokens are densest."""
    rule, f = cast(Selective, layer.normalization), layer.f
    around = density.pdf(grid.points).max() * tokens
    if f.space is None:
        around /= np.sqrt(np.linalg.det(f.metric(grid.points))).min()
    if isinstance(rule, Sparse) and rule.fraction is not None:  # as many as top-k's of that share
        around = around / tokens / rule.fraction
        return float(TopK(1).local_moment(f, np.inf, density.space.dim, np.array([around]))[0])
    return float(rule.local_moment(f, layer.epsilon, density.space.dim, np.array([around]))[0])


def _resolve(density: Density, values: Callable | None, grid: Grid, largest: int) -> Grid:
    """Refine until the nodes hold the mass of p to 1e-12 and what lies between them; where all axes wrap, until half of
    them hold the modes of p H to 1e-10. Ends at `largest` nodes."""
    finest, judged = _FINEST[len(grid.shape)], values
    if values is not None and all(axis.kind == "fourier" for axis in grid.axes):
        needed, judged = _smooth_sizes(density, _carried(density, values), grid), None
        if needed is None or np.prod(needed) > largest:
            fine = density.grid(tuple(max(n, finest[0]) for n in grid.shape))
            _warn_unresolved(fine, "values are not smooth (or not periodic)")
            return fine if len(grid.shape) == 1 else grid
        grid = density.grid(needed)
    while True:
        p = density.pdf(grid.points)
        missing = abs(np.sum(p * density.space.volume_element(grid.points) * grid.weights) - 1)
        unseen = _between(density, judged, grid)
        if missing < 1e-12 and not unseen:
            return grid
        if max(grid.shape) >= finest[0] * (_FURTHER if unseen else 1) or 2 ** len(grid.shape) * grid.size > largest:
            why = f"between them p or p H is off by {unseen:.1g}" if unseen else f"the mass of p is off by {missing:.1g}"
            _warn_unresolved(grid, why)
            return grid
        grid = density.grid(tuple(2 * n for n in grid.shape))


def _carried(density: Density, values: Callable) -> Callable:
    """p H."""
    return lambda x: density.pdf(x)[:, None] * checks.evaluate(values, x, "values")


def _between(density: Density, values: Callable | None, grid: Grid) -> float:
    """How far p and p H are from their interpolants between the nodes; 0 where that is next to nothing."""
    fields = [lambda x: density.pdf(x)[:, None], *([] if values is None else [_carried(density, values)])]
    found = max(float(interpolation_error(f, grid, f(grid.points), "values").max()) for f in fields)
    return found if found >= _SEEN.get(grid.axes[0].kind, _SEEN[None]) else 0.0


def _smooth_sizes(density: Density, function: Callable, grid: Grid) -> tuple[int, ...] | None:
    """Nodes per axis, not less than the grid's, half of which hold the modes of a function; None if it is not smooth.

    Judged on fine nodes: on coarse ones fast features alias into slow ones. So they do on fine ones, if there are none
    between.
    """
    for size in _FINEST[len(grid.shape)]:
        fine = density.grid(tuple(max(n, size) for n in grid.shape))
        sampled = function(fine.points)
        widths = bandwidth(sampled.reshape(*fine.shape, -1), 1e-10)
        if widths is not None and interpolation_error(function, fine, sampled, "values").max() < _SEEN[None]:
            return tuple(max(n, 2 * width + 2) for n, width in zip(grid.shape, widths))
    return None


def _warn_unresolved(grid: Grid, why: str) -> None:
    checks.warn(
        f"the infinite-token layer is not resolved by {grid.shape} nodes: {why}; smooth them, or give a finer grid",
        checks.AccuracyWarning,
    )


def estimated_error(
    bound: BoundLayer | BoundHeads, density: Density, grid: Grid, values: Callable | None = None, queries: int = 64
) -> float:
    """Relative change of row sums, and of averages of H, on nodes twice as fine that share few with the grid.

    p-weighted root mean squares over some rows; H is taken relative to its size, each column by itself. The largest of
    all heads.
    """
    if isinstance(bound, BoundHeads):
        return max(estimated_error(head, density, grid, values, queries) for head in bound.heads)
    circulant = isinstance(bound.plan, Circulant)
    error = _missed_modes(bound, density, grid) if circulant else _missed(bound, density, grid, values, queries)
    error = max(error, _between(density, values, grid))
    if error > 1e-6:
        checks.warn(
            f"the quadrature of the infinite-token layer is off by about {error:.1g} (relative): the similarity, the "
            "density or the values are not smooth on the grid; give a finer grid",
            checks.AccuracyWarning,
        )
    return error


def _missed(bound: BoundLayer, density: Density, grid: Grid, values: Callable | None, queries: int) -> float:
    layer = bound.layer
    rows = np.unique(np.linspace(0, grid.size - 1, queries).astype(int))
    # queries that choose their keys are nodes themselves, of the finer grid too where it is regular
    spare = 0 if layer.normalization.selects else 2
    finer = density.grid(tuple(2 * n + spare for n in grid.shape))
    points, weight = grid.points[rows], density.pdf(grid.points[rows])
    weight = weight / weight.sum()
    H = None if values is None else [checks.evaluate(values, g.points, "values") for g in (grid, finer)]
    if layer.normalization.selects:
        chosen = cast(SelectedLayer, bound)
        log_mass = _log_mass(density, finer) + np.log(cast(np.ndarray, chosen.mass).sum())
        if layer.normalization.needs_tokens:
            other = replace(chosen, tokens=finer.points, mass=np.exp(log_mass), selection=None)
        else:  # a share is met by a temperature that these nodes have to find again
            other = cast(SelectedLayer, layer.bind(finer.points, log_mass))
        here, there = (b.attend(h, points) for b, h in zip((bound, other), H or (None, None)))
    else:
        here, there = (
            attend(layer.f, layer.epsilon, points, g.points, h, _log_mass(density, g), layer.backend)
            for g, h in zip((grid, finer), H or (None, None))
        )
    error = float(np.sqrt(weight @ np.expm1(here.log_sum_exp - there.log_sum_exp) ** 2))
    if H is not None:
        size = np.maximum(*(column_norms(np.full(len(h), 1 / len(h)), h) for h in H))
        change = column_norms(weight, here.mean - there.mean) / np.where(size > 0, size, 1.0)
        error = max(error, float(change.max()))
    return error


def _missed_modes(bound: BoundLayer, density: Density, grid: Grid) -> float:
    """As `estimated_error` by a similarity's own Fourier coefficients: what finer nodes see of p that these do not."""
    finer = density.grid(tuple(2 * n for n in grid.shape))
    other = bind_circulant(bound.layer, finer, _log_mass(density, finer))
    if other is None:  # row sums that finer nodes see as too different for Fourier transforms
        return 1.0
    shared = (slice(None, None, 2),) * len(grid.shape)
    there = other.plan(None, _log_mass(density, finer)).log_sum_exp.reshape(finer.shape)[shared].ravel()
    here, weight = bound.plan(None, _log_mass(density, grid)).log_sum_exp, density.pdf(grid.points)
    return float(np.sqrt(weight @ np.expm1(here - there) ** 2 / weight.sum()))
