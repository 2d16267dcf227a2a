"""findiff on a 2-torus: periodic differences of high order, stepped by findiff itself or as a sparse matrix by scipy."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import integrate, sparse

from . import Case, Family, Solver

_ORDERS = (6, 8, 10, 12)
_STEPPERS = ("expm_multiply", "DOP853", "RK45", "rk4", "crank-nicolson")


def families(case: Case, method: str) -> list[Family]:
    """Every order with every stepper; the tolerance is solve_ivp's rtol, for findiff's own 1 / number of steps."""
    grids = list(range(16, 97, 4))
    rtols = [case.error * factor for factor in (300, 100, 30, 10, 3, 1, 0.3)]
    tolerances = {
        "expm_multiply": [0.0],
        "rk4": [1 / steps for steps in (16, 24, 32, 48, 64, 96, 128, 192)],
        "crank-nicolson": [1 / steps for steps in (64, 128, 256, 512)],
    }
    return [
        Family(f"order {acc}, {stepper}", grids, tolerances.get(stepper, rtols), partial(_prepare, acc, stepper))
        for stepper in _STEPPERS
        for acc in _ORDERS
    ]


def _prepare(acc: int, stepper: str, case: Case, grid: int, tolerance: float) -> Solver:
    from findiff import BoundaryConditions, Diff, TimeDependentPDE

    points, shape, spacing = case.nodes(grid), (grid, grid), case.length / grid
    drift = 2 * case.score(points).T.reshape(2, *shape)
    first = [Diff(k, spacing, periodic=True, acc=acc) for k in range(2)]
    operator = first[0] ** 2 + first[1] ** 2 + drift[0] * first[0] + drift[1] * first[1]
    start = case.initial(points)
    if stepper in ("rk4", "crank-nicolson"):
        times = np.linspace(0, case.t, round(1 / tolerance) + 1)
        problem = TimeDependentPDE(operator, start.reshape(shape), BoundaryConditions(shape), times)
        return Solver(lambda _: problem.solve(stepper), lambda field: (points, field.reshape(-1)))
    matrix = sparse.csr_array(operator.matrix(shape))
    if stepper == "expm_multiply":
        generator = matrix * case.t
        trace = generator.trace()
        return Solver(lambda _: sparse.linalg.expm_multiply(generator, start, traceA=trace), lambda H: (points, H))
    options = {"method": stepper, "rtol": tolerance, "atol": tolerance / 10, "t_eval": [case.t]}

    def step(_) -> np.ndarray:
        return integrate.solve_ivp(lambda t, H: matrix @ H, (0, case.t), start, **options).y[:, -1]

    return Solver(step, lambda H: (points, H))
