"""Which method solves a problem, and how well: spectral where the data are smooth, cells where they are not."""

from __future__ import annotations

import numpy as np

from ..solution import Solution
from .boundaries import sides
from .generator import Generator
from .grids import wrapping
from .harmonics import solve as harmonics
from .nodes import solve as nodes
from .problem import Problem
from .volumes import solve as volumes
from .volumes.march import INTEGRATORS
from .volumes.sampling import sees_nothing
from .volumes.solve import Assemble

METHODS = ("auto", "spectral", "finite-volume", *INTEGRATORS)
_LOOSE = 5e-6  # rtol above which finite volumes are faster between walls,
_CROWDED = 24  # unless so many per axis see nothing


def solve_problem(
    generator: Generator,
    problem: Problem,
    shape: tuple[int, ...] | None,
    rtol: float,
    method: str,
    assemble: Assemble,
    self_adjoint: bool,
) -> Solution:
    """The solution on cells, or by a spectral method where the equation is self-adjoint and that suits.

    Parameters
    ----------
    generator, problem
    shape : tuple of int or None
        A grid that is kept; None: refined until the estimated error is below rtol.
    rtol : float
    method : str
        One of METHODS.
    assemble : callable
        Cells per axis -> the operator on them.
    self_adjoint : bool

    Raises
    ------
    ValueError
        If the method asked for cannot solve the problem.
    """
    if not self_adjoint and method == "spectral":
        raise ValueError(f"method must not be {method!r} for an equation that is not self-adjoint; use 'auto'")
    if self_adjoint and _spectral_suits(generator, problem, shape, rtol, method):
        spectral = harmonics if generator.on_globe else nodes
        if shape is not None:
            return spectral.solve_given(generator, problem, shape)
        solution = spectral.solve_refined(generator, problem, rtol, insist=method == "spectral")
        if solution is not None:
            return solution
    integrator = method if method in INTEGRATORS else "auto"
    if shape is not None:
        return volumes.solve_given(generator, problem, shape, integrator, assemble)
    return volumes.solve_refined(generator, problem, rtol, integrator, assemble)


def _spectral_suits(generator: Generator, problem: Problem, shape: tuple[int, ...] | None, rtol: float, method: str) -> bool:
    added = problem.source
    if method == "spectral" and added is not None and (generator.on_globe or not added.affine):
        raise ValueError(
            "method must be 'finite-volume' or 'auto' with a source on a sphere, or one that is not s(x) + r(x) H, got 'spectral'"
        )
    if added is not None and (generator.on_globe or not added.affine):
        return False
    if generator.on_globe:
        if method == "spectral" and problem.backend != "numpy":
            raise ValueError(f"backend must be 'numpy' for spherical harmonics, got {problem.backend!r}")
        return method == "spectral" or (method == "auto" and shape is None and problem.backend == "numpy")
    bounded = bool(np.isfinite(generator.space.bounds).all())
    walled = not all(wrapping(generator.space))
    moving = any(side.moves for side in sides(problem.walls))
    if method == "spectral" and (not bounded or moving or (walled and not callable(problem.initial))):
        raise ValueError(
            "method must be 'finite-volume' or 'auto' on endless lines, where a wall changes in time, and "
            f"between walls when initial is an array of cell values, got {method!r}"
        )
    if method != "auto" or not bounded or moving:
        return method == "spectral"
    if walled and (shape is not None or not callable(problem.initial)):
        return False  # the nodes of a given grid between walls are cell centres
    if walled and generator.space.dim > 1 and rtol > _LOOSE:
        return (
            sees_nothing(generator, problem, (_CROWDED,) * generator.space.dim)
            and nodes.smooth_sizes(generator, problem, rtol) is not None
        )
    return shape is None or (nodes.is_affordable(generator, shape) and nodes.smooth_sizes(generator, problem, rtol) is not None)
