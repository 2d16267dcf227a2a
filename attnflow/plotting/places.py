"""Where tokens are drawn: their own coordinates in the plane and in space, principal axes where there are more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import style

_UNIT = 1e-6  # off length one, below which vectors lie on a sphere
_RIM = "0.8"


class Places(NamedTuple):
    """How points (..., n) become points (..., m) of plane (m = 2) or 3-D (m = 3) Axes.

    Attributes
    ----------
    center : (n,) array
    directions : (n, m) array
    labels : tuple of m str
    sphere : bool
        Whether all points are unit vectors, drawn on the circle or the sphere.
    limits : (m, 2) array
        Of the Axes, which hold all points.
    """

    center: np.ndarray
    directions: np.ndarray
    labels: tuple[str, ...]
    sphere: bool
    limits: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # of points that were lost, which are not drawn
            return (points - self.center) @ self.directions


def find_places(points: np.ndarray, ax=None, angles: bool = False) -> Places:
    """Places for points (..., n), n >= 2, on the Axes (None: in space for n = 3, else in the plane); `angles` are labelled so."""
    flat = points.reshape(-1, points.shape[-1])
    flat, n = flat[np.isfinite(flat).all(axis=1)], flat.shape[1]
    m = (3 if n == 3 else 2) if ax is None else 3 if ax.name == "3d" else 2
    center, directions = np.zeros(n), np.eye(n, m)
    name, unit = (r"\theta", "rad") if angles else ("x", "length")
    labels = tuple(f"${name}_{k + 1}$ ({unit})" if k < n else "" for k in range(m))
    sphere = n == m and bool(np.abs(np.linalg.norm(flat, axis=1) - 1).max(initial=0.0) < _UNIT)
    if n > m and len(flat):
        center, directions, shares = _principal(flat, m)
        labels = tuple(f"principal axis {k + 1}, {share:.0%} of the variance" for k, share in enumerate(shares))
    drawn = np.array([[-1.0], [1.0]]) * np.ones(m) if sphere else (flat - center) @ directions
    return Places(center, directions, labels, sphere, np.array([style.limits(x, 0.05) for x in drawn.T]))


def draw_places(places: Places, ax=None):
    """Axes with the labels and limits of the places, and the circle or sphere where they lie on one."""
    space = len(places.labels) == 3
    ax = style.new_axes(ax, projection="3d" if space else None)
    limits = places.limits
    if places.sphere:
        _draw_rim(ax, space)
    if not space:
        style.finish(ax, "", *places.labels)
        ax.set(xlim=limits[0], ylim=limits[1])
        ax.set_aspect("equal")
        return ax
    ax.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    extent = np.diff(limits, axis=1)[:, 0]
    ax.set_box_aspect(np.maximum(extent, 0.1 * extent.max()), zoom=0.78)  # room for the labels
    style.label_space(ax, *places.labels)
    return ax


def _principal(flat: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, the m directions of largest variance (n, m), and their shares of it; signs by the largest component."""
    center = flat.mean(axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(flat.T, bias=True)))
    values, vectors = np.maximum(values[::-1][:m], 0.0), vectors[:, ::-1][:, :m]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(m)])
    total = np.sum((flat - center) ** 2) / len(flat)
    return center, vectors, values / total if total > 0 else np.zeros(m)


def _draw_rim(ax, space: bool) -> None:
    turn = np.linspace(0, 2 * np.pi, 121)
    if not space:
        ax.plot(np.cos(turn), np.sin(turn), color=_RIM, linewidth=0.8, zorder=0)
        return
    look = {"color": _RIM, "linewidth": 0.5, "zorder": 0}
    for latitude in np.deg2rad([-60, -30, 0, 30, 60]):
        ax.plot(np.cos(latitude) * np.cos(turn), np.cos(latitude) * np.sin(turn), np.full(121, np.sin(latitude)), **look)
    for longitude in np.deg2rad([0, 30, 60, 90, 120, 150]):
        ax.plot(np.cos(longitude) * np.sin(turn), np.sin(longitude) * np.sin(turn), np.cos(turn), **look)
