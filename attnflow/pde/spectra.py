"""Eigenvalues and eigenfunctions of L: dense in Fourier space, shift-and-invert on finite volumes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh, splu

from .. import checks
from ..grid import Grid
from .boundaries import Walls
from .coefficients import build_grid, log_weight
from .finite_volume import Cells, assemble
from .fourier import KINDS, affordable, grown, modes, odd, smooth_sizes
from .nested import FINEST, grid_sizes, romberg_orders

if TYPE_CHECKING:
    from .equations import DriftDiffusion

_TOLERANCE = {"fourier": 1e-10, "finite-volume": 1e-9}
_WARN = 1e-6
_ROUGH = 40.0  # range of log w above which eigenvectors of the symmetric form lose their tails


class _Pair(NamedTuple):
    eigenvalues: np.ndarray
    eigenfunctions: np.ndarray


class Spectrum(_Pair):
    """(eigenvalues (k,), eigenfunctions (k, *grid)), with the grid and the eigenvalues' estimated error beside them."""

    grid: Grid
    estimated_error: float

    def __new__(cls, eigenvalues: np.ndarray, eigenfunctions: np.ndarray, grid: Grid, estimated_error: float):
        self = super().__new__(cls, eigenvalues, eigenfunctions)
        self.grid, self.estimated_error = grid, estimated_error
        return self


def compute_spectrum(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    """The k smallest eigenpairs; on a given shape those of that grid, otherwise refined.

    Warns (AccuracyWarning) when the refined eigenvalues are not good to 1e-6.
    """
    if not np.isfinite(pde.space.bounds).all() and pde.drift <= 0:
        raise ValueError(f"drift must be positive for a discrete spectrum on a line, got {pde.drift}")
    if shape is not None and k > np.prod(shape) - 2:
        raise ValueError(f"k must be at most {np.prod(shape) - 2} on a grid of {list(shape)}, got {k}")
    sizes = smooth_sizes(pde, None, _TOLERANCE["fourier"]) if all(pde.space.periodic) else None
    if sizes is None or (shape is not None and not affordable(shape)):
        result = _finite_volume(pde, k, shape, walls)
    else:
        least = int(np.ceil(2 * (k + 1) ** (1 / pde.space.dim)))
        result = _fourier(pde, k, tuple(odd(max(n, least)) for n in sizes), shape)
    if shape is None and result.estimated_error > _WARN:
        warnings.warn(
            f"eigenvalues are good to {result.estimated_error:.1g} only on the finest grid; ask for fewer of them",
            checks.AccuracyWarning,
            stacklevel=3,
        )
    return result


def _fourier(pde: DriftDiffusion, k: int, sizes: tuple[int, ...], shape: tuple[int, ...] | None) -> Spectrum:
    if shape is not None:
        sizes = tuple(odd(n) for n in shape)
    previous, error = None, np.inf
    while True:
        found = modes(pde, build_grid(pde.space, KINDS, sizes, pde.space.bounds))
        values = found.eigenvalues[:k]
        if previous is not None:
            error = _relative_change(values, previous)
        larger = grown(sizes)
        if shape is not None or error <= _TOLERANCE["fourier"] or not affordable(larger):
            break
        previous, sizes = values, larger
    if shape is not None and affordable(larger):
        finer = modes(pde, build_grid(pde.space, KINDS, larger, pde.space.bounds))
        error = _relative_change(values, finer.eigenvalues[:k])
    functions = (found.vectors[:, :k] / found.root[:, None]).T
    return Spectrum(values, _normalised(pde, functions, found.grid), found.grid, error)


def _finite_volume(pde: DriftDiffusion, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Spectrum:
    if shape is not None:
        cells = assemble(pde, shape, walls)
        values, vectors = _nearest_zero(cells, k)
        finer = 3 * max(shape) <= FINEST[pde.space.dim]
        other = tuple(3 * n if finer else max(n // 3, k + 2) for n in shape)
        error = (9 / 8 if finer else 1 / 8) * _relative_change(values, _nearest_zero(assemble(pde, other, walls), k)[0])
        return Spectrum(values, _normalised(pde, _functions(cells, values, vectors), cells.grid), cells.grid, error)
    sizes = [size for size in grid_sizes(pde) if size**pde.space.dim >= 4 * k]
    if len(sizes) < 3:
        raise ValueError(f"k must leave three grids of at least 4 k cells to compare, got {k}; give a grid")
    rows, error = [], np.inf
    for size in sizes:
        cells = assemble(pde, (size,) * pde.space.dim, walls)
        values, vectors = _nearest_zero(cells, k)
        rows.append([values])
        for order in romberg_orders(walls)[: len(rows) - 1]:
            fine, coarse = rows[-1][-1], rows[-2][len(rows[-1]) - 1]
            rows[-1].append(fine + (fine - coarse) / (3.0**order - 1))
        if len(rows[-1]) > 2:
            error = _relative_change(rows[-1][-1], rows[-1][-2])
        if error <= _TOLERANCE["finite-volume"]:
            break
    best = np.minimum(rows[-1][-1], 0.0)
    return Spectrum(best, _normalised(pde, _functions(cells, values, vectors), cells.grid), cells.grid, error)


def _nearest_zero(cells: Cells, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,) of the symmetric form sqrt(w) L / sqrt(w) and its orthonormal eigenvectors (n, k)."""
    entries = cells.operator.tocoo()
    i, j = entries.coords
    symmetric = sparse.csc_array((entries.data * np.exp((cells.log_weight[i] - cells.log_weight[j]) / 2), (i, j)))
    symmetric = (symmetric + symmetric.T) / 2
    # a positive shift of about 1 / length^2: above the whole spectrum and close to its top
    shift = np.abs(symmetric.diagonal()).max() / (4 * max(cells.grid.shape) ** 2)
    start = np.random.default_rng(0).normal(size=cells.grid.size)  # same eigenvectors every time
    values, vectors = eigsh(symmetric, k, sigma=shift, which="LM", v0=start)
    order = np.argsort(-values)
    return np.minimum(values[order], 0.0), vectors[:, order]


def _functions(cells: Cells, values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """phi = v / sqrt(w), (k, n). Where w is so small that v is rounding error, one inverse iteration with L
    itself, whose entries stay moderate, rebuilds phi from where it is known."""
    half = (cells.log_weight - cells.log_weight.max()) / 2
    known = half > -_ROUGH / 4
    functions = np.where(known[:, None], vectors * np.exp(-np.where(known, half, 0.0))[:, None], 0.0)
    if not known.all():
        scale = np.abs(values).max()
        identity = sparse.eye_array(cells.grid.size, format="csc")
        for m, value in enumerate(values):
            shifted = cells.operator.tocsc() - (value + 1e-7 * (scale or 1.0)) * identity
            solver = splu(shifted.tocsc())
            for _ in range(2):
                functions[:, m] = solver.solve(functions[:, m])
                functions[:, m] /= np.abs(functions[known, m]).max()
    return functions.T


def _normalised(pde: DriftDiffusion, functions: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, *grid): unit weighted norm, positive at the first node where they exceed half their maximum."""
    weight = np.exp(log_weight(pde, grid.points)) * grid.weights
    functions = functions / np.sqrt(functions**2 @ weight)[:, None]
    first = np.argmax(np.abs(functions) > 0.5 * np.abs(functions).max(axis=1, keepdims=True), axis=1)
    signs = np.sign(functions[np.arange(len(functions)), first])
    return (functions * signs[:, None]).reshape(len(functions), *grid.shape)


def _relative_change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, relative to the eigenvalue or, for one near zero, to the next in size."""
    scale = np.abs(b)
    floor = scale[scale > 1e-9 * scale.max()].min(initial=np.inf)
    return float(np.max(np.abs(a - b) / np.maximum(scale, floor if np.isfinite(floor) else 1.0)))
