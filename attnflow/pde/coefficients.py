"""The coefficients of L = w^-1 d_i (w m g^ij d_j) on a grid, and the norm its errors are measured in.

w = p^drift sqrt(det g) / m is the conserved weight, m the mobility (1 unless given). Only log w is ever
formed: differences of it stay finite where w itself would underflow. On spheres the coordinates are the
grid's angles; tensors of the surrounding space are carried over to them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, sparse

from .. import checks
from ..geometry import Space, Sphere, Uniform
from ..geometry.tensors import determinant, inverse
from ..grid import Axis, Grid

if TYPE_CHECKING:
    from .equations import DriftDiffusion


def log_weight(pde: DriftDiffusion, x: np.ndarray, metric: np.ndarray | None = None) -> np.ndarray:
    """log of w per volume of the points' own coordinates (the round measure on a sphere) at points (N, n): (N,).

    Up to a constant: the equation does not depend on p's normalisation, which may cost a quadrature.

    `metric` is g at the points, if it is known already and they are coordinates.

    Raises
    ------
    ValueError
        If p vanishes at a point, or the mobility is not positive there: nothing carries features across it.
    """
    log_p = pde.density.relative_log_pdf(x) if pde.drift else np.zeros(len(x))
    bad = ~np.isfinite(log_p)
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(
            f"density must be positive wherever the equation is solved, got log p = {log_p[where]} at x = {x[where]}; "
            "restrict the space to where it is, or mix in a little of a Uniform or wide Gaussian density"
        )
    result = pde.drift * log_p
    if metric is not None:
        result = result + np.log(determinant(metric)) / 2
    elif not pde.space.flat:
        result = result + np.log(pde.space.volume_element(x))
    return result if pde.mobility is None else result - np.log(mobility(pde, x))


def mobility(pde: DriftDiffusion, x: np.ndarray) -> np.ndarray:
    """m at points (N, n): (N,), positive."""
    values = checks.scalar_field(checks.function(pde.mobility, "mobility"), x, "mobility")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(f"mobility must be positive and finite, got {values[where]} at x = {x[where]}")
    return values


def coefficients(pde: DriftDiffusion, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """log w (N,) per volume of the grid's coordinates, and m g^ij (N, n, n), None for the identity everywhere.

    At points (N, columns): coordinates, or unit vectors off the poles, where a grid runs over angles.
    """
    space = pde.space
    if not on_sphere(space):
        metric = None if space.flat else space.metric(x)  # checked there
        tensor = None if space.flat else inverse(metric)
        log_w = log_weight(pde, x, metric)
    else:
        log_w = log_weight(pde, x)
        tensor = None
        if space.dim == 2:
            log_w = log_w + np.log(np.hypot(x[:, 0], x[:, 1]))
        if space.dim == 2 or type(space) is not Sphere:  # the angle of the round circle is its length
            frame = _angular_frame(x)
            tensor = np.linalg.inv(checks.spd(frame.swapaxes(1, 2) @ space.metric(x) @ frame, "metric", x))
    if pde.mobility is None:
        return log_w, tensor
    return log_w, mobility(pde, x)[:, None, None] * (np.eye(space.dim) if tensor is None else tensor)


def tensor_fields(tensor: np.ndarray, ambient: bool = False) -> np.ndarray:
    """What a symmetric tensor (N, n, n) is made of, (N, n (n + 1) / 2), to see how smooth it is.

    Its diagonal, and above it 1 + T_ij / sqrt(T_ii T_jj): rounding errors next to a zero are no structure. Tensors in
    three coordinates of a surface may vanish along one of them: entries as they are.
    """
    diagonal = np.diagonal(tensor, axis1=1, axis2=2)
    i, j = np.triu_indices(tensor.shape[-1], 1)
    if ambient:
        return np.concatenate([diagonal, tensor[:, i, j]], axis=1)
    return np.concatenate([diagonal, 1 + tensor[:, i, j] / np.sqrt(diagonal[:, i] * diagonal[:, j])], axis=1)


def free(pde: DriftDiffusion) -> bool:
    """Whether L is known to be the Laplacian of a flat space or a round sphere, where waves or harmonics are its modes."""
    known = (pde.space.flat or type(pde.space) is Sphere) and pde.mobility is None
    return known and (not pde.drift or isinstance(pde.density, Uniform))


def build_grid(space: Space, kinds: tuple[str, str], shape: tuple[int, ...], ranges=None) -> Grid:
    """A grid with kinds (periodic axes', other axes') on the ranges (None: the space's own)."""
    sphere = on_sphere(space)
    build = _kept_grid if math.prod(shape) <= _KEPT else _kept_grid.__wrapped__
    bounds = () if sphere else space.bounds
    return build(sphere, kinds, tuple(shape), () if sphere else space.periodic, bounds, bounds if ranges is None else ranges)


@lru_cache(maxsize=64)
def _kept_grid(sphere: bool, kinds, shape, periodic, bounds, ranges) -> Grid:
    if sphere:
        around = Axis(kinds[0], shape[-1], 0.0, 2 * np.pi)
        return Grid((around,) if len(shape) == 1 else (Axis("colatitude", shape[0], 0.0, np.pi), around), sphere=True)
    axes = zip(shape, periodic, ranges, strict=True)
    axes = tuple(Axis(kinds[0] if wraps else kinds[1], n, low, high) for n, wraps, (low, high) in axes)
    return Grid(axes, endless=tuple(tuple(math.isinf(end) for end in pair) for pair in bounds))


def on_sphere(space: Space) -> bool:
    """Whether the space's points are unit vectors, and its grids run over angles."""
    return space.columns != space.dim


def extent(pde: DriftDiffusion, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
    """The (low, high) of each axis the equation is solved on; None for spheres, whose grids know.

    A line is cut where p^(drift / 2), the root of the weight, has fallen to e^-24 of its top: what happens beyond
    changes features by less in the norm of the weight. Without drift the weight does not fall, so the wall is moved
    out of reach of diffusion: 10 sqrt(horizon) beyond the density's extent, where its influence is erfc(5) = 2e-12.

    Raises
    ------
    ValueError
        If a line has a negative drift: features would be carried in from infinity.
    """
    if on_sphere(pde.space):
        return None
    if not _endless(pde.space):
        return pde.space.bounds
    if pde.pull < 0:
        raise ValueError(f"drift must not be negative on a line: features come in from infinity, got {pde.pull}")
    if pde.pull > 0:
        return _cut(pde)
    reach = 10 * np.sqrt(horizon)
    return tuple(
        (low - reach, high + reach) if not np.isfinite(bound).all() else (low, high)
        for (low, high), bound in zip(pde.density.extent, pde.space.bounds)
    )


def _cut(pde: DriftDiffusion) -> tuple[tuple[float, float], ...]:
    """The box around all nodes of a sample grid where the root of the weight matters, one node wider."""
    size = {1: 512, 2: 64, 3: 32}[pde.space.dim]
    open_ends = np.isinf(np.array(pde.space.bounds))
    ranges = np.array(pde.density.extent, dtype=float)
    for _ in range(_WIDENINGS):
        nodes = Grid(tuple(Axis("cells", size, low, high) for low, high in ranges))
        log_w = log_weight(pde, nodes.points)
        inside = (log_w > log_w.max() - 2 * _DEPTH).reshape(nodes.shape)
        spans = [np.flatnonzero(inside.any(axis=tuple(j for j in range(inside.ndim) if j != k))) for k in range(inside.ndim)]
        touches = np.array([(where[0] == 0, where[-1] == size - 1) for where in spans]) & open_ends
        if not touches.any():
            break
        ranges += touches * (ranges[:, 1] - ranges[:, 0])[:, None] * np.array([-0.25, 0.25])
    cut = [(x.nodes[where[0]] - x.spacing, x.nodes[where[-1]] + x.spacing) for x, where in zip(nodes.axes, spans)]
    within = np.clip(cut, ranges[:, :1], ranges[:, 1:])
    return tuple((float(low), float(high)) for low, high in np.where(open_ends, within, ranges))


def loose(pde: DriftDiffusion) -> bool:
    """Whether the weight reaches far beyond the tokens: on a line with drift < 1."""
    return not on_sphere(pde.space) and _endless(pde.space) and pde.drift < 1 and pde.pull < 1


def error_weights(pde: DriftDiffusion, grid: Grid) -> np.ndarray:
    """(size,) weights of the norm of errors: w dx; on a line with drift < 1, where that is wider than the tokens, p dvol."""
    if loose(pde):
        log_w = pde.density.relative_log_pdf(grid.points)
        if not pde.space.flat:
            log_w = log_w + np.log(pde.space.volume_element(grid.points))
    else:
        log_w = log_weight(pde, grid.points)
    weights = grid.weights * np.exp(log_w - log_w.max())
    return weights / weights.sum()


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


_DEPTH = 24.0  # of the root of the weight, below its top, where a line is cut
_WIDENINGS = 24  # by half the width each, until the weight has ended
_KEPT = 2**12  # nodes up to which grids are kept for the next solve
_FEW = 256  # nodes from which on waves are carried over by the fast Fourier transform
_DENSE = 2**13  # entries up to which a matrix of few nonzero ones is applied as a full one
_NARROW = 16  # entries after an axis below which many small products cost more than one after a copy
_REACH = 3  # rows beyond a pole that interpolation looks at


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
    return matrix.toarray() if sparse.issparse(matrix) and math.prod(matrix.shape) <= _DENSE else matrix


def _angular_frame(x: np.ndarray) -> np.ndarray:
    """d x / d (angles) at unit vectors (N, n + 1): (N, n + 1, n), the columns along colatitude and longitude."""
    around = np.zeros_like(x)
    around[:, 0], around[:, 1] = -x[:, 1], x[:, 0]
    if x.shape[1] == 2:
        return around[:, :, None]
    radius = np.hypot(x[:, 0], x[:, 1])
    down = np.stack([x[:, 2] * x[:, 0] / radius, x[:, 2] * x[:, 1] / radius, -radius], axis=1)
    return np.stack([down, around], axis=2)


def _endless(space: Space) -> bool:
    return any(math.isinf(end) for pair in space.bounds for end in pair)
