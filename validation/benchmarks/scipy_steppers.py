"""scipy on finite volumes: solve_ivp's implicit methods with the sparse Jacobian, and expm_multiply."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import integrate, sparse

from . import Case, Family, Solver, ladder
from .finite_volumes import assemble

_GRIDS = {1: ladder(256, 16384), 2: ladder(32, 1024, multiple=4), 3: ladder(16, 96, multiple=4)}


def families(case: Case, method: str) -> list[Family]:
    """The tolerance is solve_ivp's rtol, its atol a tenth of it; expm_multiply has none."""
    grids = _GRIDS[case.dim]
    if method == "expm_multiply":
        return [Family("finite volumes", grids, [0.0], _prepare_expm)]
    tolerances = [case.error * factor for factor in (300, 100, 30, 10, 3, 1, 0.3, 0.1)]
    return [Family("finite volumes", grids, tolerances, partial(_prepare_ivp, method))]


def _prepare_ivp(method: str, case: Case, grid: int, rtol: float) -> Solver:
    operator, points = assemble(case, grid)
    jacobian, start = sparse.csc_matrix(operator), case.initial(points)

    def step(_) -> np.ndarray:
        options = {"method": method, "jac": jacobian, "rtol": rtol, "atol": rtol / 10, "t_eval": [case.t]}
        return integrate.solve_ivp(lambda t, H: operator @ H, (0, case.t), start, **options).y[:, -1]

    return Solver(step, lambda values: (points, values))


def _prepare_expm(case: Case, grid: int, _tolerance: float) -> Solver:
    operator, points = assemble(case, grid)
    generator, start = operator * case.t, case.initial(points)
    trace = generator.trace()
    return Solver(lambda _: sparse.linalg.expm_multiply(generator, start, traceA=trace), lambda values: (points, values))
