"""The limit equations: drift-diffusion and its relatives on tori, boxes, lines, spheres and charts.

Top first, and a file imports only from below: `coupled`, `forward` and `conformal` equations; `equations`, `masses`;
`equation`, `spectrum`; `methods`, which takes one of `volumes`, `nodes` and `harmonics`; `report`; `refinement`;
`problem` and `reach`; `generator`, the data of an equation, which is what goes down; `grids`; the propagator,
`boundaries`, `sources` and the rest.
"""

from .conformal import ConformalHeat
from .coupled import General, Heads
from .equations import DriftDiffusion, Heat
from .forward import FokkerPlanck

__all__ = ["ConformalHeat", "DriftDiffusion", "FokkerPlanck", "General", "Heads", "Heat"]
