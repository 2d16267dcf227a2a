"""What happens at the walls: the `boundary` argument, read once into one pair of sides per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from inspect import Parameter, signature
from typing import ClassVar

import numpy as np

from .. import checks
from ..geometry import Space

_FORMS = (
    "'no-flux', ('dirichlet', value), ('neumann', g), ('robin', b, g), or one of them or a (low, high) pair of them per axis"
)
_LENGTHS = {"dirichlet": 2, "neumann": 2, "robin": 3}  # of their tuples


@dataclass(frozen=True)
class Side:
    """What is said of a wall: a number, one per column, or a callable on wall points (M, n) and, if it needs two
    arguments or names the second t, the time."""

    value: float | np.ndarray | Callable
    name: ClassVar[str] = ""

    @cached_property
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
            values = checks.evaluate(value, points, self.name)
        else:
            values = np.atleast_2d(self.value)
        if values.shape[1] not in (1, columns):
            raise ValueError(f"{self.name} must have 1 column or the {columns} of initial, got {values.shape[1]}")
        return np.broadcast_to(values, (len(points), columns))


@dataclass(frozen=True)
class Dirichlet(Side):
    """Features held at a wall: H = value."""

    name: ClassVar[str] = "boundary's Dirichlet value"


@dataclass(frozen=True)
class Robin(Side):
    """d_nu H + coefficient H = value, nu the outward normal of unit length in g; Neumann's condition where it is 0.

    The coefficient is a number or a callable on wall points (M, n) -> (M,), in units of 1 / length.
    """

    coefficient: float | Callable = 0.0
    name: ClassVar[str] = "boundary's flux g"

    def coefficient_at(self, points: np.ndarray) -> np.ndarray:
        """b at wall points (M, n): (M,)."""
        if not callable(self.coefficient):
            return np.full(len(points), self.coefficient)
        values = checks.scalar_field(self.coefficient, points, COEFFICIENT)
        return checks.array(values, f"{COEFFICIENT}(points)")


NO_GROWTH = (-np.inf, -np.inf)  # where nothing is fed at walls
COEFFICIENT = "boundary's coefficient b"


def _at_time(value: Callable, t: float, points: np.ndarray) -> np.ndarray:
    return value(points, t)


# one entry per axis: None where the axis wraps or has no end, else (low, high); a None side is no-flux
Walls = tuple[tuple[Side | None, Side | None] | None, ...]


def read_boundary(boundary, space: Space) -> Walls:
    """The `boundary` argument as walls.

    Parameters
    ----------
    boundary : None, side, or sequence
        None is no-flux at every wall. A side ("no-flux", ("dirichlet", value), ("neumann", g) or ("robin", b, g)) holds
        at every wall. A sequence has per axis a side, a (low, high) pair of sides, or None where the axis wraps;
        with one axis the (low, high) pair itself will do.
    space : Space

    Raises
    ------
    ValueError
        If a name is unknown, the number of axes is wrong, or a wall is described where there is none.
    TypeError
        If a value is neither a number, an array of numbers nor callable, or a coefficient neither a number nor callable.

    Examples
    --------
    >>> from attnflow.geometry import Box
    >>> read_boundary((("neumann", 0.0), ("dirichlet", 1.0)), Box([(0, 1)]))
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
    """Evaluate what is said of every wall once, at its middle, so that errors come before any work."""
    for k, end, side in wall_places(walls, space):
        point = space.from_unit_cube(np.full((1, space.dim), 0.5))
        point[:, k] = end
        side.at(point, columns)
        if isinstance(side, Robin):
            side.coefficient_at(point)


def warn_of_growth(walls: Walls, space: Space, rate: Sequence[float] | None) -> None:
    """GrowthWarning where a Robin coefficient is negative and features may grow.

    `rate` is the interval in which the largest eigenvalue of L lies; None: it is not known. One that lies below 0 is no
    growth, and at a critical coefficient no interval is narrow enough to tell.
    """
    if rate is None:
        how = "features may grow"
    elif rate[1] < 0:
        return
    elif rate[0] > 0:
        how = f"features grow as exp({sum(rate) / 2:.3g} t)"
    else:
        how = f"features may grow, though no faster than exp({rate[1]:.2g} t), a rate that cannot be told from 0"
    for k, end, side in wall_places(walls, space):
        points = space.probe_points()
        points[:, k] = end
        if isinstance(side, Robin) and (side.coefficient_at(points) < 0).any():
            checks.warn(
                f"{how}: {COEFFICIENT} is negative on axis {k}; in d_nu H + b H = g, nu outward, a positive one lets them decay",
                checks.GrowthWarning,
            )
            return


def wall_places(walls: Walls, space: Space) -> list[tuple[int, float, Side]]:
    """Axis, coordinate and side of all walls that are not no-flux."""
    pairs = enumerate(zip(walls, space.bounds))
    return [(k, end, side) for k, (pair, ends) in pairs for side, end in zip(pair or (), ends) if side is not None]


def sides(walls: Walls) -> list[Side]:
    """Those of all walls that are not no-flux."""
    return [side for pair in walls for side in pair or () if side is not None]


def homogeneous(walls: Walls) -> Walls:
    """The same walls with every value 0, of which an operator and its spectrum are: Neumann's are no-flux."""
    return tuple(pair and (_without_value(pair[0]), _without_value(pair[1])) for pair in walls)


def _without_value(side: Side | None) -> Side | None:
    if side is None or (isinstance(side, Robin) and not callable(side.coefficient) and side.coefficient == 0):
        return None
    return replace(side, value=np.array(0.0))


def _read_axis(axis, ends: tuple[bool, bool], k: int) -> tuple[Side | None, Side | None] | None:
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
    listed = isinstance(value, (tuple, list)) and len(value) > 0 and isinstance(value[0], str)
    return isinstance(value, str) or (listed and _LENGTHS.get(value[0]) == len(value))


def _read_side(side) -> Side | None:
    if isinstance(side, str) and side == "no-flux":
        return None
    if not _is_side(side) or isinstance(side, str):
        raise ValueError(f"boundary must be {_FORMS}, got {checks.short(side)}")
    kind = Dirichlet if side[0] == "dirichlet" else Robin
    value = side[-1]
    if not callable(value):
        value = checks.array(value, kind.name)
        if value.ndim > 1:
            raise ValueError(f"{kind.name} must be a number or one per column, got {value.shape}")
    if kind is Dirichlet:
        return Dirichlet(value)
    coefficient = 0.0 if side[0] == "neumann" else side[1]
    coefficient = coefficient if callable(coefficient) else checks.real(coefficient, COEFFICIENT)
    told = callable(value) or value.any() or callable(coefficient) or coefficient
    return Robin(value, coefficient) if told else None


def _sequence(value) -> list:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"boundary must be {_FORMS}, got {checks.short(value)}")
    return list(value)
