"""Tokens that move: each layer replaces a token by what it attends to, so tokens cluster.

In flat space one layer is x <- x + a V (A x - x) (V = -1 spreads tokens out), the flow of small steps
dx/dt = V (A x - x). On the sphere dx_i/dt = P_x (sum_j S_ij V x_j), P_x the projection on the
tangent space (Geshkovski et al. 2023; Rigollet 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from scipy import integrate

from .. import capacity, checks
from ..attention import Attention, MultiHead, heads_of
from ..attention.heads import check_columns
from ..geometry import Euclidean, Sphere
from ..progress import track
from ..solution import Solution
from .blocks import NORMS, TOO_LARGE, Block, LostTokens, along, turn

_EXPLICIT = ("RK23", "RK45", "DOP853")


def evolve(
    layer: Attention | MultiHead,
    tokens: np.ndarray,
    layers: int,
    value_matrix: np.ndarray | None = None,
    constrain: str | None = None,
    save_every: int = 1,
    progress: bool = False,
    *,
    norm: str | None = None,
    gain: float | np.ndarray = 1.0,
    map: Callable | None = None,
) -> Solution:
    """Tokens after 0, ..., `layers` layers, the tokens being their own values.

    With N(x) = gain * x / |x| for each token, and M x = V A x (sum_i A_i x W_i of several heads), a layer is

        norm     attention                  map (the MLP)
        None     x <- x + a (M x - V x)     x <- x + map(x)
        "pre"    x <- x + a M N(x)          x <- x + map(N(x))
        "post"   x <- N(x + a M x)          x <- N(x + map(x))
        "peri"   x <- x + a N(M N(x))       x <- x + N(map(N(x)))

    where weights are those of the tokens that M is applied to. Only norm None subtracts V x (x for several heads): it
    is a step of the flow dx/dt = V (A x - x); the others are a transformer's own. For V = 1 and gain 1, "post" of
    residual a is constrain="sphere" of residual a / (1 + a).

    Parameters
    ----------
    layer : Attention or MultiHead
    tokens : (N, n) array
        On Euclidean space, or unit vectors with constrain="sphere".
    layers : int
    value_matrix : (n, n) array, optional
        V; None is the identity, and what several heads take: theirs are in their mixing, as W_i = V'.
    constrain : {None, "sphere"}
        "sphere": x <- normalise(x + a (V A x - (x'Vx) x)), as layer normalisation does; for V = 1
        that is normalise((1 - a) x + a A x). After a map, tokens are normalised again.
    save_every : int
    progress : bool
    norm : {None, "pre", "post", "peri"}
        Not beside constrain. A pseudo-metric on the sphere takes any tokens with "pre" and "peri", where attention sees
        N(x), and unit vectors with "post"; its gain is 1.
    gain : float or (n,) array
        Of N. The root mean square norm's gain is one of ours divided by sqrt(n).
    map : callable, optional
        Tokens (N, n) -> (N, n), applied after attention in each layer; and once to `tokens`, to be checked.

    Returns
    -------
    Solution
        y is (T, N, n): the tokens; .t = layers * layer.clock. Interrupted (status 1), or stopped because tokens
        grew beyond the range of numbers or lost their direction, as zero vectors in a norm do (status -1), it holds the
        layers that were done.

    Examples
    --------
    >>> import attnflow as af
    >>> tokens = af.Gaussian([0.0], [[1.0]]).sample(500, rng=0)
    >>> run = af.evolve(af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1), tokens, layers=5)
    >>> bool(run.y[-1].var() < run.y[0].var())   # softmax attention gathers tokens
    True

    Sources: Xiong et al. 2020 (pre and post); Kim et al. 2025 (peri).
    """
    tokens, V, scale = _check(layer, tokens, value_matrix, constrain, norm, gain)
    if map is not None:
        checks.array(checks.function(map, "map", "callable on tokens (N, n)")(tokens), "map(tokens)", tokens.shape)
    layers = checks.integer(layers, "layers")
    save_every = checks.integer(save_every, "save_every", least=1)
    capacity.ends(layers, "layers", 5e-5 + 1e-9 * tokens.size, "layers")
    capacity.fits(2 * tokens.nbytes * (layers // save_every + 2), "layers")
    clock = layer.clock
    block = Block(layer.residual, V, constrain is not None, norm, scale, map)
    x, saved, kept, stats = tokens, [tokens], [0], {}
    status, message = 0, "finished"
    done = 0

    def attend(seen: np.ndarray) -> np.ndarray:
        bound = layer.bind(seen)
        attended = bound.attend(seen)
        if not done:  # later on, tokens that have merged are alone together: the end of clustering, not trouble
            stats["isolated"] = bound.count_isolated(attended.log_sum_exp)
        stats.update(bound.stats | {"isolated": stats["isolated"]})
        return attended.mean

    try:
        for k in track(range(1, layers + 1), progress, layers):
            with _following(given=done == 0):
                moved = block(x, attend)
            x, done = moved, k
            if k % save_every == 0 or k == layers:
                saved.append(x)
                kept.append(k)
    except KeyboardInterrupt:
        status, message = 1, f"interrupted after {done} of {layers} layers; they are here"
    except LostTokens as error:
        status, message = -1, f"stopped after {done} of {layers} layers, which are here: {error}"
    if done > kept[-1]:
        saved.append(x)
        kept.append(done)
    count = np.array(kept)
    return Solution(count * clock, np.stack(saved), count, None, None, status, message, stats)


def evolve_continuous(
    layer: Attention | MultiHead,
    tokens: np.ndarray,
    t: float | np.ndarray,
    method: str = "RK45",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    value_matrix: np.ndarray | None = None,
    constrain: str | None = None,
) -> Solution:
    """The flow of small residual steps: dx/dt = V (A x - x), on the sphere dx/dt = P_x (V A x).

    Several heads have dx/dt = sum_i A_i x W_i - x, on the sphere P_x (sum_i A_i x W_i).

    Parameters
    ----------
    layer : Attention or MultiHead
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
        y is (T, N, n) at the output times; interrupted (status 1) or failed (status -1), at those that were reached and
        where it stopped.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> layer = af.Attention(af.DotProduct(), epsilon=0.125)
    >>> run = af.evolve_continuous(layer, x, t=20.0, constrain="sphere")
    >>> bool(run.y[-1][0] @ run.y[-1][1] > 0.99)   # they meet
    True
    """
    tokens, V, _ = _check(layer, tokens, value_matrix, constrain)
    times = checks.output_times(t)
    checks.choice(method, "method", (*_EXPLICIT, "Radau", "BDF", "LSODA"))
    rtol, atol = checks.positive(rtol, "rtol"), checks.positive(atol, "atol")
    if layer.residual != 1:
        raise ValueError(f"layer must have residual = 1: the flow has no step of its own, got {layer.residual}")

    if method in _EXPLICIT:  # these step no further than is stable, however smooth the run
        fastest = 1.0 if V is None else float(np.abs(np.linalg.eigvals(V)).max())
        if isinstance(layer, MultiHead):
            fastest = 1.0 + sum(float(np.linalg.norm(np.atleast_2d(W), 2)) for W in layer.mixing)
        capacity.ends(times[-1] * fastest / 50, "t", 1e-4 + 1e-9 * tokens.size)
    capacity.fits(3 * tokens.nbytes * len(times), "t")
    engine = layer.bind(tokens).stats["engine"]

    def rate(_, flat):
        x = flat.reshape(tokens.shape)
        if constrain:
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        with _following(given=solver is None):
            target = turn(layer.bind(x).attend(x).mean, V)
            velocity = target - (along(x, target) if constrain else turn(x, V))
        if not np.isfinite(velocity).all():
            raise LostTokens(TOO_LARGE)
        return velocity.ravel()

    if times[-1] == 0:
        return Solution(times, tokens[None], times, stats={"engine": engine, "evaluations": 0})
    solver, status, message = None, 0, "finished"
    reached, saved = [], []
    if times[0] == 0:
        reached, saved = [0.0], [tokens.ravel()]
    try:
        solver = getattr(integrate, method)(rate, 0.0, tokens.ravel(), times[-1], rtol=rtol, atol=atol)
        while solver.status == "running":
            with np.errstate(over="ignore", invalid="ignore"):
                why = solver.step()
            if solver.status == "failed":
                raise LostTokens.because(why.rstrip("."))
            passed = times[len(reached) :][times[len(reached) :] <= solver.t]
            if len(passed):
                reached += passed.tolist()
                saved += list(solver.dense_output()(passed).T)
    except KeyboardInterrupt:
        status, message = 1, "interrupted"
    except LostTokens as error:
        status, message = -1, str(error)
    if status:
        if solver is None:
            reached, saved = [0.0], [tokens.ravel()]
        elif solver.t > (reached[-1] if reached else -1.0):
            reached.append(solver.t)
            saved.append(solver.y)
        message = f"stopped after {reached[-1]:.6g} of {times[-1]:g} layers, what was done is here: {message}"
    y = np.reshape(saved, (-1, *tokens.shape))
    if constrain:
        y = y / np.linalg.norm(y, axis=-1, keepdims=True)  # the flow keeps the norm to rtol; the points exactly
    stats = {"engine": engine, "evaluations": int(solver.nfev) if solver else 0}
    return Solution(np.array(reached), y, np.array(reached), None, None, status, message, stats)


@contextmanager
def _following(given: bool) -> Iterator[None]:
    """A layer's refusal of tokens that it made itself is the end of the run, not an error of who gave the first ones."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except ValueError as error:
        if given:
            raise
        raise LostTokens.because(error) from None


def _check(layer, tokens, value_matrix, constrain, norm=None, gain=1.0):
    heads = heads_of(layer)
    if constrain is not None and not (isinstance(constrain, str) and constrain == "sphere"):
        raise ValueError(f"constrain must be None or 'sphere', got {checks.short(constrain)}")
    if norm is not None:
        checks.choice(norm, "norm", NORMS)
        if constrain is not None:
            raise ValueError(f"norm must be None beside constrain = 'sphere', which normalises itself, got {norm!r}")
    gain = checks.array(gain, "gain").astype(float)
    if norm is None and not (gain == 1).all():
        raise ValueError(f"gain must be 1 without a norm, got {checks.entries(gain)}")
    for head in heads:
        tokens = _check_tokens(head.f, tokens, constrain, norm, gain)
    tokens = tokens.astype(float)
    n = tokens.shape[1]
    if gain.shape not in ((), (n,)):
        raise ValueError(f"gain must be a number or have shape ({n},), got {gain.shape}")
    if constrain:
        tokens = Sphere(n - 1).check(tokens, "tokens")
    if isinstance(layer, MultiHead) and value_matrix is not None:
        raise ValueError(f"value_matrix must be None for MultiHead, whose mixing holds it, got {checks.short(value_matrix)}")
    check_columns(layer, n, "tokens", again=True)
    V = None if value_matrix is None else checks.array(value_matrix, "value_matrix", (n, n)).astype(float)
    return tokens, V, gain


def _check_tokens(f, tokens, constrain, norm, gain):
    space = f.space
    if space is not None and not isinstance(space, (Euclidean, Sphere)):
        raise ValueError(f"tokens must live on Euclidean or Sphere to move, got {space}: means are not defined on it")
    if not isinstance(space, Sphere):
        return f.check(tokens, "tokens")
    if constrain is None and norm is None:
        raise ValueError("constrain must be 'sphere' for a pseudo-metric on the sphere, got None")
    if not (gain == 1).all():
        raise ValueError(f"gain must be 1 for a pseudo-metric on the sphere, got {checks.entries(gain)}")
    return checks.points(tokens, "tokens", space.columns) if norm in ("pre", "peri") else f.check(tokens, "tokens")
