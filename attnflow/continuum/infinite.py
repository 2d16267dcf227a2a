"""Infinitely many tokens through the layers that meet a time of the equation, the last of them a shorter step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ..attention import Attention, MultiHead
from ..attention.infinite import bind_density
from ..geometry import Density
from ..particles import propagate
from ..solution import Solution
from .limits import depth


def infinite_layers(
    layer: Attention | MultiHead,
    density: Density,
    initial: Callable,
    t: float,
    grid: int | Sequence[int] | None = None,
    n_tokens: float | None = None,
) -> Solution:
    """Features of infinitely many tokens at the time t: floor(t / time_step) layers, and a step of what is left.

    Parameters
    ----------
    layer : Attention or MultiHead
    density : Density
    initial : callable
        Features at the start, on points (N, n).
    t : float
        Time of the equation.
    grid : int, sequence of int or None
        Quadrature nodes per axis; None chooses them.
    n_tokens : float, optional
        How many tokens they stand for, where queries choose among them.

    Returns
    -------
    Solution
        At t alone; what `propagate` ended with, if that did not reach its end.

    Examples
    --------
    >>> import attnflow as af
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.1)
    >>> run = infinite_layers(layer, af.VonMises(1.0), lambda x: np.cos(x[..., 0]), t=0.52)
    >>> run.t, run.y.shape
    (array([0.52]), (1, 64, 1))
    """
    whole, share = depth(cast(Attention, layer), t)
    run = propagate(layer, density, initial, whole, save_every=max(whole, 1), grid=grid, n_tokens=n_tokens)
    if run.status:
        return run
    assert run.grid is not None
    bound, _ = bind_density(layer, density, run.grid.shape, n_tokens=n_tokens)
    last = last_step(bound, run.y[-1].reshape(run.grid.size, -1), share)
    return Solution(np.array([float(t)]), last.reshape(1, *run.grid.shape, -1), grid=run.grid, stats=run.stats)


def last_step(bound, features: np.ndarray, share: float) -> np.ndarray:
    """Features (N, c) after the share of one more layer that `depth` leaves."""
    step = bound.layer.residual * share
    return features + step * (bound.attend(features).mean - features) if step else features


def finished(solution: Solution) -> Solution:
    """The solution, if it ran to its end."""
    if solution.status == 1:  # an interrupt that was caught on the way
        raise KeyboardInterrupt(solution.message)
    if solution.status:
        raise RuntimeError(f"a run ended with status {solution.status}: {solution.message}")
    return solution


@dataclass(frozen=True, eq=False)
class Difference:
    """Of two solutions, at their last time: points (M, n) -> (M, c)."""

    solution: Solution
    reference: Solution

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.solution.at(points) - self.reference.at(points)
