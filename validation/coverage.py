"""Error bars from one set of tokens, over many sets: how often they hold the infinite-token value.

Five problems, each with every normalisation that is a key bias: fresh sets of 1000 tokens, `attnflow.error_bars` on each,
and the features of infinitely many tokens by quadrature. A nominal 95 % interval is 1.96 standard errors to either side.
With a residual step features have values at tokens alone, all of which are then judged; elsewhere five queries are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

import attnflow as af

from . import Claim, Report

SETS, TOKENS, NOMINAL, QUANTILE = 200, 1000, 0.95, 1.96
ALLOWED = (0.92, 0.97)
NORMALIZATIONS = {
    "softmax": "softmax",
    "alpha = 1/2": af.DensityCorrected(0.5),
    "column": "column",
    "sinkhorn": "sinkhorn",
}


@dataclass(frozen=True)
class Problem:
    """Tokens, their features, and the layers; queries None judges at the tokens."""

    density: af.Density
    initial: Callable[[np.ndarray], np.ndarray]
    epsilon: float
    layers: int
    queries: np.ndarray | None = None
    residual: float = 1.0

    def layer(self, normalization) -> af.Attention:
        f = af.SquaredDistance(self.density.space)
        return af.Attention(f, self.epsilon, normalization, self.residual, rtol=1e-5)


_CIRCLE, _TORUS = af.Circle(), af.Torus([2 * np.pi] * 2)
PROBLEMS = {
    "circle, two modes": Problem(
        af.Density(_CIRCLE, lambda x: 0.8 * np.cos(x[..., 0] - 0.4) + 0.4 * np.sin(2 * x[..., 0])),
        lambda x: np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0]),
        0.1,
        5,
        np.array([[0.3], [1.6], [2.8], [4.1], [5.3]]),
    ),
    "circle, residual 1/2": Problem(af.VonMises(1.0), lambda x: np.cos(x[..., 0]), 0.1, 5, residual=0.5),
    "2-torus": Problem(
        af.Density(_TORUS, lambda x: 0.5 * np.cos(x[..., 0]) + 0.5 * np.cos(x[..., 1] - x[..., 0])),
        lambda x: np.sin(x[..., 0]) * np.cos(x[..., 1]),
        0.2,
        3,
        np.array([[0.5, 0.5], [2.0, 1.0], [3.0, 5.0], [5.0, 2.0], [1.0, 4.0]]),
    ),
    "sphere": Problem(
        af.VonMisesFisher([0.0, 0.0, 1.0], 1.0),
        lambda x: x[..., 2] + x[..., 0] * x[..., 1],
        0.1,
        3,
        np.array([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.6, 0.64, 0.48], [0.8, 0.0, -0.6]]),
    ),
    "line": Problem(
        af.Gaussian([0.0], [[1.0]]),
        lambda x: np.sin(1.5 * x[..., 0]),
        0.1,
        4,
        np.array([[-1.2], [-0.5], [0.3], [0.8], [1.5]]),
    ),
}


def run() -> Report:
    """Share of intervals that hold the infinite-token value, for each problem and normalisation."""
    rows, claims, held = [], [], {name: [] for name in NORMALIZATIONS}
    for title, problem in PROBLEMS.items():
        for name, normalization in NORMALIZATIONS.items():
            scores = standardised(problem, normalization, SETS, f"{title}, {name}")
            shares = np.mean(np.abs(scores) < QUANTILE, axis=1)
            error = shares.std(ddof=1) / np.sqrt(len(shares))
            spread, mean = np.sqrt(np.mean(scores**2)), np.abs(scores.mean(axis=0)).max()
            rows.append([title, name, *(f"{x:.3f}" for x in (shares.mean(), error)), f"{spread:.2f}", f"{mean:.2f}"])
            held[name].append(shares.mean())
    low, high = ALLOWED
    for name, shares in held.items():
        found, within = f"{min(shares):.3f} to {max(shares):.3f}", low <= min(shares) and max(shares) <= high
        claims.append(
            Claim(f"{name}: coverage of nominal {NOMINAL:.0%} intervals", found, f"{low:.2f} to {high:.2f}", bool(within))
        )
    text = (
        f"{SETS} sets of {TOKENS} random tokens per row; the infinite-token value by quadrature. Scores are deviations over the\n"
        "standard error: their root mean square, and the largest mean of an output's. Allowed: "
        f"{low:.2f} to {high:.2f} of nominal {NOMINAL:.2f}."
    )
    columns = ["problem", "normalisation", "coverage", "its standard error", "rms score", "largest mean score"]
    return Report("Error bars from one set of tokens: coverage", text, columns, rows, claims)


def standardised(problem: Problem, normalization, sets: int, label: str) -> np.ndarray:
    """(sets, outputs) deviations from the infinite-token value over the standard error; two threads."""
    infinite = _infinite(problem, problem.layer(normalization))

    def scores(seed: int) -> np.ndarray:
        tokens = problem.density.sample(TOKENS, rng=seed)
        layer = problem.layer(normalization)
        bars = af.error_bars(layer, tokens, problem.initial, problem.layers, problem.queries, rng=seed)
        return ((bars.features - infinite(bars.points)) / bars.noise)[:, 0]

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(tqdm(pool.map(scores, range(sets)), label, sets, leave=False)))


def _infinite(problem: Problem, layer: af.Attention) -> Callable[[np.ndarray], np.ndarray]:
    """Features of infinitely many tokens after the layers, on points."""
    last = problem.layers - 1
    run = af.propagate(layer, problem.density, problem.initial, problem.layers)
    assert run.grid is not None
    if layer.residual < 1:
        return run.at
    bound, _ = af.attention.bind_density(layer, problem.density, run.grid.shape, problem.initial)
    features = run.y[last].reshape(run.grid.size, -1)
    return lambda points: bound.attend(features, points).mean
