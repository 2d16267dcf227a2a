"""Metric tensors from sympy matrices, and from the Jacobians of maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import checks
from .differences import gradient
from .spaces import Space


def from_sympy(matrix, dim: int) -> Callable:
    """A sympy Matrix in x0, x1, ... as a callable on points (N, n)."""
    import sympy

    if not isinstance(matrix, sympy.MatrixBase) or matrix.shape != (dim, dim):
        raise ValueError(f"metric must be a sympy Matrix of shape {(dim, dim)}, got {checks.short(matrix)}")
    symbols = [sympy.Symbol(f"x{k}") for k in range(dim)]
    # assumptions (real=True) make symbols of the same name differ
    matrix = matrix.subs({s: symbols[k] for s in matrix.free_symbols for k in range(dim) if s.name == f"x{k}"})
    strange = matrix.free_symbols - set(symbols)
    if strange:
        raise ValueError(f"metric must be in the symbols x0 to x{dim - 1}, got {sorted(map(str, strange))}")
    entries = sympy.lambdify(symbols, list(matrix), "numpy", cse=True)

    def metric(x: np.ndarray) -> np.ndarray:
        values = entries(*x.T)
        return np.stack([np.broadcast_to(v, len(x)) for v in values], axis=-1).reshape(len(x), dim, dim)

    return metric


def differentiate(phi: Callable, domain: Space) -> Callable:
    """The Jacobian (..., m, n) of phi by checked differences that stay inside the walls."""

    def image(x: np.ndarray) -> np.ndarray:
        y = checks.array(phi(x), "phi(x)")
        if y.ndim != x.ndim or y.shape[:-1] != x.shape[:-1]:
            raise ValueError(f"phi must map points of shape {x.shape} to (..., m), got shape {y.shape}")
        return y

    return lambda x: gradient(image, x, "phi", domain)


def pull_back(derivative: Callable, dim: int) -> Callable:
    """g = J'J at points (N, n), refused where J has not full rank."""

    def metric(x: np.ndarray) -> np.ndarray:
        J = checks.array(derivative(x), "jacobian")
        if J.ndim != 3 or J.shape[0] != len(x) or J.shape[2] != dim:
            raise ValueError(f"jacobian must return shape ({len(x)}, m, {dim}) for {len(x)} points, got {J.shape}")
        singular = np.linalg.svd(J, compute_uv=False)
        flat = singular[:, -1] <= 1e-7 * singular[:, 0] if J.shape[1] >= dim else np.ones(len(x), dtype=bool)
        if flat.any():
            i = int(np.argmax(flat))
            raise ValueError(f"phi must have a Jacobian of full rank {dim}, got {checks.entries(J[i])} at x = {checks.entries(x[i])}")
        return np.swapaxes(J, 1, 2) @ J

    return metric


def compare(jacobian: Callable, numerical: Callable, x: np.ndarray) -> None:
    """Refuse a Jacobian that is not the numerical one."""
    given, found = jacobian(x), numerical(x)
    off = given.shape != found.shape or np.abs(given - found).max(axis=(1, 2)) > 1e-4 * (1 + np.abs(found).max())
    if np.any(off):
        i = int(np.argmax(off))
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
