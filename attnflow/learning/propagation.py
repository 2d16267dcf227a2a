"""The information propagation network of Ruan & Zhang (2024, algorithm 1) as NumPy arrays: what it is made of, what it makes of tokens.

    h_0 = W_in x + b_in,    h_{k+1} = h_k + S_k h_k V_k',    scores = W_out h + b_out

S_k are the weights of one attention layer at the temperature sqrt(width) / 2, with the logits -f_k / sqrt(width):
f = -(Q x).(K y) (self), |Q (x - y)|^2 (l2) or |phi(x) - phi(y)|^2 (metric, phi a `ResidualMap`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..attention import Attention
from ..similarity import DotProduct, PseudoMetric, SquaredMap
from .maps import AffineMap, Composition, ResidualMap

Parameters = Mapping[str, np.ndarray]
ATTENTIONS = {"self": ("query", "key"), "l2": ("query",), "metric": ("hidden", "outer")}  # linear maps of a block beside V


def shapes(attention: str, inputs: int, classes: int, width: int, blocks: int) -> dict[str, tuple[int, ...]]:
    """The parameters by name, as the modules of `networks` name theirs, and their shapes."""
    result: dict[str, tuple[int, ...]] = {"input.weight": (width, inputs), "input.bias": (width,)}
    for k in range(blocks):
        for part in ("value", *ATTENTIONS[attention]):
            result[f"blocks.{k}.{part}.weight"] = (width, width)
            if part in ("hidden", "outer"):
                result[f"blocks.{k}.{part}.bias"] = (width,)
    return {**result, "output.weight": (classes, width), "output.bias": (classes,)}


def initial(sizes: Mapping[str, tuple[int, ...]], random_state: np.random.RandomState) -> dict[str, np.ndarray]:
    """Parameters to start from: uniform within 1 / sqrt(columns of the weight), PyTorch's own choice for linear maps."""
    bounds = {name: sizes[name.rpartition(".")[0] + ".weight"][1] ** -0.5 for name in sizes}
    return {name: random_state.uniform(-bounds[name], bounds[name], shape) for name, shape in sizes.items()}


def blocks_of(parameters: Parameters) -> int:
    """How many blocks there are."""
    return sum(name.endswith("value.weight") for name in parameters)


def temperature(parameters: Parameters) -> float:
    """epsilon = sqrt(width) / 2."""
    return float(np.sqrt(len(parameters["input.bias"])) / 2)


def entry(parameters: Parameters) -> AffineMap:
    """The map of raw inputs to the first block's states."""
    return AffineMap(parameters["input.weight"], parameters["input.bias"])


def pseudometric(parameters: Parameters, attention: str, block: int = 0) -> PseudoMetric:
    """f of one block on the states it is given, (..., width)."""
    if attention == "self":
        return DotProduct(*(parameters[f"blocks.{block}.{part}.weight"] for part in ATTENTIONS[attention]))
    phi = _phi(parameters, attention, block)
    return SquaredMap(phi, phi.jacobian)


def first_pseudometric(parameters: Parameters, attention: str) -> PseudoMetric:
    """f of the first block on raw inputs (..., n), up to what depends on x alone and changes no weight."""
    first = entry(parameters)
    if attention == "self":
        Q, K = (parameters[f"blocks.0.{part}.weight"] for part in ATTENTIONS[attention])
        return DotProduct(Q @ first.weight, K @ first.weight, Q @ first.bias)
    outer = _phi(parameters, attention, 0)
    phi = (
        Composition(outer, first)
        if isinstance(outer, ResidualMap)
        else AffineMap(outer.weight @ first.weight, outer(first.bias))
    )
    return SquaredMap(phi, phi.jacobian)


def attend(f: PseudoMetric, epsilon: float, keys: np.ndarray, values: np.ndarray, queries=None, edges=None) -> np.ndarray:
    """Weighted means of the values at the queries, or, at the keys themselves, along edges if there are any."""
    return Attention(f, epsilon, mask=edges).bind(keys).attend(values, queries).mean


def forward(
    parameters: Parameters, attention: str, x: np.ndarray, states=None, edges=None
) -> tuple[list[np.ndarray], np.ndarray]:
    """What the network makes of tokens.

    Parameters
    ----------
    x : (M, n) array
    states : list of (N, width) arrays, optional
        What the tokens that are attended to have become before each block; None: x attend to each other.
    edges : (E, 2) array of int, optional
        Of queries and the keys they see, both among x.

    Returns
    -------
    list of (M, width) arrays
        The states of x before each block.
    (M, classes) array
        The scores.
    """
    h, reached, epsilon = entry(parameters)(x), [], temperature(parameters)
    for k in range(blocks_of(parameters)):
        reached.append(h)
        keys, queries = (h, None) if states is None else (states[k], h)
        values = keys @ parameters[f"blocks.{k}.value.weight"].T
        h = h + attend(pseudometric(parameters, attention, k), epsilon, keys, values, queries, edges)
    return reached, h @ parameters["output.weight"].T + parameters["output.bias"]


def _phi(parameters: Parameters, attention: str, block: int) -> AffineMap | ResidualMap:
    """The map of one block's states whose squared distance f is."""
    own = f"blocks.{block}."
    if attention == "l2":
        return AffineMap(parameters[own + "query.weight"], np.zeros(len(parameters["input.bias"])))
    return ResidualMap(*(parameters[f"{own}{part}.{what}"] for part in ("hidden", "outer") for what in ("weight", "bias")))
