"""Sweeps with a store, a progress bar and resume: convergence, comparison, parity, and plans for them."""

from .budget import ErrorBudget, error_budget
from .comparison import Comparison, compare
from .convergence import ConvergenceStudy
from .parity import ParityTable, parity
from .result import StudyResult

__all__ = ["Comparison", "ConvergenceStudy", "ErrorBudget", "ParityTable", "StudyResult", "compare", "error_budget", "parity"]
