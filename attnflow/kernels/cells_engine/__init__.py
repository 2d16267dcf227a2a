"""Near keys of decaying similarities only, found in cells or patches, with a proof for every row."""

from .search import plan, predict

__all__ = ["plan", "predict"]
