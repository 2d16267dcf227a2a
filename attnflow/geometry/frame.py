"""Coordinates in which a density can be integrated and sampled: the unit cube, stretched over where its mass is.

An axis with two ends is stretched evenly. One without is x = centre + scale sinh(u), so that a peak of any width and
a tail of any power are both a matter of a few units of u. A sphere is reached as `Space.from_unit_cube` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from .extents import NEGLIGIBLE, extent_of_mass, far_modes, tolerant
from .line import Line, line
from .modes import Modes, candidates, climb
from .spaces import scattered

if TYPE_CHECKING:
    from .spaces import Space

_SIGHT = {1: (2**17,), 2: (720,) * 2, 3: (2**6,) * 3}  # lattices on which modes are looked for
_CURVED_SIGHT = {1: (2**14,), 2: (2**8,) * 2, 3: (2**5,) * 3}  # where each point costs more
_STARTS = 48


class Frame:
    """Where on a space exp(log_q) dvol has its mass; dimension at most 3.

    Parameters
    ----------
    space : Space
    log_q : callable
        Points (..., columns) -> (...), -inf where there is nothing.
    name : str
        What to call log_q in messages.

    Raises
    ------
    ValueError
        If log_q is -inf wherever it is looked at, or falls too slowly to have a finite integral.
    """

    def __init__(self, space: Space, log_q: Callable, name: str) -> None:
        self.space, self.name, self.dim, self._log_q = space, name, space.dim, log_q
        self._round = space.columns != space.dim
        ends = np.array(space.bounds, dtype=float)
        self._stretched = ~np.isfinite(ends).all(axis=1)

    @cached_property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Per coordinate the bounds of the space, or where log_q sqrt(det g) has fallen by 42 for good."""
        if not self._stretched.any():
            return self.space.bounds
        return extent_of_mass(self.space, self._log_q, self._far, self.name)

    def points(self, v: np.ndarray) -> np.ndarray:
        """Points (N, columns) of the space at points (N, n) of the unit cube."""
        if self._round:
            return self.space.from_unit_cube(v)
        low, high = self._ranges.T
        return self._position(low + (high - low) * v)

    def log_q(self, x: np.ndarray) -> np.ndarray:
        """log_q at points (N, columns), refused where it is not a number: (N,)."""
        with np.errstate(over="ignore"):  # x^2 far out
            return checks.scalar_field(self._log_q, x, self.name)

    @cached_property
    def line(self) -> Line:
        """The distribution along the one axis; dimension 1."""
        return line(self)

    def log_density(self, v: np.ndarray) -> np.ndarray:
        """log of exp(log_q) dvol per volume of the unit cube at points (N, n) of it: (N,)."""
        x = self.points(v)
        result = self.log_q(x) + self._log_jacobian(v)
        return result if self.space.flat else result + np.log(self.space.volume_element(x))

    @cached_property
    def modes(self) -> Modes:
        """Those of exp(log_q) dx in the unit cube."""
        sight = (_SIGHT if self.space.flat else _CURVED_SIGHT)[self.dim]
        if self._stretched.any():  # half as many points in stretched coordinates, half in the space's own
            sight = tuple(int(size * 0.5 ** (1 / self.dim)) for size in sight)
        found = self.climb(*candidates(self._look, sight, np.zeros(self.dim), np.ones(self.dim), _STARTS))
        if self._stretched.any():
            low, high = np.transpose(self.extent)
            start, step = candidates(self._look_at, sight, low, high, _STARTS)
            evenly = climb(self._look_at, start, step, *np.transpose(self.space.bounds))
            found = found.joined(self._in_cube(evenly.joined(self._far)))
        if not len(found.values):
            raise ValueError(f"{self.name} must be finite somewhere, got -inf at all {np.prod(sight)} points looked at")
        return found

    @cached_property
    def top(self) -> float:
        """The largest finite log density known in the unit cube."""
        seen = self._look(scattered(64, self.dim))
        return max(self.modes.top, float(np.where(np.isfinite(seen), seen, -np.inf).max()))

    def climb(self, v: np.ndarray, step: np.ndarray) -> Modes:
        """The modes above points (K, n) of the unit cube."""
        return climb(self._look, v, step, np.zeros(self.dim), np.ones(self.dim))

    @cached_property
    def heavy(self) -> bool:
        """Whether mass lies far beyond the extent: p falls like a power."""
        if not self._stretched.any():
            return False
        wide = np.ptp(self._position(self._ranges.T), axis=0)
        return bool((wide > 10 * np.ptp(self.extent, axis=1)).any())

    def _look(self, v: np.ndarray) -> np.ndarray:
        return self._look_at(self.points(v)) + self._log_jacobian(v)

    def _look_at(self, x: np.ndarray) -> np.ndarray:
        return tolerant(self._log_q, x)

    def _in_cube(self, modes: Modes) -> Modes:
        """The modes of the space that lie in the cube, as seen from there."""
        low, high = self._ranges.T
        u = np.where(self._stretched, np.arcsinh((modes.points - self._centre) / self._scale), modes.points)
        v = (u - low) / (high - low)
        rate = np.where(self._stretched, self._scale * np.cosh(u), 1.0) * (high - low)
        seen = replace(modes, points=v, values=modes.values + self._log_jacobian(v), scale=modes.scale / rate)
        return seen[((v >= 0) & (v <= 1)).all(axis=1)]

    def _position(self, u: np.ndarray) -> np.ndarray:
        if self._stretched.any():
            u = np.where(self._stretched, self._centre + self._scale * np.sinh(np.where(self._stretched, u, 0.0)), u)
        ends = np.array(self.space.bounds, dtype=float)
        return np.clip(u, ends[:, 0], ends[:, 1])

    def _log_jacobian(self, v: np.ndarray) -> np.ndarray | float:
        if self._round:
            return float(np.log(getattr(self.space, "space", self.space).volume))
        low, high = self._ranges.T
        result = np.log(high - low).sum()
        if self._stretched.any():
            result = result + self._log_stretching(low + (high - low) * v)
        return result

    def _log_stretching(self, u: np.ndarray) -> np.ndarray:
        u, scale = u[..., self._stretched], self._scale[self._stretched]
        return np.sum(np.logaddexp(u, -u) + np.log(scale / 2), axis=-1)

    @cached_property
    def _far(self) -> Modes:
        return far_modes(self.space, self._log_q, self.name)

    @cached_property
    def _centre(self) -> np.ndarray:
        """The wall of a half-line; else the highest mode."""
        low, high = np.array(self.space.bounds, dtype=float).T
        return np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, self._far.points[0]))

    @cached_property
    def _scale(self) -> np.ndarray:
        return self._far.scale[0]

    @cached_property
    def _ranges(self) -> np.ndarray:
        """(n, 2) ends of the coordinates u, beyond the extent where what is left there still counts."""
        ranges = np.array(self.extent, dtype=float)
        if not self._stretched.any():
            return ranges
        u = np.arcsinh((ranges - self._centre[:, None]) / self._scale[:, None])
        ranges = np.where(self._stretched[:, None], u, ranges)
        free = ~np.isfinite(np.array(self.space.bounds, dtype=float))
        mode = np.where(self._stretched, np.arcsinh((self._far.points[0] - self._centre) / self._scale), 0.0)
        enough = self._far.top + self._log_stretching(mode[None])[0] - NEGLIGIBLE + 6
        step, last = 0.5, np.full(ranges.shape, np.inf)
        while (faces := free & ((height := self._face_heights(ranges)) > enough)).any():
            beyond = np.abs(ranges) + np.log(self._scale)[:, None]
            endless = (beyond > 90) & (height > last - 0.01 * step) | (beyond > 667)  # 667 = log 1e290
            if (faces & endless).any():
                raise ValueError(
                    f"{self.name} must fall faster than the volume grows to be normalised on {self.space}, "
                    "got a tail whose integral has no end"
                )
            step, last = 1.2 * step, height
            ranges = ranges + faces * np.array([-step, step])
        return ranges

    def _face_heights(self, ranges: np.ndarray) -> np.ndarray:
        """(n, 2) largest log density in u on each face of the ranges."""
        lattice = np.indices((17,) * self.dim).reshape(self.dim, -1).T / 16
        u = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * lattice
        values = self._look_at(self._position(u)) + self._log_stretching(u)
        return np.array([[values[lattice[:, k] == end].max() for end in (0, 1)] for k in range(self.dim)])
