"""An asymmetric pseudo-metric leans: its limit has a velocity that is no gradient (Theorem 5)."""

import numpy as np
import pytest
import sympy

import attnflow as af

LEAN = 0.4


def leaning():
    x0, y0 = sympy.symbols("x0 y0")
    return af.PseudoMetric(2 * (1 - sympy.cos(y0 - x0)) * (1 + LEAN * sympy.sin(y0 - x0)), dim=1)


def features(x):
    return np.cos(x[..., 0]) + np.sin(2 * x[..., 0])


def test_the_velocity_is_minus_half_the_third_derivative():
    """f = d^2 + LEAN d^3 + ...: g = 1, D = 6 LEAN, c = -3 LEAN."""
    pde = af.limit(af.Attention(leaning(), 0.01), af.VonMises(1.0))
    assert isinstance(pde, af.General)
    assert pde.velocity(np.array([[0.3], [2.0]])) == pytest.approx(-3 * LEAN, abs=1e-5)


def test_layers_converge_to_it_and_not_to_the_symmetric_equation():
    errors, epsilons = [], (0.02, 0.01, 0.005)
    for epsilon in epsilons:
        layer = af.Attention(leaning(), epsilon)
        run = af.propagate(layer, af.VonMises(1.0), features, round(0.3 / layer.time_step), save_every=10**6)
        pde = af.limit(layer, af.VonMises(1.0))
        errors.append(np.abs(run.y[-1] - pde.solve(features, run.t[-1], rtol=1e-6).at(run.grid.points)).max())
    assert np.polyfit(np.log(epsilons), np.log(errors), 1)[0] == pytest.approx(1, abs=0.05)
    without = af.DriftDiffusion(pde.density).solve(features, run.t[-1]).at(run.grid.points)
    assert np.abs(run.y[-1] - without).max() > 10 * errors[-1]


def test_a_symmetric_function_has_no_extra_velocity():
    """f = (phi(x) - phi(y))^2 seen as if it were asymmetric: the three terms of c cancel."""
    from attnflow.continuum.limits import _velocity

    x0, y0 = sympy.symbols("x0 y0")
    f = af.PseudoMetric((x0 + sympy.sin(x0) / 2 - y0 - sympy.sin(y0) / 2) ** 2, dim=1)
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    assert np.abs(_velocity(f, af.Euclidean(1), x)).max() < 1e-5
    assert np.abs(f.lean(x)).max() > 0.5


@pytest.mark.parametrize("normalization", ["column", af.DensityCorrected(0.5)])
def test_other_normalisations_of_an_asymmetric_function_are_refused(normalization):
    with pytest.raises(ValueError, match="f must be symmetric"):
        af.limit(af.Attention(leaning(), 0.01, normalization), af.VonMises(1.0))
