"""Where the spectrum of a layer's weights ends: by proof, or by a few Lanczos steps.

For symmetric f the weights S are similar to a symmetric matrix, whatever the key bias, and their rows sum to one: the
spectrum lies in [-1, 1], and in [0, 1] where the similarity is positive definite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

_FAILURE = 1e-6  # probability that Lanczos from a random start misses the lower end by more than it is said to
_STEPS = range(8, 129, 4)


def lanczos_steps(size: int, cost: Callable[[float], float]) -> int:
    """How many steps are worth it, when an interval from `lower` costs `cost(lower)` applications; 0 for none.

    Judged as if all eigenvalues were positive, which only the steps can tell.
    """
    return min((0, *_STEPS), key=lambda steps: steps + cost(_safe(0.0, steps, size)))


def lower_end(apply: Callable[[np.ndarray], np.ndarray], weight: np.ndarray, steps: int) -> float:
    """A lower bound of the spectrum of an operator that is self-adjoint in `weight` and lies in [-1, 1].

    From a random start, m steps find the top eigenvalue of a positive semidefinite N x N matrix, here 1 - S, to a
    relative error e except with probability at most 1.648 sqrt(N) exp(-sqrt(e) (2m - 1)), whatever the matrix
    (Kuczynski & Wozniakowski 1992, theorem 4.2). What can be wrong with probability above 1e-6 is added.

    Parameters
    ----------
    apply : callable
        v (N, 1) -> S v.
    weight : (N,) array
        Positive.
    steps : int
        m; with 0 the lower end is -1.
    """
    if steps == 0:
        return -1.0
    root = np.sqrt(weight)
    u = np.random.default_rng(0).normal(size=len(root))
    u /= np.linalg.norm(u)
    before, diagonal = np.zeros_like(u), []
    beside: list[float | np.floating] = [0.0]
    for _ in range(min(steps, len(root))):
        image = root * apply((u / root)[:, None])[:, 0]
        diagonal.append(u @ image)
        image -= diagonal[-1] * u + beside[-1] * before
        beside.append(np.linalg.norm(image))
        if beside[-1] < 1e-10:  # nothing is left that the start could reach
            break
        before, u = u, image / beside[-1]
    ritz = eigvalsh_tridiagonal(diagonal, beside[1:-1])[0]
    return _safe(ritz, steps, len(root))


def _safe(ritz: float, steps: int, size: int) -> float:
    error = (np.log(1.648 * np.sqrt(size) / _FAILURE) / max(2 * steps - 1, 1)) ** 2
    return max(1 - (1 - ritz) / (1 - error), -1.0) if error < 1 else -1.0
