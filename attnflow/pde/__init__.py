"""The limit equations: drift-diffusion and heat flow on tori, boxes, the line and charts."""

from .equations import DriftDiffusion, Heat

__all__ = ["DriftDiffusion", "Heat"]
