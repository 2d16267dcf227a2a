"""One layer on tokens that move, as transformers have it: attention and then a map, each with its residual and its norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .. import checks
from ..norms import unit

NORMS = ("pre", "post", "peri")
_CANCELLED = 1e-12  # a sum that is smaller beside its parts is rounding, and has no direction
_REMEDY = "take fewer layers, a smaller residual or value_matrix, or constrain='sphere'"
TOO_LARGE = f"tokens grew beyond the range of numbers; {_REMEDY}"


class LostTokens(ArithmeticError):
    """Tokens that the layer cannot take further."""

    @classmethod
    def because(cls, error: object) -> LostTokens:
        return cls(f"{error}; {_REMEDY}")


@contextmanager
def following(given: bool) -> Iterator[None]:
    """A layer's refusal of tokens that it made itself is the end of the run, not an error of who gave the first ones."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except ValueError as error:
        if given:
            raise
        raise LostTokens.because(error) from None


@dataclass(frozen=True, eq=False)
class Block:
    """x <- after(x + a leave(V A enter(x))), then x <- after(x + leave(map(enter(x)))).

    With norm None, enter and leave change nothing, after normalises where tokens are constrained to the sphere, and
    V A x - V x (V A x - (x'Vx) x on the sphere) stands in place of V A x. Otherwise each of the three is
    N(x) = gain x / |x| or nothing: enter for "pre", after for "post", enter and leave for "peri".
    """

    residual: float
    value_matrix: np.ndarray | None
    constrain: bool
    norm: str | None
    gain: np.ndarray
    map: Callable | None

    def __call__(self, x: np.ndarray, attend: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Tokens (N, n) after one layer; attend(x) are the weighted means, (N, n), of tokens that attend to each other."""
        seen = self.enter(x)
        mean = attend(seen)
        if self.norm == "peri":  # the only sum that is normalised by itself
            mean = _without_rounding(mean, np.full(len(mean), _lengths(seen).max()))
        target = turn(mean, self.value_matrix)
        if self.norm is None:
            own = turn(x, self.value_matrix)
            target = target - (along(x, own) if self.constrain else own)
        x = self._add(x, self.residual * self._leave(target))
        if self.map is None:
            return x
        seen = self.enter(x)
        return self._add(x, self._leave(checks.array(self.map(seen), "map(tokens)", seen.shape)))

    def enter(self, x: np.ndarray) -> np.ndarray:
        """What attention sees of the tokens."""
        return self._normalise(x) if self.norm in ("pre", "peri") else x

    def _leave(self, x: np.ndarray) -> np.ndarray:
        return self._normalise(x) if self.norm == "peri" else x

    def _add(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        moved = x + change
        if not np.isfinite(moved).all():
            raise LostTokens(TOO_LARGE)
        if self.constrain:
            norm = np.linalg.norm(moved, axis=1, keepdims=True)
            if not (norm > _CANCELLED).all():
                raise LostTokens(f"token {int(norm.argmin())} has no direction: its attended mean vanishes")
            return moved / norm
        if self.norm is None:
            return moved
        moved = _without_rounding(moved, _lengths(x))
        return self._normalise(moved) if self.norm == "post" else moved

    def _normalise(self, x: np.ndarray) -> np.ndarray:
        """N(x) = gain x / |x|."""
        size = unit(x, axis=1)[:, None]  # neither overflows nor vanishes when squared
        norm = np.linalg.norm(x / size, axis=1, keepdims=True)
        if not (norm > 0).all():
            raise LostTokens(f"token {int(norm.argmin())} is zero where it is normalised: it has no direction")
        return self.gain * (x / size / norm)


def turn(x: np.ndarray, V: np.ndarray | None) -> np.ndarray:
    """V x_i in each row; None is the identity."""
    return x if V is None else x @ V.T


def along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The component of y along the unit vectors x."""
    return np.sum(x * y, axis=1, keepdims=True) * x


def _lengths(x: np.ndarray) -> np.ndarray:
    size = unit(x, axis=1)
    return size * np.linalg.norm(x / size[:, None], axis=1)


def _without_rounding(x: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Rows (N, n) that are rounding beside lengths (N,) made zero."""
    return np.where((_lengths(x) > _CANCELLED * beside)[:, None], x, 0.0)
