"""Tokens on the sphere cluster: where it starts, how fast, when one layer is enough, and why it goes in steps.

Self-attention (SA) moves tokens by dx_i/dt = P_x sum_j softmax(beta <x_i, x_j>) x_j, USA without the softmax's
denominator, divided by n. The energy E = mean exp(beta <x_i, x_j>) / (2 beta) never falls. Drawn as lines:

    growth of waves on uniform tokens: lambda a_k / beta (SA), times Z = mean exp(beta <x, y>) (USA); on the circle
        lambda = k^2, a_k = I_k(beta) / I_0(beta), Z = I_0(beta)
    n tokens at one cosine: rho' = 2 e^(beta rho) (1 - rho) ((n - 1) rho + 1) / (e^beta + (n - 1) e^(beta rho))
    long context, beta = gamma log n, n -> infinity: one layer turns the cosine r into 1 where gamma < 1 / (1 - r),
        leaves it where gamma is larger, and gives 4 r / (1 + 3 r) at equality
    clusters of masses m_c, far apart: a plateau of the energy, e^beta / (2 beta) sum_c m_c^2
    two of them, m + m' = 1, at the angle phi: phi' = -sin(phi) [m / (m' e^b + m) + m' / (m e^b + m')] with
        b = beta (1 - cos phi): the log of the time until they merge rises as beta (1 - cos phi)

Source: Rigollet 2025; Geshkovski, Letrouit, Polyanskiy & Rigollet 2023, 2024 (metastability).
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.special import ive

import attnflow as af
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

TITLE = "Tokens on a sphere cluster at predicted rates, past a predicted transition, in predicted steps"
CONSTANTS = {"growth": 1.0, "equiangular": 2.0, "critical": 1.0, "exponent": 1.0}
WRONG = {"growth": 1.0, "equiangular": 1.0, "critical": 1.0, "exponent": 1.0}
PANELS = 3

_WAVES = np.arange(1, 13)
_COSINE = 0.5  # before the layer, in long context
_FIVE = np.array([-0.4, 0.4, 1.75, 4.0, 4.8])  # angles of the tokens that take the stairs, at beta = 4
_STAIRS = {"2 + 1 + 2": 9 / 25, "3 + 2": 13 / 25, "5": 1.0}  # their clusters, and the sum of squared masses
_GROUP, _APART, _MET = np.array([0, 0, 0, 1, 1]), 2.0, 0.5  # the last merging: three tokens and two, radians


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Growth of waves, cosines over time and over beta, the energy of five tokens and when their clusters merge."""
    beta, merging_beta = np.array([4.0, 9.0, 25.0]), np.arange(4.0, 13.0, 2.0 if quick else 1.0)
    t, time = np.linspace(0, 12, 25), np.geomspace(0.1, 400, 120)
    cosine = [[(x @ x.T)[0, 1] for x in _flow(b, np.eye(8), t)] for b in (1.0, 4.0)]
    tokens = _flow(4.0, np.c_[np.cos(_FIVE), np.sin(_FIVE)], time)
    merging = np.array([_merging(b) for b in track(merging_beta, progress)])
    energy = np.exp(4 * (tokens @ tokens.swapaxes(1, 2) - 1)).mean(axis=(1, 2))  # in e^beta / (2 beta)
    stairs = {"time": time, "energy": energy, "merging_beta": merging_beta, "merging": merging, **_long_context(quick)}
    return {"beta": beta, "growth": [_growth(b) for b in beta], "cosine_time": t, "cosine": cosine, **stairs}


def _flow(beta: float, tokens: np.ndarray, t: np.ndarray, rtol: float = 1e-9) -> np.ndarray:
    layer = af.Attention(af.DotProduct(), 1 / (2 * beta))
    return af.evolve_continuous(layer, tokens, t, "LSODA", rtol=rtol, atol=rtol / 100, constrain="sphere").y


def _growth(beta: float) -> np.ndarray:
    """Rates of waves on 80 uniform tokens, (SA, USA / Z) x k: differences of opposite displacements are linear."""
    uniform, t = 2 * np.pi * np.arange(80) / 80, 0.1
    displaced = 1e-4 * np.sin(np.outer(uniform, _WAVES) + _WAVES**2).sum(axis=1)
    sa, usa = [], []
    for start in (uniform + displaced, uniform - displaced):
        sa.append(_flow(beta, np.c_[np.cos(start), np.sin(start)], [t])[-1] @ [1, 1j])
        apart = start - start[:, None]
        usa.append(np.mean(np.exp(beta * (np.cos(apart) - 1)) * np.sin(apart), axis=1) / ive(0, beta))
    waves = np.exp(-1j * np.outer(uniform, _WAVES))
    grown, speed, size = (np.abs(x @ waves) for x in (np.angle(sa[0] / sa[1]), usa[0] - usa[1], 2 * displaced))
    return np.stack([np.log(grown / size) / t, speed / size])


def _long_context(quick: bool) -> dict[str, np.ndarray]:
    """The cosine after one layer of n tokens x_i = sqrt(r) e_0 + sqrt(1 - r) e_i."""
    count, gamma = np.array([32, 256, 1024 if quick else 2048]), np.linspace(1.0, 3.0, 17)
    for row, n in zip(after := np.empty((len(count), len(gamma))), count):
        tokens = np.hstack([np.full((n, 1), np.sqrt(_COSINE)), np.sqrt(1 - _COSINE) * np.eye(n)])
        for j, g in enumerate(gamma):
            x, y = af.Attention(af.DotProduct(), 1 / (2 * g * np.log(n)))(tokens, queries=tokens[:2])
            row[j] = x @ y / np.sqrt((x @ x) * (y @ y))
    return {"count": count, "gamma": gamma, "after": after}


def _merging(beta: float) -> float:
    """When three tokens and two, each group 0.1 wide, have come within 0.5."""
    angle, t = _GROUP * _APART + [-0.05, 0.0, 0.05, -0.05, 0.05], np.geomspace(1.0, np.exp(1.5 * beta), 3000)
    z = _flow(beta, np.c_[np.cos(angle), np.sin(angle)], t, rtol=1e-7) @ [1, 1j]
    apart = np.angle(z[:, _GROUP == 1].mean(axis=1) / z[:, _GROUP == 0].mean(axis=1))
    met = np.argmax(apart < _MET)
    return float(np.exp(np.interp(-_MET, -apart[met - 1 : met + 1], np.log(t[met - 1 : met + 1]))))


def _waves_grow(k, beta, constants):
    return constants["growth"] * k**2 * ive(k, beta) / ive(0, beta) / beta


def _cosine(beta, t, constants):
    """Of eight tokens, orthogonal at the start."""

    def rate(_, rho):
        weight = np.exp(beta * (rho - 1))
        return constants["equiangular"] * weight * (1 - rho) * (7 * rho + 1) / (1 + 7 * weight)

    return solve_ivp(rate, (0, t[-1]), [0.0], t_eval=t, rtol=1e-10, atol=1e-12).y[0]


def _after(n, gamma, constants):
    """The cosine at finite n: a token keeps a share w of its weight, the others have equal shares of the rest."""
    w = 1 / (1 + (n - 1) * n ** (-gamma * (1 - _COSINE) / constants["critical"]))
    other = (1 - w) / (n - 1)
    shared = 2 * (w - other) * other + n * other**2
    return ((1 - _COSINE) * shared + _COSINE) / ((1 - _COSINE) * (shared + (w - other) ** 2) + _COSINE)


def _meeting(beta, constants):
    """Time in which two clusters, of 3/5 and 2/5 of the tokens, come from 2 to 0.5 radians."""

    def slowness(phi):
        b = np.exp(constants["exponent"] * beta * (1 - np.cos(phi)))
        return 1 / (np.sin(phi) * (0.4 / (0.6 * b + 0.4) + 0.6 / (0.4 * b + 0.6)))

    return quad(slowness, _MET, _APART)[0]


def _plateaus(data) -> np.ndarray:
    """The energy where it rises slowest over log t, between its rises and after them."""
    energy, slope = data["energy"], np.gradient(data["energy"], np.log(data["time"]))
    slow = (slope < 0.05) & (np.maximum.accumulate(slope) > 0.05)
    begins, ends = (np.flatnonzero(np.diff(slow.astype(int), append=0) == sign) for sign in (1, -1))
    return np.array([energy[a + np.argmin(slope[a:b])] for a, b in zip(begins + 1, ends + 1)])


def check(data, constants) -> list[Check]:
    """Growth rates, cosines, the transition's place and value, plateaus, and the law of the last merging."""
    t, gamma, after, energy = data["cosine_time"], data["gamma"], data["after"], data["energy"]
    beta, merging = data["merging_beta"], data["merging"]
    waves = _waves_grow(_WAVES, data["beta"][:, None], constants)
    contexts = _after(data["count"][:, None].astype(float), gamma, constants)
    near = [
        ("growth of waves, SA and USA / Z", np.abs(data["growth"] - waves[:, None]).max(), 1e-3),
        ("long context: cosine after one layer", np.abs(after - contexts).max(), 1e-9),
        ("stairs: falls of the energy", max(0.0, -np.diff(energy).min()), 1e-9),
        ("last merging: its time, relative", np.abs(merging / [_meeting(b, constants) for b in beta] - 1).max(), 0.01),
    ]
    place, limit, found = constants["critical"] / (1 - _COSINE), 4 * _COSINE / (1 + 3 * _COSINE), _plateaus(data)
    same = [
        ("cosine of 8 tokens, β = 4, t = 4", _cosine(4.0, t, constants)[8], data["cosine"][1, 8], 1e-4),
        ("long context: γ of the transition", place, np.interp(-limit, -after[-1], gamma), 0.01),
        ("long context: cosine there", limit, np.interp(place, gamma, after[-1]), 0.01),
    ]
    for (name, level), plateau in zip(_STAIRS.items(), np.append(found, [np.nan] * 3)):
        same.append((f"stairs: energy of {name} tokens", level, plateau, 0.02))  # far apart: to e^-4
    design = np.stack([beta, np.ones_like(beta), 1 / beta], axis=1)  # the prefactor is (1 + O(1 / beta)) / beta
    slope = np.linalg.lstsq(design, np.log(beta * merging), rcond=None)[0][0]
    return [
        *(Check(f"{claim}, largest error", 0.0, float(error), tolerance) for claim, error, tolerance in near),
        *(Check.relative(*row) for row in same),
        Check("stairs: number of plateaus", float(len(_STAIRS)), float(len(found)), 0.0),
        Check("last merging: slope of log(β T)", constants["exponent"] * (1 - np.cos(_APART)), slope, 0.03),
    ]


def draw(figure, data, constants) -> None:
    """Above: growth, equal angles, long context. Below: the stairs and the last merging."""
    figure.set_size_inches(figure.get_figwidth(), 5.4)
    axes = figure.subplot_mosaic([["growth", "cosine", "context"], ["stairs", "stairs", "merging"]])
    shades, ax, k = style.shades(3), axes["growth"], np.linspace(0, 12.5, 200)
    for beta, growth, colour in zip(data["beta"], data["growth"], shades):
        ax.plot(k, _waves_grow(k, beta, constants), color=colour, label=f"β = {beta:g}")
        ax.plot(_WAVES, growth[0], "o", color=colour, markersize=3, label="SA")
        ax.plot(_WAVES, growth[1], "s", color=colour, markersize=6, fillstyle="none", label="USA / Z")
    ax.set(ylim=(-0.02, 1.05))
    style.finish(ax, "", "wave number k on the circle", "growth rate per layer")
    ax, t = axes["cosine"], np.linspace(0, 12, 200)
    for beta, cosine, colour, marker in zip((1.0, 4.0), data["cosine"], shades[1:], style.MARKERS):
        ax.plot(t, _cosine(beta, t, constants), color=colour)
        ax.plot(data["cosine_time"], cosine, marker, color=colour, label=f"β = {beta:g}")
    style.finish(ax, "", "time t (layers)", "cosine between 8 tokens")
    ax, gamma, edge = axes["context"], np.linspace(1, 3, 200), constants["critical"] / (1 - _COSINE)
    for n, after, colour, marker in zip(data["count"], data["after"], shades, style.MARKERS):
        ax.plot(gamma, _after(float(n), gamma, constants), color=colour)
        ax.plot(data["gamma"], after, marker, color=colour, label=f"n = {n}")
    ax.plot([1, edge, edge, 3], [1, 1, _COSINE, _COSINE], "--", color=style.ACCENT, label="n → ∞")
    style.finish(ax, "", "γ = β / log n", "cosine after one layer")
    ax = axes["stairs"]
    for name, level in _STAIRS.items():
        ax.axhline(level, color=style.ACCENT)
        ax.annotate(f"{name} tokens", (0.1, level), xytext=(0, 3), textcoords="offset points", fontsize=6.5)
    ax.plot(data["time"], data["energy"], "o", color=style.INK, markersize=3)
    ax.set(xscale="log", ylim=(0.2, 1.08))
    style.finish(ax, "", "time t (layers), five tokens on the circle, β = 4", r"energy $E\,/\,(e^\beta / 2\beta)$")
    ax, beta = axes["merging"], data["merging_beta"]
    ax.plot(beta, [_meeting(b, constants) for b in beta], color=style.INK, label="two point clusters")
    ax.plot(beta, data["merging"], "o", color=style.INK, label="3 + 2 tokens, 2 rad apart")
    ax.set(yscale="log")
    style.finish(ax, "", "inverse temperature β", "time of the last merging (layers)")
    axes["growth"].legend(frameon=False, ncols=3, loc="upper left")
    for panel in ("cosine", "context", "merging"):
        axes[panel].legend(frameon=False)
