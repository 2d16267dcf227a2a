"""Features gather first within each cluster of tokens, and only much later, at Kramers' rate, in one weighted mean.

The limit dH/dt = Delta H + c <grad log p, grad H> (c = 2 softmax, 1 Sinkhorn) has the generator of the process
dX = -grad W dt + sqrt(2) dW, W = -c log p. Each well, a cluster of tokens, is left over a saddle at Kramers' rate

    r = sqrt(W''_well |W''_saddle|) / (2 pi) exp(-(W_saddle - W_well)),

so m wells are a Markov chain of m states: m eigenvalues near zero, and features with m values until about 1 / r.
Then they tend to the mean with weight p^c. On the circle, p proportional to exp(kappa cos m x), wells have two saddles:

    -lambda_j = 2 r (1 - cos(2 pi j / m)),   r = c kappa m^2 / (2 pi) exp(-2 c kappa)    (two wells: 4 r),

up to a share 1 / (4 c kappa), which r = m^2 / (2 pi I_0(c kappa))^2, before Laplace's method, has not.

Source: Ruan & Zhang 2024 (clustering tendency, the weighted mean); Kramers 1940; Bovier et al. 2005 (eigenvalues).
"""

from __future__ import annotations

import numpy as np
from scipy.special import i0

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Features pause in as many clusters as the density has wells, and leave them at Kramers' rate"
CONSTANTS = {"drift": np.array([2.0, 1.0])}
WRONG = {"drift": np.array([1.0, 1.0])}
PANELS = 3

_LAYERS, _NAMES = ("softmax", "sinkhorn"), ("softmax", "Sinkhorn")
_TILTED = lambda x: 1.6 * np.cos(2 * x) + 0.2 * np.cos(x)  # noqa: E731  log p of the middle panel
_POINTS = np.array([0.0, 0.8, np.pi - 0.8, np.pi])  # two in each of its wells
_WELLS, _KAPPA = np.arange(1, 6), 2.0  # of the right panel


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Slow rates of infinite-token layers, features over layers in a double well, features of tokens in m wells."""
    barrier = np.linspace(7.0, 13.0, 4 if quick else 7)
    slow = np.empty((2, len(barrier)))
    spectra = np.empty((len(_WELLS), 8))
    for i, (normalization, drift) in enumerate(zip(_LAYERS, (2, 1))):
        for j, height in track(list(enumerate(barrier)), progress):
            slow[i, j] = _rates(height / (2 * drift), 2, normalization)[1]
    for i, m in enumerate(_WELLS):
        spectra[i] = _rates(_KAPPA, m, "softmax")
    return {
        "kappa": barrier[None] / [[4.0], [2.0]], "slow": slow, "spectra": spectra,
        **_double_well(), **_tokens_in_wells(1000 if quick else 2000, progress),
    }  # fmt: skip


def _one_layer(log_p, epsilon: float, normalization: str):
    """The infinite-token layer on quadrature nodes, as a matrix: S, nodes (n,), its time step."""
    layer = af.Attention(af.SquaredDistance(af.Circle()), epsilon, normalization)
    bound, nodes = bind_density(layer, af.Density(af.Circle(), lambda x: log_p(x[..., 0])))
    return bound.attend(np.eye(nodes.size)).mean, nodes.points[:, 0], layer.time_step


def _rates(kappa: float, m: int, normalization: str) -> np.ndarray:
    """The eight slowest -log(a) / tau, extrapolated to eps = 0: the barrier, hence log rate, is linear in eps."""
    found = []
    for epsilon in (0.016 / m**2, 0.008 / m**2):
        S, _, tau = _one_layer(lambda x: kappa * np.cos(m * x), epsilon, normalization)
        kept = np.sort(np.linalg.eigvals(S).real)[::-1][:8]
        found.append(-np.log(kept) / tau)
    coarse, fine = np.maximum(found, 1e-12)
    return np.where(fine < 1e-10, 0.0, fine**2 / coarse)


def _double_well() -> dict[str, np.ndarray]:
    """Features after 1, 2, 4, ... layers of softmax, by squaring, at two points in each well."""
    S, nodes, tau = _one_layer(_TILTED, 0.002, "softmax")
    at = [int(np.argmin(np.abs(np.angle(np.exp(1j * (nodes - x)))))) for x in _POINTS]
    start, rows = _start(nodes), []
    for _ in range(21):
        rows.append((S @ start)[at])
        S = S @ S
    return {"time": tau * 2.0 ** np.arange(21), "feature": np.array(rows)}


def _start(x: np.ndarray) -> np.ndarray:
    return np.cos(x) + 0.5 * np.sin(2 * x)


def _tokens_in_wells(count: int, progress: bool) -> dict[str, np.ndarray]:
    """Features of random tokens after about the geometric mean of the time within wells and the time between them."""
    rows = []
    for m in track(_WELLS, progress, len(_WELLS)):
        tokens = af.Density(af.Circle(), lambda x: _KAPPA * np.cos(m * x[..., 0])).sample(count, rng=int(m))
        layer = af.Attention(af.SquaredDistance(af.Circle()), 0.1 / m**2)
        run = af.propagate(layer, tokens, np.cos(tokens) + 0.5 * np.sin(tokens), layers=120, save_every=120)
        rows.append(run.y[-1, :, 0])
    return {"gathered": np.array(rows)}


def _kramers(kappa, m, drift):
    """r over one saddle."""
    return drift * kappa * m**2 / (2 * np.pi) * np.exp(-2 * drift * kappa)


def _chain(m: int, drift: float) -> np.ndarray:
    """The m slow rates, from 0 up."""
    return np.sort(2 * m**2 / (2 * np.pi * i0(drift * _KAPPA)) ** 2 * (1 - np.cos(2 * np.pi * np.arange(m) / m)))


def _two_states(drift: float) -> tuple[np.ndarray, float, float]:
    """Of the tilted double well: mean features of its wells, of all, and the rate at which they meet."""
    x = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    weight = np.exp(drift * _TILTED(x))
    saddle = np.arccos(-0.2 / (4 * 1.6))
    near = np.abs(np.angle(np.exp(1j * x))) < saddle
    means = np.array([np.average(_start(x)[s], weights=weight[s]) for s in (near, ~near)])
    mass = np.array([weight[near].sum(), weight[~near].sum()]) * (x[1] - x[0])
    gate = np.exp(-drift * _TILTED(x[(x > 0) & (x < np.pi)])).sum() * (x[1] - x[0])  # two of them
    return means, float(mass @ means / mass.sum()), float(2 / gate * (1 / mass).sum())


def _count_clusters(features: np.ndarray) -> int:
    """Runs of places near which, within 0.07, at least a twentieth of the tokens' features are."""
    full = np.convolve(np.histogram(features, np.linspace(-1.2, 1.2, 51))[0], [1, 1, 1], "same") >= 0.05 * len(features)
    return int(np.sum(np.diff(full.astype(int), prepend=0) == 1))


def _wells(m: int) -> str:
    return "1 well" if m == 1 else f"{m} wells"


def check(data, constants) -> list[Check]:
    """Kramers' exponent and prefactor, both means, and the counts of slow eigenvalues and of clusters."""
    checks = []
    for name, kappa, slow, drift in zip(_NAMES, data["kappa"], data["slow"], constants["drift"]):
        slope = np.polyfit(kappa, np.log(slow / kappa), 1)[0]
        checks.append(Check(f"{name}: exponent of the slow rate over Kramers' 2cκ", 1.0, slope / (-2 * drift), 0.03))
        ratio = np.polyfit(1 / kappa, slow / (4 * _kramers(kappa, 2, drift)), 2)[-1]
        checks.append(Check(f"{name}: slow rate over Kramers' formula, κ → ∞", 1.0, ratio, 0.01))
    drift = constants["drift"][0]
    means, mean, rate = _two_states(drift)
    middle = np.argmin(np.abs(np.log(data["time"] * np.sqrt(rate * 10))))
    for k, side in enumerate(("well at 0", "well at π")):
        predicted = mean + (means[k] - mean) * np.exp(-rate * data["time"][middle])
        paused = data["feature"][middle, 3 * k]
        checks.append(Check.relative(f"{side}: feature during the pause", predicted, paused, 0.01))
    checks.append(Check.relative("feature in the end: its p²-weighted mean", mean, data["feature"][-1].mean(), 0.01))
    for m, rates, features in zip(_WELLS, data["spectra"], data["gathered"]):
        predicted = _chain(m, drift)
        if m > 1:
            off = np.abs(rates[1:m] / predicted[1:] - 1).max()
            checks.append(Check(f"{m} wells: slow rates, largest relative error", 0.0, off, 0.01))
        near_zero = np.sum(rates < 0.1 * drift * _KAPPA * m**2)  # a tenth of the rate within a well, W''
        for claim, count in (("eigenvalues near zero", near_zero), ("clusters of features", _count_clusters(features))):
            checks.append(Check(f"{_wells(m)}: {claim}", float(m), float(count), 0.0))
    return checks


def draw(figure, data, constants) -> None:
    """Slow rate over kappa; features over time in a double well; slow rates in one to five wells."""
    left, middle, right = figure.subplots(1, 3)
    for name, kappa, slow, drift, colour, marker in zip(
        _NAMES, data["kappa"], data["slow"], constants["drift"], style.shades(3)[1:], style.MARKERS
    ):
        dense = np.linspace(kappa[0] - 0.1, kappa[-1] + 0.1, 50)
        left.plot(dense, 4 * _kramers(dense, 2, drift), color=colour)
        left.plot(kappa, slow, marker, color=colour, label=name)
    left.plot([], [], color=style.INK, label="Kramers' formula")
    left.set(yscale="log")
    style.finish(left, "", "depth κ of two wells, p ∝ exp(κ cos 2x)", "slow rate  (1/length²)")
    left.legend(frameon=False)
    means, mean, rate = _two_states(constants["drift"][0])
    t = np.geomspace(0.3, data["time"][-1], 200)
    for k, colour in enumerate((style.ACCENT, style.INK)):
        middle.plot(t, mean + (means[k] - mean) * np.exp(-rate * t), color=colour)
        for series, fill in zip(data["feature"][:, [3 * k, 1 + k]].T, ("full", "none")):  # in the middle, and beside it
            middle.plot(data["time"], series, style.MARKERS[k], color=colour, fillstyle=fill)
    middle.axhline(mean, color="0.6", linewidth=0.8)
    above = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 6.5}
    middle.annotate("p²-weighted mean", (data["time"][0], mean), **above)
    middle.set(xscale="log")
    style.finish(middle, "", "time t = layers × τ  (length²)", "feature H at four points")
    j = np.arange(8)
    for m, rates, colour, marker in zip(_WELLS, data["spectra"], style.shades(5), style.MARKERS):
        right.hlines(_chain(m, constants["drift"][0])[1:], j[1:m] - 0.4, j[1:m] + 0.4, color=colour)
        right.plot(j[1:], rates[1:], marker, color=colour, label=_wells(m))
    right.set(yscale="log")
    style.finish(right, "", "number of the eigenvalue (0: the mean)", "rate −λ  (1/length²)")
    right.legend(frameon=False)
