"""How steps are divided among output times."""

from __future__ import annotations

import numpy as np


def divide(times: np.ndarray, steps: int, pairs: bool = False) -> list[tuple[int, float]]:
    """(number of steps, their length) from each output time to the next."""
    legs, before = [], 0.0
    for time in times:
        count = int(np.ceil((time - before) / times[-1] * steps * (1 - 1e-12))) if time > 0 else 0
        count += count % 2 if pairs else 0
        legs.append((count, (time - before) / max(count, 1)))
        before = time
    return legs
