"""A layer whose queries choose their keys, with its tokens: what each row found, and one step on the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .. import checks
from ..kernels import Attended
from ..kernels.masks import Mask
from ..kernels.near import Calibrated, DenseSelection, Entmax, Law, Nearest, Selection, Spread, source
from ..kernels.scaling import rescale
from ..similarity import PseudoMetric
from ..similarity.local_moments import ball, entmax_log_epsilon
from .best_fraction import best_fraction
from .bound import BoundLayer
from .sparse import Selective, Sparse

_SAMPLE = 200  # rows that a search for a temperature begins with
_PROBES = 512  # keys of which f tells its unit
_STEPS, _FARTHEST = 100, 690.0  # of a search for a temperature, in logarithms
_FEW = 1000  # tokens up to which a share is met to `_CLOSE` weights, beyond to one for each token
_CLOSE = 10
_SHARE = 1e-4  # of a share, and of its temperature, where nodes stand for infinitely many tokens


@dataclass(repr=False)
class SelectedLayer(BoundLayer):
    """As `BoundLayer`; `selection` has the weights. The logarithms of row sums are 0: rows sum to one as they are."""

    selection: Any = None
    law: Law | None = None
    unit: float = 1.0
    mass: np.ndarray | None = None

    @property
    def self_adjoint(self) -> bool:
        """Never: who is chosen need not choose."""
        return False

    @property
    def definite(self) -> bool:
        return False

    def attend(self, values: np.ndarray | None, queries: np.ndarray | None = None) -> Attended:
        chosen = self.selection if queries is None else self._at(queries)
        mean = np.empty((len(chosen.counts), 0)) if values is None else chosen.mean(values)
        return Attended(mean, np.zeros(len(chosen.counts)))

    def attend_transposed(self, values: np.ndarray) -> np.ndarray:
        """sum_i S_ij v_i (N, c)."""
        return self.selection.transposed(values)

    def weights(self, queries: np.ndarray | None = None, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Dense weights (M, N) of queries, or of the tokens in some `rows`."""
        return (self.selection.matrix()[rows] if queries is None else self._at(queries).matrix()).toarray()

    def own_weights(self) -> np.ndarray:
        """S_ii (N,)."""
        return self.selection.matrix().diagonal()

    def conserved_weight(self) -> np.ndarray:
        """Refused: what is conserved, a left eigenvector of the weights, has no closed form where they are no key bias."""
        raise ValueError(
            f"normalization must be a key bias to have a conserved weight, got {self.layer.normalization}, whose weights are "
            "not self-adjoint"
        )

    def count_isolated(self, log_sum_exp: np.ndarray) -> int:
        """Tokens that weigh but one key, themselves."""
        alone = self.selection.counts == 1
        if self.mask is not None:
            alone &= self.mask.seen() > 1
        count = 0 if isinstance(self.law, Nearest) and self.law.k < 2 else int(alone.sum())
        count = count if len(self.tokens) > 1 else 0
        if count:
            checks.warn(
                f"{count} of {len(self.tokens)} tokens attend to one key only: epsilon is below their spacing",
                checks.IsolatedTokensWarning,
            )
        return count

    def _at(self, queries: np.ndarray):
        return _select(self.layer, queries, self.tokens, cast(Law, self.law), self.unit, self.mass, None)


def bind_selected(layer: Any, tokens: np.ndarray, log_mass: np.ndarray | None) -> SelectedLayer:
    """The layer on fixed tokens; `layer` is the Attention, whose file needs this one."""
    rule: Selective = layer.normalization
    mask = None if layer.mask is None else layer.mask.of(len(tokens))
    mass = None if log_mass is None else np.exp(log_mass)
    if mass is None or rule.needs_tokens:  # a share of infinitely many is one, whatever their mass
        rule.check_size(len(tokens) if mass is None else float(mass.sum()))
    unit, found = layer.epsilon, {}
    law = rule.law(layer.epsilon, layer.rtol)
    if isinstance(law, Nearest) and mass is not None:
        law = Spread(law.k, law.epsilon, layer.f.exponent or 2.0)
    if isinstance(law, Calibrated) or (isinstance(rule, Sparse) and rule.fraction is not None):
        unit = _unit(layer.f, tokens)
    if isinstance(rule, Sparse) and rule.fraction is not None:
        selection, law, fraction = _of_fraction(layer, tokens, rule, unit, mass, mask)
        found = {"epsilon": cast(Entmax, law).epsilon, "fraction": fraction}
    else:
        selection = _select(layer, None, tokens, law, unit, mass, mask)
    engine = "reference" if isinstance(selection, DenseSelection) else selection.source.engine
    stats: dict[str, Any] = {
        "engine": engine,
        "dtype": "float64",
        "keys_per_query": float(np.average(selection.masses, weights=mass)),
    } | found
    zeros = np.zeros(len(tokens))
    plan: Any = _Engine(engine)
    return SelectedLayer(
        layer, tokens, zeros, plan, stats, zeros, log_mass, mask, selection=selection, law=law, unit=unit, mass=mass
    )


@dataclass(frozen=True)
class _Engine:
    """The name of what chose the keys, where layers have a plan."""

    engine: str
    run: Callable | None = None

    def __call__(self, values, key_bias) -> Attended:
        raise NotImplementedError


def _select(layer: Any, queries, tokens: np.ndarray, law: Law, unit: float, mass, mask: Mask | None):
    """Rows of the law, f and its temperatures in units in which they are numbers."""
    f, scaled = rescale(layer.f, unit, queries, tokens)
    if not isinstance(law, Calibrated):
        law = law.at(law.epsilon / unit * scaled)
    if layer.backend == "reference":
        return DenseSelection(f, queries, tokens, law, mass, mask)
    return Selection(source(f, queries, tokens, layer.backend, mask), law, mass)


def _unit(f: PseudoMetric, tokens: np.ndarray) -> float:
    """A typical difference of f between tokens."""
    some = tokens[np.unique(np.linspace(0, len(tokens) - 1, min(_PROBES, len(tokens))).astype(int))]
    with np.errstate(over="ignore", invalid="ignore"):
        rows = f(some, some)
        above = rows - rows.min(axis=1, keepdims=True)
    above = above[(above > 0) & (above < np.inf)]
    return float(np.median(above)) if len(above) else 1.0


def _of_fraction(layer: Any, tokens: np.ndarray, rule: Sparse, unit: float, mass, mask: Mask | None):
    """Weights of which a share is not zero, and their law: by false position in the logarithms from the closed form's
    temperature, on some rows first."""
    size = len(tokens)
    seen = np.full(size, float(size)) if mask is None else mask.seen().astype(float)
    weight = np.ones(size) if mass is None else mass
    if mass is not None:
        seen[:] = mass.sum()

    def share(epsilon: float, rows: np.ndarray | None):
        law = Entmax(rule.power, epsilon, min(max(fraction * size, 8.0), size))
        chosen = _select(layer, None if rows is None else tokens[rows], tokens, law, unit, mass, mask)
        counts = chosen.counts if mass is None else chosen.masses
        counts, total = (counts, seen) if rows is None else (counts, seen[rows])
        own = weight if rows is None else weight[rows]
        return (own @ counts) / (own @ total), chosen, law

    if isinstance(rule.fraction, str):
        if mass is not None:
            raise ValueError(
                "fraction must be a number for infinitely many tokens, got 'auto': without noise fewer keys are better"
            )
    fraction = _best(layer, tokens, rule, unit, mask) if isinstance(rule.fraction, str) else cast(float, rule.fraction)
    epsilon, width = _start(layer.f, tokens, rule.power, unit, fraction), 4.0
    if mask is None and size > 4 * _SAMPLE:
        rows = np.unique(np.linspace(0, size - 1, _SAMPLE).astype(int))
        epsilon = _search(lambda e: share(e, rows)[0], fraction, epsilon, width, 1e-3 * fraction)
        width = 1.1
    # pairs of tokens, which the share is a multiple of; symmetric ones come in twos. Nodes count by their mass
    close, finest = (_CLOSE / 2 if size <= _FEW else size / 2) / float(size) ** 2, 1e-14
    if mass is not None:
        close, finest = _SHARE * fraction, _SHARE
    kept: dict[float, Any] = {}

    def remembered(e: float) -> float:
        kept.clear()
        kept[e] = share(e, None)
        return kept[e][0]

    epsilon = _search(remembered, fraction, epsilon, width, close, finest)
    found, chosen, law = kept[epsilon] if epsilon in kept else share(epsilon, None)
    if mass is None and abs(found - fraction) > 2 * close * (1 + 1e-9):
        checks.warn(
            f"fraction = {fraction:g} of the weights can not be met to {2 * close:.2g}, got {found:.6g}: tokens lie so that many "
            "weights appear at once, or see no more keys",
            checks.AccuracyWarning,
        )
    return chosen, law, fraction


def _start(f: PseudoMetric, tokens: np.ndarray, power: float, unit: float, fraction: float) -> float:
    """Where the closed form of the share has it for tokens as dense everywhere as a typical f tells: half of them within."""
    if f.exponent is None:
        return unit
    size, dim = tokens.shape if f.space is None else (len(tokens), f.space.dim)
    log_tokens = np.log(size / 2) - ball(dim) - dim / f.exponent * np.log(unit)
    log_radius = np.log(2 * fraction) / dim + np.log(unit) / f.exponent
    log_epsilon = entmax_log_epsilon(f.exponent, dim, power, log_radius, log_tokens)
    return float(np.exp(np.clip(log_epsilon, np.log(unit) - _FARTHEST / 4, np.log(unit) + _FARTHEST / 4)))


def _best(layer: Any, tokens: np.ndarray, rule: Sparse, unit: float, mask: Mask | None) -> float:
    """The share of "auto"."""

    def select(epsilon: float, rows: np.ndarray):
        law = Entmax(rule.power, epsilon, 64.0)
        if mask is None:
            return _select(layer, tokens[rows], tokens, law, unit, None, None).matrix()
        return _select(layer, None, tokens, law, unit, None, mask).matrix()[rows]

    return min(max(best_fraction(layer.f, tokens, select, unit, mask), 1 / len(tokens)), 1.0)


def _search(
    function: Callable[[float], float], target: float, start: float, width: float, close: float, finest: float = 1e-14
) -> float:
    """Where a growing function comes within `close` of the target: bracketed by factors, then by false position (Illinois)
    in the logarithms, down to brackets as small as `finest`; the nearest there is, if there is none."""
    best = (np.inf, start)

    def excess(x: float) -> float:
        nonlocal best
        value = function(float(np.exp(x)))
        best = min(best, (abs(value - target), float(np.exp(x))))
        return 0.0 if abs(value - target) <= close else np.log(value / target)

    x = middle = np.log(start)
    y, step = excess(x), np.log(width)
    a, ya = x, y
    while y != 0 and (ya < 0) == (y < 0):
        a, ya = x, y
        x, step = x + (step if y < 0 else -step), 2 * step
        if abs(x - middle) > _FARTHEST / 2 or abs(x) > _FARTHEST:
            return best[1]
        y = excess(x)
    for _ in range(_STEPS):
        if y == 0 or ya == 0 or abs(x - a) < finest:
            break
        new = x - y * (x - a) / (y - ya)
        value = excess(new)
        if (value < 0) != (y < 0):
            a, ya = x, y
        else:
            ya /= 2
        x, y = new, value
    return best[1]
