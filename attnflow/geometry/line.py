"""A distribution on a line: its mass and its quantiles, by cells that see all there is in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from .cells import graded, masses, resolve
from .modes import Modes

_FIRST = 64  # cells to begin with
_CHUNK = 2**14  # quantiles found together
_HALVINGS = 60  # towards a pole
_BLUR = 2.0**26  # spacings of numbers within which distances from a pole are not known well enough


class UnitDensity(Protocol):
    """What is asked of a density on the unit interval; a `Frame` of dimension 1 has it."""

    name: str

    @property
    def modes(self) -> Modes: ...

    @property
    def top(self) -> float: ...

    def points(self, v: np.ndarray) -> np.ndarray: ...

    def log_density(self, v: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Line:
    """Cells of the unit interval in order.

    Next to a pole, where p grows like distance^(power - 1), no nodes help: the innermost cell's mass continues the
    geometric series of the masses of cells that halve towards the pole.

    Attributes
    ----------
    frame : UnitDensity
    left, width, mass : (M,) array
        The mass is relative to exp(top).
    power : (M,) array
        0 where nodes see everything; else that of the cell's mass in the distance from the pole, positive if the pole
        is at its left end.
    top, error : float
        As of `Cells`.
    """

    frame: UnitDensity
    left: np.ndarray
    width: np.ndarray
    mass: np.ndarray
    power: np.ndarray
    top: float
    error: float

    @property
    def log_integral(self) -> float:
        return float(np.log(self.mass.sum()) + self.top)

    @cached_property
    def _cumulative(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(self.mass)])

    def quantile(self, share: np.ndarray) -> np.ndarray:
        """Points (N,) of the unit interval below which the shares (N,) of the mass lie."""
        return np.concatenate([self._invert(part) for part in np.array_split(share, max(1, -(-len(share) // _CHUNK)))])

    def _invert(self, share: np.ndarray) -> np.ndarray:
        """Safeguarded Newton steps in the cell; the mass left of a point by the cell's own rule."""
        wanted = share * self._cumulative[-1]
        cell = np.clip(np.searchsorted(self._cumulative, wanted, side="right") - 1, 0, len(self.mass) - 1)
        start, width, power = self.left[cell], self.width[cell], self.power[cell]
        mass = np.where(self.mass[cell] > 0, self.mass[cell], 1.0)
        part = np.clip((wanted - self._cumulative[cell]) / mass, 0.0, 1.0)
        wanted = part * self.mass[cell]
        left, right, u = start.copy(), start + width, start + part * width
        near = power != 0
        for _ in range(100):
            here = np.flatnonzero(~near)
            if not len(here):
                break
            reached = np.maximum(u - start, 1e-300)
            excess = masses(self.frame.log_density, start[here, None], reached[here, None], self.top) - wanted[here]
            left[here] = np.where(excess > 0, left[here], u[here])
            right[here] = np.where(excess > 0, u[here], right[here])
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                moved = u[here] - excess / np.exp(self.frame.log_density(u[here, None]) - self.top)
            inside = (moved >= left[here]) & (moved <= right[here])
            moved = np.where(inside, moved, (left[here] + right[here]) / 2)
            near[here] = np.abs(moved - u[here]) <= 1e-15 * np.maximum(width[here], np.abs(u[here]))
            u[here] = moved
        with np.errstate(divide="ignore"):
            rising = start + width * part ** np.where(power > 0, 1 / power, 1.0)
            falling = start + width - width * (1 - part) ** np.where(power < 0, -1 / power, 1.0)
        return np.where(power > 0, rising, np.where(power < 0, falling, u))


def line(frame: UnitDensity) -> Line:
    """The distribution on the unit interval of a density on it.

    Raises
    ------
    ValueError
        If p is not integrable at a pole.
    """
    modes = frame.modes
    corner, _ = graded(modes, 1, _FIRST)
    edges = np.unique(np.concatenate([corner[:, 0], [1.0], modes.points[:, 0]]))
    poles = np.unique(modes.points[modes.pole, 0])
    inner = []
    for pole in poles:
        others = np.append(poles[poles != pole], [0.0, 1.0])
        others = others[others != pole]
        for side in (-1.0, 1.0):
            room = np.abs(others[(others - pole) * side > 0] - pole)
            if not len(room):
                continue
            reach = min(1 / _FIRST, room.min() / 2)
            least = max(reach * 2.0**-_HALVINGS, _BLUR * _spacing(frame, pole))
            steps = reach * 2.0 ** -np.arange(0.0, max(np.floor(np.log2(reach / least)), 2.0) + 1)
            between = (edges - pole) * side
            edges = np.unique(np.concatenate([edges[(between <= 0) | (between >= reach)], pole + side * steps]))
            inner.append((pole, side, steps[-1]))
    left, right = edges[:-1], edges[1:]
    open_cell = np.ones(len(left), dtype=bool)
    for pole, side, _ in inner:
        open_cell &= (left if side > 0 else right) != pole
    cells = resolve(frame.log_density, left[open_cell, None], (right - left)[open_cell, None], frame.top)
    ends = [_end(frame, pole, side, reach) for pole, side, reach in inner]
    left, width, mass, power = (
        np.concatenate([part, [end[k] for end in ends]])
        for k, part in enumerate((cells.corner[:, 0], cells.width[:, 0], cells.mass, np.zeros(len(cells.mass))))
    )
    order = np.argsort(left, kind="stable")
    error = cells.error + sum(end[4] for end in ends) / mass.sum()
    return Line(frame, left[order], width[order], mass[order], power[order], frame.top, float(error))


def _end(frame: UnitDensity, pole: float, side: float, reach: float) -> tuple[float, float, float, float, float]:
    """Left end, width, mass and power of the cell between a pole and `reach` from it, and the error of the mass."""
    width = reach * np.array([1.0, 2.0, 4.0])
    start = pole + width if side > 0 else pole - 2 * width
    near, far, farther = masses(frame.log_density, start[:, None], width[:, None], frame.top, order=32)
    power, before = (float(np.log2(b / a)) if a > 0 else 1.0 for a, b in ((near, far), (far, farther)))
    if power < 1e-3:
        raise ValueError(
            f"{frame.name} must be integrable, got a pole at x = {frame.points(np.array([[pole]]))[0]} near which p "
            "grows like 1 / distance or faster"
        )
    mass = near / (2**power - 1)
    return pole if side > 0 else pole - reach, reach, mass, side * power, mass * abs(power - before) / power


def _spacing(frame: UnitDensity, v: float) -> float:
    """How far apart numbers are there, in units of the unit interval: its own, or those of the coordinate."""
    eps, ends = np.finfo(float).eps, np.clip([v - 1e-6, v + 1e-6], 0.0, 1.0)
    stretch = np.abs(np.diff(frame.points(ends[:, None]), axis=0)).max() / np.ptp(ends)
    return eps * max(v, np.abs(frame.points(np.array([[v]]))).max() / stretch)
