"""Training of L2 self-attention without PyTorch: L-BFGS on the gradient in closed form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from .. import checks
from ..attention import Attention
from ..geometry import Euclidean
from ..progress import track
from ..similarity import SquaredDistance
from . import propagation
from .training import History


def by_lbfgs(
    parameters: Mapping[str, np.ndarray],
    x: np.ndarray,
    labels: np.ndarray,
    edges: np.ndarray | None,
    *,
    weight_decay: float,
    epochs: int,
    tol: float,
    progress: bool,
) -> tuple[dict[str, np.ndarray], History]:
    """Train from the given parameters, of L2 attention: (the new ones, and the history, one entry an iteration).

    The objective is the mean cross-entropy plus weight_decay / 2 times the sum of the squared parameters, whose gradient
    is what Adam's weight decay adds. Stops after `epochs` iterations, or when no entry of the gradient exceeds `tol`.

    Warns
    -----
    ConvergenceWarning
        If the line search failed, or training was interrupted: what was learned until then is kept.
    """
    sizes = {name: value.shape for name, value in parameters.items()}
    ends = np.cumsum([value.size for value in parameters.values()])[:-1]
    history, reached = History(), np.concatenate([value.ravel() for value in parameters.values()])
    seen: dict[bytes, tuple[float, float]] = {}

    def named(flat: np.ndarray) -> dict[str, np.ndarray]:
        return {name: part.reshape(sizes[name]) for name, part in zip(sizes, np.split(flat, ends))}

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        with warnings.catch_warnings():  # a trial step may isolate a token: its own state is there beside the mean
            warnings.simplefilter("ignore", checks.IsolatedTokensWarning)
            loss, accuracy, gradient = loss_and_gradient(named(flat), x, labels, edges)
        seen[flat.tobytes()] = loss, accuracy
        slope = np.concatenate([gradient[name].ravel() for name in sizes])
        return loss + weight_decay / 2 * float(flat @ flat), slope + weight_decay * flat

    def iteration(flat: np.ndarray) -> None:
        nonlocal reached
        loss, accuracy = seen[flat.tobytes()]
        seen.clear()
        reached = flat.copy()
        history.loss.append(loss)
        history.accuracy.append(accuracy)
        next(bar, None)

    bar = track(range(epochs), progress, unit="iteration")
    options = {"maxiter": epochs, "maxfun": 20 * epochs, "gtol": tol, "ftol": 0.0}
    try:
        result = minimize(objective, reached, jac=True, method="L-BFGS-B", callback=iteration, options=options)
        if result.status == 2:  # the line search; 1: that was all the iterations asked for
            checks.warn(f"L-BFGS stopped after {len(history.loss)} iterations: {result.message}", checks.ConvergenceWarning)
    except KeyboardInterrupt:
        history.interrupted = True
        checks.warn(
            f"training was interrupted after {len(history.loss)} of {epochs} iterations: what was learned is kept",
            checks.ConvergenceWarning,
        )
    return named(reached), history


def loss_and_gradient(
    parameters: Mapping[str, np.ndarray], x: np.ndarray, labels: np.ndarray, edges: np.ndarray | None = None
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Mean cross-entropy and accuracy of tokens that attend to each other, and the gradient of the former by `layer.vjp`.

    Parameters
    ----------
    parameters : of L2 attention, as `propagation.shapes` names them
    x : (N, n) array
    labels : (N,) array of int
    edges : (E, 2) array of int, optional
        Query first; None: all attend to all.
    """
    W, p = parameters, len(parameters["input.bias"])
    layer = Attention(SquaredDistance(Euclidean(p)), propagation.temperature(W), mask=edges)
    blocks = range(propagation.blocks_of(W))
    h = [x @ W["input.weight"].T + W["input.bias"]]
    u, v = [], []  # of each block, what distances are taken of, and the values
    for k in blocks:
        u.append(h[k] @ W[f"blocks.{k}.query.weight"].T)
        v.append(h[k] @ W[f"blocks.{k}.value.weight"].T)
        h.append(h[k] + layer.bind(u[k]).attend(v[k]).mean)
    scores = h[-1] @ W["output.weight"].T + W["output.bias"]
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    loss, accuracy = -float(log_p[rows, labels].mean()), float((scores.argmax(axis=1) == labels).mean())

    g = np.exp(log_p)
    g[rows, labels] -= 1.0
    g /= len(x)
    gradient = {"output.weight": g.T @ h[-1], "output.bias": g.sum(axis=0)}
    g = g @ W["output.weight"]
    for k in reversed(blocks):
        pulled = layer.vjp(u[k], v[k], g)
        gradient[f"blocks.{k}.query.weight"] = pulled.tokens.T @ h[k]
        gradient[f"blocks.{k}.value.weight"] = pulled.values.T @ h[k]
        g = g + pulled.tokens @ W[f"blocks.{k}.query.weight"] + pulled.values @ W[f"blocks.{k}.value.weight"]
    return loss, accuracy, {**gradient, "input.weight": g.T @ x, "input.bias": g.sum(axis=0)}
