"""Progress bars: shown on request, silent otherwise, the same in a terminal and a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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
