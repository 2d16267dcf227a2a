"""Layers on nodes whose similarity is known by what it does to fields, not by its entries: no engine samples it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import Attended
from .bound import BoundLayer
from .layer import Attention


class LinearSums:
    """Sums over all nodes at all nodes; a `Plan` that needs no engine, see `BoundLayer`.

    Attributes
    ----------
    engine : str
        What it calls itself.
    log_peak : float
        Logarithm of the similarity that `_sum` has as 1.
    """

    engine = ""
    log_peak = 0.0

    def _sum(self, fields: np.ndarray) -> np.ndarray:
        """sum_j K_ij fields_j for fields (m, c)."""
        raise NotImplementedError

    @property
    def run(self) -> LinearSums:
        return self

    def __call__(self, values: np.ndarray | None, key_bias: np.ndarray, _=None) -> Attended:
        top = key_bias.max()
        mass = np.exp(key_bias - top)
        sums = self._sum(mass[:, None])[:, 0]
        mean: Any = None if values is None else self._sum(mass[:, None] * values) / sums[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):  # rounding errors of what is next to nothing
            return Attended(mean, np.log(sums) + top + self.log_peak)


def bind_linear(layer: Attention, points: np.ndarray, log_mass: np.ndarray, own: LinearSums) -> BoundLayer:
    """The layer on nodes of these masses, as `layer.bind`, by sums of a symmetric similarity."""
    bias, stats = layer.normalization.key_bias_of_masses(
        lambda bias, transposed=False: own(None, bias + log_mass).log_sum_exp, log_mass, layer.rtol
    )
    stats = {"engine": own.engine, "dtype": layer.dtype, **stats}
    return BoundLayer(layer, points, bias + log_mass, own, stats, log_mass=log_mass)
