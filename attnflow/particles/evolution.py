"""Tokens that move: each layer replaces a token by what it attends to, so tokens cluster.

In flat space one layer is x <- x + a V (A x - x), and V = -1 spreads tokens out; the flow of small steps is in `flow`
(Geshkovski et al. 2023; Rigollet 2025).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from .. import capacity, checks
from ..attention import Attention, MultiHead, Unnormalized, heads_of
from ..attention.heads import check_columns
from ..geometry import Euclidean, Sphere
from ..progress import track
from ..provenance import provenance
from ..recording import Step, Watch
from ..solution import Solution
from .blocks import NORMS, Block, LostTokens, following
from .many_layers import outputs


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
    save: str | int = "all",
    callback: Callable[[Step], object] | None = None,
    store: str | os.PathLike | None = None,
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
    save, callback, store
        As in `propagate`: all layers or the last, whom to show them, and where to write them as they are done.

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
    tokens, V, scale = check_tokens(layer, tokens, value_matrix, constrain, norm, gain)
    if map is not None:
        checks.array(checks.function(map, "map", "callable on tokens (N, n)")(tokens), "map(tokens)", tokens.shape)
    layers = checks.integer(layers, "layers")
    watch = Watch.of_layers(save_every, save, callback, store)
    capacity.ends(layers, "layers", 5e-5 + 1e-9 * tokens.size, "layers")
    capacity.fits(watch.nbytes(outputs(layers, watch.every), tokens), "layers")
    clock = layer.clock
    block = Block(layer.residual, V, constrain is not None, norm, scale, map)
    with suppress(LostTokens):  # which the first layer reports
        layer.bind(block.enter(tokens))  # kept for it; what it refuses is refused before anything begins
    asked = {"value_matrix": V, "constrain": constrain, "norm": norm, "gain": scale, "map": map}
    call = provenance("evolve", layer=layer, tokens=tokens, layers=layers, save_every=watch.every, **asked)
    record = watch.begin(outputs(layers, watch.every), provenance=call)
    stats: dict[str, Any] = {}
    x, done = tokens, 0
    status, message = 0, "finished"

    def attend(seen: np.ndarray) -> np.ndarray:
        bound = layer.bind(seen)
        attended = bound.attend(seen)
        if not done:  # later on, tokens that have merged are alone together: the end of clustering, not trouble
            stats["isolated"] = bound.count_isolated(attended.log_sum_exp)
        stats.update(bound.stats | {"isolated": stats["isolated"]})
        return attended.mean

    try:
        record.add(0.0, x, 0)
        for k in track(range(1, layers + 1), progress, layers):
            with following(given=done == 0):
                moved = block(x, attend)
            x, done = moved, k
            if k % watch.every == 0 or k == layers:
                record.add(k * clock, x, k)
    except KeyboardInterrupt:
        if done < layers:
            status, message = 1, f"{record.how} after {done} of {layers} layers; {record.here}"
    except LostTokens as error:
        status, message = -1, f"stopped after {done} of {layers} layers; {record.here}: {error}"
    if done * clock > record.last:
        record.add(done * clock, x, done, watched=False)
    return record.solution(status, message, stats)


def check_tokens(layer, tokens, value_matrix, constrain, norm=None, gain=1.0):
    """Tokens, value matrix and gain as arrays of float, or a refusal that names the argument."""
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
        if isinstance(head.normalization, Unnormalized) and constrain is None and norm is None:
            raise ValueError(
                "constrain must be 'sphere' for normalization 'none', whose sums are no means in flat space, got None"
            )
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
