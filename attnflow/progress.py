"""Progress bars: shown on request, silent otherwise, the same in a terminal and a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

_TRUST = 0.05  # of the predicted seconds: what the first measured ones are weighed against


def track(steps: Iterable, progress: bool, total: int | None = None, unit: str = "layer") -> Iterator:
    """Iterate over `steps`, with a tqdm bar when `progress` is true.

    Examples
    --------
    >>> list(track(range(3), progress=False))
    [0, 1, 2]
    """
    if not progress:
        return iter(steps)
    from tqdm.auto import tqdm  # tqdm.auto looks for a notebook front end: not at import time

    return iter(tqdm(steps, total=total, unit=unit, leave=False))


def track_seconds(
    steps: Iterable, progress: bool, predicted: Callable[[Any], float], total: float
) -> Generator[Any, None, None]:
    """Iterate over `steps`, with a bar of the seconds that they take: predicted ones, corrected by those that were taken.

    Parameters
    ----------
    steps : iterable
    progress : bool
    predicted : callable
        A step -> its predicted seconds, above 0.
    total : float
        Of all steps.

    Examples
    --------
    >>> list(track_seconds(range(3), False, lambda step: 1.0, 3.0))
    [0, 1, 2]
    """
    if not progress:
        yield from steps
        return
    from tqdm.auto import tqdm

    began, done, trust = time.perf_counter(), 0.0, _TRUST * total
    with tqdm(total=total, bar_format="{percentage:3.0f}%|{bar}| {n:.3g} of {total:.3g} s", leave=False) as bar:
        for step in steps:
            done += predicted(step)
            rate = (time.perf_counter() - began + trust) / (done + trust)
            bar.total = rate * total
            bar.update(rate * done - bar.n)
            yield step
