"""Second and fourth moments per coordinate of the normalised similarity exp(-h(d) / (2 eps)) in R^n.

m2 = E[z_1^2] and m4 = E[z_1^4] of the isotropic probability density proportional to
exp(-h(|z|) / (2 eps)). The time step of one plain layer is m2 / 2. Gaussian: m2 = eps, m4 = 3 eps^2.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from .. import checks


def power_moments(q: float, epsilon: float, dim: int) -> tuple[float, float]:
    """h = d^q, with e = 2 eps: m2 = e^(2/q) Gamma((n+2)/q) / (n Gamma(n/q)), m4 likewise.

    Examples
    --------
    >>> power_moments(4.0, 0.05, 2)[0].round(10)
    np.float64(0.0892062058)
    """
    dim = checks.integer(dim, "dim", least=1)
    with np.errstate(over="ignore"):
        scale = np.float64(2 * checks.positive(epsilon, "epsilon")) ** (2 / q)
        square = scale**2
    if not np.isfinite(square):
        raise ValueError(f"epsilon must be smaller for moments of d^{q:g} to be numbers, got {epsilon:g}")
    m2 = scale * np.exp(gammaln((dim + 2) / q) - gammaln(dim / q)) / dim
    if not np.isfinite(m2):
        raise ValueError(f"q must be larger for a second moment to exist in floating point, got {q}")
    m4 = 3 * square * np.exp(gammaln((dim + 4) / q) - gammaln(dim / q)) / (dim * (dim + 2))
    return m2, m4


def log_moments(epsilon: float, dim: int) -> tuple[float, float]:
    """h = log(1 + d^2): a Student density with m2 = e / (2 - (n+2) e), finite for e = 2 eps < 2 / (n+2).

    m4 is infinite from e = 2 / (n+4) on.

    Raises
    ------
    ValueError
        If m2 is infinite: the tails are too heavy for a time step to exist.
    """
    e, n = 2 * checks.positive(epsilon, "epsilon"), checks.integer(dim, "dim", least=1)
    if e * (n + 2) >= 2:
        raise ValueError(
            f"epsilon must be below 1 / (n + 2) = {1 / (n + 2):.4g} for log(1 + d^2) in dimension {n}, got {epsilon}: "
            "its second moment is infinite, so no time step exists"
        )
    m2 = e / (2 - (n + 2) * e)
    m4 = 3 * e * m2 / (2 - (n + 4) * e) if e * (n + 4) < 2 else np.inf
    return m2, m4
