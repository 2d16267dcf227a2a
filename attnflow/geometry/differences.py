"""Derivatives of callables nobody gave a derivative for, with a check that they can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from .. import checks

# sixth-order central first derivative; with step h its error is h^6 f7 / 140 + 1e-16 |f| / h
_WEIGHTS = np.array([-1 / 60, 3 / 20, -3 / 4, 3 / 4, -3 / 20, 1 / 60])
_STEPS = np.array([-3, -2, -1, 1, 2, 3])


def partial_derivatives(function: Callable, x: np.ndarray, name: str, step: float = 4e-3) -> np.ndarray:
    """d function / d x_k at points (..., n) by central differences, k last: (..., *value shape, n).

    Computed with two steps; warns (AccuracyWarning) where they disagree by more than 1e-5.
    """
    x = np.asarray(x, dtype=float)
    fine, coarse = (_central(function, x, h) for h in (step, 2 * step))
    gap = np.abs(fine - coarse)
    if not (gap <= 1e-5 * (1 + np.abs(fine))).all():
        warnings.warn(
            f"{name} is not smooth on the scale {step:g}: its numerical derivative is uncertain by {np.nanmax(gap):.1g}; "
            "give the derivative in closed form",
            checks.AccuracyWarning,
            stacklevel=3,
        )
    return fine


def _central(function: Callable, x: np.ndarray, step: float) -> np.ndarray:
    columns = []
    for k in range(x.shape[-1]):
        h = step * np.eye(x.shape[-1])[k]
        columns.append(sum(w * np.asarray(function(x + s * h)) for w, s in zip(_WEIGHTS, _STEPS)) / step)
    return np.stack(columns, axis=-1)
