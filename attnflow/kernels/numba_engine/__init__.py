"""Every pair, in cache-blocked tiles on all cores of a CPU."""

from .dense import plan, predict

__all__ = ["plan", "predict"]
