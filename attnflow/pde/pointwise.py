"""What an error known in the norm of the weight w may be at a point: larger where w is small, as the root of w."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..grid import Grid
from .coefficients import error_weights, loose, weighted_norm

if TYPE_CHECKING:
    from .equations import DriftDiffusion
    from .problem import Problem

_ROUNDOFF = 1e-16
_GATHERED = 2.0  # errors are not spread as the norm's mean has them
_UNKNOWN = 1e300  # finite, for files and for interpolation


def pointwise_error(
    pde: DriftDiffusion, problem: Problem, fields: np.ndarray, grid: Grid, error: float, mass: np.ndarray
) -> np.ndarray:
    """Estimated absolute error of fields (T, *grid, c) at the nodes, at any of the times: (*grid, c).

    An error E of the norm is about E (max w / w(x))^(1/2) at x: as large at the weight's top, and where w is small no
    larger than the norm would notice. Where features stay between their first extrema, the error is no larger than
    what lies between the computed value and the farther one of these.
    """
    mass = error_weights(pde, grid) if loose(pde) else mass
    start = problem.sample(grid).reshape(-1, problem.columns)
    flat = fields.reshape(len(fields), grid.size, problem.columns)
    scale = weighted_norm(np.concatenate([start[None], flat]), mass).max(axis=0)
    weight = mass / grid.weights
    with np.errstate(divide="ignore", over="ignore"):
        growth = np.sqrt(weight.max() / weight)
        estimate = _GATHERED * max(error, _ROUNDOFF) * np.minimum(growth, _UNKNOWN)[:, None] * scale
    if pde.keeps_extrema and not any(side for pair in problem.walls for side in pair or ()):
        reach = np.maximum(start.max(axis=0) - flat.min(axis=0), flat.max(axis=0) - start.min(axis=0))
        estimate = np.minimum(estimate, np.maximum(reach, _ROUNDOFF * scale))
    return np.clip(estimate, 0.0, _UNKNOWN).reshape(*grid.shape, -1)
