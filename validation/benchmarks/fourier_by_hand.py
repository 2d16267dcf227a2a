"""A Fourier right-hand side written by hand and given to solve_ivp: by FFT, or by differentiation matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import fft, integrate

from . import Case, Family, Solver

_STEPPERS = ("DOP853", "RK45", "BDF")


def families(case: Case, method: str) -> list[Family]:
    """Delta H + 2 grad log p . grad H on a 2-torus, for three steppers; the tolerance is solve_ivp's rtol."""
    rate = {"Fourier by FFT": _by_fft, "Fourier by matrices": _by_matrices}[method]
    tolerances = [case.error * factor for factor in (300, 100, 30, 10, 3, 1, 0.3, 0.1)]
    grids = list(range(12, 49, 2))
    return [Family(stepper, grids, tolerances, partial(_prepare, rate, stepper)) for stepper in _STEPPERS]


def _prepare(make_rate: Callable, stepper: str, case: Case, grid: int, rtol: float) -> Solver:
    points = case.nodes(grid)
    rate, start = make_rate(case, grid, 2 * case.score(points).T.reshape(2, grid, grid)), case.initial(points)
    options = {"method": stepper, "rtol": rtol, "atol": rtol / 10, "t_eval": [case.t]}
    if stepper == "BDF":  # linear: the Jacobian is known once, column by column
        options["jac"] = np.stack([rate(0.0, column) for column in np.eye(grid**2)], axis=1)

    def step(_) -> np.ndarray:
        return integrate.solve_ivp(rate, (0, case.t), start, **options).y[:, -1]

    return Solver(step, lambda values: (points, values))


def _by_fft(case: Case, grid: int, drift: np.ndarray) -> Callable:
    """One real transform there, three back in one call; a derivative drops the highest mode."""
    wave = 2 * np.pi / case.length * np.fft.fftfreq(grid, 1 / grid)[:, None]
    half = 2 * np.pi / case.length * np.fft.rfftfreq(grid, 1 / grid)[None]
    odd = [1j * np.where(np.abs(k) < np.pi / case.length * grid, k, 0) for k in (wave, half)]
    symbols = np.stack(np.broadcast_arrays(-(wave**2) - half**2, *odd))
    shape = (grid, grid)

    def rate(_, flat: np.ndarray) -> np.ndarray:
        spectrum = fft.rfft2(flat.reshape(shape))
        laplacian, first, second = fft.irfft2(symbols * spectrum, s=shape, overwrite_x=True)
        return (laplacian + drift[0] * first + drift[1] * second).ravel()

    return rate


def _by_matrices(case: Case, grid: int, drift: np.ndarray) -> Callable:
    """Small dense matrices beat the FFT on grids this small."""
    wave = 2 * np.pi / case.length * np.fft.fftfreq(grid, 1 / grid)[:, None]
    odd = 1j * np.where(np.abs(wave) < np.pi / case.length * grid, wave, 0)
    modes = np.fft.fft(np.eye(grid), axis=0)
    first, second = (np.ascontiguousarray(np.fft.ifft(symbol * modes, axis=0).real) for symbol in (odd, -(wave**2)))
    across, second_across = np.ascontiguousarray(first.T), np.ascontiguousarray(second.T)
    shape = (grid, grid)

    def rate(_, flat: np.ndarray) -> np.ndarray:
        H = flat.reshape(shape)
        total = drift[0] * (first @ H)
        total += drift[1] * (H @ across)
        total += second @ H
        total += H @ second_across
        return total.ravel()

    return rate
