"""Means over paths that come in batches, their standard errors, and whether 95% intervals may be made of these."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..norms import unit

_LOPSIDED = 0.04  # skewness^2 / paths above which fewer than about nine in ten 95% intervals hold the mean,
_BY_CHANCE = 5.0  # and this / paths more, which few paths show without cause


class Moments:
    """First three moments of values in batches (Chan, Golub and LeVeque; Pebay).

    Attributes
    ----------
    count : int
    mean : (2, T, M, c) array
        NaN before the first batch.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._unit: float | np.ndarray = 1.0
        self.count, self._mean = 0, np.full(shape, np.nan)
        self._squares, self._cubes = np.zeros(shape), np.zeros(shape)

    @property
    def mean(self) -> np.ndarray:
        return self._unit * self._mean

    def add(self, values: np.ndarray) -> None:
        """Values (2, T, batch, M, c)."""
        if not self.count:
            self._unit = unit(values, axis=(0, 1, 2, 3))
        values = values / self._unit
        new, mean = values.shape[2], values.mean(axis=2)
        gap = mean - self._mean if self.count else np.zeros_like(mean)
        old, total = self.count, self.count + new
        centred = values - mean[:, :, None]
        power = centred**2
        squares = np.sum(power, axis=2)
        with np.errstate(over="ignore", invalid="ignore"):
            cubes = np.sum(power * centred, axis=2) + 3 * gap * (old * squares - new * self._squares) / total
            self._cubes += cubes + gap**3 * (old * new * (old - new) / total**2)
        self._squares += squares + gap**2 * (old * new / total)
        self._mean = mean - gap * (old / total)
        self.count = total

    def standard_error(self) -> np.ndarray:
        if self.count < 2:
            return np.full_like(self._mean, np.nan)
        return self._unit * np.sqrt(self._squares / ((self.count - 1) * self.count))

    def lopsidedness(self) -> np.ndarray:
        """skewness^2 / count: 0 where values spread evenly about their mean, 1 where one differs from all others.

        A quarter of it is the share of 95% intervals that miss the mean in addition (Edgeworth, to first order).
        """
        rounding = self.count * (1e-12 * self._mean) ** 2  # what is no larger says nothing
        scale = np.where(self._squares > rounding, self._squares, np.inf)
        return (self._cubes / scale) ** 2 / scale


def warn_if_lopsided(sums: Moments) -> None:
    """An AccuracyWarning, for the caller's caller, if mean +- 1.96 standard errors is no 95% interval somewhere."""
    if sums.count < 2:
        return
    lopsided = np.nan_to_num(sums.lopsidedness()[0], nan=np.inf)  # not a number: cubes overflowed
    if lopsided.max() > _LOPSIDED + _BY_CHANCE / sums.count:
        _, point, column = np.unravel_index(np.argmax(lopsided), lopsided.shape)
        checks.warn(
            f"paths must be more for 95% intervals to hold the mean: at point {point}, column {column}, a few of the "
            f"{sums.count} paths make most of the spread (skewness {np.sqrt(lopsided.max() * sums.count):.2g}); mean +- "
            "1.96 standard_error is too short there, and the mean more likely too near to zero than too far from it",
            checks.AccuracyWarning,
        )  # fmt: skip
