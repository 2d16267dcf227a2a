"""The same limit as a random walk: its stochastic equation, its forward equation, and tokens that follow it.

Also many heads at once, since their sum is a sum of such steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from .. import checks, display
from .formulas import coordinates, expression, log_density
from .laplace import gaussian_expansion
from .layers import Layer
from .operators import Operator, drift_diffusion, multiplication, tensor


@dataclass(frozen=True, eq=False)
class Process:
    """dX = b(X) dt + s(X) dW in the sense of Ito, whose law is the drift-diffusion equation.

    Attributes
    ----------
    drift : sympy Matrix (n, 1)
        b, in coordinates.
    covariance : sympy Matrix (n, n)
        s s', per unit of time.
    variables : tuple of sympy.Symbol
    """

    drift: sympy.Matrix
    covariance: sympy.Matrix
    variables: tuple[sympy.Symbol, ...]

    __repr__ = display.of_fields

    def generator(self) -> Operator:
        """lim (E[H(x + b t + sqrt(t) s xi)] - H(x)) / t over a Gaussian xi: the backward equation dH/dt = L H."""
        wander = Operator(gaussian_expansion({}, self.covariance, 1)[1], self.variables)
        units = sympy.eye(len(self.variables))
        flow = Operator({tuple(units.row(i)): b for i, b in enumerate(self.drift)}, self.variables)
        return (wander + flow).named("L")

    def forward(self) -> Operator:
        """L', d rho/dt = L' rho for the density rho with respect to dx0 dx1 ...: Fokker-Planck."""
        return self.generator().adjoint().named("L'")

    def _repr_latex_(self) -> str:
        b, a = (sympy.latex(M) for M in (self.drift, self.covariance))
        return f"$\\displaystyle dX = {b} dt + s dW, \\quad s s' = {a}$"


def process(L: Operator) -> Process:
    """The stochastic equation with generator L = (1/2) (s s')_ij d_i d_j + b_i d_i.

    Raises
    ------
    ValueError
        If L has terms of another order than one and two.

    References
    ----------
    Coifman & Lafon 2006, section 3.

    Examples
    --------
    >>> walk = process(drift_diffusion(1))        # dX = 2 grad log p dt + sqrt(2) dW
    >>> walk.drift[0], walk.covariance[0]
    (2*Derivative(ell(x0), x0), 2)
    """
    n = len(checks.instance(L, Operator, "L", "an Operator").variables)
    if not {sum(index) for index in L.coefficients} <= {1, 2}:
        raise ValueError(f"L must have terms of order one and two only, got {checks.short(L.latex)}")
    units = [tuple(int(k == i) for k in range(n)) for i in range(n)]

    def second(i: int, j: int) -> sympy.Expr:
        both = tuple(a + b for a, b in zip(units[i], units[j]))
        return L.coefficients.get(both, sympy.S.Zero) * (2 if i == j else 1)

    drift = sympy.Matrix([L.coefficients.get(unit, sympy.S.Zero) for unit in units])
    return Process(drift, sympy.Matrix(n, n, second), L.variables)


def invariant_powers(metric: int | sympy.Matrix = 1, drift: sympy.Expr | float = 2) -> sympy.Set:
    """The powers k for which p^k (with respect to the volume of g) is invariant under the forward equation, any p.

    Tokens that walk by dX = c grad log p dt + sqrt(2) dW settle in p^c, not in p. Solved for, not assumed: the
    forward operator is applied to p^k sqrt(det g), and every coefficient of a derivative of log p set to zero.

    Examples
    --------
    >>> invariant_powers()
    {2}
    """
    g = tensor(metric)
    n = g.shape[0]
    k, ell = sympy.Symbol("k", real=True), log_density(None, coordinates(n))
    forward = process(drift_diffusion(g, drift=drift)).forward()
    trial = forward.conjugate(k * ell + sympy.log(g.det()) / 2).coefficients.get((0,) * n, sympy.S.Zero)
    derivatives = sorted(trial.atoms(sympy.Derivative), key=str)
    conditions = sympy.Poly(sympy.simplify(trial), *derivatives).coeffs()
    return sympy.FiniteSet(*(s[k] for s in sympy.solve(conditions, k, dict=True)))


@dataclass(frozen=True, eq=False)
class TokenFlow:
    """Tokens that are their own values, in flat space: the velocity they take on, and what their density rho does.

    Attributes
    ----------
    velocity : tuple of sympy.Expr
        Per layer, in log rho = ell.
    spreading : sympy.Expr
        c in d rho/dt = c Delta rho, per layer: negative, the heat equation backwards.
    """

    velocity: tuple[sympy.Expr, ...]
    spreading: sympy.Expr

    __repr__ = display.of_fields

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle \\partial_t \\rho = {sympy.latex(self.spreading)} \\Delta \\rho$"


def token_flow(layer: Layer) -> TokenFlow:
    """What a flat layer of undetermined density does to its own tokens, per layer, to first order in eps.

    The layer moves the token at x by A x - x = tau L x, whatever the coordinate x is of; the density then
    obeys d rho/dt = -div(rho velocity).

    Raises
    ------
    ValueError
        If the density was given: the tokens' density is their own, not a fixed one; or the flow is no heat flow.

    References
    ----------
    For softmax and Sinkhorn in one dimension Sander et al. 2022 (arXiv 2110.11773); derived here.

    Examples
    --------
    >>> from attnflow.theory import isotropic_kernel, layer
    >>> token_flow(layer(isotropic_kernel(2))).spreading, token_flow(layer(isotropic_kernel(2), "sinkhorn")).spreading
    (-m2, -m2/2)
    """
    step = checks.instance(layer, Layer, "layer", "a theory.Layer").terms[1]
    x = step.variables
    velocity = tuple(step(v).expression for v in x)
    ell = log_density(None, x)
    gain = sympy.expand(-sum(sympy.diff(v, s) + v * sympy.diff(ell, s) for v, s in zip(velocity, x)))
    heat = drift_diffusion(len(x), drift=0).conjugate(ell).coefficients.get((0,) * len(x))
    spreading = sympy.cancel(gain.coeff(sympy.diff(ell, x[0], 2)))
    if heat is None or sympy.expand(gain - spreading * heat) != 0:
        raise ValueError("layer must be flat, with an undetermined density, to move its own tokens by a heat flow")
    return TokenFlow(velocity, spreading)


@dataclass(frozen=True, eq=False)
class HeadSum:
    """H_new = sum_i A_i H W_i for rows H of c features: H sum W_i + sum_i tau_i (L_i H) W_i + O(eps^2).

    Attributes
    ----------
    total : sympy Matrix (c, c)
        sum W_i: what a layer does at zeroth order. A small step of an equation only where it is 1.
    remainder : sympy Matrix (c, c)
        sum W_i - 1.
    """

    layers: tuple[Layer, ...]
    mixing: tuple[sympy.Matrix, ...]

    __repr__ = display.of_fields

    @property
    def total(self) -> sympy.Matrix:
        return sum(self.mixing[1:], self.mixing[0])

    @property
    def remainder(self) -> sympy.Matrix:
        return self.total - sympy.eye(self.total.shape[0])

    def __call__(self, H: Sequence[sympy.Expr]) -> sympy.Matrix:
        """The new features (1, c), to first order, of c features in x0, x1, ...: a row of Formulas' expressions."""
        H = checks.sequence(H, "H", "expressions, one for each feature")
        if len(H) != self.total.shape[0]:
            raise ValueError(f"H must have {self.total.shape[0]} entries, one for each feature, got {len(H)}")
        result = sympy.zeros(1, self.total.shape[0])
        for head, W in zip(self.layers, self.mixing):
            one_layer = head.terms[0] + head.terms[1]
            result += sympy.Matrix([[one_layer(column).expression for column in H]]) * W
        return result.applyfunc(sympy.expand)

    def step(self, row: int, column: int) -> Operator:
        """The operator from feature `row` to feature `column`: W_rc + sum_i tau_i (W_i)_rc L_i."""
        for value, name in ((row, "row"), (column, "column")):
            checks.integer(value, name, largest=self.total.shape[0] - 1)
        one = multiplication(self.total[row, column], self.layers[0].limit.variables)
        return sum((W[row, column] * head.terms[1] for head, W in zip(self.layers, self.mixing)), one).named("S")

    def _repr_latex_(self) -> str:
        size = range(self.total.shape[0])
        return "$\\displaystyle " + ", \\quad ".join(self.step(r, c).latex for r in size for c in size) + "$"


def head_sum(layers: Sequence[Layer], mixing: Sequence[sympy.Matrix]) -> HeadSum:
    """Several heads, mixed by (c, c) matrices: one operator from every feature to every other.

    Source: Ruan & Zhang 2024, section 3.4.

    Examples
    --------
    >>> from attnflow.theory import isotropic_kernel, layer
    >>> one = layer(isotropic_kernel(1))
    >>> half = sympy.Rational(1, 2) * sympy.eye(1)
    >>> head_sum([one, one], [half, half]).step(0, 0).equals(one.terms[0] + one.terms[1])
    True
    """
    layers = checks.sequence(layers, "layers", "theory.Layer")
    for head in layers:
        checks.instance(head, Layer, "layers", "a sequence of theory.Layer")
        if head.limit.variables != layers[0].limit.variables:
            raise ValueError("layers must act on the same coordinates")
    mixing = tuple(map(_matrix, checks.sequence(mixing, "mixing", "square matrices")))
    if len(layers) != len(mixing) or any(W.shape != mixing[0].shape or not W.is_square for W in mixing):
        raise ValueError(f"mixing must hold one square matrix of one size per head, got {[W.shape for W in mixing]}")
    return HeadSum(layers, mixing)


def _matrix(W) -> sympy.Matrix:
    try:
        result = sympy.Matrix(W) if isinstance(W, sympy.MatrixBase) or checks.listed(W) else None
    except Exception:  # sympy has many classes for what is no matrix
        result = None
    if result is None or not result.rows:
        raise TypeError(f"mixing must be square sympy matrices, got {checks.short(W)}")
    return result.applyfunc(lambda entry: expression(entry, "mixing"))
