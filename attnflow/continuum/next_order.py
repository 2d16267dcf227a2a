"""What few tokens get wrong beyond the leading noise: a mean of order 1/N, and the next order of the variance.

Everything is a power series along a change of the token density. With p (1 + t xi), P xi = 0, in place of p, the
normalisation's key weights gain the factor 1 + t e_1 + t^2 e_2 + ..., keys together with their masses the factor
r = (1 + t xi)(1 + t e_1 + ...), and a layer is

    H <- (1 - a) H + a A[r H] / A[r],     H = h + t H_1[xi] + t^2 H_2[xi] + t^3 H_3[xi] + ...,

A the infinite-token layer, solved power by power. N random tokens are p (1 + xi / sqrt N) with xi white noise to leading
order, of third cumulant 1 / sqrt N; delta_z is a token at z, less p; P_z averages over z from p, G is white noise. Then

    V(x) = P_z H_1[delta_z](x)^2,     F(x) = P_z H_2[delta_z](x),     E(x, x) = H_1[delta_x](x),

    at a point:   mean F / N,   variance V / N + (1/N^2) { 2 P_z H_1 H_2[delta_z] + Var H_2[G] + 2 P_G H_1 H_3[G] };
    at a token:   mean (F + E(x, x)) / N,   and in the braces also 2 P_G H_1[G] (H_2[G + delta_x] - H_2[G] - H_2[delta_x]) - V,

as there the other N - 1 scatter.

Point masses are summed one by one, which is exact. What needs white noise is averaged over p from a thousand draws, with
its standard error: it corrects a correction. (Derived for this package; F, V and E agree with a recursion derived separately.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import checks
from ..attention import Attention, MultiHead, Normalization, heads_of
from ..attention.infinite import TooManyNodes
from ..attention.sparse import Selective
from ..geometry import Density, Reexpressed, Remetrised
from ..grid import Grid
from ..progress import track
from .hopf import HopfGrid
from .limits import depth
from .nodes import MOST_WORK, bind_nodes, centred, weights_and_response
from .on_nodes import NO_TOKEN

FEWEST = 10.0  # tokens a query averages over, for what is asymptotic
_DRAWS = 1024  # of white noise: an error of some per cent of the braces
_BLOCK = 1024  # changes of the density that go through the layers together


@dataclass(frozen=True)
class NextOrder:
    """N times mean and variance on nodes, for features whose columns are divided by `size`.

    Attributes
    ----------
    grid : Grid
    mass : (m,) array
        p dvol of the nodes.
    size : (c,) array
    variance, mean, own : (m, c) array
        V, F and E(x, x).
    second, second_error : (c,) array
        The braces at a token, averaged over p, and their standard error.
    """

    grid: Grid | HopfGrid
    mass: np.ndarray
    size: np.ndarray
    variance: np.ndarray
    mean: np.ndarray
    own: np.ndarray
    second: np.ndarray
    second_error: np.ndarray


def effective_tokens(layer: Attention | MultiHead, density: Density, points: np.ndarray, n_tokens: float) -> np.ndarray:
    """N_eff = N p (4 pi m2)^(n/2) at points (M, n), p and m2 in the metric of f: how many tokens a query averages over.

    Of the head that averages over fewest.
    """
    n, found = density.space.dim, []
    for head in heads_of(layer):
        f, rule, own = head.f, head.normalization, density
        if f.space is None:
            own = Reexpressed(density, Remetrised(density.space, f.metric))
        around = n_tokens * own.pdf(points)
        if isinstance(rule, Selective):
            m2 = rule.local_moment(f, head.epsilon, n, around)
        else:
            m2 = np.asarray(f.second_moment(head.epsilon, n))
        found.append(around * (4 * np.pi * m2) ** (n / 2))
    return np.min(found, axis=0)


def smallest(effective: np.ndarray, mass: np.ndarray, n_tokens: float) -> float:
    """The N_eff below which one token of N is expected; of nodes (m,) with masses (m,), half of each below its own N_eff.

    Examples
    --------
    >>> round(float(smallest(np.array([2.0, 8.0]), np.array([0.1, 0.1]), n_tokens=2)), 12)
    4.0
    """
    values, below = _distribution(effective, mass)
    return float(np.exp(np.interp(1 / n_tokens, below, values)))


def share_below(count: float, effective: np.ndarray, mass: np.ndarray) -> float:
    """The share of the tokens that have a smaller N_eff than `count`: the inverse of `smallest`."""
    values, below = _distribution(effective, mass)
    return float(np.interp(np.log(count), values, below, left=0.0, right=1.0))


def seen_mass(effective: np.ndarray, mass: np.ndarray, n_tokens: float) -> np.ndarray:
    """Masses (m,) without the one token of N that is expected where N_eff is least and below 10, and adding up to one.

    In tails, where no token is, noise would have no end. Of the node at which they begin only a part is left, so that averages
    do not hang on where nodes lie.

    Examples
    --------
    >>> seen_mass(np.array([3.0, 9.0, 1.0]), np.array([0.2, 0.7, 0.1]), n_tokens=5).round(3)
    array([0.125, 0.875, 0.   ])
    """
    order, left = np.argsort(effective), np.empty(len(mass))
    tail = mass.sum() * min(1 / n_tokens, share_below(FEWEST, effective, mass))
    left[order] = np.clip(np.cumsum(mass[order]) - tail, 0.0, mass[order])
    return left / left.sum()


def _distribution(effective: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of N_eff (m,) in increasing order, and the share of the tokens below."""
    order = np.argsort(effective)
    own = mass[order] / mass.sum()
    return np.log(np.maximum(effective[order], np.finfo(float).tiny)), np.cumsum(own) - own / 2


def next_order(
    layer: Attention | MultiHead, density: Density, initial: Callable, t: float, n_tokens: float, progress: bool = False
) -> NextOrder | None:
    """Mean and variance of N random tokens after the layers that meet the time t; None where that is out of reach.

    It is for several heads, a normalization that does not know its `response_series`, and if dense matrices would be
    too large or too many. `n_tokens` says only where tokens are: averages are over `seen_mass`.
    """
    if isinstance(layer, MultiHead):
        return None
    if type(layer.normalization).response_series is Normalization.response_series:
        return None
    whole, share = depth(layer, t)
    steps = [layer.residual] * whole + [layer.residual * share] * (share > 0)
    try:
        bound, grid, mass = bind_nodes(layer, density, initial)
    except TooManyNodes:
        return None
    if 2 * len(steps) * grid.size**3 > MOST_WORK:
        return None
    A, eta = weights_and_response(bound, mass)
    start, size = centred(layer, checks.evaluate(initial, grid.points, "initial"), mass)
    effective = effective_tokens(layer, density, grid.points, n_tokens)

    def series(xi: np.ndarray, order: int, h: np.ndarray) -> list[np.ndarray]:
        e = layer.normalization.response_series(A, eta, mass, xi, order)
        return taylor(A, [e[0] + xi, *(e[k] + xi * e[k - 1] for k in range(1, order))], h, steps)

    columns = [_column(series, h, mass, seen_mass(effective, mass, n_tokens), progress) for h in (start / size).T]
    fields = (np.stack(parts, axis=-1) for parts in zip(*columns))
    return NextOrder(grid, mass, size, *fields)


def taylor(A: np.ndarray, r: list[np.ndarray], h: np.ndarray, steps: list[float]) -> list[np.ndarray]:
    """[h, H_1, H_2, ...] after layers of the given residual steps, from h (m,) and [r_1, r_2, ...], each (m, k).

    Of the average A[(1 + t r_1 + t^2 r_2 + ...) H] / A[1 + t r_1 + t^2 r_2 + ...], A (m, m), of each column.
    """
    sums = [A @ power for power in r]
    H = [h[:, None], *(np.zeros_like(power) for power in r)]
    for a in steps:
        averages: list[np.ndarray] = []
        for k, field in enumerate(H):
            above = A @ (field + sum(r[j - 1] * H[k - j] for j in range(1, k + 1)))
            averages.append(above - sum(sums[j - 1] * averages[k - j] for j in range(1, k + 1)))
        H = [field + a * (average - field) for field, average in zip(H, averages)]
    return H


def _column(series: Callable, h: np.ndarray, mass: np.ndarray, seen: np.ndarray, progress: bool) -> tuple:
    """V, F, E(x, x) (m,), the braces averaged over the weights `seen`, and their standard error, of one column."""
    m, tokens = len(mass), np.flatnonzero(mass > NO_TOKEN * mass.max())
    V, F, skew, own = (np.zeros(m) for _ in range(4))
    for places in track(list(_blocks(tokens)), progress, unit="block"):
        xi = -np.ones((m, len(places)))
        xi[places, range(len(places))] += 1 / mass[places]
        _, H1, H2 = series(xi, 2, h)
        V += H1**2 @ mass[places]
        F += H2 @ mass[places]
        skew += 2 * (H1 * H2) @ mass[places]
        own[places] = H1[places, range(len(places))]
    G = np.zeros((m, _DRAWS))
    G[tokens] = np.random.default_rng(0).standard_normal((len(tokens), _DRAWS)) / np.sqrt(mass[tokens, None])
    G -= mass @ G
    _, H1, H2, H3 = series(G, 3, h)
    other = np.roll(G, 1, axis=1)  # white noise of its own: sum_x p G'(x) X[G'](x) has the mean of X[delta_x](x) over p
    with_own = other * H1 * (series(G + other, 2, h)[2] - H2 - np.roll(H2, 1, axis=1))
    drawn = seen @ ((H2 - F[:, None]) ** 2 + 2 * H1 * H3 + 2 * with_own)
    return V, F, own, seen @ (skew - V) + drawn.mean(), drawn.std(ddof=1) / np.sqrt(_DRAWS)


def _blocks(tokens: np.ndarray) -> Iterator[np.ndarray]:
    return (tokens[i : i + _BLOCK] for i in range(0, len(tokens), _BLOCK))
