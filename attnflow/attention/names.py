"""Normalisations by name: one spelling in Python, in study files and on the command line."""

from __future__ import annotations

from collections.abc import Callable

from .normalization import Normalization
from .normalizations import Column, DensityCorrected, Sinkhorn, Softmax, Unnormalized
from .sparse import Perplexity, Screening, Sparse, TopK

_PLAIN: dict[str, Callable[[], Normalization]] = {
    **{rule.name: rule for rule in (Softmax, Sinkhorn, Column, Unnormalized)},
    f"{Sparse.name}:auto": lambda: Sparse("auto"),
}
_NUMBERED: dict[str, tuple[Callable[..., Normalization], type, str]] = {
    rule.name: (rule, kind, what)
    for rule, kind, what in (
        (DensityCorrected, float, "ALPHA"),
        (TopK, int, "K"),
        (Sparse, float, "FRACTION"),
        (Perplexity, float, "TARGET"),
        (Screening, float, "FRACTION"),
    )
}
# what studies take: all tokens are keys
KEY_BIASES = f"{Softmax.name}, {Sinkhorn.name}, {Column.name}, {DensityCorrected.name}:ALPHA"
NORMALIZATIONS = ", ".join([*_PLAIN, *(f"{name}:{number}" for name, (_, _, number) in _NUMBERED.items())])


def normalization(value: str | Normalization) -> Normalization:
    """A normalisation from its name, with its number after a colon where it has one; or itself.

    Raises
    ------
    TypeError
        If it is neither a name nor a Normalization.
    ValueError
        If the name is not known, a number is missing or of the wrong kind, or out of range.

    Examples
    --------
    >>> normalization("topk:32"), normalization("density-corrected:0.5")
    (TopK(k=32), DensityCorrected(alpha=0.5))
    >>> normalization("sparse")
    Traceback (most recent call last):
    ValueError: normalization must be one of softmax, sinkhorn, column, none, sparse:auto, density-corrected:ALPHA, topk:K, sparse:FRACTION, perplexity:TARGET, screening:FRACTION, got 'sparse'
    """
    if isinstance(value, Normalization):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"normalization must be a name or a Normalization such as DensityCorrected(alpha) or TopK(k), got {type(value).__name__}"
        )
    if value in _PLAIN:
        return _PLAIN[value]()
    name, _, number = value.partition(":")
    unknown = ValueError(f"normalization must be one of {NORMALIZATIONS}, got {value[:40]!r}")
    if name not in _NUMBERED:
        raise unknown
    make, kind, _ = _NUMBERED[name]
    try:
        parameter = kind(number)
    except ValueError:
        raise unknown from None
    try:
        return make(parameter)
    except ValueError as error:
        raise ValueError(f"normalization {value[:40]}: {error}") from None


def name_of(rule: Normalization) -> str:
    """The name that `normalization` reads back as an equal rule; where there is none, its repr.

    Examples
    --------
    >>> name_of(DensityCorrected(0.5)), name_of(Sinkhorn()), name_of(Sinkhorn(tol=1e-6))
    ('density-corrected:0.5', 'sinkhorn', 'Sinkhorn(tol=1e-06, max_iter=1000)')
    """
    for name, make in _PLAIN.items():
        if make() == rule:
            return name
    for name, (make, _, _) in _NUMBERED.items():
        parameter = next(iter(vars(rule).values()), None)
        if type(rule) is make and isinstance(parameter, (int, float)) and normalization(f"{name}:{parameter!r}") == rule:
            return f"{name}:{parameter!r}"
    return repr(rule)
