"""The coefficients of L = w^-1 d_i (w g^ij d_j) at points, and the norm its errors are measured in.

w = p^drift sqrt(det g) is the conserved weight. Only log w is ever formed: differences of it stay
finite where w itself would underflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..geometry import Space
from ..grid import Axis, Grid

if TYPE_CHECKING:
    from .equations import DriftDiffusion


def log_weight(pde: DriftDiffusion, x: np.ndarray) -> np.ndarray:
    """log(p^drift sqrt(det g)) at points (N, n): (N,).

    Raises
    ------
    ValueError
        If p vanishes at a point: nothing carries features across it.
    """
    log_p = pde.density.log_pdf(x) if pde.drift else np.zeros(len(x))
    bad = ~np.isfinite(log_p)
    if bad.any():
        where = int(np.argmax(bad))
        raise ValueError(
            f"density must be positive wherever the equation is solved, got log p = {log_p[where]} at x = {x[where]}; "
            "restrict the space to where it is, or mix in a little of a Uniform or wide Gaussian density"
        )
    return pde.drift * log_p + _log_volume(pde.space, x)


def inverse_metric(space: Space, x: np.ndarray) -> np.ndarray:
    """g^ij at points (N, n): (N, n, n)."""
    metric = np.asarray(space.metric(x), dtype=float)
    return metric if space.flat else np.linalg.inv(checks.spd(metric, "metric", x))


def diagonal_inverse_metric(space: Space, x: np.ndarray) -> np.ndarray:
    """g^ii at points (N, n): (N, n).

    Raises
    ------
    NotImplementedError
        If the metric is not diagonal: face fluxes then need derivatives along the face.
    """
    inverse = inverse_metric(space, x)
    diagonal = np.diagonal(inverse, axis1=1, axis2=2)
    skew = np.abs(inverse - diagonal[:, :, None] * np.eye(space.dim)).max(axis=(1, 2)) > 1e-12 * diagonal.max(axis=1)
    if skew.any():
        where = int(np.argmax(skew))
        raise NotImplementedError(
            f"metric must be diagonal in the coordinates for finite volumes, got g^-1 = {inverse[where].tolist()} at "
            f"x = {x[where]}; choose orthogonal coordinates (only where all axes wrap and all is smooth may it be any)"
        )
    return diagonal


def extent(pde: DriftDiffusion, horizon: float = 0.0) -> tuple[tuple[float, float], ...]:
    """The (low, high) of each axis the equation is solved on.

    On a line with drift >= 1 it is cut where p < e^-42 of its top, at the density's extent. With less
    drift the weight does not fall that fast, so the wall is moved out of reach of diffusion: 10
    sqrt(horizon) further, where its influence is erfc(5) = 2e-12.
    """
    ranges = pde.density.extent if _endless(pde.space) else pde.space.bounds
    if not _endless(pde.space) or pde.drift >= 1:
        return ranges
    reach = 10 * np.sqrt(horizon)
    return tuple(
        (low - reach, high + reach) if not np.isfinite(bound).all() else (low, high)
        for (low, high), bound in zip(ranges, pde.space.bounds)
    )


def build_grid(space: Space, kinds: tuple[str, str], shape: tuple[int, ...], ranges) -> Grid:
    """A grid with kinds (periodic axes', other axes')."""
    axes = zip(shape, space.periodic, ranges, strict=True)
    return Grid(tuple(Axis(kinds[0] if wraps else kinds[1], n, low, high) for n, wraps, (low, high) in axes))


def error_weights(pde: DriftDiffusion, grid: Grid) -> np.ndarray:
    """(size,) weights of the norm of errors: w dx; on a line with drift < 1, where that need not decay, p dvol."""
    if _endless(pde.space) and pde.drift < 1:
        log_w = pde.density.log_pdf(grid.points) + _log_volume(pde.space, grid.points)
    else:
        log_w = log_weight(pde, grid.points)
    weights = grid.weights * np.exp(log_w - log_w.max())
    return weights / weights.sum()


def weighted_norm(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root weighted mean square of fields (T, *grid, c): (T, c)."""
    flat = values.reshape(len(values), len(weights), -1)
    return np.sqrt(np.einsum("i,tic->tc", weights, flat**2))


def weighted_maximum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Largest |value| of fields (T, *grid, c), counted by the square root of its weight over the largest: (T, c)."""
    flat = np.abs(values).reshape(len(values), len(weights), -1)
    return (np.sqrt(weights / weights.max())[:, None] * flat).max(axis=1)


def relative_error(difference: np.ndarray, reference: np.ndarray) -> float:
    """Largest of the norms (T, c), each column relative to its largest norm over time in `reference` (T, c)."""
    scale = reference.max(axis=0)
    return float(np.max(difference / np.where(scale > 0, scale, 1.0)))


def transfer(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Fields (T, *source, c) interpolated to another grid of the same kind, axis by axis: (T, *target, c)."""
    for k, (old, new) in enumerate(zip(source.axes, target.axes), start=1):
        if old == new:
            continue
        moved = np.moveaxis(values, k, 0)
        result = old.interpolation(new.nodes) @ moved.reshape(old.size, -1)
        values = np.moveaxis(np.asarray(result).reshape(new.size, *moved.shape[1:]), 0, k)
    return values


def _log_volume(space: Space, x: np.ndarray) -> np.ndarray | float:
    return 0.0 if space.flat else np.log(space.volume_element(x))


def _endless(space: Space) -> bool:
    return not np.isfinite(space.bounds).all()
