"""The limit equations: drift-diffusion and its relatives on tori, boxes, lines, spheres and charts."""

from .equations import DriftDiffusion, Heat
from .forms import ConformalHeat, FokkerPlanck
from .general import General, Heads

__all__ = ["ConformalHeat", "DriftDiffusion", "FokkerPlanck", "General", "Heads", "Heat"]
