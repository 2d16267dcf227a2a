"""A metric that a network has learned, in both solvers: tokens through its layers follow the equation under that metric.

Metric-attention, f = |phi(x) - phi(y)|^2 with phi(x) = h + W_2 tanh(W_1 h + b_1) + b_2, h = W x + b, is trained to tell two
moons apart; |W_1| |W_2| <= 0.9 keeps phi injective, so that layers with it have the limit

    dH/dt = Delta_g H + 2 <grad log p, grad H>_g,     g = J'J,     t = layers * epsilon / 2,

here on a box around the tokens, p their kernel density. A map trained without the bound folds and has no such limit. Of
any map, folded or not, there is the learned plane: z = the first two principal axes of phi(x), in units of the spread
along the first, with a kernel density of its own. There the bias of temperature and the noise of few tokens are
predicted: moons, and the ten digits. In the plane of the moons heat flows fast within a class and slowly to the other:
the slowest mode of a layer on 2000 unseen tokens, which knows no labels, tells their classes as well as the classifier
does. (Where tokens are as they came, it does not, nor under the bounded metric, which is an embedding at that price.)

Source: Ruan & Zhang 2024, theorem 3 and algorithm 1; the bound and the learned plane: this package.
"""

from __future__ import annotations

import warnings

import numpy as np

import attnflow as af
from attnflow.checks import AccuracyWarning, IsolatedTokensWarning
from attnflow.learning.propagation import first_pseudometric
from attnflow.plotting import style
from attnflow.plotting.metrics import plot_metric
from attnflow.progress import track

from . import Check

NEEDS = "torch"
PANELS = 4
TITLE = "Tokens follow the equation under a learned metric; in the learned plane, what diffusion forgets last is the class"
CONSTANTS = {"drift": 2.0, "bias": 1.0, "noise": 1.0}
WRONG = {"drift": 1.0, "bias": 1.0, "noise": 1.0}

_PLANES = ("moons", "digits")
_EPSILON, _LAYERS = 0.05, 8
_MARGIN, _WIDTH = 0.3, 0.2  # of the box around the tokens; of the kernel of their density
_UNSEEN = 2000
_ENDS = np.array([[[-1.0, 0.1], [1.0, 0.1]], [[0.0, 0.4], [2.0, 0.4]], [[0.0, 1.0], [1.0, -0.5]]])  # along the moons, across
_PLANE = {"epsilon": 0.1, "t": 0.2, "size": 4000, "bandwidth": 0.35}


def measure(quick: bool = False, progress: bool = False) -> dict[str, np.ndarray]:
    """Features of tokens and of the equation, box first, then the planes."""
    from sklearn.datasets import load_digits, make_moons

    from attnflow.learning import MetricAttention

    X, y = make_moons(400, noise=0.2, random_state=0)
    bounded = MetricAttention(lipschitz=0.9, learning_rate=3e-3, random_state=0).fit(X, y)
    data = _on_the_box(X, bounded, 3000 if quick else 8000)
    digits, labels = load_digits(return_X_y=True)
    maps = {
        "moons": (X, MetricAttention(random_state=0).fit(X, y)),
        "digits": (digits / 16, MetricAttention(learning_rate=3e-3, epochs=300, random_state=0).fit(digits / 16, labels)),
    }
    data["folding"] = np.array([model.pseudometric_.defects(X)["folding"] for model in (bounded, maps["moons"][1])])
    data |= _slowest_modes(X, maps["moons"][1], bounded)
    planes = [_on_the_plane(model.project(x), 1 if quick else 5) for x, model in track(maps.values(), progress, 2)]
    return data | {name: np.array([plane[name] for plane in planes]) for name in planes[0]}


def _on_the_box(X: np.ndarray, model, size: int) -> dict[str, np.ndarray]:
    """Eight layers of tokens and the equation at their places, for drifts 1 and 2; geodesics."""
    cloud = af.KernelDensity(X, _WIDTH)
    box = af.Box(list(zip(X.min(axis=0) - _MARGIN, X.max(axis=0) + _MARGIN)))
    density = af.Density(box, cloud.log_pdf)
    low, high = np.array(box.bounds).T
    drawn = cloud.sample(2 * size, rng=1)
    tokens = drawn[((low < drawn) & (drawn < high)).all(axis=1)][:size]

    def start(x: np.ndarray) -> np.ndarray:
        return np.sin(1.7 * x[..., 0] + 0.5) * np.cos(1.7 * x[..., 1])

    layer = af.Attention(model.pseudometric_, _EPSILON)
    with warnings.catch_warnings():  # a token in a corner of the box may have none beside it
        warnings.simplefilter("ignore", IsolatedTokensWarning)
        run = af.propagate(layer, tokens, start, _LAYERS, save_every=_LAYERS)
    limit = af.limit(layer, density)
    equations = [af.DriftDiffusion(limit.density, drift).solve(start, run.t[-1], rtol=1e-3) for drift in (1.0, 2.0)]
    before, after, predicted = start(tokens), run.y[-1, :, 0], np.array([one.at(tokens)[:, 0] for one in equations])
    paths = [af.geodesic(model.pseudometric_.metric, *ends)[0] for ends in _ENDS]
    parameters = {f"parameter:{name}": value for name, value in model.parameters_.items()}
    sizes = np.linalg.norm(predicted, axis=1)
    shown = slice(None, None, max(1, size // 1000))
    return {
        "size": np.array(len(tokens)), "tokens": X, "bounds": np.array(box.bounds), "paths": np.array(paths),
        "moved": np.linalg.norm(predicted - before, axis=1) / sizes,
        "apart": np.linalg.norm(after - predicted, axis=1) / sizes, "change": (after - before)[shown],
        "change_predicted": (predicted - before)[:, shown], **parameters,
    }  # fmt: skip


def _slowest_modes(X: np.ndarray, free, bounded) -> dict[str, np.ndarray]:
    """Of a layer on unseen tokens, in the learned plane, as they came and under the bounded metric (3, tokens)."""
    from sklearn.datasets import make_moons

    tokens, labels = make_moons(_UNSEEN, noise=0.2, random_state=1)
    plane = af.SquaredDistance(af.Euclidean(2))
    z, unit = free.project(tokens), free.project(X)[:, 0].std()
    cases = [(plane, z / unit, 0.1), (plane, tokens / X[:, 0].std(), 0.1), (bounded.pseudometric_, tokens, 0.3)]
    modes = [af.Attention(f, epsilon).spectrum(where, 2).eigenvectors[1] for f, where, epsilon in cases]
    return {"modes": np.array(modes), "labels": labels, "score": np.array(free.score(tokens, labels))}


def _on_the_plane(z: np.ndarray, seeds: int) -> dict[str, float]:
    """Root mean squares over the tokens: of layers less equation, of the predicted bias, of the predicted noise."""
    density = af.KernelDensity(z / z[:, 0].std(), _PLANE["bandwidth"])
    layer, t = af.Attention(af.SquaredDistance(af.Euclidean(2)), _PLANE["epsilon"]), _PLANE["t"]
    deviations, start = [], lambda x: np.sin(x[..., 0] + x[..., 1])
    solution = af.limit(layer, density).solve(start, t, rtol=1e-4)
    for seed in range(seeds):
        tokens = density.sample(_PLANE["size"], rng=seed)
        run = af.propagate(layer, tokens, start, round(t / layer.time_step))
        deviations.append(run.y[-1] - solution.at(tokens))
    with warnings.catch_warnings():  # the nodes hold p to 1e-3, not to 1e-8: enough to tell how large bias and noise are
        warnings.simplefilter("ignore", AccuracyWarning)
        bias = af.predicted_bias(layer, density, start, t)(tokens)
        noise = af.predicted_noise(layer, density, start, t, _PLANE["size"])(tokens)
    parts = {"deviation": np.array(deviations), "bias": bias, "noise": noise}
    return {name: float(np.sqrt(np.mean(part**2))) for name, part in parts.items()}


def _told(data) -> np.ndarray:
    """Share of the unseen tokens whose class the sign of each mode tells."""
    same = ((data["modes"] > 0) == data["labels"]).mean(axis=1)
    return np.maximum(same, 1 - same)


def _errors(data, constants) -> np.ndarray:
    """Predicted deviations in the planes."""
    return np.hypot(constants["bias"] * data["bias"], constants["noise"] * data["noise"])


def check(data, constants) -> list[Check]:
    """Tokens against the equation, relative L2; deviations within twice their prediction; classes told by the slowest mode."""
    drift, moved = int(constants["drift"]) - 1, f"{int(data['size'])} tokens, {_LAYERS} layers"
    told = _told(data)
    checks = [
        Check(f"learned metric, {moved}: relative L2 from the equation", 0.0, data["apart"][drift], 0.08),
        Check("class of unseen tokens by the slowest mode of the learned plane", float(data["score"]), told[0], 0.02),
    ]
    for name, predicted, measured in zip(_PLANES, _errors(data, constants), data["deviation"]):
        checks.append(Check(f"plane of {name}: deviation over predicted bias and noise", 1.0, measured / predicted, 1.0))
    return checks


def draw(figure, data, constants) -> None:
    """The metric and its geodesics; layers against the equation; the slowest mode; the planes."""
    first, second, third, last = figure.subplots(1, 4)
    drift = int(constants["drift"]) - 1
    parameters = {name.partition(":")[2]: data[name] for name in data if name.startswith("parameter:")}
    plot_metric(first_pseudometric(parameters, "metric").metric, data["bounds"], data["paths"], first)
    first.plot(*data["tokens"].T, ".", color="0.35", markersize=1.2)
    bounded, free = data["folding"]
    first.set_title(f"a  circles, geodesics; folding {bounded:.2f} (free map {free:.2f})", loc="left")
    predicted, measured = data["change_predicted"][drift], data["change"]
    ends = np.array([predicted.min(), predicted.max()])
    second.plot(ends, ends, color=style.INK, label="equation")
    moved, apart = data["moved"][drift], data["apart"][drift]
    second.plot(
        predicted, measured, "o", color=style.ACCENT, markersize=1.2, label=f"tokens: {apart:.3f} off, moved by {moved:.2f}"
    )
    second.legend(frameon=False)
    style.finish(second, "", "change of a wave, equation", "change of a wave, tokens")
    second.set_title(f"b  {_LAYERS} layers, {int(data['size'])} tokens", loc="left")
    told, mode, labels = _told(data), data["modes"][0] / np.abs(data["modes"][0]).max(), data["labels"]
    for k, colour in enumerate((style.ACCENT, style.INK)):
        third.hist(mode[labels == k], np.linspace(-1, 1, 41), color=colour, alpha=0.6, label=f"class {k}")
    third.axvline(0, color="0.6", linewidth=0.8)
    third.legend(frameon=False, loc="upper center")
    style.finish(third, "", "slowest mode of the learned plane", "unseen tokens")
    third.set_title(f"c  sign tells {told[0]:.0%} (unlearned {told[1]:.0%}, bounded {told[2]:.0%})", loc="left")
    x, errors = np.arange(len(_PLANES)), _errors(data, constants)
    last.bar(x, 2 * errors, 0.5, color="0.88", label="twice that")
    last.bar(x, errors, 0.5, color="0.65", label="predicted: bias and noise")
    last.plot(x, data["deviation"], "o", color=style.ACCENT, label="layers − equation")
    last.set_xticks(x, _PLANES)
    last.set_xlim(-0.6, len(_PLANES) - 0.4)
    last.legend(frameon=False, loc="upper left")
    last.set_ylim(0, 3.2 * errors.max())
    style.finish(last, "", "learned plane of", "root mean square")
    last.set_title(f"d  planes, {_PLANE['size']} tokens", loc="left")
