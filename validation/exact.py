"""Equations whose solutions are known: closed forms, and what has none from another form of the equation.

Solutions without a closed form come from the Schroedinger form of the equation: psi = p H obeys

    d psi / dt = Delta psi - U psi,    U = Delta p / p,

solved here by a dense Fourier matrix that shares nothing with attnflow/pde.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

import attnflow as af
from attnflow.pde import ConformalHeat, DriftDiffusion, FokkerPlanck, Heat

TAU = 2 * np.pi


@dataclass(frozen=True)
class Case:
    """An equation, its solution, and where and in which norm the two are compared.

    Attributes
    ----------
    name : str
    pde : DriftDiffusion
    initial, exact : callable
        Points (N, n) -> (N,) or (N, c) at times 0 and t.
    t : float
    cells : sequence of int
        The coarsest given grid; the others have twice and four times as many cells per axis.
    points : (N, n) array
        Quadrature nodes of equal weight, on no grid.
    weight : callable
        Points (N, n) -> (N,): the weight of the norm that rtol speaks of.
    boundary
        As for `DriftDiffusion.solve`.
    extrapolated : int or None
        Order after one Richardson step: 4, or 3 between walls that are Dirichlet (half a cell from the nodes) or not
        square to the metric; None on the sphere, where the error over h^2 depends on h near the poles.
    """

    name: str
    pde: DriftDiffusion
    initial: Callable
    exact: Callable
    t: float
    cells: Sequence[int]
    points: np.ndarray
    weight: Callable
    boundary: object = None
    extrapolated: int | None = 4

    def error(self, values: np.ndarray, points: np.ndarray, volumes: np.ndarray | float = 1.0) -> float:
        """Relative weighted L2 error of values (N, c) at quadrature nodes and volumes, worst column."""
        start, end = (_columns(function(points)) for function in (self.initial, self.exact))
        weight = self.weight(points) * volumes
        error, *scales = (np.sqrt(weight @ v**2) for v in (values - end, start, end))
        return float(np.max(error / np.maximum(*scales)))


def schroedinger(log_p: Callable, initial: Callable, t: float, nodes: int, dim: int = 1) -> Callable:
    """The solution at time t on a flat torus of periods 2 pi, as a callable on points (N, dim).

    `nodes`, odd, per axis.
    """
    wave = np.arange(nodes) - nodes // 2
    x = TAU * np.arange(nodes) / nodes
    modes = np.exp(1j * np.outer(x, wave))
    second = np.real(modes * -(wave.astype(float) ** 2) @ modes.conj().T) / nodes
    identity = np.eye(nodes)
    laplacian = second if dim == 1 else np.kron(second, identity) + np.kron(identity, second)
    points = np.stack([c.ravel() for c in np.meshgrid(*[x] * dim, indexing="ij")], axis=-1)
    r = np.exp(log_p(points))
    eigenvalues, vectors = np.linalg.eigh(laplacian - np.diag(laplacian @ r / r))
    psi = vectors @ (np.exp(t * eigenvalues)[:, None] * (vectors.T @ (r[:, None] * _columns(initial(points)))))
    spectrum = np.fft.fftn(psi.reshape(*[nodes] * dim, -1), axes=range(dim)) / nodes**dim
    spectrum = np.fft.fftshift(spectrum, axes=range(dim)).reshape(nodes**dim, -1)

    def exact(at: np.ndarray) -> np.ndarray:
        basis = np.exp(1j * at[:, :1] * wave)
        for k in range(1, dim):
            basis = (basis[:, :, None] * np.exp(1j * at[:, k : k + 1] * wave)[:, None]).reshape(len(at), -1)
        return np.real(basis @ spectrum) / np.exp(log_p(at))[:, None]

    return exact


def _columns(values: np.ndarray) -> np.ndarray:
    return values[:, None] if values.ndim == 1 else values


def rule(bounds: Sequence[tuple[float, float]], size: int) -> np.ndarray:
    """Midpoints of a lattice shifted off the nodes of any grid used here."""
    shift = 0.5 + 0.1 / np.sqrt(2)
    axes = [low + (high - low) * (np.arange(size) + shift) / size for low, high in bounds]
    return np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=-1)


def line() -> Case:
    sigma, m, t = 0.7, 0.2, 0.15

    def exact(x):
        decay = np.exp(-(sigma**2) / 4 * (1 - np.exp(-4 * t / sigma**2)))
        return decay * np.cos(m + (x[:, 0] - m) * np.exp(-2 * t / sigma**2))

    points = rule([(m - 5 * sigma, m + 5 * sigma)], 400)
    density = af.Gaussian(m, sigma**2)
    pde, weight = DriftDiffusion(density), _squared(density)
    return Case("Gaussian tokens on a line", pde, lambda x: np.cos(x[:, 0]), exact, t, [64], points, weight)


def circle() -> Case:
    density, points = af.VonMises(1.5), rule([(0, TAU)], 400)

    def initial(x):
        return np.sin(x[:, 0]) + np.cos(2 * x[:, 0])

    exact = schroedinger(lambda x: 1.5 * np.cos(x[..., 0]), initial, 0.5, 81)
    return Case("circle, von Mises 1.5", DriftDiffusion(density), initial, exact, 0.5, [64], points, _squared(density))


def walls(kind: str, b: float, k: int = 2, t: float = 0.3) -> Case:
    def mode(x):
        x = x[:, 0]
        if kind == "no-flux":
            return np.exp(-b * x) * (k * np.cos(k * x) + b * np.sin(k * x))
        return np.exp(-b * x) * np.sin(k * x)

    box = af.Box([(0, np.pi)])
    density = af.Density(box, lambda x: b * x[..., 0])
    points = rule(box.bounds, 400)
    side = "no-flux" if kind == "no-flux" else ("dirichlet", 0.0)
    return Case(
        f"exp({b:g} x), {kind} walls", DriftDiffusion(density), mode, lambda x: np.exp(-t * (b**2 + k**2)) * mode(x), t,
        [32], points, _squared(density), side, 4 if kind == "no-flux" else 3,
    )  # fmt: skip


@lru_cache
def torus() -> Case:
    def log_p(x):
        return np.cos(x[..., 0]) + 0.7 * np.cos(x[..., 1]) + 0.5 * np.cos(x[..., 0] - x[..., 1])

    def initial(x):
        return np.sin(x[:, 0]) * np.cos(x[:, 1]) + np.cos(2 * x[:, 0] - x[:, 1]) + 0.3 * np.sin(3 * x[:, 1])

    points = rule([(0, TAU)] * 2, 40)
    exact = schroedinger(log_p, initial, 0.25, 31, 2)
    density = af.Density(af.Torus([TAU] * 2), log_p)
    pde = DriftDiffusion(density)
    return Case("2-torus, skewed density", pde, initial, exact, 0.25, [32, 32], points, _squared(density))


def skew(channel: bool, t: float = 0.1) -> Case:
    """cos(k (x - s y)) cos(m y) with s = g^12 / g^22 meets the no-flux condition at y = 0 and pi; s = 0 on a torus."""
    inverse = np.array([[0.8, 0.35], [0.35, 0.9]])
    metric, k, m = np.linalg.inv(inverse), 1, 1 if channel else 2
    s = inverse[0, 1] / inverse[1, 1]
    bounds = [(0, TAU), (0, np.pi if channel else TAU)]
    space = af.Chart(lambda x: np.broadcast_to(metric, (*x.shape, 2)), bounds, periodic=(True, not channel))

    def initial(x):
        if channel:
            return np.cos(k * (x[:, 0] - s * x[:, 1])) * np.cos(m * x[:, 1])
        return np.cos(x @ [k, m])

    wave = np.array([k, m])
    rate = k**2 * (inverse[0, 0] - s * inverse[0, 1]) + inverse[1, 1] * m**2 if channel else wave @ inverse @ wave
    points = rule(bounds, 40)
    name = "skew metric, " + ("periodic channel" if channel else "torus")
    cells = [64, 32] if channel else [24, 24]

    def exact(x):
        return np.exp(-rate * t) * initial(x)

    return Case(name, Heat(space), initial, exact, t, cells, points, _one, None, 3 if channel else 4)


def sphere(t: float = 0.1) -> Case:
    """A column per degree l = 1, 2, 3."""

    def harmonics(x):
        x, y, z = x.T
        return np.stack([x + y - z, x * y + 2 * y * z + x**2 - z**2, x * y * z + 5 * z**3 - 3 * z], axis=1)

    decay = np.exp(-t * np.array([2, 6, 12]))

    def exact(x):
        return decay * harmonics(x)

    z = 1 - 2 * (np.arange(800) + 0.5) / 800  # equal areas along a spiral
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(800)
    points = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
    name, pde = "sphere, harmonics l = 1, 2, 3", Heat(af.Sphere(2))
    return Case(name, pde, harmonics, exact, t, [24, 48], points, _one, None, None)


@lru_cache
def torus3(t: float = 0.2) -> Case:
    """Density and initial values are products: so is the solution."""
    sizes = (1.0, 0.7, 0.4)
    parts = [np.cos, np.sin, lambda x: np.cos(2 * x)]

    def log_p(x):
        return sum(a * np.cos(x[..., k]) for k, a in enumerate(sizes))

    def initial(x):
        return np.prod([part(x[:, k]) for k, part in enumerate(parts)], axis=0)

    one = [
        schroedinger(lambda x, a=a: a * np.cos(x[..., 0]), lambda x, part=part: part(x[:, 0]), t, 51)
        for a, part in zip(sizes, parts)
    ]

    def exact(x):
        return np.prod([solution(x[:, k : k + 1]) for k, solution in enumerate(one)], axis=0)

    points = rule([(0, TAU)] * 3, 14)
    density = af.Density(af.Torus([TAU] * 3), log_p)
    return Case("3-torus", DriftDiffusion(density), initial, exact, t, [16] * 3, points, _squared(density))


def conformal(case: Case) -> Case:
    """The same as heat flow in the metric p^(4 / (n - 2)) g, with its heat capacity."""
    pde = ConformalHeat(case.pde.density)
    return replace(case, name=f"conformal heat, n = {pde.space.dim}", pde=pde)


def forward() -> Case:
    """rho / p^2 obeys the backward equation; the norm is that of L2(p^-2 dvol)."""
    density, points = af.VonMises(1.0), rule([(0, TAU)], 400)

    def initial(x):
        return 1 + 0.5 * np.sin(x[:, 0]) + 0.3 * np.cos(2 * x[:, 0])

    backward = schroedinger(density.log_pdf, lambda x: initial(x) / density.pdf(x) ** 2, 0.3, 81)

    def exact(x):
        return backward(x) * density.pdf(x)[:, None] ** 2

    def weight(x):
        return density.pdf(x) ** -2.0

    return Case("forward equation", FokkerPlanck(density), initial, exact, 0.3, [64], points, weight)


def _squared(density: af.Density) -> Callable:
    return lambda x: density.pdf(x) ** 2


def _one(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))
