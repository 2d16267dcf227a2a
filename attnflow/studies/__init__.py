"""Sweeps with a store, a progress bar and resume: convergence, comparison, parity."""

from .comparison import Comparison, compare
from .convergence import ConvergenceStudy
from .parity import ParityTable, parity
from .result import StudyResult

__all__ = ["Comparison", "ConvergenceStudy", "ParityTable", "StudyResult", "compare", "parity"]
