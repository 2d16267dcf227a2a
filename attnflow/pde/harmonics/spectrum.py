"""Spectra on S^2 by spherical harmonics."""

from __future__ import annotations

import numpy as np

from ..boundaries import Walls
from ..eigenvalues import TOLERANCE, Found, lost_digits
from ..generator import Generator
from ..propagator import eigenpairs
from ..refinement import refinements
from .operator import HarmonicForm, Harmonics, RoundForm, harmonic_form
from .solve import natural_grid, next_degree, smooth_degree

_WORTHWHILE = 1e-7  # of eigenvalues: finite volumes do no better


def harmonic_spectrum(generator: Generator, k: int, shape: tuple[int, ...] | None, walls: Walls) -> Found | None:
    """The degree is raised until the eigenvalues stand.

    None where w and the metric are not smooth, k is too large, or finite volumes do better; off S^2; on a given grid.
    """
    found = smooth_degree(generator, None, TOLERANCE) if generator.on_globe and shape is None else None
    if found is None:
        return None
    degree, width = max(found[0], int(np.ceil(np.sqrt(k))) + 2), found[1]

    def solve(degree: int) -> tuple[HarmonicForm | RoundForm, np.ndarray, np.ndarray] | None:
        form = harmonic_form(generator, degree, width)
        if form is None:
            return None
        values, vectors = eigenpairs(form)
        return form, values[:k], vectors[:, :k]

    def difference(coarse: tuple, fine: tuple) -> float:
        return float(np.max(np.abs(coarse[1] - fine[1])[1:] / np.abs(fine[1][1:]), initial=0.0))

    best, error = None, np.inf
    for best, error in refinements(solve, degree, next_degree, difference, TOLERANCE):
        pass
    if best is None or error > _WORTHWHILE:
        return None
    form, values, vectors = best
    grid = natural_grid(generator, form.basis.degree, width)
    functions = Harmonics.on(grid, form.basis.degree).values(form.coefficients(vectors.T)).reshape(k, -1)
    return Found(-values, functions, grid, error, lost_digits(form.bound, -values, walls))
