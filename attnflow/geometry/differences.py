"""Derivatives of callables nobody gave a derivative for, with a check that they can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import checks

if TYPE_CHECKING:
    from .spaces import Space

_NODES = np.arange(-3, 4)
_STEP = 4e-3


def partial_derivatives(
    function: Callable, x: np.ndarray, name: str, step: float | np.ndarray = _STEP, walls: np.ndarray | None = None
) -> np.ndarray:
    """d function / d x_k at points (..., n) by sixth-order differences, k last: (..., *value shape, n).

    Central inside, one-sided where `walls` (n, 2) would be crossed: the error with step h is h^6 f7 / 140 inside and
    h^6 f7 / 7 at a wall, plus 1e-16 |f| / h. Computed with two steps; warns (AccuracyWarning) where they disagree by
    more than 1e-5.
    """
    x = np.asarray(x, dtype=float)
    step = np.broadcast_to(step, x.shape[-1:])
    walls = np.array([(-np.inf, np.inf)] * x.shape[-1]) if walls is None else walls
    fine, coarse = (_differences(function, x, h, walls) for h in (step, 2 * step))
    gap = np.abs(fine - coarse)
    trusted = gap <= 1e-5 * (1 + np.abs(fine))
    if not trusted.all():
        worst = np.where(np.isnan(gap), np.inf, gap).max()
        checks.warn(
            f"{name} is not smooth on the scale {step.max():g}: its numerical derivative is uncertain by {worst:.1g}; "
            "give the derivative in closed form",
            checks.AccuracyWarning,
        )
    return fine


def gradient(function: Callable, x: np.ndarray, name: str, space: Space) -> np.ndarray:
    """Partial derivatives of a function on a space: inside its walls, and tangential on a sphere."""
    low, high = np.array(space.bounds, dtype=float).T
    ends = np.isfinite([low, high]) & ~np.array(space.periodic) & space.has_boundary
    walls = np.stack([np.where(ends[0], low, -np.inf), np.where(ends[1], high, np.inf)], axis=-1)
    # the extension x -> function(x / |x|) of a function on the sphere has no radial derivative
    return partial_derivatives(
        lambda z: function(space.project(z)), x, name, step=_STEP * np.minimum(1.0, high - low), walls=walls
    )


def _differences(function: Callable, x: np.ndarray, step: np.ndarray, walls: np.ndarray) -> np.ndarray:
    columns = []
    for k, h in enumerate(step):
        centre = np.clip(x[..., k], walls[k, 0] + 3 * h, walls[k, 1] - 3 * h)
        weights = _weights((x[..., k] - centre) / h)
        total: float | np.ndarray = 0.0
        for j, node in enumerate(_NODES):
            moved = x.copy()
            moved[..., k] = centre + node * h
            value = np.asarray(function(moved))
            weight = weights[..., j].reshape(weights.shape[:-1] + (1,) * (value.ndim - weights.ndim + 1))
            total = total + weight * np.where(weight == 0, 0.0, value)
        columns.append(total / h)
    return np.stack(columns, axis=-1)


def _weights(offset: np.ndarray) -> np.ndarray:
    """Derivatives at `offset` of the seven Lagrange polynomials on the nodes: (..., 7)."""
    return np.stack([polynomial.deriv()(offset) for polynomial in _LAGRANGE], axis=-1)


def _lagrange(node: np.signedinteger) -> np.polynomial.Polynomial:
    others = _NODES[_NODES != node]
    return np.polynomial.Polynomial.fromroots(others) / np.prod(node - others)


_LAGRANGE = [_lagrange(node) for node in _NODES]
