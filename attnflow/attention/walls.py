"""What a wall has of the weight that a layer conserves."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, roots_legendre

_NODES, _FAR = 80, 9.0  # of integrals over the distance from a wall, in widths of the similarity


def wall_mass(alpha: float) -> float:
    """Of key weights q^-alpha: w(u) = r(u) integral_0^inf phi(u - v) r(v) dv, r = Phi^-alpha.

    Examples
    --------
    >>> round(wall_mass(0.0), 6), round(wall_mass(0.5), 6)    # the first is -1 / sqrt(2 pi)
    (-0.398942, -0.013204)
    """
    node, weight = roots_legendre(_NODES)
    u, weight = _FAR * (node + 1) / 2, _FAR * weight / 2
    r = ndtr(u) ** -float(alpha)
    kernel = np.exp(-((u[:, None] - u) ** 2) / 2) / np.sqrt(2 * np.pi)
    w = r * (ndtr(u) + kernel @ (weight * (r - 1)))  # r - 1 and w - 1 have ended at _FAR
    return float(weight @ (w - 1))
