"""Tokens that move: each layer replaces a token by what it attends to, so tokens cluster.

In flat space one layer is x <- x + a V (A x - x) (V = -1 spreads tokens out), the flow of small steps
dx/dt = V (A x - x). On the sphere dx_i/dt = P_x (sum_j S_ij V x_j), P_x the projection on the
tangent space (Geshkovski et al. 2023; Rigollet 2025).
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

from .. import checks
from ..attention import Attention
from ..geometry import Euclidean, Sphere
from ..progress import track
from ..solution import Solution


def evolve(
    layer: Attention,
    tokens: np.ndarray,
    layers: int,
    value_matrix: np.ndarray | None = None,
    constrain: str | None = None,
    save_every: int = 1,
    progress: bool = False,
) -> Solution:
    """Tokens after 0, ..., `layers` layers, the tokens being their own values.

    Parameters
    ----------
    layer : Attention
    tokens : (N, n) array
        On Euclidean space, or unit vectors with constrain="sphere".
    layers : int
    value_matrix : (n, n) array, optional
        V; None is the identity.
    constrain : {None, "sphere"}
        "sphere": x <- normalise(x + a (V A x - (x'Vx) x)), as layer normalisation does; for V = 1
        that is normalise((1 - a) x + a A x).
    save_every : int
    progress : bool

    Returns
    -------
    Solution
        y is (T, N, n): the tokens; .t = layers * layer.time_step.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Gaussian([0.0], [[1.0]]).sample(500, rng=0)
    >>> run = af.evolve(af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1), tokens, layers=5)
    >>> bool(run.y[-1].var() < run.y[0].var())   # softmax attention gathers tokens
    True
    """
    tokens, V = _check(layer, tokens, value_matrix, constrain)
    layers = checks.integer(layers, "layers")
    save_every = checks.integer(save_every, "save_every", least=1)
    time_step = layer.time_step
    x, saved, kept, stats = tokens, [tokens], [0], {}
    status, message = 0, "finished"
    try:
        for k in track(range(1, layers + 1), progress, layers):
            bound = layer.bind(x)
            attended = bound.attend(x)
            if k == 1:  # later on, tokens that have merged are alone together: the end of clustering, not trouble
                isolated = bound.count_isolated(attended.log_sum_exp)
            target, stats = _turn(attended.mean, V), {**bound.stats, "isolated": isolated}
            own = _along(x, _turn(x, V)) if constrain else _turn(x, V)
            x = x + layer.residual * (target - own)
            if constrain:
                norm = np.linalg.norm(x, axis=1, keepdims=True)
                if not (norm > 1e-12).all():
                    status = -1
                    message = f"token {int(norm.argmin())} has no direction after layer {k}: its attended mean vanishes"
                    break
                x = x / norm
            if k % save_every == 0 or k == layers:
                saved.append(x)
                kept.append(k)
    except KeyboardInterrupt:
        status, message = 1, f"interrupted after {kept[-1]} of {layers} layers; they are here"
    count = np.array(kept)
    return Solution(count * time_step, np.stack(saved), count, None, None, status, message, stats)


def evolve_continuous(
    layer: Attention,
    tokens: np.ndarray,
    t: float | np.ndarray,
    method: str = "RK45",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    value_matrix: np.ndarray | None = None,
    constrain: str | None = None,
) -> Solution:
    """The flow of small residual steps: dx/dt = V (A x - x), on the sphere dx/dt = P_x (V A x).

    Parameters
    ----------
    layer : Attention
        With residual 1: the flow has no step of its own.
    tokens : (N, n) array
    t : float or increasing array
        Output times, in layers; the run starts at 0.
    method : str
        One of `scipy.integrate.solve_ivp`'s methods.
    rtol, atol : float
    value_matrix, constrain
        As in `evolve`.

    Returns
    -------
    Solution
        y is (T, N, n) at the output times; status and message are solve_ivp's.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> layer = af.Attention(af.DotProduct(), epsilon=0.125)
    >>> run = af.evolve_continuous(layer, x, t=20.0, constrain="sphere")
    >>> bool(run.y[-1][0] @ run.y[-1][1] > 0.99)   # they meet
    True
    """
    tokens, V = _check(layer, tokens, value_matrix, constrain)
    times = checks.output_times(t)
    checks.choice(method, "method", ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA"))
    rtol, atol = checks.positive(rtol, "rtol"), checks.positive(atol, "atol")
    if layer.residual != 1:
        raise ValueError(f"layer must have residual = 1: the flow has no step of its own, got {layer.residual}")

    engine = layer.bind(tokens).plan.engine

    def rate(_, flat):
        x = flat.reshape(tokens.shape)
        if constrain:
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        target = _turn(layer.bind(x).attend(x).mean, V)
        return (target - (_along(x, target) if constrain else _turn(x, V))).ravel()

    if times[-1] == 0:
        return Solution(times, tokens[None], times, stats={"engine": engine, "evaluations": 0})
    run = solve_ivp(rate, (0.0, times[-1]), tokens.ravel(), method, t_eval=times, rtol=rtol, atol=atol)
    y = run.y.T.reshape(-1, *tokens.shape)
    if constrain:
        y = y / np.linalg.norm(y, axis=-1, keepdims=True)  # the flow keeps the norm to rtol; the points exactly
    stats = {"engine": engine, "evaluations": int(run.nfev)}
    return Solution(run.t, y, run.t, None, None, int(run.status), str(run.message), stats)


def _turn(x: np.ndarray, V: np.ndarray | None) -> np.ndarray:
    return x if V is None else x @ V.T


def _along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The component of y along the unit vectors x."""
    return np.sum(x * y, axis=1, keepdims=True) * x


def _check(layer, tokens, value_matrix, constrain):
    if not isinstance(layer, Attention):
        raise TypeError(f"layer must be an attnflow.Attention, got {type(layer).__name__}")
    if constrain is not None and not (isinstance(constrain, str) and constrain == "sphere"):
        raise ValueError(f"constrain must be None or 'sphere', got {checks.short(constrain)}")
    space = layer.f.space
    if space is not None and not isinstance(space, (Euclidean, Sphere)):
        raise ValueError(f"tokens must live on Euclidean or Sphere to move, got {space}: means are not defined on it")
    if isinstance(space, Sphere) and constrain is None:
        raise ValueError("constrain must be 'sphere' for a pseudo-metric on the sphere, got None")
    tokens = layer.f.check(tokens, "tokens").astype(float)
    n = tokens.shape[1]
    if constrain:
        tokens = Sphere(n - 1).check(tokens, "tokens")
    V = None if value_matrix is None else checks.array(value_matrix, "value_matrix", (n, n)).astype(float)
    return tokens, V
