"""Spectra by a dense eigendecomposition on spectral nodes."""

from __future__ import annotations

import numpy as np

from ..boundaries import Walls
from ..eigenvalues import TOLERANCE, Found, lost_digits, missed_weight, peaks_of, relative_change
from ..generator import Generator
from ..grids import node_grid, wrapping
from ..propagator import eigenpairs
from .operator import symmetric_form
from .solve import allowed_sizes, next_sizes, smooth_sizes

_DENSE = {1: 400, 2: 2500, 3: 2500}  # unknowns of an eigendecomposition, at most a few seconds
_HIDDEN = 1e-5  # of the weight, between nodes that should show all of it


def node_spectrum(generator: Generator, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """Spectral nodes, refined until the eigenvalues stand, or those given, with their error from finer ones."""
    if generator.on_globe or not (shape is None or all(wrapping(generator.space))):  # a given grid elsewhere is one of cells
        return None
    sizes = smooth_sizes(generator, None, TOLERANCE)
    if sizes is None:
        return None
    least = int(np.ceil(2 * (k + 1) ** (1 / generator.space.dim)))
    sizes = allowed_sizes(generator, tuple(max(n, least) for n in sizes) if shape is None else shape)
    if np.prod(sizes) > _DENSE[generator.space.dim]:
        return None
    peaks = peaks_of(generator, walls)
    found, error = _modes(generator, k, sizes, walls), np.inf
    if shape is None and missed_weight(generator, found.grid, peaks) > _HIDDEN:
        return None  # not so smooth as it seemed
    while error > max(TOLERANCE, found.round_off) and np.prod(next_sizes(generator, sizes)) <= _DENSE[generator.space.dim]:
        sizes = next_sizes(generator, sizes)
        finer = _modes(generator, k, sizes, walls)
        error = max(relative_change(found.sizes, finer.sizes), missed_weight(generator, finer.grid, peaks))
        if shape is not None:
            break
        found = finer
    return found._replace(discretisation=error)


def _modes(generator: Generator, k: int, sizes: tuple[int, ...], walls: Walls) -> Found:
    form = symmetric_form(generator, node_grid(generator.space, sizes), walls)
    values, vectors = eigenpairs(form)
    functions = (vectors[:, :k] / form.root.reshape(-1, 1)).T
    return Found(-values[:k], functions, form.grid, np.inf, lost_digits(form.bound, -values[:k], walls))
