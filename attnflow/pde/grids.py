"""The grids that equations live on, how fields are carried from one to another, and how far apart they are there."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import fft, sparse

from ..geometry import Space
from ..grid import Axis, Grid

CELLS, NODES = ("periodic", "cells"), ("fourier", "lobatto")  # kinds of an axis that wraps, and of another

_KEPT = 2**12  # nodes up to which grids are kept for the next solve
_FEW = 256  # nodes from which on waves are carried over by the fast Fourier transform
_DENSE = 2**13  # entries up to which a matrix of few nonzero ones is applied as a full one
_NARROW = 16  # entries after an axis below which many small products cost more than one after a copy
_REACH = 3  # rows beyond a pole that interpolation looks at


def on_sphere(space: Space) -> bool:
    """Whether the space's points are unit vectors, and its grids run over angles."""
    return space.columns != space.dim


def wrapping(space: Space) -> tuple[bool, ...]:
    """Whether each axis of the grids wraps; the angle on a circle of unit vectors does."""
    return (True,) if on_sphere(space) else space.periodic


def cell_grid(space: Space, shape: tuple[int, ...], ranges: tuple[tuple[float, float], ...] | None = None) -> Grid:
    """That many cells per axis, on the ranges (None: the space's own)."""
    return _grid(space, CELLS, shape, ranges)


def node_grid(space: Space, sizes: tuple[int, ...]) -> Grid:
    """That many spectral nodes per axis."""
    return _grid(space, NODES, sizes)


def _grid(space: Space, kinds: tuple[str, str], shape: tuple[int, ...], ranges=None) -> Grid:
    sphere = on_sphere(space)
    build = _kept_grid if math.prod(shape) <= _KEPT else _kept_grid.__wrapped__
    bounds = () if sphere else space.bounds
    return build(sphere, kinds, tuple(shape), () if sphere else space.periodic, bounds, bounds if ranges is None else ranges)


@lru_cache(maxsize=64)
def _kept_grid(sphere: bool, kinds, shape, periodic, bounds, ranges) -> Grid:
    if sphere:
        around = Axis(kinds[0], shape[-1], 0.0, 2 * np.pi)
        return Grid((around,) if len(shape) == 1 else (Axis("colatitude", shape[0], 0.0, np.pi), around), sphere=True)
    along = zip(shape, periodic, ranges, strict=True)
    axes = tuple(Axis(kinds[0] if wraps else kinds[1], n, low, high) for n, wraps, (low, high) in along)
    return Grid(axes, endless=tuple((math.isinf(low), math.isinf(high)) for low, high in bounds))


def embedded(space: Space, grid: Grid) -> np.ndarray | None:
    """Where the grid's nodes sit in the plane or in space, for pictures; None for the coordinates themselves."""
    embedding = getattr(space, "embedding", None)
    if embedding is None:
        return None
    nodes = np.asarray(embedding(grid.points), dtype=float)
    return nodes if nodes.shape[-1] in (2, 3) else None


def steepness(log_w: np.ndarray, grid: Grid, least: float = -np.inf) -> float:
    """The largest change of log w between neighbouring cells, one of which has at least `least`."""
    field, worst = log_w.reshape(grid.shape), 0.0
    for k, axis in enumerate(grid.axes):
        wraps = axis.kind in ("periodic", "fourier")
        closed = np.concatenate([field, field.take([0], axis=k)], axis=k) if wraps else field
        low, high = (closed.take(range(i, closed.shape[k] - 1 + i), axis=k) for i in (0, 1))
        change = np.where(np.maximum(low, high) >= least, np.abs(high - low), 0.0)
        worst = max(worst, float(change.max(initial=0.0)))
    return worst


def weighted_norm(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root weighted mean square of fields (T, *grid, c) for weights (N,) or (m, N): (T, c) or (T, m, c)."""
    return np.sqrt(weights @ values.reshape(len(values), weights.shape[-1], -1) ** 2)


def weighted_maximum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Largest |value| of fields (T, *grid, c), counted by the square root of its weight over the largest: (T, c)."""
    flat = np.abs(values).reshape(len(values), len(weights), -1)
    return (np.sqrt(weights / weights.max())[:, None] * flat).max(axis=1)


def relative_error(difference: np.ndarray, reference: np.ndarray) -> float:
    """Largest of the norms (T, ..., c), each column relative to its largest norm over time in `reference` (T, ..., c)."""
    scale = reference.max(axis=0)
    return float((difference / np.where(scale > 0, scale, 1.0)).max())


def transfer(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Fields (T, *source, c) interpolated to another grid of the same kind, axis by axis: (T, *target, c)."""
    for k, (old, new) in enumerate(zip(source.axes, target.axes), start=1):
        if old == new:
            continue
        if old.kind == "colatitude":  # continue over the poles, half way round
            beyond = np.roll(values, values.shape[k + 1] // 2, axis=k + 1)
            ends = [beyond[:, _REACH - 1 :: -1], values, beyond[:, : -_REACH - 1 : -1]]
            values = np.concatenate(ends, axis=k)
        if old.kind == new.kind == "fourier" and _FEW < old.size <= new.size and old.size % 2:
            values = fft.irfft(fft.rfft(values, axis=k), new.size, axis=k) * (new.size / old.size)
            continue
        few = old.kind in ("cells", "periodic", "colatitude") or max(old.size, new.size) <= 4 * _FEW
        matrix = (_resampling if few else _resampling.__wrapped__)(old, new)
        values = _apply(matrix, values, k)
    return values


def _apply(matrix, values: np.ndarray, k: int) -> np.ndarray:
    """The matrix applied along axis k."""
    before, (size, *after) = values.shape[:k], values.shape[k:]
    flat = values.reshape(math.prod(before), size, -1)
    if sparse.issparse(matrix):
        result = (matrix @ flat.swapaxes(0, 1).reshape(size, -1)).reshape(-1, len(flat), flat.shape[-1]).swapaxes(0, 1)
    elif flat.shape[-1] < _NARROW:  # one product instead of many
        result = (flat.swapaxes(1, 2).reshape(-1, size) @ matrix.T).reshape(len(flat), flat.shape[-1], -1).swapaxes(1, 2)
    else:
        result = matrix @ flat
    return result.reshape(*before, -1, *after)


@lru_cache(maxsize=128)
def _resampling(old: Axis, new: Axis):
    """Interpolation as a matrix; dense where it is small."""
    if old.kind == "colatitude":
        reach = _REACH * old.spacing
        old = Axis("cells", old.size + 2 * _REACH, -reach, old.high + reach)
    matrix = old.interpolation(new.nodes)
    return matrix.toarray() if not isinstance(matrix, np.ndarray) and math.prod(matrix.shape) <= _DENSE else matrix
