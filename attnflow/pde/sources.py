"""What is added to dH/dt: a function of points, time and features, and whether it is s(x) + r(x) H, which is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import checks
from ..geometry import Space
from .peaks import Peaks, find_peaks
from .timing import SELDOM, Timing, asked_times, timing_of

_PLACES = 100  # of a grid, at which it is asked for jumps
_SHARES = (-3.0, -0.3, 0.02, 1.0, 3.0)  # of the features' size, at which it is asked whether it is affine
_SAME = 1e-11  # relative difference from s + r H that is rounding


@dataclass(frozen=True)
class Source:
    """source(points, t, H) as it is added to dH/dt.

    Attributes
    ----------
    function : callable
        Points (M, n), time and features (M, c) to (M, c).
    sizes : (c,) array
        Of the features, positive.
    affine : bool
        Whether it is s(x) + r(x) H, with one rate r for all columns, wherever it was asked.
    timing : Timing
        Where it is not affine.
    """

    function: Callable
    sizes: np.ndarray
    affine: bool = False
    timing: Timing = Timing()

    def at(self, points: np.ndarray, t: float, features: np.ndarray) -> np.ndarray:
        """(M, c); raises ValueError or TypeError naming the source where that is not what it returns."""
        values = checks.reals(self.function(points, float(t), features), "source(points, t, H)").astype(float, copy=False)
        if values.shape != features.shape:
            raise ValueError(f"source must return shape {features.shape} for H of that shape, got {values.shape}")
        if not np.isfinite(values).all():
            where = int(np.argmax(~np.isfinite(values).all(axis=1)))
            raise ValueError(
                f"source must be finite, got {values[where].tolist()} at x = {points[where].tolist()}, t = {t:.6g}, "
                f"H = {features[where].tolist()}"
            )
        return values

    def parts(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s (M, c) and r (M,) at time 0."""
        none = np.zeros((len(points), len(self.sizes)))
        constant = self.at(points, 0.0, none)
        rate = (self.at(points, 0.0, none + self.sizes) - constant) / self.sizes
        return constant, rate[:, 0]

    def fields(self, points: np.ndarray) -> np.ndarray:
        """s and r side by side, to see how smooth they are: (M, c + 1)."""
        constant, rate = self.parts(points)
        return np.concatenate([constant, rate[:, None]], axis=1)

    def is_affine(self, points: np.ndarray, times: np.ndarray, fields: np.ndarray) -> bool:
        """Whether it is s + r H for features (T, M, c) at points (M, n) and times (T,)."""
        constant, rate = self.parts(points)
        for t, H in zip(times, fields):
            linear, found = rate[:, None] * H, self.at(points, t, H)
            scale = (np.abs(constant) + np.abs(linear)).max(axis=0)
            if (np.abs(found - constant - linear).max(axis=0) > _SAME * scale).any():
                return False
        return True

    def seems_affine(self, points: np.ndarray, times: np.ndarray) -> bool:
        """The same, of scattered features of several sizes."""
        scatter = np.random.default_rng(0).uniform(0.5, 1.0, (len(times), len(points), len(self.sizes)))
        return self.is_affine(points, times, np.resize(_SHARES, len(times))[:, None, None] * scatter * self.sizes)

    def again(self, points: np.ndarray, times: np.ndarray, fields: np.ndarray) -> Source:
        """Of features that grew as large as fields (T, M, c): affine still, if only rounding errors of r were as large."""
        found = replace(self, sizes=np.maximum(self.sizes, np.abs(fields).max(axis=(0, 1))))
        spread = np.linspace(0.0, times[-1], len(_SHARES))
        if found.is_affine(points, times, fields) and found.seems_affine(points, spread):
            return found
        return replace(self, affine=False).timed(points[:: 1 + len(points) // _PLACES], asked_times(times))

    def timed(self, points: np.ndarray, times: np.ndarray) -> Source:
        """With what there is to know of its changes in time, at features that stay."""
        features = np.broadcast_to(self.sizes, (len(points), len(self.sizes)))
        return replace(self, timing=timing_of(lambda t: self.at(points, t, features), times))

    def scaled(self, powers: np.ndarray) -> Source:
        """Of features over powers of two (c,)."""

        def function(points: np.ndarray, t: float, features: np.ndarray) -> np.ndarray:
            return np.asarray(self.function(points, t, features * powers)) / powers

        return replace(self, function=function, sizes=self.sizes / powers)


def read_source(source: object, points: np.ndarray, times: np.ndarray, sizes: np.ndarray) -> Source | None:
    """The `source` argument, asked at points (M, n), increasing times (T,) and features of several sizes (c,).

    Raises
    ------
    TypeError, ValueError
        If it is not callable, or returns another shape than H has, or what is no finite number.
    """
    if source is None:
        return None
    function = checks.function(source, "source", "callable on points (M, n), the time and H (M, c)")
    found = Source(function, np.where(sizes > 0, sizes, 1.0))
    if found.seems_affine(points, times):
        return replace(found, affine=True)
    return found.timed(points, times)


def source_peaks(
    source: Source, space: Space, ranges: tuple[tuple[float, float], ...] | None, places: np.ndarray, times: np.ndarray
) -> tuple[Peaks, ...]:
    """Narrow peaks of what a source does up to the last time, relative to the features.

    They are looked for at a few times, at two where it seems to be affine, which it then is at all.
    """
    found: tuple[Peaks, ...] = ()
    for t in times[[0, len(times) // 2]] if source.affine else times[::SELDOM]:
        function = partial(_effect, source, float(times[-1]), float(t))
        found += find_peaks(function, "source", space, ranges, function(places), size=1.0)
    return found


def _effect(source: Source, horizon: float, t: float, x: np.ndarray) -> np.ndarray:
    none = np.zeros((len(x), len(source.sizes)))
    return np.concatenate(
        [source.at(x, t, features) * horizon / source.sizes for features in (none, none + source.sizes)], axis=1
    )
