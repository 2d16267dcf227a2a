"""py-pde on a case: its own explicit steppers compiled by numba, or scipy's implicit ones around its compiled rate."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import sparse

from . import Case, Family, Solver, ladder

_GRIDS = {1: ladder(256, 16384), 2: ladder(32, 1024, multiple=4)}
_STABLE = 0.95  # of the largest stable step
_INTERVAL = 2.0  # of the negative real axis on which Euler is stable


def families(case: Case, method: str) -> list[Family]:
    """Fixed steps near the stability limit; or BDF and Radau through scipy.

    A step at the limit shrinks as spacing squared, so it needs no tolerance of its own. Adaptive steps end up
    at the same limit, with more rates per step, and so does Runge-Kutta: three times the time of Euler at equal
    error on the circle, where all of it is error in space.
    """
    grids = _GRIDS[case.dim]
    if method == "py-pde, scipy stepper":
        rtols = [case.error * factor for factor in (30, 3, 0.3, 0.03)]
        return [Family(name, grids, rtols, partial(_prepare_scipy, name), "rtol {:g}") for name in ("BDF", "Radau")]
    return [Family(name, grids, [_STABLE], partial(_prepare_fixed, name)) for name in ("euler",)]


def _equation(case: Case, size: int):
    """The equation, its initial state and its largest rate.

    On a torus Delta H + 2 grad log p . grad H, whose stencils are compact; with a metric the tensor form, where
    the flux vanishes at the walls and the gradient next to them is extrapolated.
    """
    import pde

    pde.config["backend.numba.multithreading"] = "never"
    grid = pde.CartesianGrid([[0, case.length]] * case.dim, size, periodic=case.periodic)
    points, spacing = grid.cell_coords, case.length / size
    state = pde.ScalarField(grid, case.initial(points))
    if case.metric is None:
        drift = 2 * case.score(points)
        terms = [f"b{axis} * d_d{axis}(H)" for axis in grid.axes]
        consts = {f"b{axis}": pde.ScalarField(grid, drift[..., k]) for k, axis in enumerate(grid.axes)}
        equation = pde.PDE({"H": " + ".join(["laplace(H)", *terms])}, consts=consts)
        return equation, state, 4 * case.dim / spacing**2
    K, weight = case.diffusion(points), case.weight(points)
    consts = {"K": pde.Tensor2Field(grid, np.moveaxis(K, (-2, -1), (0, 1))), "iw": pde.ScalarField(grid, 1 / weight)}
    walls = {"H:gradient": {"*": {"curvature": 0}}, "H:divergence": {"*": {"normal_value": 0}}}
    equation = pde.PDE({"H": "iw * divergence(dot(K, gradient(H)))"}, consts=consts, bc_ops=walls)
    rates = np.linalg.eigvalsh(K / weight[..., None, None]).max(initial=0.0)
    return equation, state, case.dim * rates / spacing**2  # central differences of central differences


def _prepare_fixed(name: str, case: Case, size: int, fraction: float) -> Solver:
    equation, state, rate = _equation(case, size)
    steps = int(np.ceil(case.t * rate / (fraction * _INTERVAL)))
    return _solver(case, equation, state, name, case.t / steps)


def _prepare_scipy(name: str, case: Case, size: int, rtol: float) -> Solver:
    equation, state, _ = _equation(case, size)
    options = {"method": name, "rtol": rtol, "atol": rtol / 10, "jac_sparsity": _pattern(case, size)}
    return _solver(case, equation, state, "scipy", None, **options)


def _solver(case: Case, equation, state, name: str, dt: float | None, **options) -> Solver:
    """make_stepper compiles; calling the stepper is what Controller.run does between two trackers."""
    from pde.solvers import SolverBase

    solver = SolverBase.from_name(name, equation, backend="numba", **options)
    stepper = solver.make_stepper(state, dt)
    points = state.grid.cell_coords.reshape(-1, case.dim)

    def step(field):
        stepper(field, 0.0, case.t)
        return field

    return Solver(step, lambda field: (points, field.data.reshape(-1)), state.copy)


def _pattern(case: Case, size: int) -> sparse.csc_matrix:
    """Which values a rate depends on: nearest neighbours; two cells in every direction for the tensor form."""
    reach = 1 if case.metric is None else 2
    band = sum(sparse.eye_array(size, k=k) for k in range(-reach, reach + 1))
    if case.periodic:
        band = band + sparse.eye_array(size, k=size - 1) + sparse.eye_array(size, k=1 - size)
    eye = sparse.eye_array(size)
    if case.dim == 1:
        return sparse.csc_matrix(band)
    if case.metric is not None:
        return sparse.csc_matrix(sparse.kron(band, band))
    return sparse.csc_matrix(sparse.kron(band, eye) + sparse.kron(eye, band))
