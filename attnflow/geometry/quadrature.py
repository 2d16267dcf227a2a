"""Integrals of exp(log q) over a space of dimension at most 3."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..grid import Axis, Grid
from ..resolution import interpolation_error
from .cells import graded, resolve
from .extents import NEGLIGIBLE
from .frame import Frame

_SMALLEST = {2: 64, 3: 32}  # nodes per axis of the first grid
_LARGEST = {2: 2**10, 3: 2**7}  # nodes per axis at which refinement gives up
_LARGEST_GAUSS = 2**10  # finding more Gauss nodes takes long
_FIRST = {2: 8, 3: 4}  # cells per axis to begin with
_ACCURATE = 1e-12


def log_integral(frame: Frame) -> float:
    """log of the integral of exp(log_q) dvol, to round-off where that can be had.

    On a line by cells that are halved until they see everything. In two and three dimensions on grids, refined until
    the interpolant agrees with the function between the nodes and on the modes; where none does, by cells too.

    Warns
    -----
    AccuracyWarning
        Of what it is known to, where that is less than 1e-8.
    """
    if frame.dim == 1:
        found = frame.line
        return _reported(found.log_integral, found.error, frame)
    error = np.inf
    if not frame.heavy and not _narrow(frame):
        result, error = _on_grids(frame)
        if error <= _ACCURATE:
            return result
    cells = resolve(frame.log_density, *graded(frame.modes, frame.dim, _FIRST[frame.dim]), frame.top)
    if cells.error < error:
        result, error = cells.log_integral, cells.error
    return _reported(result, error, frame)


def _reported(result: float, error: float, frame: Frame) -> float:
    if not error < 1e-8:
        checks.warn(
            f"the integral of {frame.name} is known to about {error:.1g} only (an estimate, not a bound): "
            "it is not smooth on the finest cells",
            checks.AccuracyWarning,
        )
    return result


def _narrow(frame: Frame) -> bool:
    """Whether no grid in reach has two nodes on some peak."""
    modes = frame.modes
    scale = modes.scale[modes.peaked & (modes.values > modes.top - NEGLIGIBLE)]
    return bool(scale.size and scale.min() * _LARGEST[frame.dim] < 2)


def _on_grids(frame: Frame) -> tuple[float, float]:
    """The integral's logarithm, and its error.

    That of the interpolant, or the last change if that is less. Where halving the spacing squares the interpolant's
    error, the sum is as good as an interpolant of half the spacing.
    """
    size, previous, rough = _SMALLEST[frame.dim], np.nan, np.inf
    peaks = frame.points(frame.modes.points[~frame.modes.pole])
    while True:
        grid = _grid(frame, size)
        values = frame.log_q(grid.points)
        top = values.max()

        def relative(x: np.ndarray, log_q=None) -> np.ndarray:
            log_q = frame.log_q(x) if log_q is None else log_q
            return np.exp(np.minimum(log_q - top, 300.0)) * frame.space.volume_element(x)

        if np.isfinite(top):
            samples = relative(grid.points, values)
            result = float(np.log(grid.weights @ samples) + top)
            places = (None, peaks) if len(peaks) else (None,)
            error = max(float(interpolation_error(relative, grid, samples, frame.name, at)[0]) for at in places)
            change = abs(result - previous)
            square = error**2 if error < min(rough**1.5, 1e-3) else error
            if square < _ACCURATE or (change < 1e-13 and error < 1e-5):
                return result, square if square < _ACCURATE else change
            previous, rough = result, error
        smooth = all(axis.kind != "gauss" for axis in grid.axes)
        if 2 * size > (_LARGEST[frame.dim] if smooth else min(_LARGEST[frame.dim], _LARGEST_GAUSS)):
            return (result, square) if np.isfinite(top) else (-np.inf, np.inf)
        size *= 2


def _grid(frame: Frame, size: int) -> Grid:
    """That of the space over the extent; where p decays to nothing at both ends it is as good as periodic."""
    grid = frame.space.grid(size, frame.extent)
    axes = tuple(Axis("fourier", a.size, a.low, a.high) if a.kind == "cells" else a for a in grid.axes)
    return Grid(axes, grid.sphere)
