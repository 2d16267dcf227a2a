"""Metric tensors from sympy matrices, and from the Jacobians of maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import checks
from .differences import gradient
from .spaces import Space


class SympyMetric:
    """A sympy Matrix in x0, x1, ... as a callable on points (N, n)."""

    def __init__(self, matrix, dim: int) -> None:
        import sympy

        if not isinstance(matrix, sympy.MatrixBase) or matrix.shape != (dim, dim):
            raise ValueError(f"metric must be a sympy Matrix of shape {(dim, dim)}, got {checks.short(matrix)}")
        self._symbols = [sympy.Symbol(f"x{k}") for k in range(dim)]
        # assumptions (real=True) make symbols of the same name differ
        self._matrix = matrix.subs({s: self._symbols[k] for s in matrix.free_symbols for k in range(dim) if s.name == f"x{k}"})
        strange = self._matrix.free_symbols - set(self._symbols)
        if strange:
            raise ValueError(f"metric must be in the symbols x0 to x{dim - 1}, got {sorted(map(str, strange))}")
        self._compile()

    def _compile(self) -> None:
        import sympy

        self._entries = sympy.lambdify(self._symbols, list(self._matrix), "numpy", cse=True)

    def __repr__(self) -> str:
        return str(self._matrix.tolist())

    def _description_(self) -> dict[str, str]:
        return {"entries": repr(self)}

    @property
    def latex(self) -> str:
        import sympy

        return sympy.latex(self._matrix, mat_delim="", mat_str="pmatrix")

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_entries"}  # functions made by sympy stay

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._compile()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        values, dim = self._entries(*x.T), len(self._symbols)
        return np.stack([np.broadcast_to(v, len(x)) for v in values], axis=-1).reshape(len(x), dim, dim)


@dataclass(frozen=True)
class Jacobian:
    """The Jacobian (..., m, n) of phi by checked differences that stay inside the walls."""

    phi: Callable
    domain: Space

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return gradient(self._image, x, "phi", self.domain)

    def _image(self, x: np.ndarray) -> np.ndarray:
        y = checks.array(self.phi(x), "phi(x)")
        if y.ndim != x.ndim or y.shape[:-1] != x.shape[:-1]:
            raise ValueError(f"phi must map points of shape {x.shape} to (..., m), got shape {y.shape}")
        return y


@dataclass(frozen=True)
class PulledBack:
    """g = J'J at points (N, n), refused where J has not full rank."""

    derivative: Callable
    dim: int
    latex = r"J^\top J, \quad J = \nabla \varphi"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        J, dim = checks.array(self.derivative(x), "jacobian"), self.dim
        if J.ndim != 3 or J.shape[0] != len(x) or J.shape[2] != dim:
            raise ValueError(f"jacobian must return shape ({len(x)}, m, {dim}) for {len(x)} points, got {J.shape}")
        singular = np.linalg.svd(J, compute_uv=False)
        flat = singular[:, -1] <= 1e-7 * singular[:, 0] if J.shape[1] >= dim else np.ones(len(x), dtype=bool)
        if flat.any():
            i = int(np.argmax(flat))
            raise ValueError(
                f"phi must have a Jacobian of full rank {dim}, got {checks.entries(J[i])} at x = {checks.entries(x[i])}"
            )
        return np.swapaxes(J, 1, 2) @ J


def compare(jacobian: Callable, numerical: Callable, x: np.ndarray) -> None:
    """Refuse a Jacobian that is not the numerical one."""
    given, found = checks.array(jacobian(x), "jacobian(points)"), numerical(x)
    if given.shape != found.shape:
        raise ValueError(f"jacobian must return shape {found.shape} for points of shape {x.shape}, got {given.shape}")
    off = np.abs(given - found).max(axis=(-2, -1)) > 1e-4 * (1 + np.abs(found).max())
    if np.any(off):
        i = tuple(np.argwhere(off)[0])
        raise ValueError(
            f"jacobian must be the derivative of phi, got {checks.entries(given[i])} at x = {checks.entries(x[i])}, "
            f"where differences of phi give {checks.entries(found[i])}"
        )


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Of small matrices (..., n, n): closed for n = 2, ten times faster than a factorisation of each."""
    if matrix.shape[-1] != 2:
        return np.linalg.inv(matrix)
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    result = np.empty_like(matrix)
    result[..., 0, 0], result[..., 0, 1], result[..., 1, 0], result[..., 1, 1] = d, -b, -c, a
    result /= (a * d - b * c)[..., None, None]
    return result


def determinant(matrix: np.ndarray) -> np.ndarray:
    """Of small matrices (..., n, n): (...)."""
    if matrix.shape[-1] != 2:
        return np.linalg.det(matrix)
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
