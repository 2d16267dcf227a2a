"""Noisy tokens on the circle order beyond a predicted threshold: in steps under sums, never under softmax.

Tokens follow dX = K P_x (A x) dt + noise P_x o dW, A of weights exp(beta <x, y>), by softmax (SA) or divided by N (USA). Infinitely
many of them stand still where their density is proportional to exp(g U), g = K / (D noise^2), D = 1/2 the generator of the
noise in Laplacians, U the potential that they climb (see `NoisyTokens`). Uniform tokens are stable below

    K# = D noise^2 beta I_0 / I_1 (SA),    D noise^2 beta / I_1 (USA),    I_k = I_k(beta).

There the order, the length of the tokens' mean, grows continuously from 0 under softmax, whatever beta is, and under USA for
beta < b*, I_2(b*) / I_1(b*) = 1/2. For larger beta it jumps: the branch of ordered states leaves towards smaller K, and
between its fold and K# tokens stay what they were.

Left and middle: lines are the states, dashed where they are unstable; points are means over time of the order of 4000 tokens
whose coupling was lowered step by step (middle: raised too), bars their 95 % intervals from four parts of the time. Right:
thresholds and fold over beta; points are thresholds by 4000 tokens, their couplings over K / K# of a state of their order, and
the couplings between which they jumped.

Source: Mun & Rosenzweig 2026 (USA); derived for this package (softmax).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import iv
from scipy.stats import t as student

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Noisy tokens order at a predicted threshold: under sums with a jump and hysteresis beyond b*, never under softmax"
LONG = True
CONSTANTS = {"diffusion": 0.5, "critical": 0.5}  # D; I_2 / I_1 at b*
WRONG = {"diffusion": 1.0, "critical": 0.5}
PANELS = 3

NAMES = ("USA, β = 1", "SA, β = 1", "SA, β = 4")
_RULES, _BETA = ("none", "softmax", "softmax"), np.array([1.0, 1.0, 4.0])
_RATIO = np.array([2.2, 1.7, 1.4, 0.5])  # K / K#, lowered
_DOWN, _UP = np.array([1.1, 0.97, 0.85, 0.65]), np.array([0.97, 1.25, 1.45])  # of USA beyond b*, lowered and raised
_BOTH = 0.97  # where tokens keep what they were
_HIGH, _ORDERED = 4.0, 0.6
_STEP = {1.0: 0.12, 4.0: 0.058}  # layers at most
_PARTS = 4


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Order of tokens at each coupling, with the half width of its interval."""
    size = 1000 if quick else 4000
    aligned, uniform = (p.sample(size, rng=0) for p in (af.VonMisesFisher([1.0, 0.0], 4.0), af.Uniform(af.Sphere(1))))
    runs = [(rule, beta, _RATIO, aligned, 12.0) for rule, beta in zip(_RULES, _BETA)]
    runs += [("none", _HIGH, _DOWN, aligned, 12.0), ("none", _HIGH, _UP, uniform, 24.0)]
    found = [_sweep(*run, k) for k, run in enumerate(track(runs, progress, unit="sweep"))]
    data = {"order": [f[0] for f in found[:3]], "width": [f[1] for f in found[:3]]}
    data |= {"down": found[3][0], "down_width": found[3][1], "up": found[4][0], "up_width": found[4][1]}
    beta = np.linspace(2.0, 3.0, 11)  # where the branch bends over
    bend = [_mean_field("none", b).branch([0.01]).coupling[0] / _mean_field("none", b).threshold - 1 for b in beta]
    return data | {"tokens": size, "beta": beta, "bend": bend}


def _layer(rule: str, beta: float) -> af.Attention:
    return af.Attention(af.DotProduct(), 1 / (2 * beta), rule, dtype="float32")


def _mean_field(rule: str, beta: float) -> af.NoisyTokens:
    return af.NoisyTokens(_layer(rule, beta), 1)


def _sweep(rule: str, beta: float, ratios: np.ndarray, x: np.ndarray, layers: float, seed: int) -> tuple[list, list]:
    """Order and half width at each coupling, the tokens of the one before being the start of the next."""
    layer, rng, means, widths = _layer(rule, beta), np.random.default_rng(seed), [], []
    threshold = beta / (2 * iv(1, beta)) * (iv(0, beta) if rule == "softmax" else 1.0)
    for ratio in ratios:
        weak = ratio < 0.6  # tokens lose their order slowly then, and steps may be longer
        time, steps = layers * (1 + weak), int(np.ceil(layers / _STEP[beta]))
        times = time * np.linspace(0.5, 1.0, 10 * _PARTS + 1)[1:]  # the first half is forgotten
        K = ratio * threshold * np.eye(2)
        run = af.evolve_continuous(layer, x, times, value_matrix=K, constrain="sphere", noise=1.0, rng=rng, steps=steps)
        x, order = run.y[-1], np.linalg.norm(run.y.mean(axis=1), axis=1)
        parts = order.reshape(_PARTS, -1).mean(axis=1)
        means.append(order.mean())
        widths.append(student.ppf(0.975, _PARTS - 1) * parts.std(ddof=1) / np.sqrt(_PARTS))
    return means, widths


def _threshold(rule: str, beta, constants):
    return constants["diffusion"] * beta * (iv(0, beta) if rule == "softmax" else 1.0) / iv(1, beta)


def _branch(rule: str, beta: float, constants):
    """Orders, K in units of the true K#, and where states are stable."""
    tokens, orders = _mean_field(rule, beta), np.linspace(0.005, 0.99, 198)
    branch = tokens.branch(orders)
    return orders, branch.coupling / tokens.threshold * constants["diffusion"] / 0.5, branch.stable


def _implied(rule: str, beta: float, order: np.ndarray, ratio: np.ndarray):
    """K# in units of the true one, of tokens that have this order at this coupling."""
    tokens = _mean_field(rule, beta)
    return ratio * tokens.threshold / tokens.branch(order).coupling


def check(data, constants) -> list[Check]:
    """Order by coupling within the intervals; thresholds; where the branch bends over; the jumps of the sweeps."""
    checks, scale = [], constants["diffusion"] / 0.5
    ordered = _RATIO > 1
    for name, rule, beta, order, width in zip(NAMES, _RULES, _BETA, data["order"], data["width"]):
        orders, ratios, _ = _branch(rule, beta, constants)
        predicted = np.interp(_RATIO[ordered], ratios, orders)
        for k, ratio in enumerate(_RATIO[ordered]):
            # time means stray by more than their interval once in twenty: twice it, and rounding of the steps
            checks.append(Check(f"{name}: order at K / K# = {ratio:g}", predicted[k], order[k], 2 * width[k] + 0.003))
        implied = _implied(rule, beta, order[ordered], _RATIO[ordered])
        spread = student.ppf(0.975, len(implied) - 1) * implied.std(ddof=1) / np.sqrt(len(implied))
        checks.append(Check(f"{name}: K# by tokens, in units of K#", scale, implied.mean(), spread + 0.005))
        checks.append(_uniform(f"{name}: order at K / K# = {_RATIO[-1]:g}, N^(-1/2)", order[-1], _RATIO[-1] / scale, data))
    critical = brentq(lambda b: iv(2, b) / iv(1, b) - constants["critical"], 0.5, 9)
    bends = np.interp(0.0, -data["bend"], data["beta"])
    checks.append(Check("b*: where the branch of USA bends over", critical, bends, 0.005))
    tokens = _mean_field("none", _HIGH)
    fold = scale * tokens.hysteresis[0] / tokens.threshold
    last, lost = _DOWN[data["down"] > _ORDERED].min(), _DOWN[data["down"] < _ORDERED].max()
    checks.append(
        Check("USA, β = 4: fold, between couplings where order is kept and lost", fold, (last + lost) / 2, (last - lost) / 2)
    )
    orders, ratios, stable = _branch("none", _HIGH, constants)
    predicted = np.interp([_BOTH, _UP[-1]], ratios[stable], orders[stable])
    kept, jumped, stayed = data["down"][_DOWN == _BOTH][0], data["up"][-1], data["up"][_UP == _BOTH][0]
    slack = 2 * data["down_width"][_DOWN == _BOTH][0] + 0.02  # near the fold, where order is slow
    checks.append(Check(f"USA, β = 4: order at K / K# = {_BOTH:g}, lowered", predicted[0], kept, slack))
    checks.append(
        Check(f"USA, β = 4: order at K / K# = {_UP[-1]:g}, raised", predicted[1], jumped, 2 * data["up_width"][-1] + 0.003)
    )
    checks.append(_uniform(f"USA, β = 4: order at K / K# = {_BOTH:g}, raised, N^(-1/2)", stayed, _BOTH / scale, data))
    return checks


def _uniform(claim: str, order: float, ratio: float, data) -> Check:
    """The order that the noise of N uniform tokens has below K#, (N (1 - K / K#))^(-1/2), with what fluctuates."""
    predicted = 1 / np.sqrt(data["tokens"] * (1 - ratio))
    return Check(claim, predicted, order, 1.2 * predicted)


def draw(figure, data, constants) -> None:
    """Continuous transitions, the jump, and the phase diagram."""
    left, middle, right = figure.subplots(1, 3)
    for name, rule, beta, order, width, colour, marker in zip(
        NAMES, _RULES, _BETA, data["order"], data["width"], style.shades(3), style.MARKERS
    ):
        orders, ratios, _ = _branch(rule, beta, constants)
        left.plot(np.append(constants["diffusion"] / 0.5, ratios), np.append(0.0, orders), color=colour)
        left.errorbar(_RATIO, order, width, fmt=marker, color=colour, capsize=2, label=name)
    left.plot([0.4, constants["diffusion"] / 0.5], [0, 0], color=style.INK)
    left.set_xlim(0.4, 2.35)
    style.finish(left, "", "coupling K / K#", f"order of {int(data['tokens'])} tokens")
    left.legend(frameon=False, loc="lower right", title="lines: N = ∞")

    orders, ratios, stable = _branch("none", _HIGH, constants)
    turn = int(np.argmax(stable))
    middle.plot(ratios[turn:], orders[turn:], color=style.INK, label="stable, N = ∞")
    middle.plot(
        np.append(constants["diffusion"] / 0.5, ratios[: turn + 1]), np.append(0.0, orders[: turn + 1]), "--", color=style.INK
    )
    edge = constants["diffusion"] / 0.5
    middle.plot([0.6, edge], [0, 0], color=style.INK)
    middle.plot([edge, 1.6], [0, 0], "--", color=style.INK, label="unstable")
    middle.errorbar(_DOWN, data["down"], data["down_width"], fmt="v", color=style.ACCENT, capsize=2, label="tokens, K lowered")
    middle.errorbar(_UP, data["up"], data["up_width"], fmt="^", color=style.shades(3)[1], capsize=2, label="tokens, K raised")
    middle.set(xlim=(0.6, 1.55), ylim=(-0.05, 1.05))
    style.finish(middle, "", "coupling K / K#, USA at β = 4", "order")
    middle.legend(frameon=False, loc="center right")

    beta = np.linspace(0.05, 5.0, 100)
    for rule, colour, name in (("softmax", style.shades(3)[1], "SA: K#"), ("none", style.INK, "USA: K#")):
        right.plot(beta, _threshold(rule, beta, constants), color=colour, label=name)
    critical = brentq(lambda b: iv(2, b) / iv(1, b) - constants["critical"], 0.5, 9)
    beyond = np.linspace(critical + 0.02, 5.0, 12)
    fold = [_mean_field("none", b).hysteresis[0] * constants["diffusion"] / 0.5 for b in beyond]
    right.plot(
        np.append(critical, beyond),
        np.append(_threshold("none", critical, constants), fold),
        ":",
        color=style.ACCENT,
        label="USA: fold",
    )
    right.plot(critical, _threshold("none", critical, constants), "*", color=style.ACCENT, markersize=8, label="b*")
    ordered = _RATIO > 1
    for rule, b, order, marker in zip(_RULES, _BETA, data["order"], style.MARKERS):
        implied = _implied(rule, b, order[ordered], _RATIO[ordered]).mean()
        right.plot(b, implied * _threshold(rule, b, CONSTANTS), marker, color=style.ACCENT)
    true = _threshold("none", _HIGH, CONSTANTS)
    lost, found = _DOWN[data["down"] < _ORDERED].max(), _UP[data["up"] > _ORDERED].min()
    right.plot([_HIGH] * 2, true * np.array([lost, found]), "_", color=style.ACCENT, markersize=8, label="tokens")
    right.set(yscale="log", ylim=(0.05, 5))
    style.plain_log(right.yaxis)
    style.finish(right, "", "inverse temperature β", "coupling K (per layer, noise 1)")
    right.legend(frameon=False, loc="lower left", ncols=2)
