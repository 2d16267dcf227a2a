"""Second moments of what a query sees: closed forms against integrals over balls, done here by quadrature."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gamma

from attnflow.similarity.local_moments import ball, entmax_moment, nearest_moment, perplexity_moment

TOKENS = np.array([3.0, 40.0, 900.0])  # per volume
SHAPES = [(q, dim) for q in (1.0, 1.5, 2.0, 4.0, None) for dim in (1, 2, 3)]


def h(q, d):
    return np.log1p(d**2) if q is None else d**q


def radial(function, dim, radius):
    """The integral of a function of the distance over a ball, for one token per volume."""
    surface = 2 * np.pi ** (dim / 2) / gamma(dim / 2)
    return surface * quad(lambda d: d ** (dim - 1) * function(d), 0, radius, epsabs=0, epsrel=1e-11, limit=400)[0]


def moment(weight, dim, radius):
    return radial(lambda d: d**2 * weight(d), dim, radius) / radial(weight, dim, radius) / dim


def test_balls_have_their_volumes():
    np.testing.assert_allclose(np.exp([ball(1), ball(2), ball(3)]), [2, np.pi, 4 * np.pi / 3])


@pytest.mark.parametrize("q, dim", SHAPES)
@pytest.mark.parametrize("epsilon", [0.02, 0.5, 1e6])
def test_the_nearest(q, dim, epsilon):
    for tokens, m2 in zip(TOKENS, nearest_moment(q, epsilon, dim, 10.0, TOKENS)):
        radius = (10.0 / tokens / np.exp(ball(dim))) ** (1 / dim)
        wanted = moment(lambda d: np.exp(-h(q, d) / (2 * epsilon)), dim, radius)
        assert m2 == pytest.approx(wanted, rel=2e-7)


@pytest.mark.parametrize("q, dim", SHAPES)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 10.0])
def test_entmax(q, dim, power):
    epsilon = 0.1
    for tokens, m2 in zip(TOKENS, entmax_moment(q, epsilon, dim, power, TOKENS)):
        depth = lambda d, R: (max(h(q, R) - h(q, d), 0.0) / (2 * epsilon * power)) ** power  # noqa: E731
        excess = lambda R: tokens * radial(lambda d: depth(d, R), dim, R) - 1  # noqa: E731
        R = brentq(excess, 1e-3, 50.0, rtol=1e-12)
        assert m2 == pytest.approx(moment(lambda d: depth(d, R), dim, R), rel=1e-6)


@pytest.mark.parametrize("q, dim", SHAPES)
def test_perplexity(q, dim):
    target = 0.5 if q is None else 20.0  # a small one, for log(1 + d^2) to have a second moment
    for tokens, m2 in zip(TOKENS, perplexity_moment(q, dim, target, TOKENS)):

        def total(e, function):
            """The integral of function(h / e) exp(-h / e), by s = d / scale, in two parts."""
            scale = np.sqrt(e) if q is None else e ** (1 / q)
            part = lambda s: s ** (dim - 1) * function(s * scale) * np.exp(-h(q, s * scale) / e)  # noqa: E731
            far = np.inf if q is None else 60 ** (1 / q)
            integrals = (quad(part, *ends, epsabs=0, epsrel=1e-10, limit=400)[0] for ends in ((0, 1), (1, far)))
            return 2 * np.pi ** (dim / 2) / gamma(dim / 2) * scale**dim * sum(integrals)

        def entropy(log_e):
            e = np.exp(log_e)
            mass = total(e, lambda d: 1.0)
            return np.log(tokens * mass) + total(e, lambda d: h(q, d) / e) / mass

        high = np.log(1.9 / (dim + 2)) if q is None else 12.0
        e = np.exp(brentq(lambda x: entropy(x) - np.log(target), -24.0, high, xtol=1e-12))
        assert m2 == pytest.approx(total(e, lambda d: d**2) / total(e, lambda d: 1.0) / dim, rel=1e-6)


def test_a_perplexity_without_a_second_moment_is_refused():
    """In the plane log(1 + d^2) has one up to 2 eps = 1/2, where exp(entropy) is pi exp(2) = 23.2 times the density."""
    assert np.isfinite(perplexity_moment(None, 2, 23.0, np.array([1.0]))).all()
    with pytest.raises(ValueError, match="target must be smaller for log"):
        perplexity_moment(None, 2, 23.3, np.array([1.0]))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(
    "power, moments", [(0.0, nearest_moment), (1.0, entmax_moment), (2.0, entmax_moment), (np.inf, perplexity_moment)]
)
def test_one_law_of_the_density(power, moments, dim):
    """p^(-2 / (n + 2m)), m = 0 for the nearest, and p^(-2/n) at a fixed perplexity."""
    arguments = {nearest_moment: (2.0, 1e9, dim, 5), entmax_moment: (2.0, 0.1, dim, power), perplexity_moment: (2.0, dim, 5.0)}
    m2 = moments(*arguments[moments], np.array([1.0, 10.0]))
    exponent = -2 / dim if power in (0.0, np.inf) else -2 / (dim + 2 * power)
    assert np.log10(m2[1] / m2[0]) == pytest.approx(exponent, rel=1e-9)


def test_extreme_temperatures_and_densities_are_numbers():
    for q in (0.5, 2.0, 8.0):
        for epsilon in (1e-200, 1e-12, 1.0, 1e200, np.inf):
            for dim in (1, 2, 3):
                m2 = nearest_moment(q, epsilon, dim, 10, np.array([1e-12, 1.0, 1e12]))
                assert np.isfinite(m2).all() and (m2 >= 0).all()
