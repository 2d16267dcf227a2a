"""Walls on spectral nodes: which nodes are held, at what, and what comes in through the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...grid import Grid
from ..boundaries import Dirichlet, Robin, Walls
from ..generator import Generator


def dirichlet_nodes(grid: Grid, walls: Walls) -> np.ndarray | None:
    """1 on the nodes of Dirichlet walls, (*grid); None if there are none."""
    if not any(walls):
        return None
    result = np.zeros(grid.shape)
    for k, pair in enumerate(walls):
        for end, side in enumerate(pair or ()):
            if isinstance(side, Dirichlet):
                result[(slice(None),) * k + (-end,)] = 1.0
    return result if result.any() else None


def crossings(generator: Generator, grid: Grid, walls: Walls) -> Iterator[tuple[np.ndarray, np.ndarray, Robin]]:
    """Per Robin wall its nodes (m,), the rates (m,) at which g - b H changes them, and the side."""
    index = np.arange(grid.size).reshape(grid.shape)
    for k, pair in enumerate(walls):
        for end, side in enumerate(pair or ()):
            if isinstance(side, Robin):
                nodes = index.take(-end, axis=k).ravel()
                yield nodes, generator.crossing(grid.points[nodes], k) / grid.axes[k].weights[-end], side


def wall_gains(generator: Generator, grid: Grid, walls: Walls, like: np.ndarray) -> np.ndarray | None:
    """What g of Robin walls adds to their nodes, zero elsewhere: (*grid, c); None without such walls."""
    result, found = np.zeros((grid.size, like.shape[-1])), False
    for nodes, rate, side in crossings(generator, grid, walls):
        result[nodes] += rate[:, None] * side.at(grid.points[nodes], like.shape[-1])
        found = True
    return result.reshape(like.shape) if found else None


def wall_values(grid: Grid, walls: Walls, like: np.ndarray) -> np.ndarray:
    """Dirichlet values on their nodes, zero elsewhere: (*grid, c)."""
    result, index = np.zeros(like.shape), np.arange(grid.size).reshape(grid.shape)
    flat = result.reshape(grid.size, -1)
    for k, pair in enumerate(walls):
        for end, side in enumerate(pair or ()):
            if isinstance(side, Dirichlet):
                nodes = index.take(-end, axis=k).ravel()
                flat[nodes] = side.at(grid.points[nodes], flat.shape[1])
    return result
