"""What happens at the walls: the `boundary` argument, read once into one pair of sides per axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature

import numpy as np

from .. import checks
from ..geometry import Space

_FORMS = "'no-flux', ('dirichlet', value), or one of them or a (low, high) pair of them per axis"


@dataclass(frozen=True)
class Dirichlet:
    """Features held at a wall: a number, one per column, or a callable on wall points (M, n) and, if it needs two
    arguments or names the second t, the time."""

    value: float | np.ndarray | Callable

    @property
    def moves(self) -> bool:
        """Whether the value changes in time."""
        if not callable(self.value):
            return False
        try:
            parameters = signature(self.value).parameters.values()
        except ValueError:  # NumPy's own functions do not tell; they take points
            return False
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        positional = [p for p in parameters if p.kind in kinds]
        needed = [p for p in positional if p.default is p.empty]
        return len(needed) == 2 or "t" in [p.name for p in positional[1:2]]

    def at(self, points: np.ndarray, columns: int, t: float = 0.0) -> np.ndarray:
        """Values at wall points (M, n) at time t: (M, columns).

        Raises
        ------
        ValueError
            If the value has neither one column nor `columns` of them.
        """
        if callable(self.value):
            value = partial(_at_time, self.value, t) if self.moves else self.value
            values = checks.evaluate(value, points, "boundary's Dirichlet value")
        else:
            values = np.atleast_2d(self.value)
        if values.shape[1] not in (1, columns):
            raise ValueError(
                f"boundary's Dirichlet value must have 1 column or the {columns} of initial, got {values.shape[1]}"
            )
        return np.broadcast_to(values, (len(points), columns))


def _at_time(value: Callable, t: float, points: np.ndarray) -> np.ndarray:
    return value(points, t)


# one entry per axis: None where the axis wraps or has no end, else (low, high); a None side is no-flux
Walls = tuple[tuple[Dirichlet | None, Dirichlet | None] | None, ...]


def read_boundary(boundary, space: Space) -> Walls:
    """The `boundary` argument as walls.

    Parameters
    ----------
    boundary : None, side, or sequence
        None is no-flux at every wall. A side ("no-flux" or ("dirichlet", value)) holds at every wall.
        A sequence has per axis a side, a (low, high) pair of sides, or None where the axis wraps;
        with one axis the (low, high) pair itself will do.
    space : Space

    Raises
    ------
    ValueError
        If a name is unknown, the number of axes is wrong, or a wall is described where there is none.
    TypeError
        If a Dirichlet value is neither a number, an array of numbers nor callable.

    Examples
    --------
    >>> from attnflow.geometry import Box
    >>> read_boundary(("no-flux", ("dirichlet", 1.0)), Box([(0, 1)]))
    ((None, Dirichlet(value=array(1.))),)
    """
    walled = [(False, False)] * space.dim  # spheres, whose bounds are not ends
    if space.has_boundary:
        ends = zip(space.bounds, space.periodic)
        walled = [(False, False) if wraps else tuple(np.isfinite(pair)) for pair, wraps in ends]
    if boundary is not None and not np.any(walled):
        raise ValueError(f"boundary must be None on a space without walls, got {checks.short(boundary)} on {space}")
    if boundary is None or _is_side(boundary):
        axes = [boundary if any(ends) else None for ends in walled]
    else:
        axes = _sequence(boundary)
    if space.dim == 1 and len(axes) == 2 and not _is_side(boundary):
        axes = [axes]
    if len(axes) != space.dim:
        raise ValueError(f"boundary must have one entry per axis ({space.dim}), got {len(axes)}: {checks.short(boundary)}")
    return tuple(_read_axis(axis, ends, k) for k, (axis, ends) in enumerate(zip(axes, walled)))


def check_walls(walls: Walls, space: Space, columns: int) -> None:
    """Evaluate every Dirichlet value once, at the middle of its wall, so that errors come before any work."""
    middle = space.from_unit_cube(np.full((1, space.dim), 0.5))
    for k, pair in enumerate(walls):
        for side, end in zip(pair or (), space.bounds[k]):
            if side is not None:
                point = middle.copy()
                point[:, k] = end
                side.at(point, columns)


def has_dirichlet(walls: Walls) -> bool:
    """Whether features are held at some wall."""
    return any(side is not None for pair in walls for side in pair or ())


def _read_axis(axis, ends: tuple[bool, bool], k: int) -> tuple[Dirichlet | None, Dirichlet | None] | None:
    """`ends` says which end of the axis is a wall; a line cut for computing is no-flux at its cut."""
    if not any(ends):
        if axis is not None:
            raise ValueError(f"boundary must be None on axis {k}, which has no walls, got {checks.short(axis)}")
        return None
    if axis is None or _is_side(axis):
        side = None if axis is None else _read_side(axis)
        return side if ends[0] else None, side if ends[1] else None
    pair = _sequence(axis)
    if len(pair) != 2:
        raise ValueError(f"boundary must have two ends on axis {k}, (low, high), got {checks.short(axis)}")
    low, high = (None if side is None else _read_side(side) for side in pair)
    if any(side is not None and not wall for side, wall in zip((low, high), ends)):
        raise ValueError(f"boundary must be None or 'no-flux' where axis {k} has no end, got {checks.short(axis)}")
    return low, high


def _is_side(value) -> bool:
    named = isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str)
    return isinstance(value, str) or (named and value[0] == "dirichlet")


def _read_side(side) -> Dirichlet | None:
    if isinstance(side, str) and side == "no-flux":
        return None
    if not _is_side(side) or isinstance(side, str):
        raise ValueError(f"boundary must be {_FORMS}, got {checks.short(side)}")
    value = side[1]
    if not callable(value):
        value = checks.array(value, "boundary's Dirichlet value")
        if value.ndim > 1:
            raise ValueError(f"boundary's Dirichlet value must be a number or one per column, got {value.shape}")
    return Dirichlet(value)


def _sequence(value) -> list:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"boundary must be {_FORMS}, got {checks.short(value)}")
    return list(value)
