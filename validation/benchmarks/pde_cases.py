"""The problems on which the equation solvers are timed, each with a spectral solution to compare with.

On a torus the reference is Fourier collocation, integrated in time to 1e-12. In a box it is a Galerkin
solution in Legendre polynomials, exact in time through its eigenvectors. Neither uses attnflow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np
from numpy.polynomial import legendre
from scipy import integrate, linalg

from . import Case

_CHUNK = 4096  # points evaluated at a time


def fourier_solution(case: Case, modes: int) -> Callable[[np.ndarray], np.ndarray]:
    """H at case.t by Fourier collocation on `modes` (odd) nodes per axis.

    Raises
    ------
    ValueError
        If modes is even: its highest mode would have no derivative.
    """
    if modes % 2 == 0:
        raise ValueError(f"modes must be odd, got {modes}")
    points, shape = case.nodes(modes), (modes,) * case.dim
    drift = [2 * component.reshape(shape) for component in case.score(points).T]
    wave = 2j * np.pi / case.length * np.fft.fftfreq(modes, 1 / modes)
    first = np.fft.ifft(wave[:, None] * np.fft.fft(np.eye(modes), axis=0), axis=0).real
    second = first @ first

    def rate(_, flat: np.ndarray) -> np.ndarray:
        H = flat.reshape(shape)
        total = np.zeros(shape)
        for k in range(case.dim):
            total += _along(second, H, k) + drift[k] * _along(first, H, k)
        return total.ravel()

    start = case.initial(points)
    run = integrate.solve_ivp(rate, (0, case.t), start, "DOP853", rtol=3e-14, atol=1e-14)
    coefficients = np.fft.fftn(run.y[:, -1].reshape(shape), norm="forward")

    def basis(x: np.ndarray) -> np.ndarray:
        return np.exp(x[:, None] * wave)

    return partial(_evaluate, [basis] * case.dim, coefficients)


def legendre_solution(case: Case, degree: int) -> Callable[[np.ndarray], np.ndarray]:
    """H at case.t by Galerkin's method with products of Legendre polynomials; no-flux is its natural wall.

    With B = (phi_i, phi_j)_w and A = (grad phi_i, K grad phi_j): c(t) = V exp(-lambda t) V' (phi, H0)_w, where
    A V = B V diag(lambda) and V' B V = 1.
    """
    node, quadrature = legendre.leggauss(degree + 24)
    points = np.stack(np.meshgrid(*[(node + 1) * case.length / 2] * case.dim, indexing="ij"), axis=-1)
    points = points.reshape(-1, case.dim)
    dx = reduce(np.multiply.outer, [quadrature * case.length / 2] * case.dim).ravel()
    polynomial = legendre.legvander(node, degree)
    slope = legendre.legval(node, legendre.legder(np.eye(degree + 1))).T * 2 / case.length
    value = reduce(np.kron, [polynomial] * case.dim)
    gradient = [reduce(np.kron, [slope if j == k else polynomial for j in range(case.dim)]) for k in range(case.dim)]

    weight, K = case.weight(points) * dx, case.diffusion(points) * dx[:, None, None]
    mass = value.T @ (weight[:, None] * value)
    flux = [sum(K[:, k, j, None] * gradient[j] for j in range(case.dim)) for k in range(case.dim)]
    stiffness = sum(gradient[k].T @ flux[k] for k in range(case.dim))
    rates, vectors = linalg.eigh((stiffness + stiffness.T) / 2, mass)
    moments = value.T @ (weight * case.initial(points))
    coefficients = vectors @ (np.exp(-rates * case.t) * (vectors.T @ moments))

    def basis(x: np.ndarray) -> np.ndarray:
        return legendre.legvander(2 * x / case.length - 1, degree)

    return partial(_evaluate, [basis] * case.dim, coefficients.reshape((degree + 1,) * case.dim))


def _along(matrix: np.ndarray, H: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, H, (1, axis)), 0, axis)


def _evaluate(bases: list[Callable], coefficients: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The real part of the series at points (N, dim): (N,)."""
    parts = []
    for x in np.array_split(points, max(1, len(points) // _CHUNK)):
        total = bases[0](x[:, 0]) @ coefficients.reshape(len(coefficients), -1)
        for k, basis in enumerate(bases[1:], start=1):
            total = np.einsum("mi,mij->mj", basis(x[:, k]), total.reshape(len(x), coefficients.shape[k], -1))
        parts.append(total[:, 0].real)
    return np.concatenate(parts)


def _circle(error: float) -> Case:
    kappa = 1.5
    case = Case(
        "circle",
        "circle, von Mises 1.5, t = 0.5",
        1,
        2 * np.pi,
        True,
        0.5,
        error,
        log_density=lambda x: kappa * np.cos(x[..., 0]),
        score=lambda x: -kappa * np.sin(x),
        initial=lambda x: np.sin(x[..., 0]) + np.cos(2 * x[..., 0]),
        reference=lambda: fourier_solution(case, 61),
    )
    return case


def _torus(name: str, error: float) -> Case:
    def log_density(x: np.ndarray) -> np.ndarray:
        return np.cos(x[..., 0]) + 0.7 * np.cos(x[..., 1]) + 0.5 * np.cos(x[..., 0] - x[..., 1])

    def score(x: np.ndarray) -> np.ndarray:
        both = 0.5 * np.sin(x[..., 0] - x[..., 1])
        return np.stack([-np.sin(x[..., 0]) - both, -0.7 * np.sin(x[..., 1]) + both], axis=-1)

    def initial(x: np.ndarray) -> np.ndarray:
        a, b = x[..., 0], x[..., 1]
        return np.sin(a) * np.cos(b) + np.cos(2 * a - b) + 0.3 * np.sin(3 * b)

    case = Case(
        name,
        "2-torus, three-cosine density, t = 0.25",
        2,
        2 * np.pi,
        True,
        0.25,
        error,
        log_density,
        score,
        initial,
        reference=lambda: fourier_solution(case, 49),
    )
    return case


def _box(name: str, error: float) -> Case:
    """Off-diagonal entries up to half the smaller diagonal one; they vanish at the corners only."""

    def metric(x: np.ndarray) -> np.ndarray:
        a, b = x[..., 0], x[..., 1]
        across = 0.5 * np.sin(a + b)
        rows = [1.2 + 0.2 * np.cos(a), across], [across, 1.1 + 0.1 * np.cos(2 * b)]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    def score(x: np.ndarray) -> np.ndarray:
        a, b = x[..., 0], x[..., 1]
        return np.stack([-0.4 * np.sin(a) * (1 + 0.5 * np.cos(b)), -np.sin(b) * (0.3 + 0.2 * np.cos(a))], axis=-1)

    case = Case(
        name,
        "off-diagonal metric in a no-flux box, t = 0.25",
        2,
        np.pi,
        False,
        0.25,
        error,
        log_density=lambda x: 0.4 * np.cos(x[..., 0]) + (0.3 + 0.2 * np.cos(x[..., 0])) * np.cos(x[..., 1]),
        score=score,
        # flat at the walls, so that no flux is asked for at time 0
        initial=lambda x: np.prod(np.sin(x) ** 2, axis=-1) * (1 + 0.5 * np.cos(x[..., 0])),
        reference=lambda: legendre_solution(case, 27),
        metric=metric,
    )
    return case


def _cube(error: float) -> Case:
    """So gentle that second-order differences on 64^3 cells reach 1e-4."""

    def log_density(x: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(x, -1, 0)
        return 0.2 * np.cos(a) + 0.1 * np.cos(b) + 0.2 * np.cos(b - c)

    def score(x: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(x, -1, 0)
        both = 0.2 * np.sin(b - c)
        return np.stack([-0.2 * np.sin(a), -0.1 * np.sin(b) - both, both], axis=-1)

    def initial(x: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(x, -1, 0)
        return np.sin(a) + 0.2 * np.cos(b) * np.sin(c) + 0.1 * np.cos(a - c)

    case = Case(
        "cube",
        "3-torus, three-cosine density, t = 0.05",
        3,
        2 * np.pi,
        True,
        0.05,
        error,
        log_density,
        score,
        initial,
        reference=lambda: fourier_solution(case, 25),
    )
    return case


CASES = {
    case.name: case
    for case in (
        _circle(1e-6),
        _torus("torus", 1e-4),
        _torus("torus-fine", 1e-6),
        _box("box", 1e-4),
        _box("box-fine", 1e-6),
        _cube(1e-4),
    )
}
