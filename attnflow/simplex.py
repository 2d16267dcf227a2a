"""Sets that are slow to leave, from the slow modes: the corners of the simplex that these span.

Every slow mode of a Markov process is nearly constant on each of its metastable sets, so the values of the first m
modes lie near m points, corners of a simplex (Weber & Galliat 2002; Deuflhard & Weber 2005).
"""

from __future__ import annotations

import numpy as np

from . import checks


def label_sets(modes: np.ndarray, rates: np.ndarray, count: int | None = None) -> np.ndarray:
    """Labels 0, ..., count - 1 of the corner that is nearest to each point.

    Parameters
    ----------
    modes : (k, N) array
        Slowest first, the first of them constant.
    rates : (k,) array
        Positive sizes of their rates, those that are not told from zero raised to what is.
    count : int, optional
        None counts the modes before the largest relative jump of the rates.

    Returns
    -------
    (N,) array of int

    Raises
    ------
    ValueError
        If count is not between 1 and k.

    Examples
    --------
    >>> modes = np.array([[1.0, 1.0, 1.0, 1.0], [-1.0, -0.9, 1.0, 0.9], [1.0, -1.0, 1.0, -1.0]])
    >>> label_sets(modes, np.array([1e-300, 0.01, 5.0])).tolist()
    [0, 0, 1, 1]
    """
    if count is None:
        count = 2 + int(np.argmax(rates[2:] / rates[1:-1])) if len(rates) > 2 else 1
    count = checks.integer(count, "count", least=1)
    if count > len(rates):
        raise ValueError(f"count must be at most the {len(rates)} eigenvalues computed, got {count}")
    rows = modes[:count].T
    left = rows.copy()
    corners: list[int] = []
    for k in range(count):
        if k == 1:  # the simplex lies in a plane off the origin: move it there
            left = rows - rows[corners[0]]
        elif k > 1:
            direction = left[corners[-1]] / np.linalg.norm(left[corners[-1]])
            left = left - np.outer(left @ direction, direction)
        corners.append(int(np.argmax(np.linalg.norm(left, axis=1))))
    return np.argmax(np.linalg.solve(rows[corners].T, rows.T), axis=0)
