"""Every pair, in cache-blocked tiles on all cores of a CPU."""

from .dense import Dense, pair_cost, plan, predict
from .layout import queries_together
from .tiles import TILE

__all__ = ["TILE", "Dense", "pair_cost", "plan", "predict", "queries_together"]
