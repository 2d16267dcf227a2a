"""The spectrum of a layer on random tokens, predicted before any run: what temperature and what few tokens change.

A layer that is symmetric in f has real eigenvalues, those of K r phi = lambda (K 1 r) phi with r the key weights times the
masses of the tokens. One more token at z changes r by a relative rho_z = delta_z / p - 1 + eta_z, eta the change of the
key weight (see `noise`). With A the infinite-token layer, self-adjoint in its conserved weight w, eigenfunctions
phi_a of w-norm one, and

    Y_ma(z) = <rho_z, phi_m phi_a>_w,     Z_ma(z) = <A rho_z, phi_m phi_a>_w,     sigma = mean of the second order of r,

the eigenvalues of N tokens in a group B that tokens mix are, to order 1/N, those of the small symmetric matrix

    lambda_a delta_ab + G_ab / sqrt(N) + M_ab / N,
    G Gaussian, mean zero, as G_ab(z) = (lambda_a + lambda_b)/2 (Y - Z)_ab(z) = (lambda_a + lambda_b)/2 <rho_z, (1 - A) phi_a phi_b>_w
    M_ab = (lambda_a + lambda_b)/2 <sigma, (1 - A) phi_a phi_b>_w + the symmetric part of
           sum_(m not in B) lambda_a/(lambda_a - lambda_m) E[(lambda_m Y - lambda_a Z)_ma (Y - Z)_mb]
           - sum_(m in B) (lambda_a + lambda_m)/2 E[Z_ma (Y - Z)_mb],     E over z from p

(derived for this package: perturbation theory of second order, the tokens' measure being p + sum (delta_z - p) / N.)
A token attending to itself is in it: Y holds the delta at z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import checks, display
from ..attention import Attention
from ..geometry import Density
from ..pde import DriftDiffusion
from ..progress import track
from .limits import limit
from .nodes import MOST_WORK, bind_nodes, check_predictable, weights_and_response
from .on_nodes import NO_TOKEN

_SAME = 1e-6  # relative gap of eigenvalues that are one
_SMOOTHED = 1e-3  # eigenvalues whose eigenfunctions are averaged once: vectors over sqrt(w) are round-off where w is
_MIXED = 2.0  # couplings that a gap must exceed for its two eigenfunctions to keep apart
_WIDEST = 0.2  # of a rate, that a group of unequal ones may span
_ALONE = 0.05  # tokens of a set, that may have nothing around them without a warning
_RARE = 0.1  # standard deviations that tokens with nothing around may add to a mean
_ASTRAY = 0.3  # of a rate, that the mean of N tokens may move it without a warning: beyond, 1/N is no small number
_LARGEST = 60  # eigenvalues that are the same, or that tokens mix
_DRAWS = 5000  # and as many mirrored: a group's standard deviations to one per cent


@dataclass(frozen=True, eq=False)
class PredictedRates:
    """Rates (lambda - 1) / tau of a layer's k largest eigenvalues on random tokens, from 0 down.

    Attributes
    ----------
    limit : (k,) array
        Eigenvalues of the limit equation.
    bias : (k,) array
        Rates of infinitely many tokens minus these.
    mean : (k,) array
        Mean over sets of N tokens minus the rates of infinitely many; nan where it rests on tokens with nothing around them.
    noise : (k,) array
        Standard deviation over sets of N tokens, each rate by its rank.
    block : (k,) array of int
        Equal for rates that N tokens mix: equal in the limit, or no further apart than tokens move them.
    block_noise : (k,) array
        Standard deviation of the mean of all rates in the block; `noise` where the rate is alone.
    """

    limit: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    noise: np.ndarray
    block: np.ndarray
    block_noise: np.ndarray

    @property
    def rates(self) -> np.ndarray:
        """What N tokens show on average: limit + bias + mean, (k,)."""
        return self.limit + self.bias + self.mean

    def __repr__(self) -> str:
        shown = ", ".join(f"{rate:.4g} +- {noise:.2g}" for rate, noise in zip(self.rates, self.noise))
        return display.cut(f"PredictedRates({shown})")


def predicted_rates(layer: Attention, density: Density, k: int, n_tokens: int, progress: bool = False) -> PredictedRates:
    """The k largest eigenvalues of a layer on N random tokens, as rates (lambda - 1) / tau.

    tau is the time step of the plain layer: a residual step has the same rates. With L the limit equation's generator, A of
    infinitely many tokens and A_N of N, ranks from the largest down,

        limit = eigenvalue of L,    bias = (lambda(A) - 1) / tau - limit,    mean = E[lambda(A_N) - lambda(A)] / tau,

    `bias` at any eps, by quadrature, and tau <phi, E phi>_w to first order, A = 1 + tau L + tau^2 E; `mean` and `noise` to
    leading order in 1/N (derived for this package; the formulas head this module). A rate apart from the others has

        noise^2 = (1/N) E[ <rho_z, lambda (1 - A) phi^2>_w^2 ] / tau^2,

    while equal ones, and those that tokens mix, repel each other by as much as they are noisy: theirs are the moments of
    the ordered eigenvalues of a small Gaussian matrix, good to one per cent.

    Parameters
    ----------
    layer : Attention
        Of a symmetric f.
    density : Density
        Tokens are independent samples of it.
    k : int
        Eigenvalues, the constant's 1 among them.
    n_tokens : int
        N.
    progress : bool
        Show a progress bar: in the plane it takes some seconds.

    Returns
    -------
    PredictedRates
        `limit`, `bias`, `mean`, `noise`, `block`, `block_noise` and `rates`, each (k,).

    Raises
    ------
    ValueError
        On a space with boundary, for an asymmetric f, if k exceeds N or the nodes, when the quadrature would need more than
        3000 nodes or too many products of their matrices, and where the limit has no discrete spectrum.
    NotImplementedError
        If the normalization does not know its `response` and `second_response`.

    Warns
    -----
    AccuracyWarning
        If some tokens have nothing around them, as far out on a line: each brings an eigenvalue near one, which is not
        predicted. A `mean` that rests on such tokens is nan. And if N is so small that a mean moves its rate by a third, or
        above 0: the leading order in 1/N then tells little.

    Notes
    -----
    The order after the leading one is left out: where that nearly vanishes, as for column on near uniform tokens, the noise is
    larger than predicted.

    Examples
    --------
    >>> import attnflow as af
    >>> layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon=0.1)
    >>> two_wells = af.Density(af.Circle(), lambda x: np.cos(2 * x[..., 0]) + 0.5 * np.cos(x[..., 0]))
    >>> af.predicted_rates(layer, two_wells, k=3, n_tokens=1000)
    PredictedRates(0 +- 0, -0.142 +- 0.025, -3.684 +- 0.27)
    """
    k, n_tokens = checks.integer(k, "k", least=1), checks.integer(n_tokens, "n_tokens", least=1)
    check_predictable(layer, density, "predicted rates")
    if not layer.f.is_symmetric(density.space.probe_points()):
        raise ValueError(f"f must be symmetric for predicted rates, got {type(layer.f).__name__}")
    if k > n_tokens:
        raise ValueError(f"k must be at most the {n_tokens} eigenvalues of n_tokens, got {k}")
    for member in ("response", "second_response"):
        layer.normalization.require(member, "predicted rates")
    tau = layer.time_step / layer.residual
    modes = _modes(layer, density)
    if k > len(modes.eigenvalues):
        raise ValueError(f"k must be at most {len(modes.eigenvalues)} at epsilon {layer.epsilon:g}, got {k}")
    plain = (modes.eigenvalues[:k] - 1) / tau
    equation = limit(layer, density)
    assert isinstance(equation, DriftDiffusion)  # of a symmetric f
    from_limit = equation.spectrum(k).eigenvalues
    blocks = _blocks(modes, k, n_tokens)
    if max(map(len, blocks)) > _LARGEST:
        raise ValueError(
            f"k must be smaller, or epsilon smaller or n_tokens larger, for predicted rates: {max(map(len, blocks))} eigenvalues "
            f"at epsilon {layer.epsilon:g} are the same, or mixed by {n_tokens} tokens"
        )
    members = sum(map(len, blocks))
    if members * len(modes.mass) ** 3 > MOST_WORK:
        raise ValueError(
            f"k must be smaller, or epsilon or n_tokens larger, for predicted rates: {members} products of "
            f"{len(modes.mass)} x {len(modes.mass)} matrices"
        )
    # the constant's eigenvalue is one, whatever the tokens
    found = [
        _Block(np.zeros(1), np.zeros(1), 0.0),
        *(_block(modes, block, n_tokens) for block in track(blocks[1:], progress, unit="block")),
    ]
    mean, noise = (np.concatenate(part)[:k] / tau for part in list(zip(*found))[:2])
    sizes = [len(block) for block in blocks]
    block_noise = np.repeat([block.noise_of_mean for block in found], sizes)[:k] / tau
    alone, unknown = n_tokens * float(modes.mass[modes.alone(n_tokens)].sum()), int(np.isnan(mean).sum())
    if alone > _ALONE or unknown:
        checks.warn(
            f"{alone:.2g} of {n_tokens} tokens are expected to have nothing around them: each brings an eigenvalue near one, "
            f"which is not predicted, and the means of {unknown} rates rest on them; raise epsilon or n_tokens",
            checks.AccuracyWarning,
        )
    astray = int(np.sum(np.abs(mean) > _ASTRAY * np.abs(plain)))  # one above 0 among them
    if astray:
        checks.warn(
            f"{n_tokens} tokens are too few for epsilon {layer.epsilon:g} to predict {astray} of {k} rates: their means would "
            "move by more than the leading order in 1/N tells; raise epsilon or n_tokens",
            checks.AccuracyWarning,
        )
    labels = np.repeat(range(len(blocks)), sizes)[:k]
    return PredictedRates(from_limit, plain - from_limit, mean, noise, labels, block_noise)


class _Modes(NamedTuple):
    """The infinite-token layer on m nodes: its eigenpairs, and what one more token at z changes in r, to second order."""

    eigenvalues: np.ndarray
    functions: np.ndarray  # (m, m), one a column, of w-norm one
    A: np.ndarray
    weight: np.ndarray
    mass: np.ndarray
    rho: np.ndarray  # (m, m), rho_z(y) at [y, z]
    sigma: np.ndarray

    def alone(self, n_tokens: int) -> np.ndarray:
        """(m,) where a token's own weight S(z, z) / N would exceed one: nothing can be expanded in it there."""
        return np.diagonal(self.A) > n_tokens * self.mass

    def source(self, a: int, b: int) -> np.ndarray:
        """(lambda_a + lambda_b)/2 w (1 - A) phi_a phi_b: what a relative change of r is integrated against."""
        product = self.functions[:, a] * self.functions[:, b]
        return (self.eigenvalues[a] + self.eigenvalues[b]) / 2 * self.weight * (product - self.A @ product)


def _modes(layer: Attention, density: Density) -> _Modes:
    bound, grid, mass = bind_nodes(layer, density)
    kept = mass > NO_TOKEN * mass.max()
    mass = mass[kept] / mass[kept].sum()
    if not kept.all():
        bound = layer.bind(grid.points[kept], np.log(mass))
    A, eta = weights_and_response(bound, mass)
    eta = eta - (eta @ mass)[:, None]
    sigma = np.diagonal(eta) + layer.normalization.second_response(A, eta, mass)
    eigenvalues, vectors = np.linalg.eigh(np.copysign(np.sqrt(np.abs(A * A.T)), A))  # similar to A by the roots of w
    eigenvalues, weight = np.append(1.0, eigenvalues[-2::-1]), bound.conserved_weight()  # constants stay, exactly
    functions = vectors[:, ::-1] / np.sqrt(weight)[:, None]
    slow = eigenvalues > _SMOOTHED
    functions[:, slow] = A @ functions[:, slow] / eigenvalues[slow]
    functions *= np.sign(np.random.default_rng(0).standard_normal(len(mass)) @ functions)  # else of rounding errors
    return _Modes(eigenvalues, functions, A, weight, mass, np.diag(1 / mass) - 1 + eta, sigma)


def _blocks(modes: _Modes, k: int, n_tokens: int) -> list[range]:
    """The first k eigenvalues and all that tokens mix with them, in groups of neighbours; the constant stays alone."""
    rates, starts = 1 - modes.eigenvalues, [0]
    for a in range(1, len(rates)):
        coupling = np.sqrt((modes.source(a - 1, a) @ modes.rho) ** 2 @ modes.mass / n_tokens)
        mixed = min(_MIXED * coupling, _WIDEST * rates[a] - (rates[a - 1] - rates[starts[-1]]))
        if a == 1 or rates[a] - rates[a - 1] > max(_SAME * rates[a], mixed):
            starts.append(a)
            if a >= k:
                break
    else:
        starts.append(len(modes.eigenvalues))
    return [range(start, end) for start, end in zip(starts, starts[1:])]


def _block_matrix(modes: _Modes, members: range, n_tokens: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Of a block of b: M / N (b, b), G(z) (b, b, m), and whether M counts tokens that are rarer than one in N."""
    values, inside = modes.eigenvalues, np.array(members)
    outside = np.setdiff1d(np.arange(len(values)), inside)
    A_rho, left, right = modes.A @ modes.rho, [], []
    for a in members:
        products = (modes.functions * (modes.weight * modes.functions[:, a])[:, None]).T
        Y, Z = products @ modes.rho, products @ A_rho
        share = (values[a] / (values[a] - values[outside]))[:, None]
        factor = np.empty_like(Y)  # of (Y - Z)_mb in M_ab
        factor[outside] = share * (values[outside, None] * Y[outside] - values[a] * Z[outside])
        factor[inside] = -(values[a] + values[inside, None]) / 2 * Z[inside]
        left.append(factor * modes.mass)
        right.append(Y - Z)
    M = np.array([[np.vdot(x, y) for y in right] for x in left])
    M += [[modes.source(a, b) @ modes.sigma for b in members] for a in members]
    G = np.array([(values[a] + values[inside, None]) / 2 * y[inside] for a, y in zip(members, right)])
    alone = modes.alone(n_tokens)
    lost = sum(np.vdot(x[:, alone], y[:, alone]) for x, y in zip(left, right)) / n_tokens
    noise = np.sqrt(np.einsum("aaz,aaz,z", G, G, modes.mass) / n_tokens)
    return (M + M.T) / (2 * n_tokens), G, bool(abs(lost) > _RARE * noise)


class _Block(NamedTuple):
    """Of a block's eigenvalues, from the largest down: the shift of the mean (b,), the standard deviation (b,), and the mean's."""

    mean: np.ndarray
    noise: np.ndarray
    noise_of_mean: float


def _block(modes: _Modes, members: range, n_tokens: int) -> _Block:
    """By normal draws of the block's matrix, mirrored and whitened: its trace, so an eigenvalue alone, is exact."""
    M, G, unknown = _block_matrix(modes, members, n_tokens)
    values = modes.eigenvalues[list(members)]
    rows, columns = np.triu_indices(len(members))
    covariance = (G[rows, columns] * modes.mass) @ G[rows, columns].T / n_tokens
    variances, directions = np.linalg.eigh(covariance)
    normal = np.random.default_rng(0).standard_normal((max(_DRAWS, 10 * len(rows)), len(rows)))
    normal = np.linalg.solve(np.linalg.cholesky(normal.T @ normal / len(normal)), normal.T).T
    entries = normal @ ((directions * np.sqrt(np.maximum(variances, 0))) @ directions.T)  # whatever the directions' signs
    random = np.empty((len(entries), len(members), len(members)))
    random[:, rows, columns] = random[:, columns, rows] = entries
    mean = np.diag(values) + (0 if unknown else M)
    drawn = np.linalg.eigvalsh(mean + np.concatenate([random, -random]))[:, ::-1] - values
    shift = np.full(len(values), np.nan) if unknown else drawn.mean(axis=0)
    return _Block(shift, drawn.std(axis=0), float(drawn.mean(axis=1).std()))
