"""The theorems, derived by computer algebra: an oracle that shares no line with the engines.

`from attnflow import theory`; then, with sympy expressions in x0, x1, ... (and y0, y1, ... for a second point):

    moments(h)                          second and fourth moment of a similarity exp(-h(d) / (2 eps))
    isotropic_kernel, local_kernel      what a similarity does to a function, order by order in eps
    layer(kernel, normalization)        Theorem 3: .limit L, .bias B and .defect of one layer, four normalisations
    drift_diffusion(metric, density)    L itself
    conformal_form(dim)                 Theorem 4: the heat form, and why not in two dimensions
    displaced_limit(f, dim)             Theorem 5: f smallest elsewhere than at y = x
    manifold_average(f, dim, ...)       Theorem 6: f smallest on a whole manifold
    head_sum(layers, mixing)            many heads
    process(L), invariant_powers()      the stochastic equation and what it settles in
    token_flow(layer)                   tokens that are their own values: backward heat
    identities(metric)                  what is conserved and what decays

Results print as LaTeX in Jupyter; a Formula evaluates on arrays of points. Numbers of the theorems are those of
Ruan & Zhang 2024 (arXiv 2412.18288). Nothing is looked up: every result is derived when asked for, in seconds.

Examples
--------
The bias of a user's own pseudo-metric, on the line, at a point:

>>> import sympy
>>> from attnflow import theory
>>> (x0,), (y0,) = theory.coordinates(1), theory.coordinates(1, "y")
>>> mine = theory.layer(theory.local_kernel(sympy.cosh(x0 - y0) - 1, dim=1), density=sympy.exp(-(x0**2)))
>>> mine.limit.latex
'L = 2 \\\\partial_{x_{0}}^{2} - 8 x_{0} \\\\partial_{x_{0}}'
>>> mine.bias(x0)([[0.5]])
array([20.])
"""

from .conformal import ConformalForm, conformal_form, conformal_operator
from .curvature import constant_curvature, radial_expansion, spherical_mean
from .displaced import DisplacedLimit, ManifoldAverage, displaced_limit, manifold_average, symbolic_f
from .formulas import EPSILON, Formula, coordinates
from .identities import Identity, identities, variational_derivative
from .kernels import Kernel, isotropic_kernel, local_kernel, squared_map
from .layers import Layer, layer
from .moments import Moments, moments
from .operators import Operator, drift_diffusion
from .processes import HeadSum, Process, TokenFlow, head_sum, invariant_powers, process, token_flow

__all__ = [
    "EPSILON",
    "ConformalForm",
    "DisplacedLimit",
    "Formula",
    "HeadSum",
    "Identity",
    "Kernel",
    "Layer",
    "ManifoldAverage",
    "Moments",
    "Operator",
    "Process",
    "TokenFlow",
    "conformal_form",
    "conformal_operator",
    "constant_curvature",
    "coordinates",
    "displaced_limit",
    "drift_diffusion",
    "head_sum",
    "identities",
    "invariant_powers",
    "isotropic_kernel",
    "layer",
    "local_kernel",
    "manifold_average",
    "moments",
    "process",
    "radial_expansion",
    "spherical_mean",
    "squared_map",
    "symbolic_f",
    "token_flow",
    "variational_derivative",
]
