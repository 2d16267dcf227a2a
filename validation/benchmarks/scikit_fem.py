"""scikit-fem in a box: quadratic elements, and one-step methods whose factorised matrix serves every step.

M du/dt = -A u with M_ij = (phi_i, phi_j)_w and A_ij = (grad phi_i, K grad phi_j); no-flux walls are natural.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.sparse.linalg import splu

from . import Case, Family, Solver, ladder

_STEPPERS = ("Radau IIA 3", "Crank-Nicolson", "BDF2")


def families(case: Case, method: str) -> list[Family]:
    """Squares and triangles with each stepper; the tolerance is 1 / number of steps."""
    tolerances = [1 / steps for steps in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)]
    return [
        Family(f"{element}, {stepper}", ladder(6, 96), tolerances, partial(_prepare, element, stepper))
        for stepper in _STEPPERS
        for element in ("Q2", "P2")
    ]


def _prepare(element: str, stepper: str, case: Case, cells: int, tolerance: float) -> Solver:
    mass, stiffness, start, points = assemble(element, case, cells)
    steps = round(1 / tolerance)
    advance = {"Radau IIA 3": _radau, "Crank-Nicolson": _crank_nicolson, "BDF2": _bdf2}[stepper]
    return Solver(lambda _: advance(mass, stiffness, start, case.t / steps, steps), lambda u: (points, u))


def assemble(element: str, case: Case, cells: int):
    """Mass and stiffness matrices (csc), initial nodal values (N,) and the nodes (N, dim)."""
    from skfem import Basis, BilinearForm, ElementQuad2, ElementTriP2, MeshQuad, MeshTri
    from skfem.helpers import dot, grad, mul

    ticks = np.linspace(0, case.length, cells + 1)
    mesh, kind = {"Q2": (MeshQuad, ElementQuad2), "P2": (MeshTri, ElementTriP2)}[element]
    basis = Basis(mesh.init_tensor(ticks, ticks), kind(), intorder=5)
    x = np.moveaxis(basis.global_coordinates(), 0, -1)
    K = np.moveaxis(case.diffusion(x), (-2, -1), (0, 1))

    @BilinearForm
    def mass(u, v, w):
        return w.weight * u * v

    @BilinearForm
    def stiffness(u, v, w):
        return dot(mul(w.K, grad(u)), grad(v))

    points = basis.doflocs.T
    matrices = mass.assemble(basis, weight=case.weight(x)), stiffness.assemble(basis, K=K)
    return *(matrix.tocsc() for matrix in matrices), case.initial(points), points


def _crank_nicolson(mass, stiffness, u: np.ndarray, dt: float, steps: int) -> np.ndarray:
    solve = _factorise(mass + dt / 2 * stiffness)
    for _ in range(steps):
        u = u - dt * solve(stiffness @ u)
    return u


def _bdf2(mass, stiffness, u: np.ndarray, dt: float, steps: int) -> np.ndarray:
    """Its first step is one of Crank-Nicolson."""
    before, u = u, _crank_nicolson(mass, stiffness, u, dt, 1)
    solve = _factorise(mass + 2 / 3 * dt * stiffness)
    for _ in range(steps - 1):
        before, u = u, solve(mass @ ((4 * u - before) / 3))
    return u


def _radau(mass, stiffness, u: np.ndarray, dt: float, steps: int) -> np.ndarray:
    """r(z) = (1 + z/3) / (1 - 2z/3 + z^2/6), z = -dt M^-1 A, as 2 Re(c (1 - z/pole)^-1): one complex factorisation."""
    pole = 2 + 1j * np.sqrt(2)
    residue = (1 + pole / 3) / (1 - pole / pole.conjugate())
    solve = _factorise(mass + dt / pole * stiffness)
    for _ in range(steps):
        u = 2 * (residue * solve((mass @ u).astype(complex))).real
    return u


def _factorise(matrix) -> Callable[[np.ndarray], np.ndarray]:
    """Symmetric pattern, and no pivoting needed: the fastest of SuperLU's orderings."""
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve
