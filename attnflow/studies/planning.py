"""How the fastest layers and tokens that meet an error are found, from few predictions.

At a number of layers l the temperature is such that they meet t exactly, and `predicted_error` there, at one number of
tokens N, tells what it is at others:

    relative^2 = b^2 + A / N + M^2 / N^2,

b the bias, A the noise and what the mean of order 1/N makes together with the bias, M the mean. So every l has the N that
meets the error, and both have a predicted time, that of the engine which "auto" takes. Layers are doubled while more of
them promise to take less; between them logarithms are interpolated; what comes out is predicted itself, and corrected
until it is at most 2 % below the error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np
from scipy.optimize import brentq

from .. import capacity
from ..attention import Attention, Normalization
from ..continuum import PredictedError, predicted_error
from ..geometry import Density
from ..progress import track
from ..similarity import PseudoMetric
from .cost import columns_of, cost_of_run
from .design import bytes_of

_AIM, _LEAST = 0.99, 0.98  # of the asked error: what is aimed at, and what will do
_DOUBLINGS, _ROUNDS = 24, 8
_FLOORED = 6  # doublings that the least error of so many tokens is told from
_TRIED = 3  # of them, before an error is refused for the tokens it needs
_AHEAD = 3  # doublings that are looked ahead
_BETWEEN = 13  # numbers of layers that are compared between half and twice the best power of two
_HOT = 700.0  # log m2 where tails are too heavy for it


class Plan(NamedTuple):
    """Layers and tokens that meet an error, and what they take."""

    layer: Attention
    layers: int
    n_tokens: int
    predicted: PredictedError
    engine: str
    seconds: float
    memory: int
    notes: list[str]


def layer_of(f: PseudoMetric, normalization: str | Normalization, t: float, layers: int) -> Attention:
    """The layer of which so many meet the time t: layers * time_step = t.

    Examples
    --------
    >>> import attnflow as af
    >>> layer_of(af.SquaredDistance(af.Circle()), "softmax", t=0.5, layers=40).epsilon
    0.025
    """
    m2 = 2 * t / layers

    def excess(epsilon: float) -> float:
        try:
            return float(np.log(f.second_moment(epsilon, f.dim) / m2))
        except ValueError:  # infinite
            return _HOT

    low = high = m2
    if f.obstacle or excess(m2) == 0:  # the layer says what is wrong
        return Attention(f, m2, normalization)
    while excess(low) > 0:
        low /= 2
    while excess(high) < 0:
        high *= 2
    return Attention(f, float(brentq(excess, low, high, xtol=1e-15 * low, rtol=1e-15)), normalization)


class Parts(NamedTuple):
    """b, A and M at one number of layers, see above."""

    bias: float
    linear: float
    mean: float

    @classmethod
    def of(cls, found: PredictedError, n_tokens: int) -> Parts:
        """What a prediction for so many tokens tells; a mean that is not predicted counts as none."""
        mean = 0.0 if np.isnan(found.mean_share) else found.mean_share
        linear = found.relative**2 - found.bias_share**2 - mean**2
        return cls(found.bias_share, linear * n_tokens, mean * n_tokens)

    def error(self, n_tokens: float) -> float:
        """Of so many tokens.

        Examples
        --------
        >>> round(Parts(bias=0.03, linear=1.6, mean=0.0).error(n_tokens=1000), 6)
        0.05
        """
        return float(np.sqrt(max(self.bias**2 + self.linear / n_tokens + (self.mean / n_tokens) ** 2, 0.0)))

    def tokens(self, error: float) -> float:
        """N that meets the error, at least 2; inf where the bias alone is larger.

        Examples
        --------
        >>> round(Parts(bias=0.03, linear=1.6, mean=0.0).tokens(error=0.05), 6)
        1000.0
        """
        left = error**2 - self.bias**2
        if left <= 0:
            return np.inf
        return max(float(self.linear + np.sqrt(self.linear**2 + 4 * self.mean**2 * left)) / (2 * left), 2.0)


@dataclass(frozen=True)
class Search:
    """What is asked of one normalisation, and whether progress is shown."""

    f: PseudoMetric
    density: Density
    initial: Callable
    t: float
    error: float
    normalization: str | Normalization
    progress: bool = False

    def plan(self) -> Plan:
        """The fastest one.

        Raises
        ------
        ValueError
            As `error_budget`.
        """
        known = self._doubled()
        best = min(known, key=lambda depth: self.seconds(depth, self._tokens(known[depth])))
        between = np.rint(np.geomspace(max(best / 2, 1), 2 * best, _BETWEEN))
        depths = sorted({int(depth) for depth in between})
        for attempt in range(_ROUNDS):
            sizes = {depth: self._tokens(interpolated(known, depth)) for depth in depths}
            depth = min(depths, key=lambda depth: self.seconds(depth, sizes[depth]))
            self._check_memory(known, sizes[depth])
            n_tokens = int(np.ceil(sizes[depth]))
            try:
                found, notes = self.predicted(depth, n_tokens)
            except ValueError:
                if len(depths) == 1:
                    raise
                depths.remove(depth)
                continue
            known[depth] = Parts.of(found, n_tokens)
            near = found.relative >= _LEAST * self.error or known[depth].tokens(self.error) > n_tokens - 1
            if found.relative <= self.error and near:
                break
            if attempt and np.isfinite(self._tokens(known[depth])):
                depths = [depth]  # what is left are its tokens
        else:
            notes.append(f"no better plan was found in {_ROUNDS} predictions")
        engine, seconds = self.cost(depth, n_tokens)
        self._check_seconds(known, depth, n_tokens, seconds)
        return Plan(self.layer(depth), depth, n_tokens, found, engine, seconds, self._bytes(n_tokens), notes)

    def layer(self, layers: int) -> Attention:
        """See `layer_of`."""
        return layer_of(self.f, self.normalization, self.t, layers)

    def cost(self, layers: int, n_tokens: int) -> tuple[str, float]:
        """The engine of a run, and its seconds."""
        columns = columns_of(self.initial, self.density.space)
        return cost_of_run(self.layer(layers), lambda size: self.density.sample(size, rng=0), n_tokens, layers, columns)

    def seconds(self, layers: int, n_tokens: float) -> float:
        """Of a run; inf where its tokens do not fit into memory."""
        if not self._bytes(n_tokens) <= capacity.available():
            return np.inf
        return self.cost(layers, int(np.ceil(n_tokens)))[1]

    def predicted(self, layers: int, n_tokens: int) -> tuple[PredictedError, list[str]]:
        """The prediction, and what it warns of, which concerns nobody unless it becomes the plan.

        Raises
        ------
        ValueError
            If tokens are few and the mean of order 1/N is not known.
        """
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = predicted_error(self.layer(layers), self.density, self.initial, self.t, n_tokens)
        few = found.regime == "outside" and np.isnan(found.mean_share)
        if few or not np.isfinite(found.relative):
            why = f"{n_tokens} tokens are few at epsilon = {self.layer(layers).epsilon:.3g}, and the mean of order 1/N is not known"
            raise ValueError(f"error must be one that is predicted, got {self.error:g}: {why}")
        return found, [str(warning.message) for warning in told]

    def _doubled(self) -> dict[int, Parts]:
        """The parts at 1, 2, 4, ... layers, until twice as many take longer and more promise no less, or nothing is predicted."""
        known: dict[int, Parts] = {}
        n_tokens, least, best, end = int(np.clip(4 / self.error**2, 1e3, 1e12)), np.inf, 0, ""
        for depth in track([2**k for k in range(_DOUBLINGS)], self.progress, unit="temperature"):
            if least < np.inf and max(known) > best and not self._promises(known, depth, least):
                break
            try:
                known[depth] = parts = Parts.of(self.predicted(depth, n_tokens)[0], n_tokens)
            except ValueError as reason:
                if not known:
                    raise
                end = f" ({reason})"
                break
            if len(known) == _TRIED:  # even without any bias
                self._check_memory(known, self._tokens(parts._replace(bias=0.0)))
            seconds = self.seconds(depth, self._tokens(parts))
            if seconds < least:
                n_tokens, least, best = int(np.ceil(self._tokens(parts))), seconds, depth
        floor = min(known, key=lambda depth: known[depth].bias)
        if not np.isfinite(self._tokens(known[floor])):
            raise ValueError(
                f"error must be above {known[floor].bias:.3g}, got {self.error:g}: that is the bias at epsilon = "
                f"{self.layer(floor).epsilon:.3g} for any number of tokens, and below nothing is predicted{end}"
            )
        return known

    def _promises(self, known: dict[int, Parts], layers: int, least: float) -> bool:
        """Whether so many layers or a few times more may take less time; some engines begin at low temperatures only."""
        further = (layers * 2**k for k in range(_AHEAD))
        return any(self.seconds(depth, self._tokens(interpolated(known, depth))) < least for depth in further)

    def _check_memory(self, known: dict[int, Parts], n_tokens: float) -> None:
        free = capacity.available()
        if self._bytes(n_tokens) > free:
            self._refuse(known, lambda _: free / self._bytes(1), f"all that {free / 1e9:.3g} GB of free memory hold")

    def _check_seconds(self, known: dict[int, Parts], layers: int, n_tokens: int, seconds: float) -> None:
        """A run's time is that of its layers, and a power of its tokens."""
        if (short := seconds / (capacity.DAYS * 86400)) > 1:
            power = np.log2(seconds / self.cost(layers, (n_tokens + 1) // 2)[1])
            most = lambda depth: max(n_tokens * (layers / (depth * short)) ** (1 / power), 2.0)  # noqa: E731
            self._refuse(known, most, f"all that end within {capacity.DAYS} days")

    def _refuse(self, known: dict[int, Parts], most: Callable[[int], float], why: str) -> NoReturn:
        """With the least error of `most` tokens at any number of layers; where few are known, powers go on."""
        known, depths = dict(known), [2**k for k in range(_DOUBLINGS)]
        for depth in depths[:_FLOORED]:
            try:
                known[depth] = known.get(depth) or Parts.of(self.predicted(depth, int(most(depth)))[0], int(most(depth)))
            except ValueError:  # nothing is predicted from here on
                depths = [depth for depth in depths if depth <= max(known)]
                break
        floor, n_tokens = min((interpolated(known, depth).error(most(depth)), most(depth)) for depth in depths)
        raise ValueError(
            f"error must be at least about {floor:.2g}, got {self.error:g}: with N = {n_tokens:.2g} tokens, {why}, it is as large"
        )

    def _tokens(self, parts: Parts) -> float:
        return parts.tokens(_AIM * self.error)

    def _bytes(self, n_tokens: float) -> int:
        return bytes_of(int(np.ceil(min(n_tokens, 2.0**62))), self.density.space.columns)


def interpolated(known: dict[int, Parts], layers: int) -> Parts:
    """The parts where they are not known: powers of the number of layers, by the two nearest on one side or both.

    Examples
    --------
    >>> interpolated({2: Parts(0.04, 1.0, 2.0), 8: Parts(0.01, 4.0, 8.0)}, 4)
    Parts(bias=0.02, linear=2.0, mean=4.0)
    """
    if layers in known or len(known) == 1:
        return known.get(layers) or next(iter(known.values()))
    depths = np.array(sorted(known))
    above = int(np.clip(np.searchsorted(depths, layers), 1, len(depths) - 1))
    (low, high), (first, second) = depths[above - 1 : above + 1], (known[int(d)] for d in depths[above - 1 : above + 1])
    share = np.log(layers / low) / np.log(high / low)

    def power(a: float, b: float) -> float:
        if min(a, b) > 0:
            return float(a * (b / a) ** share)
        return float(a + np.clip(share, 0, 1) * (b - a))  # a bias of 0; a mean that cancels it

    return Parts(*map(power, first, second))
