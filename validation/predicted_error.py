"""The predicted error: measured over hundreds of token sets on five spaces, three normalisations, plain and residual layers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

import attnflow as af

from . import Claim, Report

SEEDS = 200
NORMALIZATIONS = {"softmax": "softmax", "alpha = 1/2": af.DensityCorrected(0.5), "sinkhorn": af.Sinkhorn(tol=1e-8)}
RESIDUALS = (1.0, 0.3)


@dataclass(frozen=True)
class Problem:
    """A space, a metric on it, tokens, a start; runs are (epsilon, layers with a = 1, tokens), each of so many token sets."""

    name: str
    f: af.PseudoMetric
    density: af.Density
    initial: Callable
    runs: tuple[tuple[float, int, int], ...]
    seeds: int = SEEDS


def _loop(x: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(x[..., 0]), np.sin(x[..., 0]), 0.4 * np.sin(2 * x[..., 0])], axis=-1)


def _waves(x: np.ndarray) -> np.ndarray:
    return np.sin(x[..., 0]) + 0.3 * np.cos(2 * x[..., 0])


def _oblique(x: np.ndarray) -> np.ndarray:
    """A torus whose metric is the same full matrix everywhere, as Mahalanobis' is in the plane."""
    angles = np.stack([x[..., 0], x[..., 1], x[..., 0] + x[..., 1]], axis=-1)
    radii = np.array([1.0, 0.7, 0.6])
    return np.concatenate([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


_CIRCLE, _TORUS, _SPHERE = af.Circle(), af.Torus([2 * np.pi, 2 * np.pi]), af.Sphere(2)
_ON_CIRCLE = af.Density(_CIRCLE, lambda x: 0.8 * np.cos(x[..., 0] - 0.4) + 0.4 * np.sin(2 * x[..., 0]))
_ON_TORUS = af.Density(_TORUS, lambda x: 0.4 * np.cos(x[..., 0]) + 0.3 * np.cos(x[..., 0] - x[..., 1]))
_PERIODIC = Problem(
    "torus",
    af.SquaredDistance(_TORUS),
    _ON_TORUS,
    lambda x: np.sin(x[..., 0]) * np.cos(x[..., 1]) + 0.5 * np.cos(x[..., 1]),
    ((0.1, 6, 700), (0.3, 2, 1150)),
)
_PLANE = Problem(
    "plane",
    af.Mahalanobis([[1.0, 0.3], [0.3, 0.6]]),
    af.Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.7]]),
    lambda x: np.sin(x[..., 0]) + np.cos(x[..., 1]),
    ((0.2, 3, 600),),
)
PROBLEMS = (
    Problem("circle", af.SquaredDistance(_CIRCLE), _ON_CIRCLE, _waves, ((0.08, 10, 200), (0.4, 2, 460))),
    Problem("learned map", af.SquaredMap(_loop), _ON_CIRCLE, _waves, ((0.08, 10, 300), (0.4, 2, 700))),
    _PERIODIC,
    Problem(
        "sphere",
        af.SquaredDistance(_SPHERE),
        af.VonMisesFisher([0.0, 0.6, 0.8], 1.0),
        lambda x: x[..., 2] + x[..., 0] * x[..., 1],
        ((0.08, 5, 450), (0.2, 2, 820)),
    ),
    _PLANE,
    replace(_PLANE, runs=((0.2, 3, 4000),), seeds=60),
    replace(_PERIODIC, name="oblique torus", f=af.SquaredMap(_oblique)),
)


def run(problems: tuple[Problem, ...] = PROBLEMS, seeds: int = SEEDS) -> Report:
    """Root mean square over at most `seeds` token sets of the error that `compare` prints, over the predicted one."""
    rows, found = [], []
    for problem in problems:
        sets = min(seeds, problem.seeds)
        for epsilon, depth, n_tokens in problem.runs:
            for name, normalization in NORMALIZATIONS.items():
                for residual in RESIDUALS:
                    layer = af.Attention(problem.f, epsilon, normalization, residual=residual)
                    layers = round(depth / residual)
                    t = layers * layer.time_step
                    predicted = af.predicted_error(layer, problem.density, problem.initial, t, n_tokens)
                    label = f"{problem.name}, {name}, a = {residual:g}, N = {n_tokens}"
                    squares = _errors(problem, layer, layers, n_tokens, sets, label) ** 2
                    ratio = float(np.sqrt(squares.mean())) / predicted.relative
                    error = ratio * float(squares.std(ddof=1) / np.sqrt(sets) / (2 * squares.mean()))
                    found.append((predicted.n_eff, predicted.regime, ratio, error))
                    rows.append(
                        [problem.name, name, f"{residual:g}", f"{epsilon:g}", str(layers), str(n_tokens), str(sets)]
                        + [
                            f"{predicted.n_eff:.1f}",
                            predicted.regime,
                            f"{predicted.relative:.4f}",
                            f"{ratio:.3f} ± {error:.3f}",
                        ]
                    )
    text = (
        "Sets of N random tokens; ratio: root mean square of the error that compare prints over predicted_error's,\n"
        "± one standard error; rows of one problem share their tokens. N_eff is the smallest over the tokens. Tokens in the plane are\n"
        "a Gaussian's, whose outermost always have few neighbours: less than a hundredth of them where N is 4000."
    )
    columns = ["problem", "normalisation", "a", "eps", "layers", "N", "sets", "N_eff", "regime", "predicted", "ratio"]
    return Report("The predicted error: measured over predicted", text, columns, rows, _claims(found))


def _claims(found: list[tuple[float, str, float, float]]) -> list[Claim]:
    """Of (N_eff, regime, ratio, its error): ratios about one, unless the regime says that few tokens are few for too many."""
    claims = []
    for least, most, allowed in ((50.0, np.inf, 0.05), (10.0, 50.0, 0.1), (0.0, 10.0, 0.1)):
        rows = [row for row in found if least <= row[0] < most and (least or row[1] != "outside")]
        if rows:
            ratio, error = max((row[2:] for row in rows), key=lambda pair: abs(pair[0] - 1))
            where = f"N_eff from {least:g} on" if least else "N_eff smaller, but not outside"
            numbers = f"{ratio:.3f} ± {error:.3f}, mean {np.mean([row[2] for row in rows]):.3f}"
            holds = all(abs(row[2] - 1) < allowed + 2 * row[3] for row in rows)
            required = f"1 +- {allowed:g}, two standard errors aside"
            claims.append(Claim(f"{where}: worst of {len(rows)} ratios", numbers, required, bool(holds)))
    return claims


def _errors(problem: Problem, layer: af.Attention, layers: int, n_tokens: int, seeds: int, label: str) -> np.ndarray:
    """(seeds,) errors; two threads, since the engine leaves Python to others while it sums."""
    equation = af.limit(layer, problem.density).solve(problem.initial, layers * layer.time_step)

    def error(seed: int) -> float:
        tokens = problem.density.sample(n_tokens, rng=seed + 1000 * n_tokens)
        own = af.Attention(layer.f, layer.epsilon, layer.normalization, layer.residual)
        return float(af.compare(af.propagate(own, tokens, problem.initial, layers, save_every=layers), equation).error[-1])

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(tqdm(pool.map(error, range(seeds)), label, seeds, leave=False)))
