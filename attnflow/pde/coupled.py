"""Equations that are not self-adjoint: an extra velocity from an asymmetric pseudo-metric, and heads as a sum.

Both are solved on the finite volumes of their drift-diffusion parts by solve_ivp's implicit methods with the sparse
Jacobian, on nested grids that say how accurate they are. Their spectrum is complex in general and not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .. import checks, display
from ..geometry import Density
from .boundaries import Dirichlet, Walls
from .equation import Equation, flow_latex, where_latex
from .equations import DriftDiffusion
from .generator import Generator
from .grids import on_sphere
from .peaks import Peaks, find_peaks, scattered_in
from .problem import Problem
from .volumes.operator import Cells


@dataclass(frozen=True, init=False)
class General(Equation):
    """dH/dt = m (Delta_g H + drift <grad log p, grad H>_g) + c . grad H with a velocity c(x) that is no gradient.

    The first-order limit of attention with a general pseudo-metric f(x, y) that is smallest at y = x
    (Ruan & Zhang 2024, Theorem 5): g is half the Hessian of f in y, and c comes from its third derivatives, zero for
    a squared distance. On a graph of near tokens m is half the second moment of an edge, and c comes from the slope of f.
    `attnflow.limit` builds both. Not self-adjoint, and conservative only where c was made so.

    Parameters
    ----------
    density : Density
        p, on a torus, box, line or chart.
    velocity : callable
        c^i at points (N, n): (N, n), in units of length per time.
    drift : float
    mobility : callable or None
        m at points (N, n): (N,), positive; None is 1. It does not multiply c.

    Raises
    ------
    NotImplementedError
        On spheres.

    Examples
    --------
    Features carried round a circle while they diffuse:

    >>> import numpy as np, attnflow as af
    >>> pde = af.General(af.Uniform(af.Circle()), lambda x: np.full((len(x), 1), 0.5))
    >>> H = pde.solve(lambda x: np.cos(x[:, 0]), t=1.0, rtol=1e-6)
    >>> bool(abs(H.at(np.array([[0.2]])) - np.exp(-1) * np.cos(0.7)) < 1e-6)
    True
    """

    density: Density
    velocity: Callable
    drift: float
    mobility: Callable | None
    self_adjoint: ClassVar[bool] = False

    def __init__(self, density: Density, velocity: Callable, drift: float = 2.0, mobility: Callable | None = None) -> None:
        if not isinstance(density, Density):
            raise TypeError(f"density must be an attnflow Density, got {type(density).__name__}")
        object.__setattr__(self, "density", density)
        object.__setattr__(self, "drift", checks.real(drift, "drift"))
        if on_sphere(density.space):
            raise NotImplementedError(f"density must live on a torus, box, line or chart, got {density.space}")
        if not callable(velocity):
            raise TypeError(f"velocity must be callable on points (N, n), got {type(velocity).__name__}")
        object.__setattr__(self, "velocity", velocity)
        object.__setattr__(self, "mobility", mobility)
        _evaluate(velocity, self.space.probe_points())
        if mobility is not None:
            self.generator.mobility_at(self.space.probe_points())

    def __repr__(self) -> str:
        mobility = {} if self.mobility is None else {"mobility": self.mobility}
        return display.shown("General", self.density, self.velocity, drift=self.drift, **mobility)

    @property
    def latex(self) -> str:
        flow = flow_latex(self.space, self.drift, self.mobility is not None)
        velocity = display.latex_name(self.velocity, "c")
        return f"\\partial_t H = {flow} + {velocity} \\cdot \\nabla H{where_latex(self.density)}"

    @cached_property
    def generator(self) -> Generator:
        """That of its drift-diffusion part."""
        return Generator(self.density.space, self.density, self.drift, self.mobility)

    def _peaks(self, ranges: tuple[tuple[float, float], ...] | None) -> tuple[Peaks, ...]:
        known = self._velocity_field(scattered_in(self.space, ranges))
        return super()._peaks(ranges) + find_peaks(self._velocity_field, "velocity", self.space, ranges, known, size=1.0)

    def _velocity_field(self, x: np.ndarray) -> np.ndarray:
        """Beside what diffusion does across the space."""
        return _evaluate(self.velocity, x) * np.ptp(self.space.probe_points(), axis=0)

    def cells(self, shape: tuple[int, ...], walls: Walls, columns: int = 1, ranges=None) -> Cells:
        cells = super().cells(shape, walls, columns, ranges)
        operator = cells.operator() + _advection(cells, _evaluate(self.velocity, cells.grid.points), walls)
        coupled = sparse.csr_array(sparse.kron(operator, sparse.eye_array(columns)))
        return replace(cells, coupled=coupled, monotone=False, ingredients=partial(_with_velocity, cells.ingredients, self))


@dataclass(frozen=True, init=False, eq=False)
class Heads(Equation):
    """dH/dt = sum_i (L_i H) W_i: several heads at once, each mixing the columns by its own matrix.

    One layer of heads A_i is H -> sum_i A_i H W_i = H sum_i W_i + sum_i tau_i (L_i H) W_i, a small step of an
    equation only where sum_i W_i = 1 (scalars or c x c matrices).

    Parameters
    ----------
    equations : sequence of DriftDiffusion or General
        L_i, on the same coordinates.
    mixing : sequence of float or (c, c) array
        W_i, times tau_i / tau where the heads' time steps differ.

    Notes
    -----
    Heads need not share a conserved weight: errors, and stats["mean"] and "deviation", are measured in the first one's.

    Raises
    ------
    ValueError
        If there are not as many matrices as equations, or the equations live on different coordinates.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> slow, fast = (af.Heat(af.Circle(length)) for length in (2 * np.pi, 2 * np.pi))
    >>> pde = af.Heads([slow, fast], [0.25, 0.75])
    >>> H = pde.solve(lambda x: np.cos(x[:, 0]), t=0.5, rtol=1e-6)
    >>> bool(abs(H.at(np.array([[0.0]])) - np.exp(-0.5)) < 1e-6)
    True
    """

    equations: tuple[Equation, ...]
    mixing: tuple[np.ndarray, ...]
    self_adjoint: ClassVar[bool] = False
    mixes_columns: ClassVar[bool] = True

    def __init__(self, equations: Sequence[DriftDiffusion | General], mixing: Sequence) -> None:
        equations = tuple(equations) if checks.listed(equations) else ()
        if not equations or not all(isinstance(e, (DriftDiffusion, General)) for e in equations):
            raise TypeError("equations must be a sequence of DriftDiffusion or General equations")
        first = equations[0]
        for other in equations[1:]:
            if any(getattr(other.space, name) != getattr(first.space, name) for name in ("columns", "bounds", "periodic")):
                raise ValueError(f"equations must live on the same coordinates, got {first.space} and {other.space}")
        matrices = [checks.array(W, "mixing").astype(float) for W in checks.sequence(mixing, "mixing", "matrices")]
        if len(matrices) != len(equations):
            raise ValueError(f"mixing must have one entry per equation ({len(equations)}), got {len(matrices)}")
        sizes = {W.shape for W in matrices if W.ndim}
        if len(sizes) > 1 or any(len(shape) != 2 or shape[0] != shape[1] for shape in sizes):
            raise ValueError(f"mixing must be numbers or square matrices of one size, got shapes {sorted(sizes)}")
        object.__setattr__(self, "equations", equations)
        object.__setattr__(self, "mixing", tuple(matrices))

    def __repr__(self) -> str:
        return display.cut(
            f"Heads({' + '.join(f'{display.word(W)} {head!r}' for W, head in zip(self.mixing, self.equations))})"
        )

    @property
    def latex(self) -> str:
        names = [display.latex_array(W, f"W_{k + 1}") for k, W in enumerate(self.mixing)]
        total = " + ".join(f"(L_{k + 1} H) \\, {W}" for k, W in enumerate(names))
        parts = [head.latex.replace("\\partial_t", f"L_{k + 1}", 1) for k, head in enumerate(self.equations)]
        return ", \\quad ".join([f"\\partial_t H = {total}", *parts])

    @property
    def generator(self) -> Generator:
        """The first head's: errors and means are measured in its weight."""
        return self.equations[0].generator

    def _asked(self, *arguments) -> Problem:
        problem = super()._asked(*arguments)
        return replace(problem, norm_name=f"{problem.norm_name} of the first head")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Heads):
            return NotImplemented
        same = len(self.mixing) == len(other.mixing) and all(map(np.array_equal, self.mixing, other.mixing))
        return same and self.equations == other.equations

    def __hash__(self) -> int:
        return hash(self.equations)

    def ranges(self, horizon: float = 0.0) -> tuple[tuple[float, float], ...] | None:
        """The box that holds every head's."""
        each = [equation.ranges(horizon) for equation in self.equations]
        if each[0] is None:
            return None
        return tuple((min(low for low, _ in axis), max(high for _, high in axis)) for axis in zip(*each))

    def _peaks(self, ranges: tuple[tuple[float, float], ...] | None) -> tuple[Peaks, ...]:
        return sum((equation._peaks(ranges) for equation in self.equations), ())

    def cells(self, shape: tuple[int, ...], walls: Walls, columns: int = 1, ranges=None) -> Cells:
        ranges = self.ranges() if ranges is None else ranges
        parts = [equation.cells(shape, walls, columns, ranges) for equation in self.equations]
        total = 0
        source: Any = 0.0  # an array, where there are walls that add one
        for part, W in zip(parts, self.mixing):
            W = W * np.eye(columns) if W.ndim == 0 else W
            if W.shape != (columns, columns):
                raise ValueError(f"initial must have the {W.shape[0]} columns that mixing takes, got {columns}")
            operator = sparse.kron(part.operator(), sparse.eye_array(columns)) if part.coupled is None else part.coupled
            total = total + operator @ sparse.kron(sparse.eye_array(part.grid.size), sparse.csr_array(W.T))
            source = source if part.source is None else source + part.source @ W
        if any(part.moving_source is not None for part in parts):
            raise NotImplementedError("boundary must not change in time for several heads")
        source = None if parts[0].source is None else source
        made_of = partial(_of_all, [part.ingredients for part in parts])
        coupled = sparse.csr_array(total)
        return replace(parts[0], coupled=coupled, source=source, monotone=False, ingredients=made_of)


def _of_all(ingredients: list[Callable], x: np.ndarray, known=None) -> tuple[np.ndarray, np.ndarray]:
    logarithms, others = zip(*(each(x) for each in ingredients))
    return np.concatenate(logarithms, axis=1), np.concatenate(others, axis=1)


def _with_velocity(ingredients: Callable, equation: General, x: np.ndarray, known=None) -> tuple[np.ndarray, np.ndarray]:
    logarithms, others = ingredients(x, known)
    # rounding errors of a zero are no structure
    return logarithms, np.concatenate([others, equation._velocity_field(x) + 1], axis=1)


def _evaluate(velocity: Callable, x: np.ndarray) -> np.ndarray:
    values = checks.reals(velocity(x), "velocity(points)").astype(float, copy=False)
    if values.shape != x.shape:
        raise ValueError(f"velocity must return shape {x.shape} for points of shape {x.shape}, got {values.shape}")
    if not np.isfinite(values).all():
        where = int(np.argmax(~np.isfinite(values).all(axis=1)))
        raise ValueError(f"velocity must be finite, got {values[where].tolist()} at x = {x[where]}")
    return values


def _advection(cells: Cells, velocity: np.ndarray, walls: Walls) -> sparse.csr_array:
    """c . grad by central differences, one-sided of second order next to a wall."""
    grid = cells.grid
    index = np.arange(grid.size).reshape(grid.shape)
    total = sparse.csr_array((grid.size, grid.size))
    for k, axis in enumerate(grid.axes):
        if any(isinstance(side, Dirichlet) for side in walls[k] or ()):
            raise NotImplementedError("boundary must not be Dirichlet for an equation with an extra velocity")
        reach = [(1, 0.5), (-1, -0.5)]  # (offset, weight) / spacing
        rows = [(index, reach)]
        if axis.kind == "cells":
            at = (slice(None),) * k
            one_sided = [(0, -1.5), (1, 2.0), (2, -0.5)]
            rows = [
                (index[(*at, slice(1, -1))], reach),
                (index[(*at, slice(0, 1))], one_sided),
                (index[(*at, slice(-1, None))], [(-step, -weight) for step, weight in one_sided]),
            ]
        for cell, weights in rows:
            for step, weight in weights:
                there = np.roll(index, -step, axis=k).ravel()[cell.ravel()]
                rate = velocity[cell.ravel(), k] * weight / axis.spacing
                total = total + sparse.csr_array(sparse.coo_array((rate, (cell.ravel(), there)), shape=total.shape))
    return sparse.csr_array(total)
