"""Gaussians of any width by non-uniform FFT, with a certificate for every row."""

from .certified import plan, predict

__all__ = ["plan", "predict"]
