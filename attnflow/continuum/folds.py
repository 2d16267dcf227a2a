"""Whether a layer jumps where its limit diffuses: tokens that f puts close although the way between them is long."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..attention import Attention
from ..geometry import Density
from ..similarity.folding import line_lengths

_TOKENS = 1000
_LINES = 2000  # pairs within reach whose lines are measured
_REACH, _FAR = 3.0, 6.0  # of sqrt(epsilon): how far a query sees, and what it would not see along the line
_SHARE = 0.05


def warn_of_folds(layer: Attention, density: Density) -> None:
    """Warn where f folds at the layer's temperature.

    Per layer features are carried over a mean square distance of sum_j S_ij L_ij^2, L the length of the straight line
    between two tokens under the metric of f; the limit knows the part of near tokens. Among 1000 tokens and their pairs
    with sqrt(f) < 3 sqrt(eps), the share

        sum K L^2 over L > 6 sqrt(eps)  /  sum K L^2,     K = exp(-f / (2 eps)),

    is zero for a map that is an embedding with room around it, wherever eps is small beside its curvature.

    Warns
    -----
    FoldingWarning
        If more than a twentieth of it is carried across a fold.
    """
    f, space, epsilon = layer.f, density.space, layer.epsilon
    try:
        tokens = density.sample(_TOKENS, rng=0)
    except ValueError:  # a pole, or more than three dimensions: then nobody knows
        return
    values, own = f(tokens, tokens), f.diagonal(tokens)
    with np.errstate(invalid="ignore"):
        squares = np.triu(np.maximum((values + values.T - own - own[:, None]) / 2, 0.0), 1)
    i, j = np.nonzero(np.triu(squares <= _REACH**2 * epsilon, 1))
    if len(i) > _LINES:
        chosen = np.linspace(0, len(i) - 1, _LINES).astype(int)
        i, j = i[chosen], j[chosen]
    steps = tokens[j] - tokens[i]
    for k in np.flatnonzero(space.periodic):
        period = space.bounds[k][1] - space.bounds[k][0]
        steps[:, k] -= period * np.round(steps[:, k] / period)
    lengths = line_lengths(f, tokens[i], tokens[i] + steps, space.project)
    carried = np.exp(-squares[i, j] / (2 * epsilon)) * lengths**2
    jumps = lengths > _FAR * np.sqrt(epsilon)
    if not carried[jumps].sum() > _SHARE * carried.sum():
        return
    checks.warn(
        f"f folds at epsilon = {epsilon:g}: {carried[jumps].sum() / carried.sum():.0%} of what a layer carries goes to tokens "
        f"within 3 sqrt(epsilon) = {_REACH * np.sqrt(epsilon):.3g} by f that are {np.median(lengths[jumps]):.3g} apart (median) "
        "along the straight line: features jump there, in the limit they diffuse. A learned map does not fold with "
        "lipschitz=0.9; a plane of its features, with a density of its own, cannot",
        checks.FoldingWarning,
    )
