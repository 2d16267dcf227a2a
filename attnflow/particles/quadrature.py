"""Infinitely many tokens: the nodes and masses that stand for a density, and how accurate they are.

On a torus the trapezoidal rule is spectrally accurate for the layer's Gaussian: with
sigma = sqrt(m2) and spacing h its error is 2 exp(-2 pi^2 (sigma/h)^2), below round-off from
sigma / h = 2.6 on even when features and density are as rough as the kernel.
"""

from __future__ import annotations

import warnings

import numpy as np

from .. import checks
from ..attention import Attention, BoundLayer
from ..geometry import Density
from ..grid import Grid

RESOLUTION = 2.6  # nodes per kernel width that a chosen grid has
_LEAST_RESOLUTION = 2.0  # a given grid below it is refused
_FEWEST = {1: 64, 2: 32, 3: 16}
_MOST = {1: 2**14, 2: 2**9, 3: 2**6}


def bind_density(layer: Attention, density: Density, grid=None, resolution: float = RESOLUTION) -> tuple[BoundLayer, Grid]:
    """The layer on quadrature nodes of a density: the infinite-token layer.

    Parameters
    ----------
    layer : Attention
    density : Density
    grid : int, sequence of int or None
        Nodes per axis; None chooses `resolution` nodes per kernel width and as many as p needs.
    resolution : float

    Returns
    -------
    BoundLayer, Grid

    Raises
    ------
    ValueError
        If the density and the pseudo-metric live on different spaces, or a given grid has fewer
        than two nodes per kernel width.
    """
    if not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow density, got {type(density).__name__}")
    check_same_space(layer, density)
    if grid is None and layer.f.pair.transform not in ("identity", "affine"):
        resolution *= 2  # no Gaussian: its Fourier transform has a heavier tail
    nodes = density.grid(_sizes(layer, density, resolution)) if grid is None else density.grid(grid)
    if grid is None:
        nodes = _resolve(density, nodes)
    elif (worst := _nodes_per_width(layer, density, nodes).min()) < _LEAST_RESOLUTION:
        raise ValueError(
            f"grid must have at least {_LEAST_RESOLUTION:g} nodes per kernel width sqrt(m2), got {worst:.3g} "
            f"with {nodes.shape}; {RESOLUTION:g} or more are safe: use at least "
            f"{tuple(int(np.ceil(n * RESOLUTION / worst)) for n in nodes.shape)}, or None"
        )
    log_mass = density.log_pdf(nodes.points) + np.log(density.space.volume_element(nodes.points) * nodes.weights)
    # nodes of no mass at all would be infinitely light keys; e^-700 is as good as nothing and stays finite
    bound = layer.bind(nodes.points, np.maximum(log_mass, log_mass.max() - 700))
    bound.stats.setdefault("isolated", 0)  # nodes stand for a continuum: none is isolated
    return bound, nodes


def check_same_space(layer: Attention, density: Density) -> None:
    """A distance must be that of the density's space, and a map on a torus must be periodic."""
    space, f = density.space, layer.f
    if f.space is not None and f.space != space:
        raise ValueError(f"density must live on the space of f, {f.space}, got {space}")
    probe = space.probe_points()
    f.check(probe, "density.space")
    if f.space is None and any(space.periodic):
        shift = np.where(space.periodic, [high - low if wraps else 0.0 for (low, high), wraps in zip(space.bounds, space.periodic)], 0.0)
        here, there = f(probe, probe), f(probe, probe + shift)
        if np.abs(here - there).max() > 1e-9 * max(1.0, np.abs(here).max()):
            raise ValueError(f"f must be periodic on {space}, got {type(f).__name__}, which tells x from x + period")


def _sizes(layer: Attention, density: Density, resolution: float) -> tuple[int, ...]:
    trial = density.grid(_FEWEST[min(density.space.dim, 3)])
    sizes = np.array(trial.shape) * resolution / _nodes_per_width(layer, density, trial)
    fewest = _FEWEST[len(sizes)]
    return tuple(int(2 * np.ceil(max(fewest, size) / 2)) for size in sizes)


def _nodes_per_width(layer: Attention, density: Density, grid: Grid) -> np.ndarray:
    """sqrt(m2) / spacing per axis, in the metric of f at its largest."""
    width = np.sqrt(layer.f.second_moment(layer.epsilon, density.space.dim))
    probe = density.space.probe_points(64)
    metric = layer.f.metric(probe)
    if grid.sphere:
        stretch = np.full(len(grid.axes), np.sqrt(np.linalg.eigvalsh(metric)[..., -1].max()))
    else:
        stretch = np.sqrt(np.max(np.diagonal(metric, axis1=-2, axis2=-1), axis=0))
    return width / (stretch * np.array([axis.spacing for axis in grid.axes]))


def _resolve(density: Density, grid: Grid) -> Grid:
    """Refine until the nodes hold the whole mass of p to 1e-12: then they resolve it."""
    while True:
        mass = np.sum(density.pdf(grid.points) * density.space.volume_element(grid.points) * grid.weights)
        if abs(mass - 1) < 1e-12:
            return grid
        if 2 * max(grid.shape) > _MOST[len(grid.shape)]:
            warnings.warn(
                f"density is resolved to {abs(mass - 1):.1g} only by {grid.shape} nodes: is log_pdf smooth?",
                checks.AccuracyWarning,
                stacklevel=3,
            )
            return grid
        grid = density.grid(tuple(2 * n for n in grid.shape))


def estimated_error(bound: BoundLayer, density: Density, grid: Grid) -> float | None:
    """Relative change of the row sums when every second node is left out, per axis of equal spacing.

    That is the error of twice the spacing, so an upper bound: the weighted mean of an alternating sign,
    as p-weighted root mean square (at the far ends of a line nothing is left to be resolved).
    """
    signs = [
        np.where(np.arange(axis.size) % 2, -1.0, 1.0).reshape([-1 if j == k else 1 for j in range(len(grid.axes))])
        for k, axis in enumerate(grid.axes)
        if axis.kind in ("fourier", "cells") and axis.size % 2 == 0
    ]
    if not signs:
        return None
    columns = np.stack([np.broadcast_to(sign, grid.shape).ravel() for sign in signs], axis=-1)
    mass = density.pdf(grid.points) * grid.weights * density.space.volume_element(grid.points)
    error = float(np.sqrt((mass @ bound.attend(columns).mean ** 2).max()))
    if error > 1e-6 and bound.layer.dtype == "float64":
        warnings.warn(
            f"the quadrature of the infinite-token layer may be off by up to {error:.1g} (relative): "
            "the similarity is not smooth on the grid; give a finer grid",
            checks.AccuracyWarning,
            stacklevel=4,
        )
    return error
