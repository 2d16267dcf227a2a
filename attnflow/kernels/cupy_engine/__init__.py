"""All of it on a CUDA device."""

from .run import plan, unavailable

__all__ = ["plan", "unavailable"]
