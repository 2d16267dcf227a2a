"""Speed side by side with peers, at the same error: what a case, a solver and a family of solvers are here.

Every method runs in a process of its own (`worker`), pinned to one core. It is first tuned (`tuning`) to the
coarsest grid and loosest tolerance that reach the error of the case (`pde_cases`), then timed in rounds,
one method after the other (`pde`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Case", "Family", "Solver"]


@dataclass(frozen=True)
class Case:
    """dH/dt = w^-1 d_i (w g^ij d_j H), w = p^2 sqrt(det g), on [0, length]^dim, and its exact solution.

    Attributes
    ----------
    name, title : str
    dim : int
    length : float
        Side of the domain.
    periodic : bool
        Otherwise the walls are no-flux.
    t : float
        When solutions are compared.
    error : float
        Largest error over a method's own nodes, relative to the largest |H| there, that counts as solved.
    log_density, initial : callable
        log p up to a constant, and H at time 0: points (..., dim) -> (...).
    score : callable
        grad log p: (..., dim) -> (..., dim).
    metric : callable or None
        g: (..., dim) -> (..., dim, dim); None is the identity.
    reference : callable
        No argument -> a function of points (N, dim) that returns H at time t, (N,).
    """

    name: str
    title: str
    dim: int
    length: float
    periodic: bool
    t: float
    error: float
    log_density: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]
    initial: Callable[[np.ndarray], np.ndarray]
    reference: Callable[[], Callable[[np.ndarray], np.ndarray]]
    metric: Callable[[np.ndarray], np.ndarray] | None = None

    def weight(self, x: np.ndarray) -> np.ndarray:
        """w at points (..., dim), up to a constant."""
        volume = 1.0 if self.metric is None else np.sqrt(np.linalg.det(self.metric(x)))
        return np.exp(2 * self.log_density(x)) * volume

    def diffusion(self, x: np.ndarray) -> np.ndarray:
        """K = w g^-1 at points (..., dim): (..., dim, dim)."""
        inverse = np.eye(self.dim) if self.metric is None else np.linalg.inv(self.metric(x))
        return self.weight(x)[..., None, None] * inverse

    def nodes(self, size: int, centred: bool = False) -> np.ndarray:
        """(size^dim, dim) equispaced points, the last axis fastest; cell centres if centred, else from 0."""
        axis = self.length * (np.arange(size) + (0.5 if centred else 0.0)) / size
        return np.stack(np.meshgrid(*[axis] * self.dim, indexing="ij"), axis=-1).reshape(-1, self.dim)


@dataclass(frozen=True)
class Solver:
    """A solve with everything set up: only `step` is timed.

    Attributes
    ----------
    step : callable
        What `fresh` returned -> a result. Called several times.
    read : callable
        A result -> points (N, dim) and H there, (N,).
    fresh : callable
        No argument -> what one solve starts from.
    describe : callable or None
        A result -> what the solver chose by itself.
    """

    step: Callable[[Any], Any]
    read: Callable[[Any], tuple[np.ndarray, np.ndarray]]
    fresh: Callable[[], Any] = lambda: None
    describe: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Family:
    """Solvers that differ in grid and tolerance only.

    Attributes
    ----------
    name : str
    grids : sequence of int
        Cells per axis, increasing.
    tolerances : sequence of float
        From loose to tight: tolerances, or numbers of steps, whatever the solver takes.
    prepare : callable
        (case, grid, tolerance) -> Solver.
    knob : str
        How a tolerance is shown, a format such as "rtol {:g}"; empty where there is nothing to choose.
    """

    name: str
    grids: Sequence[int]
    tolerances: Sequence[float]
    prepare: Callable[[Case, int, float], Solver]
    knob: str = ""


def ladder(low: int, high: int, steps: int = 8, multiple: int = 1) -> list[int]:
    """Grid sizes from low to high, `steps` to the doubling, rounded to a multiple.

    Examples
    --------
    >>> ladder(8, 32, 2)
    [8, 11, 16, 23, 32]
    """
    count = round(steps * np.log2(high / low))
    sizes = multiple * np.round(low * 2.0 ** (np.arange(count + 1) / steps) / multiple).astype(int)
    return sorted({int(size) for size in sizes})
