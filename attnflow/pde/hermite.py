"""The spectrum of L on lines, planes and space in Hermite functions of a Gaussian fitted to the weight w.

In coordinates z in which the Gaussian is standard, u = sqrt(w) H is expanded in h_a(z) = prod_i h_{a_i}(z_i) with
h_n = He_n(z) e^(-z^2/4) / sqrt(n! sqrt(2 pi)), orthonormal, sqrt(w) of the Gaussian itself being h_0. Then

    -<u, S v> = sum_i t_i <G_i u, m G_i v>,     G_i = d/dz_i - d(log sqrt(w))/dz_i,

with t_i = 1 / variance along axis i. Each G_i lowers the degree where w is Gaussian: harmonic oscillators are exact, in
any number of dimensions. Integrals are sums over Gauss's nodes, on which the h_n, each node's times the root of its
quadrature weight, are orthonormal rows and columns. The eigenvalues of few functions Y are the squared singular values
of the G_i Y, which loses half as many digits of a small one as -S does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigh, eigvalsh_tridiagonal
from scipy.ndimage import distance_transform_edt

from ..geometry import Density
from ..geometry.differences import partial_derivatives
from ..grid import Grid
from .boundaries import Walls
from .eigenvalues import TOLERANCE, Found
from .generator import Generator
from .grids import cell_grid, on_sphere

_NODES = {1: 512, 2: 160, 3: 64}  # per axis of the grid that the Gaussian is fitted on,
_REACH = 9.0  # as many standard deviations to each side
_FITS = 8
_STEP = 1e-2  # of the differences of log w, in z
_NOISE = 1e-11  # of these differences
_DEEP = 36.0  # of log sqrt(w) below its top, where w has ended
_UNKNOWN = 10.0  # the same, where H = u / sqrt(w) has too few digits left
_LOST = 1e-3  # of the mass that nodes see less or more than there is
_SHALLOW = 6.0  # degree along every axis at least
_SHARE = 0.02  # of the largest tail, from which on an axis gets higher degrees
_LARGEST = {1: 100, 2: 1200, 3: 1200}  # basis functions
_ENTRIES = 1.2e7  # of the largest matrix: 100 MB
_SHOWN = {1: 2048, 2: 96, 3: 32}  # cells per axis on which eigenfunctions are given


@dataclass(frozen=True)
class Frame:
    """x = centre + axes @ (scale * z): the coordinates in which a Gaussian is standard."""

    centre: np.ndarray
    axes: np.ndarray
    scale: np.ndarray

    def points(self, z: np.ndarray) -> np.ndarray:
        return self.centre + (z * self.scale) @ self.axes.T

    def narrowed(self, factor: np.ndarray) -> Frame:
        return Frame(self.centre, self.axes, self.scale * factor)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        return (x - self.centre) @ self.axes / self.scale


def hermite_spectrum(generator: Generator, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """The degree is raised until the eigenvalues stand.

    None if k functions need a larger basis than is affordable; where some axis ends; on a given grid.
    """
    space = generator.space
    if shape is not None or on_sphere(space) or not space.flat or np.isfinite(space.bounds).any():
        return None
    tol = TOLERANCE if space.dim == 1 else 10 * TOLERANCE
    frame, width = fitted_frame(generator)
    rates = (frame.scale.max() / frame.scale) ** 2  # of the oscillator: the basis is its lowest modes, and a few more
    most, best, change = np.maximum((_kth_energy(k, rates) + 4) / rates, _SHALLOW), None, np.inf
    before = change
    while change > tol and (degrees := _below(most)) is not None:
        finer = _Basis(generator, frame, width, degrees)
        sizes, vectors = finer.smallest(k)
        if best is not None:
            gap = np.abs(best[0] - sizes)[1:] + best[0][0] + sizes[0]
            before, change = change, float(np.max(gap / sizes[1:], initial=0.0))
        best = sizes, vectors, finer
        tails = finer.tails(vectors, most)
        most = np.where(tails > _SHARE * tails.max(), 1.4 * most + 1, most)
    if best is None:
        return None
    falls = change / before if np.isfinite(before) else 0.0
    if falls > 0.5:  # slowly: what all further changes would add up to
        change *= falls / max(1 - falls, 1e-3)
    sizes, vectors, basis = best
    change = max(change, basis.missing())
    round_off = _NOISE * (1 + np.sqrt((frame.scale.min() ** -2) / sizes[1:].min(initial=np.inf)))
    grid, functions = basis.on_grid(vectors)
    sizes = sizes.copy()
    sizes[0], functions[0] = 0.0, 1.0
    return Found(sizes, functions, grid, change, float(round_off))


def fitted_frame(generator: Generator) -> tuple[Frame, np.ndarray]:
    """The frame of the Gaussian with the mean and covariance of w, and how far w reaches along its axes, (dim,)."""
    low, high = np.array(generator.ranges()).T
    dim = len(low)
    frame = Frame((low + high) / 2, np.eye(dim), (high - low) / (2 * _REACH))
    side = _REACH * (2 * np.arange(_NODES[dim]) + 1 - _NODES[dim]) / _NODES[dim]
    z = np.stack([axis.ravel() for axis in np.meshgrid(*[side] * dim, indexing="ij")], axis=-1)
    for _ in range(_FITS):
        x = frame.points(z)
        log_w = generator.log_weight(x)
        weight = np.exp(log_w - log_w.max())
        weight /= weight.sum()
        centre = weight @ z
        covariance = (weight[:, None] * (z - centre)).T @ (z - centre)
        variance, turn = np.linalg.eigh(frame.scale[:, None] * covariance * frame.scale)
        axes, scale = frame.axes @ turn, np.sqrt(variance)
        if np.abs(covariance - np.eye(dim)).max() < 1e-6 and np.abs(centre).max() < 1e-6:
            break
        frame = Frame(frame.points(centre[None])[0], axes, scale)
    inside = log_w > log_w.max() - 2 * _DEEP
    width = np.abs(z[inside]).max(axis=0) + 2 * _REACH / _NODES[dim]
    return frame, np.where(width < _REACH, width, np.inf)


def _kth_energy(k: int, rates: np.ndarray) -> float:
    """The k-th smallest sum of a_i rates_i."""
    energies = np.zeros(1)
    for rate in np.sort(rates):
        energies = np.sort(np.add.outer(energies, rate * np.arange(k)).ravel())[:k]
    return float(energies[-1])


def _below(most: np.ndarray) -> np.ndarray | None:
    """The degrees a (basis, dim) with sum of a_i / most_i <= 1; None if too many."""
    dim = len(most)
    if np.prod(most) > 20 * _LARGEST[dim]:
        return None
    degrees = np.indices([int(m) + 1 for m in most]).reshape(dim, -1).T
    degrees = degrees[(degrees / most).sum(axis=1) <= 1 + 1e-9]
    nodes = np.prod([_size(n) for n in degrees.max(axis=0)])
    return degrees if len(degrees) <= _LARGEST[dim] and len(degrees) * nodes <= _ENTRIES else None


def _size(degree: int) -> int:
    """Nodes of an axis: two more make Gaussian weights exact, the rest is for what others multiply by."""
    return int(degree) + 6 + int(degree) // 4


class _Basis:
    """Hermite functions of given degrees (basis, dim), on Gauss's nodes; each row of a matrix here is a node's, times the root
    of its quadrature weight."""

    def __init__(self, generator: Generator, frame: Frame, width: np.ndarray, degrees: np.ndarray) -> None:
        self.generator, self.degrees = generator, degrees
        self.dim = generator.space.dim
        most = degrees.max(axis=0)
        axes = [_axis(n) for n in most]
        # h_n ends at 2 sqrt(n + 1): no wider than w, which may fall faster than its Gaussian
        self.frame = frame.narrowed(np.minimum(1.0, width / (2 * np.sqrt(most + 1.0))))
        self._values, self._slopes = [axis[1] for axis in axes], [axis[2] for axis in axes]
        self.z = np.stack([z.ravel() for z in np.meshgrid(*[axis[0] for axis in axes], indexing="ij")], axis=-1)

    def smallest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Minus the k eigenvalues nearest zero, increasing, and coefficients (basis, k)."""
        lowered = self._lowered
        matrix = sum(G.T @ G for G in lowered)
        _, vectors = eigh(matrix, subset_by_index=[0, min(k, len(matrix)) - 1], driver="evr")
        _, singular, turn = np.linalg.svd(np.concatenate([G @ vectors for G in lowered]), full_matrices=False)
        return singular[::-1] ** 2, vectors @ turn[::-1].T

    def missing(self) -> float:
        """What part of p the nodes do not see, a well that is narrow and far away for one; 0 where it is too little to
        tell from errors of the quadrature, or p does not say its norm at once."""
        density = self.generator.density
        if self.dim > 1 and type(density) is Density:
            return 0.0
        try:
            log_p = density.log_pdf(self.frame.points(self.z))
        except ValueError:  # only a power of p normalises
            return 0.0
        # each node's own weight: h_0's is in the tables
        first = self._products(self._values)[:, self.degrees.sum(axis=1) == 0][:, 0]
        with np.errstate(divide="ignore"):
            shares = 2 * np.log(np.abs(first)) + (self.z**2).sum(axis=1) / 2 + log_p
        mass = np.exp(shares).sum() * (2 * np.pi) ** (self.dim / 2) * np.prod(self.frame.scale)
        lost = abs(1 - mass) if self.generator.drift == 1 else 1 - mass
        return float(lost) if lost > (_LOST if self.generator.drift == 1 else 0.5) else 0.0

    def tails(self, vectors: np.ndarray, most: np.ndarray) -> np.ndarray:
        """What the upper part of the degrees along each axis holds of functions, (dim,)."""
        share = (vectors**2).sum(axis=1)
        return np.array([share[a > 0.6 * m].sum() for a, m in zip(self.degrees.T, most)])

    @cached_property
    def _lowered(self) -> list[np.ndarray]:
        """sqrt(m t_i) G_i of all basis functions, (nodes, basis) each."""
        half, slopes = self._log_root
        x = self.frame.points(self.z)
        rate = np.ones(len(x)) if self.generator.mobility is None else self.generator.mobility_at(x)
        whole = self._products(self._values)
        result = []
        for i in range(self.dim):
            tables = list(self._values)
            tables[i] = self._slopes[i]
            G = self._products(tables) - slopes[:, i, None] * whole
            result.append(np.sqrt(rate)[:, None] / self.frame.scale[i] * G)
        return result

    @cached_property
    def _log_root(self) -> tuple[np.ndarray, np.ndarray]:
        """log sqrt(w) at the nodes and its slopes (nodes, dim), those where w is negligible no steeper than the others."""
        half = self.generator.log_weight(self.frame.points(self.z)) / 2
        half -= half.max()
        slopes = partial_derivatives(lambda z: self.generator.log_weight(self.frame.points(z)) / 2, self.z, "log_pdf", _STEP)
        steepest = np.abs(slopes[half > -_DEEP]).max(axis=0)
        return half, np.where((half > -_DEEP)[:, None], slopes, np.clip(slopes, -steepest, steepest))

    def _products(self, tables: list[np.ndarray]) -> np.ndarray:
        result = tables[0][:, self.degrees[:, 0]]
        for k in range(1, self.dim):
            result = (result[:, None] * tables[k][None, :, self.degrees[:, k]]).reshape(-1, len(self.degrees))
        return result

    def on_grid(self, vectors: np.ndarray) -> tuple[Grid, np.ndarray]:
        """H = u / sqrt(w) of coefficients (basis, k) on cells, (k, size). Where too few digits of u are left, what H is
        at the nearest cell where it is known: beyond, it hardly changes."""
        grid = cell_grid(self.generator.space, (_SHOWN[self.dim],) * self.dim, self.generator.ranges())
        z = self.frame.inverse(grid.points)
        half = self.generator.log_weight(grid.points) / 2
        half -= half.max()
        tilt = -(z**2).sum(axis=1) / 4 - half  # log of h_0 / sqrt(w)
        tilt -= tilt[np.argmax(half)]
        gaussian = np.abs(tilt).max() < 1  # H is a polynomial, known everywhere
        known = ((half > -_UNKNOWN) | gaussian).reshape(grid.shape)
        vectors = np.where(np.abs(vectors) > 1e-13 * np.abs(vectors).max(axis=0), vectors, 0.0)
        used = np.flatnonzero(vectors.any(axis=1))
        functions, cells = np.zeros((vectors.shape[1], grid.size)), np.flatnonzero(known)
        for part in np.array_split(cells, 1 + len(cells) // 2048):
            terms = np.exp(tilt[part])
            for coordinate, degrees in zip(z[part].T, self.degrees[used].T):
                terms = terms * _polynomials(coordinate, int(degrees.max(initial=0)))[degrees]
            functions[:, part] = vectors[used].T @ terms
        spacings = [axis.spacing for axis in grid.axes]
        nearest = distance_transform_edt(~known, spacings, return_distances=False, return_indices=True)
        return grid, functions.reshape(-1, *grid.shape)[(slice(None), *nearest)].reshape(functions.shape)


def _axis(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss's nodes, the h_n at them times the roots of their weights, and the h_n's slopes: (size,), (size, degree + 1)."""
    size, n = _size(degree), np.arange(degree + 1)
    nodes = eigvalsh_tridiagonal(np.zeros(size), np.sqrt(np.arange(1.0, size)))
    values = _polynomials(nodes, size - 1).T
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    slopes = (values[:, np.maximum(n - 1, 0)] * np.sqrt(n) - values[:, n + 1] * np.sqrt(n + 1)) / 2
    return nodes, values[:, : degree + 1], slopes


def _polynomials(z: np.ndarray, degree: int) -> np.ndarray:
    """He_n(z) / sqrt(n!) for n <= degree: (degree + 1, N)."""
    table = np.ones((degree + 1, len(z)))
    if degree:
        table[1] = z
    for n in range(2, degree + 1):
        table[n] = (z * table[n - 1] - np.sqrt(n - 1) * table[n - 2]) / np.sqrt(n)
    return table
