"""Several heads as one layer, each with a matrix that mixes the columns it has summed: MultiHead."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import checks, display
from ..kernels import Attended
from .bound import BoundLayer
from .host import through_host
from .layer import Attention
from .mixing import Mix, read_mixing
from .names import name_of


class MultiHead:
    """Several heads at once: H -> H + residual (sum_i A_i H W_i - H).

    A_i H are the weighted means of the i-th layer, W_i the product of its value and output matrices. Where features pass
    through many layers, or the residual is below 1, W_i are square; many layers are a small step of an equation only
    where they add up to one, see `limit`. Each head sums the fewest columns that W_i allows: those of H, of H W_i, or
    those between two factors of W_i.

    Parameters
    ----------
    layers : sequence of Attention
        The A_i, on tokens of one space; their own residual is 1.
    mixing : sequence, optional
        For each head a number, a (c, c') matrix, or a pair of factors (V, O), of shapes (c, r) and (r, c'), which is not
        multiplied out where r is small. V may also be a `slice` of columns: what the head reads of H. None: 1 / len(layers).
    residual : float
        Step a in (0, 1]; 1 is the plain layer.

    Raises
    ------
    ValueError, TypeError
        Naming the argument: a layer with a residual of its own, layers on different spaces, mixing of another number or
        of shapes that don't fit each other.

    Examples
    --------
    >>> import attnflow as af, numpy as np
    >>> tokens = af.VonMises(1.0).sample(200, rng=0)
    >>> f = af.SquaredDistance(af.Circle())
    >>> heads = af.MultiHead([af.Attention(f, 0.05), af.Attention(f, 0.1, "sinkhorn")], [0.4, 0.6])
    >>> heads(tokens, np.cos(tokens)).shape
    (200, 1)
    >>> heads.time_step     # the first layer's
    0.025

    Sources: Vaswani et al. 2017; Ruan & Zhang 2024, section 3.3 (heads add up).
    """

    token_mixing: np.ndarray | None = None  # (N, N), before the weighted means: see `super_attention`

    def __init__(self, layers: Sequence[Attention], mixing: Sequence | None = None, residual: float = 1.0) -> None:
        self.layers: tuple[Attention, ...] = checks.sequence(layers, "layers", "Attention layers")
        for k, layer in enumerate(self.layers):
            checks.instance(layer, Attention, "layers", "a sequence of Attention layers")
            if layer.residual != 1:
                raise ValueError(
                    f"layers must have residual = 1: the step is MultiHead's own, got {layer.residual:g} at index {k}"
                )
        _check_one_space(self.layers)
        self.residual = checks.fraction(residual, "residual")
        self.mixes: tuple[Mix, ...] = read_mixing(mixing, len(self.layers))
        if self.residual < 1:
            check_square(self, f"for residual = {self.residual:g}")

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(type(layer.f).__name__ for layer in self.layers))
        step = f", residual={self.residual:g}" if self.residual < 1 else ""
        return display.cut(f"{type(self).__name__}({len(self.layers)} heads: {kinds}{step})")

    def _repr_html_(self) -> str:
        rows = [
            (
                k + 1,
                f"${layer.latex}$",
                name_of(layer.normalization),
                display.word(mix.after) if mix.shape is None else " x ".join(map(str, mix.shape)),
            )
            for k, (layer, mix) in enumerate(zip(self.layers, self.mixes))
        ]
        return display.table(type(self).__name__, rows, ("head", "weights", "normalization", "mixing"))

    @property
    def mixing(self) -> tuple[np.ndarray, ...]:
        """The W_i: numbers (), or (c, c') matrices with their factors multiplied out."""
        return tuple(mix.matrix for mix in self.mixes)

    @property
    def columns(self) -> tuple[int, int] | None:
        """(c, c') of values and of results; None where mixing is numbers, which take any."""
        return next((mix.shape for mix in self.mixes if mix.shape is not None), None)

    @property
    def time_step(self) -> float:
        """Time of the limit equation that one layer advances: residual times the first layer's time step."""
        return self.residual * self.layers[0].time_step

    @property
    def clock(self) -> float:
        """What a layer adds to the time of a run: time_step, or 1 where the first head has no limit equation."""
        return self.time_step if self.layers[0].has_time_step else 1.0

    @through_host
    def __call__(self, tokens: np.ndarray, values: np.ndarray | None = None, queries: np.ndarray | None = None) -> np.ndarray:
        """Features after one layer, as `Attention` has it.

        Parameters
        ----------
        tokens : (N, n) array
        values : (N, c) or (N,) array, optional
            The tokens themselves when None.
        queries : (M, n) array, optional
            Where to evaluate; needs residual = 1.

        Returns
        -------
        (M, c') array
        """
        if queries is not None and self.residual < 1:
            raise ValueError(f"queries must be None for residual = {self.residual:g}: the step needs the queries' own values")
        tokens = self.check(tokens)
        values = tokens.astype(float) if values is None else checks.features(values, "values", len(tokens))
        check_columns(self, values.shape[1], "values")
        queries = None if queries is None else self.check(queries, "queries")
        bound = self.bind(tokens)
        return bound.step(values) if queries is None else bound.attend(values, queries).mean

    def check(self, x: np.ndarray, name: str = "tokens") -> np.ndarray:
        """Points that every head accepts, or a ValueError naming the argument."""
        for layer in self.layers:
            x = layer.f.check(x, name)
        return x

    def bind(self, tokens: np.ndarray, log_mass: np.ndarray | None = None) -> BoundHeads:
        """The heads on fixed tokens: what is computed of them once, kept by each until the tokens' content changes."""
        tokens = self.check(tokens)
        return BoundHeads(self, tuple(layer.bind(tokens, log_mass) for layer in self.layers))


@dataclass(repr=False)
class BoundHeads:
    """A `MultiHead` with its tokens: what a `BoundLayer` is to one layer."""

    layer: MultiHead
    heads: tuple[BoundLayer, ...]
    stats: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return display.cut(f"BoundHeads({display.cut(repr(self.layer), 85)} on {len(self.tokens)} tokens)")

    def __post_init__(self) -> None:
        W_A = self.layer.token_mixing
        if W_A is not None and len(W_A) != len(self.tokens):
            raise ValueError(f"tokens must be {len(W_A)}, as many as W_A mixes, got {len(self.tokens)}")
        self._collect()

    @property
    def tokens(self) -> np.ndarray:
        return self.heads[0].tokens

    def attend(self, values: np.ndarray, queries: np.ndarray | None = None) -> Attended:
        """sum_i A_i H W_i at the queries (None: at the tokens): (M, c'); and the log-sum-exp of each head: (heads, M)."""
        check_columns(self.layer, values.shape[1], "values")
        if self.layer.token_mixing is not None:
            values = self.layer.token_mixing @ values
        total: Any = 0.0
        sums = []
        for head, mix in zip(self.heads, self.layer.mixes):
            mean, log_sum_exp = head.attend(mix.read(values), queries)
            total = total + mix.write(mean)
            sums.append(log_sum_exp)
        self._collect()
        return Attended(total, np.stack(sums))

    def step(self, values: np.ndarray) -> np.ndarray:
        """One layer: values + residual * (sum_i A_i values W_i - values)."""
        mean, log_sum_exp = self.attend(values)
        if "isolated" not in self.stats:
            self.stats["isolated"] = self.count_isolated(log_sum_exp)
        a = self.layer.residual
        return mean if a == 1 else values + a * (mean - values)

    def count_isolated(self, log_sum_exp: np.ndarray) -> int:
        """Tokens that attend only to themselves, in the head that has most of them; a warning for each that has any."""
        return max(head.count_isolated(sums) for head, sums in zip(self.heads, log_sum_exp))

    def _collect(self) -> None:
        engines = dict.fromkeys(head.stats["engine"] for head in self.heads)
        self.stats.update(engine=", ".join(engines), heads=[dict(head.stats) for head in self.heads])


def heads_of(layer: Attention | MultiHead) -> tuple[Attention, ...]:
    """A layer's heads, itself where it is a single one; anything else is refused."""
    if isinstance(layer, MultiHead):
        return layer.layers
    if not isinstance(layer, Attention):
        raise TypeError(f"layer must be an attnflow.Attention or MultiHead, got {type(layer).__name__}")
    return (layer,)


def replace_heads(layer: Attention | MultiHead, heads: Sequence[Attention]) -> Attention | MultiHead:
    """The layer with other heads, as many: the same mixing and residual."""
    if not isinstance(layer, MultiHead):
        return heads[0]
    other = copy.copy(layer)
    other.layers = tuple(heads)
    return other


def check_columns(layer: Attention | MultiHead, count: int, name: str, again: bool = False) -> None:
    """Refuse values of `count` columns that mixing does not take, or, for another layer after it, not `again`."""
    if isinstance(layer, MultiHead) and layer.columns is not None:
        if layer.columns[0] != count:
            raise ValueError(f"{name} must have the {layer.columns[0]} columns that mixing takes, got {count}")
        if again:
            check_square(layer, "for more than one layer")


def check_square(layer: MultiHead, where: str) -> None:
    """Refuse mixing that changes the number of columns; `where` says what for."""
    if layer.columns is not None and layer.columns[0] != layer.columns[1]:
        raise ValueError(f"mixing must be square matrices {where}, got shape {layer.columns}")


def _check_one_space(layers: tuple[Attention, ...]) -> None:
    spaces = [layer.f.space for layer in layers if layer.f.space is not None]
    for other in spaces[1:]:
        if other != spaces[0]:
            raise ValueError(f"layers must be on tokens of one space, got {spaces[0]} and {other}")
    columns = [layer.f.dim if layer.f.space is None else layer.f.space.columns for layer in layers]
    if len({*columns} - {None}) > 1:
        raise ValueError(f"layers must be on tokens of one number of columns, got {columns}")
