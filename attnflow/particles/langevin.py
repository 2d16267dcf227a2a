"""The limit equation as a stochastic process: paths of it (langevin), and features as their means (feynman_kac).

dX = drift grad_g log p dt + sqrt(2) dW on (M, g) has the generator L of dH/dt = Delta_g H + drift <grad log p, grad H>,
so H(x, t) = E[H0(X_t) | X_0 = x]: a third solver, which shares nothing with the layers and nothing with the grids.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import capacity, checks, display
from ..geometry import Density
from ..progress import track
from ..provenance import provenance, seeded
from ..recording import Step, Watch
from ..solution import Solution
from .diffusions import Scheme, build_scheme, choose_steps, settle
from .legs import divide
from .moments import Moments, warn_if_lopsided

_BLOCK = 2**14  # paths that move together: bounds the memory of a step
_FAR = 1e6  # a step this much longer than 1 + |x| is no step any more: the next would overflow


def langevin(
    density: Density,
    points: np.ndarray,
    t: float | Sequence[float],
    paths: int,
    drift: float = 2.0,
    rng: np.random.Generator | int | None = None,
    steps: int | None = None,
    progress: bool = False,
    *,
    save: str = "all",
    callback: Callable[[Step], object] | None = None,
    store: str | os.PathLike | None = None,
) -> Solution:
    """Independent paths of dX = drift grad_g log p dt + sqrt(2) dW from each of the points, reflected at walls.

    Weak order 2 on tori, Euclidean spaces and spheres, 1 in a box (exact if p is uniform), on charts and under other
    metrics. The stationary law is p^drift dvol_g.

    Parameters
    ----------
    density : Density
        p, on any space; grad log p from density.score.
    points : (M, columns) array
        Where paths start.
    t : float or sequence of float
        Output time or increasing times >= 0, in units of length squared.
    paths : int
        Paths from each point.
    drift : float
        2 for softmax, 1 for Sinkhorn, 2 (1 - alpha) with density correction.
    rng : numpy Generator, int or None
    steps : int or None
        Equal steps to the largest time; output times between them divide what lies between two outputs equally. None
        chooses them from how steep log p, its slope and the metric are where paths come by, so that the weak error
        should be a fifth of the statistical error of all M * paths paths; an estimate, not a bound.
    progress : bool
        Show a progress bar.
    save, callback, store
        As in `propagate`, of the output times; save is a word, and statistics are over all paths.

    Returns
    -------
    Solution
        y is (T, M * paths, columns), the paths of one point together: y.reshape(T, M, paths, columns). Periodic
        coordinates are wrapped. Interrupted (status 1), or stopped because the steps were too long for the drift to be
        followed (status -1), it holds the times that were reached, or the start if there is none. stats has
        points, paths, steps, step (the longest), scheme and weak_order.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    See Also
    --------
    feynman_kac : features, with standard errors.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> from attnflow.particles import langevin
    >>> run = langevin(af.Gaussian(0.0, 1.0), np.array([[2.0]]), t=5.0, paths=20_000, rng=0)
    >>> run.y.shape, run.y.var().round(2)   # the stationary law is p^2, of variance 1/2
    ((1, 20000, 1), np.float64(0.5))
    """
    start, times, paths, drift, noise = _check(density, points, t, paths, drift, rng)
    watch = Watch.of_times(save, callback, store)
    scheme = build_scheme(density, drift)
    capacity.fits(start.nbytes * paths * (2 * (1 if watch.sparing else len(times)) + scheme.draws + 3), "paths")
    asked, steps = steps, _read_steps(density, drift, scheme, start, times, steps, len(start) * paths)
    capacity.ends(steps, "t" if asked is None else "steps", 2e-5 + 1e-9 * start.size * paths)
    legs = divide(times, steps)
    call = provenance(
        "langevin", density=density, points=start, t=times, paths=paths, drift=drift, rng=seeded(rng, noise), steps=steps
    )
    record = watch.begin(len(times), provenance=call)
    x, status, message = np.repeat(start, paths, axis=0), 0, "finished"
    try:
        bar = track(range(sum(count for count, _ in legs)), progress, unit="step")
        for time, (count, h) in zip(times.tolist(), legs):
            for _ in itertools.islice(bar, count):
                x = _advance(scheme, x, h, noise.normal(size=(scheme.draws, *x.shape)))
            record.add(time, x)
    except KeyboardInterrupt:
        if record.count < len(times):
            status, message = 1, f"{record.how} after {record.count} of {len(times)} times; {record.here}"
    except _LostPath as error:
        status, message = -1, f"{error}; after {record.count} of {len(times)} times; {record.here}"
    if not record.count:  # a Solution has at least one time
        record.add(0.0, np.repeat(start, paths, axis=0), watched=False)
    stats = {"points": len(start), "paths": paths, **_describe(legs, scheme)}
    stats |= {"coordinate": "angle"} if density.space.angular else {}
    return record.solution(status, message, stats)


class FeynmanKac(NamedTuple):
    """Features as means over paths.

    Attributes
    ----------
    mean : (T, M, c) array
        Estimates of H(points, t); NaN if no path was finished.
    standard_error : (T, M, c) array
        The standard deviation of `mean` over repetitions with other random numbers, estimated from the paths.
        mean +- 1.96 of it is a 95% interval where no few paths dominate; where they do, there is a warning.
    bias : (T, M, c) array
        What halving the step showed its weak error to be, which `mean` does not contain any more: a generous
        estimate of what it may still contain.
    status : int
        0 when finished, 1 when interrupted (the paths that were finished are in), -1 when paths were lost.
    message : str
    stats : dict
        points, paths (those that were finished), steps, step, scheme, and weak_order, that of the scheme.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    bias: np.ndarray
    status: int
    message: str
    stats: dict[str, Any]

    def __repr__(self) -> str:
        points, times = (display.counted(self.mean.shape[k], name) for k, name in ((1, "point"), (0, "time")))
        return display.cut(f"FeynmanKac({points}, {times}, {display.counted(self.stats['paths'], 'path')}, {self.message!r})")

    def _repr_html_(self) -> str:
        rows = [
            *zip(("times", "points", "columns"), self.mean.shape),
            *((name, display.word(value)) for name, value in self.stats.items() if name != "points"),
            ("largest standard error", f"{np.abs(self.standard_error).max():.3g}"),
            ("largest bias of a step", f"{np.abs(self.bias).max():.3g}"),
            ("message", self.message),
        ]
        return display.table("Means over paths", rows)


def feynman_kac(
    density: Density,
    initial: Callable,
    points: np.ndarray,
    t: float | Sequence[float],
    paths: int,
    drift: float = 2.0,
    rng: np.random.Generator | int | None = None,
    steps: int | None = None,
    progress: bool = False,
) -> FeynmanKac:
    """Solve dH/dt = Delta_g H + drift <grad log p, grad H>_g at points, as H(x, t) = E[H0(X_t) | X_0 = x].

    Every path is run with steps h and again with 2h and the same noise; the mean is that of
    H0(X_h) + (H0(X_h) - H0(X_2h)) / (2^q - 1), q the scheme's weak order (Talay and Tubaro 1990): one
    order better, half an order where there are walls.

    Parameters
    ----------
    density, points, t, paths, drift, rng, progress
        As for `langevin`; times share their paths, so their errors are correlated, those of two points are not.
    initial : callable
        H0 at points (N, columns) -> (N,) or (N, c); where there are walls its normal derivative should vanish
        there, or the mean converges more slowly.
    steps : int or None
        Steps h to the largest time, rounded up to an even number between outputs; None as for `langevin`, for the
        statistical error of `paths` paths.

    Returns
    -------
    FeynmanKac

    Raises
    ------
    ValueError, TypeError
        Naming the argument, before any work.

    Warns
    -----
    AccuracyWarning
        If a few paths make most of a mean, as where `initial` grows like an exponential (skewness^2 / paths above
        0.04): the 95% interval mean +- 1.96 standard_error is then too short.

    Examples
    --------
    >>> import numpy as np, attnflow as af
    >>> from attnflow.particles import feynman_kac
    >>> H = feynman_kac(af.Uniform(af.Circle()), lambda x: np.cos(x[:, 0]), np.array([[0.0]]), 1.0, paths=1000, rng=0)
    >>> bool(abs(H.mean[0, 0, 0] - np.exp(-1)) < 4 * H.standard_error[0, 0, 0])
    True
    """
    x, times, paths, drift, rng = _check(density, points, t, paths, drift, rng)
    columns = checks.evaluate(initial, x, "initial").shape[1]
    scheme = build_scheme(density, drift)
    batch = min(max(1, _BLOCK // len(x)), paths)
    capacity.fits(16 * len(times) * len(x) * columns * (batch + 4), "t")
    asked, steps = steps, _read_steps(density, drift, scheme, x, times, steps, paths, pairs=True)
    capacity.ends(steps, "t" if asked is None else "steps", 2e-5 + 1e-9 * x.size)
    capacity.ends(steps * (paths // batch), "paths", 2e-5 + 1e-9 * x.size * batch)
    legs = divide(times, steps, pairs=True)
    refine = 1 / (2**scheme.weak_order - 1)
    sums = Moments((2, len(times), len(x), columns))
    status, message = 0, "finished"
    try:
        for first in track(range(0, paths, batch), progress, -(-paths // batch), unit="batch"):
            copies = min(batch, paths - first)
            values = np.empty((2, len(times), copies, len(x), columns))
            for k, pair in enumerate(_run_pair(scheme, legs, np.tile(x, (copies, 1)), rng)):
                fine, coarse = (checks.evaluate(initial, end, "initial").reshape(copies, len(x), -1) for end in pair)
                values[1, k] = refine * (coarse - fine)  # the weak error of `fine`, to leading order
                values[0, k] = fine - values[1, k]
            sums.add(values)
    except KeyboardInterrupt:
        status, message = 1, f"interrupted after {sums.count} of {paths} paths; their means are here"
    except _LostPath as error:
        status, message = -1, f"{error}; what is here are the means of the {sums.count} paths before"
    warn_if_lopsided(sums)
    stats = {"points": len(x), "paths": sums.count, **_describe(legs, scheme)}
    return FeynmanKac(sums.mean[0], sums.standard_error()[0], sums.mean[1], status, message, stats)


def _run_pair(scheme: Scheme, legs: list[tuple[int, float]], x: np.ndarray, rng: np.random.Generator) -> Iterator:
    """Paths with steps h, and with 2h and the same noise, at each output time."""
    fine, coarse = x, x
    for count, h in legs:
        for _ in range(count // 2):
            xi = rng.normal(size=(2 * scheme.draws, *x.shape))
            fine = _advance(scheme, fine, h, xi[: scheme.draws])
            fine = _advance(scheme, fine, h, xi[scheme.draws :])
            joint = xi.reshape(scheme.draws, 2, *x.shape).sum(axis=1) / np.sqrt(2)  # noise adds up over time
            coarse = _advance(scheme, coarse, 2 * h, joint)
        yield fine, coarse


def _advance(scheme: Scheme, x: np.ndarray, h: float, xi: np.ndarray) -> np.ndarray:
    """A step of all rows, block by block."""
    moved = np.empty_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in (slice(first, first + _BLOCK) for first in range(0, len(x), _BLOCK)):
            moved[rows] = scheme.advance(x[rows], h, xi[:, rows])
    lost = ~(np.abs(moved) < _FAR * (1 + np.abs(x))).all(axis=1)
    if lost.any():
        i = int(np.argmax(lost))
        raise _LostPath(f"a step of {h:.3g} threw a path from {x[i]} to {moved[i]}: ask for more steps")
    return moved


class _LostPath(ArithmeticError):
    """A path that the scheme cannot follow with this step."""


def _check(density, points, t, paths, drift, rng) -> tuple[np.ndarray, np.ndarray, int, float, np.random.Generator]:
    if not isinstance(density, Density):
        raise TypeError(f"density must be an attnflow Density, got {type(density).__name__}")
    x = density.space.check(points, "points").astype(float)
    times = checks.output_times(t)
    paths = checks.integer(paths, "paths", least=2)
    drift = checks.real(drift, "drift")
    if drift != 0:
        bad = ~np.isfinite(density.score(x)).all(axis=1)
        if bad.any():
            where = int(np.argmax(bad))
            raise ValueError(
                f"density must have a finite score at points, got none at {checks.entries(x[where])} (index {where})"
            )
    return settle(density.space, x), times, paths, drift, checks.generator(rng)


def _read_steps(density, drift, scheme, x, times, steps, paths, pairs=False) -> int:
    """The given number of steps, or the chosen one; refused where the scheme forbids steps as long."""
    if steps is None:
        return choose_steps(density, drift, scheme, x, times[-1], paths, extrapolated=pairs)
    steps = checks.integer(steps, "steps", least=1)
    least = np.floor(float(times[-1]) / scheme.longest * (2 if pairs else 1)) + 1
    if steps < least:
        raise ValueError(f"steps must be at least {least:.0f} to time {times[-1]:g} on {density.space}, got {steps}")
    return steps


def _describe(legs: list[tuple[int, float]], scheme: Scheme) -> dict[str, Any]:
    return {
        "steps": sum(count for count, _ in legs),
        "step": float(max(h for _, h in legs)),
        "scheme": scheme.name,
        "weak_order": scheme.weak_order,
    }
