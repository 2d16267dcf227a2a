"""Every theorem a figure that can fail: what a figure module holds, and how its numbers are judged.

A module has

    TITLE        the claim, as a sentence
    CONSTANTS    the numbers of the claim that theory predicts with: {"drift": 2.0, ...}
    WRONG        one of them changed, {"drift": 1.0}: with it, the figure must fail
    measure(quick, progress) -> data     arrays by name; the only part that takes time
    check(data, constants) -> checks     predictions from the constants, against the data
    LONG         optional, True where it takes minutes: such are begun first
    NEEDS        optional, a package of the extras that measure imports; without it the figure is left out
    PANELS       optional, panels side by side, 1 when absent
    draw(figure, data, constants)        predictions as lines or bands, measurements as points

and a docstring with the claim, the equation and its source. `compute` and `plot` below do the rest, and
`python -m paper_figures` runs them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from types import ModuleType
from typing import Any

import numpy as np

from attnflow.studies.signals import Signals

__all__ = ["FIGURES", "Check", "compute", "plot"]

FIGURES = (
    "f01_bias",
    "f02_noise",
    "f03_depth",
    "f04_transforms",
    "f05_curved",
    "f06_conformal",
    "f07_displaced",
    "f08_manifold",
    "f09_gaussian",
    "f10_backward",
    "f11_spectra",
    "f12_metastable",
    "f13_sphere_clusters",
    "f14_scaling",
    "f15_heads",
    "f16_energy",
    "f17_boundaries",
    "f18_token_spectra",
    "f19_sparse_law",
    "f20_learned_metric",
    "f21_gradient",
    "f22_next_order",
    "f23_curved_bias",
    "f24_budget",
    "f25_error_bars",
    "f26_walls",
    "f27_causal",
    "f28_noisy_phases",
    "f29_gaussian_law",
    "f30_norm_clocks",
)

Data = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Check:
    """One number of a claim: predicted, measured, and how far apart they may be.

    Attributes
    ----------
    claim : str
        What the number is, in a few words.
    predicted, measured : float
    tolerance : float
        Largest |measured - predicted|, in the numbers' own unit.
    """

    claim: str
    predicted: float
    measured: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the measured number is within the tolerance; never for NaN."""
        return bool(abs(self.measured - self.predicted) <= self.tolerance)

    @classmethod
    def relative(cls, claim: str, predicted: float, measured: float, tolerance: float) -> Check:
        """A check whose tolerance is a fraction of the prediction."""
        return cls(claim, float(predicted), float(measured), abs(tolerance * float(predicted)))


def compute(module: ModuleType, quick: bool = False, progress: bool = False) -> tuple[dict[str, np.ndarray], list[Check]]:
    """Data of a figure and its checks."""
    with Signals() as signals:
        data = {name: np.asarray(value) for name, value in module.measure(quick, progress).items()}
        signals.check()  # solvers return what they have when interrupted: half a measurement is none
    return data, module.check(data, module.CONSTANTS)


def plot(module: ModuleType, data: Data, constants: Mapping[str, Any] | None = None):
    """The figure, 3.4 inches (a column of print) wide per panel: a matplotlib Figure bound to no window."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    panels = getattr(module, "PANELS", 1)
    with rc_context(
        {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 6.5, "lines.linewidth": 1.2, "lines.markersize": 4}
    ):
        figure = Figure(figsize=(3.4 * panels, 2.9), layout="constrained")
        module.draw(figure, data, module.CONSTANTS if constants is None else constants)
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
            if axis.get_scale() == "log":
                axis.set_minor_formatter(NullFormatter())  # over a decade, those of matplotlib overlap at this width
        figure.suptitle(fill(module.TITLE, 58 * panels), fontsize=8.5, x=0.01, ha="left")
    return figure
