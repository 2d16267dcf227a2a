"""attnflow on a case: the whole solve, its choice of grid and its error estimate included."""

from __future__ import annotations

import numpy as np

import attnflow as af

from . import Case, Family, Solver

_SOLVERS = {"attnflow": "auto", "attnflow, finite volumes": "finite-volume"}


def families(case: Case, method: str) -> list[Family]:
    """One family: the grid is chosen by attnflow, the tolerance is its rtol."""
    tolerances = [case.error * factor for factor in (100, 30, 10, 5, 3, 2, 1, 0.5, 0.25, 0.1)]

    def prepare(case: Case, _grid: int, rtol: float) -> Solver:
        return prepare_solver(case, rtol, _SOLVERS[method])

    return [Family("chosen grid", [0], tolerances, prepare)]


def prepare_solver(case: Case, rtol: float, method: str) -> Solver:
    """A new equation for every solve, so that nothing is carried over from the solve before."""

    def fresh() -> af.DriftDiffusion:
        sides = [case.length] * case.dim
        if case.metric is not None:
            space = af.Chart(case.metric, [(0.0, side) for side in sides], periodic=case.periodic)
        else:
            space = af.Torus(sides) if case.periodic else af.Box([(0.0, side) for side in sides])
        return af.DriftDiffusion(af.Density(space, case.log_density))

    def step(pde: af.DriftDiffusion) -> af.Solution:
        return pde.solve(case.initial, case.t, rtol=rtol, method=method)

    def read(solution: af.Solution) -> tuple[np.ndarray, np.ndarray]:
        return solution.grid.points, solution.y[-1].reshape(-1)

    return Solver(step, read, fresh)
