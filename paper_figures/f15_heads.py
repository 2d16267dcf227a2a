"""Several heads: one layer is a step of a sum of equations, if the mixing matrices add up to one.

Rows H of c features go through heads A_i with their own temperatures and normalisations, tau_i = r_i tau, and are
mixed by c x c matrices W_i (a transformer's value and output matrices):

    sum_i A_i H W_i = H sum_i W_i + tau sum_i r_i (L_i H) W_i + O(tau^2),   L_i H = Delta H + c_i <grad log p, grad H>.

With sum_i W_i = 1, layers follow dH/dt = G H = sum_i r_i (L_i H) W_i, which is `attnflow.Heads`, and at fixed t leave

    tau integral_0^t e^((t - u) G) R e^(u G) H du,     R H = sum_i 2 r_i^2 (B_i H) W_i - G^2 H / 2,

with B_i the bias of each head. With sum_i W_i = (1 - sigma) 1 there is no limit: t / tau layers multiply the features
by (1 - sigma)^(t / tau). Here: the circle, p proportional to exp(cos x), a softmax head and a Sinkhorn head of twice
its temperature (drifts c = 2 and 1, r = 1 and 2), two features, matrices that do not commute.

Source: Ruan & Zhang 2024, section 3.3 (the sum of heads); the constant derived for this package.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import circulant, expm

import attnflow as af
from attnflow.attention import bind_density
from attnflow.plotting import style
from attnflow.progress import track

from . import Check

PANELS = 2
TITLE = "Heads add up to one equation, if their mixing matrices add up to one; if not, there is no limit"
CONSTANTS = {"drift": np.array([2.0, 1.0])}
WRONG = {"drift": np.array([1.0, 1.0])}

_RATIO = (1.0, 2.0)  # tau_i / tau
_W = (np.array([[0.6, 0.3], [-0.1, 0.5]]), np.array([[0.4, -0.3], [0.1, 0.5]]))
_LOSS = 0.02  # sigma
_T = 0.5
_NODES = 65  # odd: no Nyquist mode


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Features at t = 0.5 for each tau, with mixing that adds up to 1 and to 1 - sigma; and the equation's own."""
    layers = np.array([50, 100, 200] if quick else [20, 50, 100, 200, 400])
    density = af.VonMises(1.0)
    kept, lost = [], []
    for count in track(layers, progress):
        heads = _heads(2 * _T / count)
        bound = [bind_density(head, density, grid=_size(heads[0]))[0] for head in heads]
        x = bound[0].tokens[:, 0]
        for found, loss in ((kept, 0.0), (lost, _LOSS)):
            H = _start(x)
            for _ in range(count):
                first, second = (head.attend(H).mean for head in bound)
                H = first @ (_W[0] - loss * np.eye(2)) + second @ _W[1]
            found.append(_resample(H))
    equations = [af.limit(head, density) for head in _heads(0.01)]
    equation = af.Heads(equations, [r * W for r, W in zip(_RATIO, _W)])
    solution = equation.solve(lambda x: _start(x[..., 0]), _T, rtol=1e-7)
    nodes = 2 * np.pi * np.arange(_NODES) / _NODES
    return {"layers": layers, "kept": np.array(kept), "lost": np.array(lost), "equation": solution.at(nodes[:, None])}


def _heads(epsilon: float) -> tuple[af.Attention, af.Attention]:
    f = af.SquaredDistance(af.Circle())
    return af.Attention(f, epsilon), af.Attention(f, 2 * epsilon, "sinkhorn")


def _size(narrow: af.Attention) -> int:
    return _NODES * int(np.ceil(2.7 * 2 * np.pi / np.sqrt(narrow.epsilon) / _NODES))  # those we compare on among them


def _resample(H: np.ndarray) -> np.ndarray:
    return H[:: len(H) // _NODES]


def _start(x: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(x), np.sin(2 * x)], axis=-1)


def _prediction(drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """H(t) of the equation and error / tau of the layers, both (nodes, 2), by Fourier matrices."""
    x = 2 * np.pi * np.arange(_NODES) / _NODES
    k = np.arange(_NODES)
    signed = np.where(k % 2, 1.0, -1.0)[1:]  # of the derivative of a trigonometric interpolant on an odd grid
    d = circulant(np.concatenate([[0.0], -signed / (2 * np.sin(np.pi * k[1:] / _NODES))]))
    slope = -np.sin(x)  # (log p)'

    def multiply(values):
        return np.diag(values)

    generators = [d @ d + c * multiply(slope) @ d for c in drift]
    p = np.exp(np.cos(x))
    softmax = _bias(d @ d, p, generators[0])
    biases = [softmax, generators[1] @ generators[1] / 4]  # Sinkhorn's is L^2 / 4
    G = sum(r * np.kron(L, W.T) for r, L, W in zip(_RATIO, generators, _W))
    R = sum(2 * r**2 * np.kron(B, W.T) for r, B, W in zip(_RATIO, biases, _W)) - G @ G / 2
    both = expm(_T * np.block([[G, R], [np.zeros_like(G), G]]))  # Van Loan: the integral is the upper right block
    size, start = len(G), _start(x).ravel()
    return (both[:size, :size] @ start).reshape(-1, 2), (both[:size, size:] @ start).reshape(-1, 2)


def _bias(laplacian: np.ndarray, p: np.ndarray, L: np.ndarray) -> np.ndarray:
    """B H = [Delta^2 (p H) - H Delta^2 p] / (4 p) - (Delta p / p) L H / 2 of a Gaussian softmax layer."""
    square = laplacian @ laplacian
    return (square * p - np.diag(square @ p)) / (4 * p[:, None]) - ((laplacian @ p) / (2 * p))[:, None] * L


def check(data, constants) -> list[Check]:
    """Order and constant of the error, what is lost per layer, and the equation as solved by the package."""
    exact, slope = _prediction(constants["drift"])
    tau = _T / data["layers"]
    errors = (data["kept"] - exact) / tau[:, None, None]
    order = np.polyfit(np.log(tau), np.log(_norm(data["kept"] - exact)), 1)[0]
    degree = min(2, len(tau) - 1)
    constant = np.polyfit(tau, errors.reshape(len(tau), -1), degree)[-1].reshape(slope.shape)
    per_layer = np.polyfit(data["layers"], np.log(_norm(data["lost"]) / _norm(data["kept"])), 1)[0]
    apart = _norm(constant - slope) / _norm(slope)
    return [
        Check("order in τ of the error at fixed time", 1.0, order, 0.03),
        Check.relative("its constant, root mean square of error/τ", _norm(slope), _norm(constant), 0.01),
        Check("distance of the measured field of error/τ from the predicted", 0.0, apart, 0.01),
        Check.relative("log of the loss per layer, sum of mixing 0.98", np.log1p(-_LOSS), per_layer, 0.01),
        Check("attnflow.Heads against a matrix exponential", 0.0, _norm(data["equation"] - exact) / _norm(exact), 1e-6),
    ]


def _norm(field: np.ndarray) -> np.ndarray:
    """Root mean square over nodes and features."""
    return np.sqrt(np.mean(field**2, axis=(-2, -1)))


def draw(figure, data, constants) -> None:
    """Error over tau; size of the features over tau, for mixing that adds up to 1 and that does not."""
    exact, slope = _prediction(constants["drift"])
    tau = _T / data["layers"]
    left, right = figure.subplots(1, 2)
    line = np.geomspace(0.8 * tau.min(), 1.25 * tau.max(), 100)
    left.plot(line, _norm(slope) * line, color=style.INK, label="predicted, with no free constant")
    left.plot(tau, _norm(data["kept"] - exact), "o", color=style.ACCENT, label="measured, two heads layer by layer")
    left.legend(frameon=False)
    style.finish(left, "", "time step τ (length²)", "rms error of the features at t = 0.5")
    left.set_title("a  mixing matrices that add up to 1", loc="left")
    right.plot(line, np.full_like(line, _norm(exact)), color=style.INK, label=r"predicted, $\sum W_i = 1$")
    right.plot(tau, _norm(data["kept"]), "o", color=style.ACCENT, label="measured")
    lost = _norm(exact) * (1 - _LOSS) ** (_T / line)
    right.plot(line, lost, "--", color=style.INK, label=r"predicted, $\sum W_i = 0.98$")
    right.plot(tau, _norm(data["lost"]), "s", color=style.ACCENT)
    right.legend(frameon=False, loc="lower right")
    style.finish(right, "", "time step τ (length²)", "rms features at t = 0.5")
    right.set_title("b  and that do not (dashed)", loc="left")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log")
        style.plain_ticks(ax.xaxis, tau)
