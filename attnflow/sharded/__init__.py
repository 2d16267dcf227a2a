"""One layer on more tokens than a machine holds: read block by block, computed here or by the workers of a cluster."""

from .layer import Sharded
from .merging import merge

__all__ = ["Sharded", "merge"]
