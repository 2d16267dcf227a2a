"""The gradient of a loss with respect to the metric tends to the equation's: its bias and its noise are predicted.

Gaussian tokens N(0, Sigma) in the plane, f = (x - y)'G(x - y), features H0 = x, and the loss of l layers

    Loss(G) = (1/2) integral |H_l - T x|^2 p dx,

T what the equation does under another metric. Infinitely many tokens make one layer linear, A x = K x, and the equation too:

    K = (1 + eps X)^-1,  X = G^-1 Sigma^-1,       H(t) = exp(-2 t X) x,  t = l eps / 2,
    K^l = exp(-2 t X) (1 + eps t X^2 + O(eps^2)),

2 the drift of the limit equation. So the gradient of the layers' loss, summed backwards through `Attention.vjp`, is that of
the equation's loss plus eps times a gradient in closed form: derivatives with respect to G are taken by a complex step, to
all digits. Quadrature nodes stand for infinitely many tokens: a key bias of log(p dx) weighs them.

Of N random tokens the mean loss has to first order the influence function

    psi(z) = |(K^l - T) z|^2 / 2 - Loss + sum_k E[R(X_0)' K^k (z - K X_j) ; X_(j+1) = z] / p(z),     j = l - 1 - k,

where X_0 is from p, X_(j+1) is the key that X_j attends to, normal about K X_j, and R(x) = (K^l - T) x: one more token at z is
averaged over, and attended to in each layer. The gradient then has the covariance of dpsi / dG over N. Beside that noise it
is off on average, by tokens that attend to themselves and few others (hollow points): that falls nearly as 1/N, and is
still more than the noise at 16 000 tokens.

Source: derived for this package; influence functions: Hampel 1974.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import expm

import attnflow as af
from attnflow.attention import Normalization
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "The gradient of layers with respect to the metric tends to the equation's, with predicted bias and noise"
CONSTANTS = {"drift": 2.0, "second_order": 0.5}  # of the limit equation; of log(1 + eps X)
WRONG = {"drift": 1.0, "second_order": 0.5}
PANELS = 2

_SIGMA, _G = np.array([[1.2, 0.3], [0.3, 0.9]]), np.array([[1.2, 0.2], [0.2, 0.8]])
_OTHER = np.array([[0.5, -0.2], [-0.2, 3.0]])  # the metric that made the targets
_T, _FEW = 0.2, 4  # time; layers of the noise
_PRECISION, _ONE = np.linalg.inv(_SIGMA), np.eye(2)
_GAUSSIAN = af.Gaussian(np.zeros(2), _SIGMA)
_RESOLVED = 1.6  # sqrt(eps) over the spacing of nodes: 1e-8


@dataclass(frozen=True, eq=False)
class Weighed(Normalization):
    """Softmax among tokens that stand for masses."""

    log_mass: np.ndarray

    def key_bias(self, log_sum, size, tol):
        return self.log_mass, {}

    def key_bias_vjp(self, bound, cotangent):
        return []  # masses depend on nothing


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Gradients of infinitely many tokens for each eps (eps, 2, 2), and of random sets (sizes, seeds, 2, 2)."""
    layers = np.array([2, 3, 4, 6, 8] if quick else [2, 3, 4, 6, 8, 12, 16])
    sizes, seeds = ([500, 1000, 4000], 20) if quick else ([1000, 4000, 16000], 64)
    infinite = [_of_nodes(int(count)) for count in track(layers, progress, len(layers))]
    cases = [(size, seed) for size in sizes for seed in range(seeds)]
    random = [_of_tokens(size, seed) for size, seed in track(cases, progress, len(cases))]
    return {
        "epsilon": 2 * _T / layers,
        "infinite": np.array(infinite),
        "size": np.array(sizes),
        "random": np.reshape(random, (len(sizes), seeds, 2, 2)),
    }


def _of_nodes(layers: int) -> np.ndarray:
    epsilon, extent = 2 * _T / layers, 6 * np.sqrt(np.diagonal(_SIGMA))
    cells = np.ceil(2 * extent * _RESOLVED * np.sqrt(np.linalg.eigvalsh(_G)[-1] / epsilon)).astype(int)
    grid = _GAUSSIAN.space.grid(tuple(cells), [(-half, half) for half in extent])
    log_mass = _GAUSSIAN.log_pdf(grid.points) + np.log(grid.weights)
    return _backwards(grid.points, np.exp(log_mass), layers, Weighed(log_mass))


def _of_tokens(size: int, seed: int) -> np.ndarray:
    tokens = _GAUSSIAN.sample(size, np.random.default_rng([size, seed]))
    return _backwards(tokens, np.full(size, 1 / size), _FEW, "softmax")


def _backwards(tokens: np.ndarray, mass: np.ndarray, layers: int, rule) -> np.ndarray:
    """The loss's gradient with respect to G, from the last layer to the first."""
    layer = af.Attention(af.Mahalanobis(_G), 2 * _T / layers, rule, rtol=1e-10)
    states = [tokens]
    for _ in range(layers):
        states.append(layer(tokens, states[-1]))
    cotangent, gradient = mass[:, None] * (states[-1] - tokens @ _target().T), np.zeros((2, 2))
    for values in states[-2::-1]:
        one = layer.vjp(tokens, values, cotangent)
        cotangent, gradient = one.values, gradient + one.parameters
    return gradient


def _rate(G: np.ndarray) -> np.ndarray:
    """X."""
    return np.linalg.solve(G, _PRECISION.astype(G.dtype))


def _target() -> np.ndarray:
    return expm(-2 * _T * _rate(_OTHER))


def _loss(G: np.ndarray, features: np.ndarray) -> complex:
    off = features - _target()
    return np.trace(off @ _SIGMA @ off.T) / 2


def _gradient(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of a function of G, symmetric, by a complex step: (2, 2, ...)."""
    rows = []
    for i, j in np.ndindex(2, 2):
        along = (np.outer(_ONE[i], _ONE[j]) + np.outer(_ONE[j], _ONE[i])) / 2
        rows.append(np.imag(function(_G + 1e-20j * along)) / 1e-20)
    return np.reshape(rows, (2, 2, *np.shape(rows[0])))


def _layers_gradient(epsilon: float) -> np.ndarray:
    """Infinitely many tokens, in closed form."""
    count = round(2 * _T / epsilon)
    return _gradient(lambda G: _loss(G, np.linalg.matrix_power(np.linalg.inv(_ONE + epsilon * _rate(G)), count)))


def _equation(constants) -> tuple[np.ndarray, np.ndarray]:
    """The equation's gradient, and its first-order bias over eps."""

    def change(G: np.ndarray) -> complex:
        X = _rate(G)
        end = expm(-2 * _T * X)
        return np.trace((end - _target()) @ _SIGMA @ (2 * constants["second_order"] * _T * end @ X @ X).T)

    return _gradient(lambda G: _loss(G, expm(-constants["drift"] * _T * _rate(G)))), _gradient(change)


def _influence(G: np.ndarray, z: np.ndarray) -> np.ndarray:
    """psi + Loss at points (k, 2)."""
    C = np.linalg.inv(G * _FEW / (2 * _T) + _PRECISION)  # of the key, given the query
    K = C @ G * _FEW / (2 * _T)
    R = np.linalg.matrix_power(K, _FEW) - _target()
    total = ((z @ R.T) ** 2).sum(axis=1) / 2
    spread = across = _SIGMA.astype(complex)  # covariance of X_j, and of X_0 with it
    for k in range(_FEW - 1, -1, -1):
        after = K @ spread @ K.T + C
        first, last = (matrix @ K.T @ np.linalg.inv(after) for matrix in (across, spread))  # means given z
        together = across - first @ K @ spread
        Q = R.T @ np.linalg.matrix_power(K, k)
        mean = ((z @ first.T @ Q) * (z - z @ (K @ last).T)).sum(axis=1) - np.trace(Q @ K @ together.T)
        ratio = np.exp(np.einsum("ki,ij,kj->k", z, _PRECISION - np.linalg.inv(after), z) / 2)
        total = total + ratio * np.sqrt(np.linalg.det(_SIGMA) / np.linalg.det(after)) * mean
        spread, across = after, across @ K.T
    return total


def _noise() -> np.ndarray:
    """N times the predicted covariance of the gradient's entries (4, 4)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2) @ np.linalg.cholesky(_SIGMA).T
    slopes = _gradient(lambda G: _influence(G, z)).reshape(4, -1)
    return np.cov(slopes, aweights=np.outer(weights, weights).ravel(), ddof=0)


def _relative_error(noise: np.ndarray, seeds: int) -> float:
    """Standard error of a standard deviation over so many normal gradients, relative."""
    return np.sqrt((noise**2).sum() / np.trace(noise) ** 2 / 2 / (seeds - 1))


def _deviations(data) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation over seeds for each size, and the length of the mean deviation from infinitely many tokens."""
    spread = np.sqrt(data["random"].var(axis=1, ddof=1).sum(axis=(1, 2)))
    return spread, np.linalg.norm(data["random"].mean(axis=1) - _layers_gradient(2 * _T / _FEW), axis=(1, 2))


def check(data, constants) -> list[Check]:
    """Gradients of infinitely many tokens, their limit and its bias; the noise and its power of N.

    Tolerances of the noise are four standard errors of the variance of as many normal gradients.
    """
    gradient, bias = _equation(constants)
    epsilon, infinite, size = data["epsilon"], data["infinite"], data["size"]
    exact = np.array([_layers_gradient(eps) for eps in epsilon])
    off = np.linalg.norm(infinite - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    powers = epsilon[:, None] ** np.arange(4)
    limit, slope = np.linalg.lstsq(powers, infinite.reshape(-1, 4), rcond=None)[0][:2].reshape(2, 2, 2)
    checks = [Check("N = ∞: gradient of layers at every ε, relative difference", 0.0, off.max(), 1e-6)]
    for name, i, j in (("11", 0, 0), ("12", 0, 1), ("22", 1, 1)):
        checks.append(Check(f"N = ∞, ε → 0: dLoss/dG{name}", gradient[i, j], limit[i, j], 0.01 * np.linalg.norm(gradient)))
        checks.append(
            Check(f"N = ∞, ε → 0: bias of dLoss/dG{name} over ε", bias[i, j], slope[i, j], 0.03 * np.linalg.norm(bias))
        )
    noise, (spread, _), seeds = _noise(), _deviations(data), data["random"].shape[1]
    error = _relative_error(noise, seeds)
    ratio = np.exp(np.mean(np.log(spread * np.sqrt(size / np.trace(noise)))))
    checks.append(Check("noise over the predicted", 1.0, ratio, 4 * error / np.sqrt(len(size))))
    x = np.log(size) - np.log(size).mean()
    power = x @ np.log(spread) / (x @ x)
    checks.append(Check("power of N in the noise", -0.5, power, 4 * error / np.sqrt(x @ x)))
    return checks


def draw(figure, data, constants) -> None:
    """Bias over eps, and noise over N, relative to the equation's gradient."""
    left, right = figure.subplots(1, 2)
    gradient, bias = _equation(constants)
    length, epsilon = np.linalg.norm(gradient), data["epsilon"]
    exact = [np.linalg.norm(_layers_gradient(eps) - gradient) / length for eps in epsilon]
    left.plot(epsilon, np.linalg.norm(bias) / length * epsilon, "--", color=style.INK, label="first order in ε")
    left.plot(epsilon, exact, color=style.INK, label="closed form")
    measured = np.linalg.norm(data["infinite"] - gradient, axis=(1, 2)) / length
    left.plot(epsilon, measured, "o", color=style.ACCENT, label="N = ∞, measured")
    left.set(xscale="log", yscale="log")
    style.finish(left, "", "temperature ε (unit of f)", "bias of the gradient, relative")
    left.legend(frameon=False)
    left.set_title(f"a  t = {_T:g} = layers · ε/2", loc="left")

    size, (spread, mean), noise = data["size"], _deviations(data), _noise()
    right.plot(size, np.sqrt(np.trace(noise) / size) / length, color=style.INK, label="predicted")
    bars = 2 * _relative_error(noise, data["random"].shape[1]) * spread / length
    right.errorbar(size, spread / length, bars, fmt="o", color=style.ACCENT, label="standard deviation")
    right.plot(size, mean / length, "s", color="0.5", fillstyle="none", label="mean deviation")
    right.set(xscale="log", yscale="log")
    style.finish(right, "", "tokens N", "deviation from N = ∞, relative")
    right.legend(frameon=False)
    right.set_title(f"b  {_FEW} layers, ε = {2 * _T / _FEW:g}", loc="left")
