"""Similarities with a cusp on tori: infinitely many tokens by exact Fourier coefficients of the nearest image."""

import numpy as np
import pytest
from scipy import integrate

import attnflow as af
from attnflow.attention.circulant import coefficients

P = af.VonMises(1.0)


def start(x):
    return np.cos(x[..., 0]) + 0.5 * np.sin(2 * x[..., 0])


@pytest.mark.parametrize("q, epsilon", [(1.0, 0.05), (1.0, 0.3), (0.5, 0.2), (1.5, 0.03), (3.0, 0.01)])
def test_a_layer_is_the_integral_over_nearest_images(q, epsilon):
    run = af.propagate(af.Attention(af.PowerDistance(af.Circle(), q), epsilon), P, start, 1)
    points = run.grid.points[[0, 5, 17, 40]]

    def integral(of, x):
        def over(z):
            return np.exp(-(np.abs(z) ** q) / (2 * epsilon)) * of(np.array([[x + z]]))[0]

        edges = [0.0, *np.minimum(np.geomspace(1e-12, 1, 14) ** (1 / min(q, 1)), 1.0) * np.pi]
        pieces = [
            integrate.quad(over, s * a, s * b, epsabs=1e-15, epsrel=1e-13)[0] for s in (-1, 1) for a, b in zip(edges, edges[1:])
        ]
        return sum(s * piece for s, piece in zip(np.repeat([-1, 1], len(edges) - 1), pieces))

    exact = [integral(lambda y: P.pdf(y) * start(y), x) / integral(P.pdf, x) for x in points[:, 0]]
    np.testing.assert_allclose(run.at(points)[:, 0], exact, atol=2e-11)
    assert run.stats["engine"] == "circulant" and run.stats["quadrature_error"] < 1e-12


@pytest.mark.parametrize(
    "lengths, e, most", [((2 * np.pi, 2 * np.pi), 0.09, 30), ((1.0, 2.5), 0.014, 20), ((2.0, 2.0, 2.0), 0.03, 8)]
)
def test_coefficients_are_those_of_the_whole_space_where_images_are_far(lengths, e, most):
    n = len(lengths)
    K = coefficients(1.0, e, np.array(lengths), (most,) * n)
    waves = np.meshgrid(*[2 * np.pi / length * np.arange(most + 1) for length in lengths], indexing="ij")
    norm = {2: 2 * np.pi, 3: 8 * np.pi}[n] * e**n
    np.testing.assert_allclose(K, norm * (1 + e**2 * sum(k**2 for k in waves)) ** (-(n + 1) / 2), rtol=1e-11)


def test_coefficients_see_the_nearest_image_only_where_images_are_near():
    # scipy's dblquad over the square, to 1e-13: no sum over images
    K = coefficients(1.0, 0.8, np.array([2.0, 3.0]), (1, 2))
    for a, b in ((0, 0), (1, 0), (1, 2)):
        value, _ = integrate.dblquad(
            lambda y, x: np.exp(-np.hypot(x, y) / 0.8) * np.cos(np.pi * a * x) * np.cos(2 * np.pi / 3 * b * y),
            0,
            1,
            0,
            1.5,
            epsabs=1e-12,
            epsrel=1e-12,
        )
        assert K[a, b] == pytest.approx(4 * value, abs=1e-10)


@pytest.mark.parametrize("normalization", ["sinkhorn", af.DensityCorrected(0.5)])
def test_harmonics_on_a_uniform_torus_fall_by_the_coefficients(normalization):
    torus, epsilon = af.Torus([2 * np.pi, 3.0]), 0.2
    layer = af.Attention(af.PowerDistance(torus, 1.0), epsilon, normalization)
    run = af.propagate(layer, af.Uniform(torus), lambda x: np.cos(x[..., 0] - 2 * np.pi / 3 * x[..., 1]), 3)
    K = coefficients(1.0, 2 * epsilon, np.array([2 * np.pi, 3.0]), (1, 1))
    x = np.array([[0.3, 0.2]])
    assert run.at(x)[0, 0] == pytest.approx((K[1, 1] / K[0, 0]) ** 3 * np.cos(0.3 - 2 * np.pi / 3 * 0.2), rel=1e-11)


def test_a_density_too_steep_for_fourier_transforms_is_summed_and_warned_of():
    layer = af.Attention(af.PowerDistance(af.Circle(), 1.0), 0.02)
    with pytest.warns(af.checks.AccuracyWarning, match="give a finer grid"):
        run = af.propagate(layer, af.VonMises(40.0), start, 1)
    assert run.stats["engine"] != "circulant"


@pytest.mark.slow
def test_a_thousand_nodes_a_side_are_no_matter():
    """On a torus much wider than e = 2 eps the coefficients are those of the plane, 2 pi e^2 (1 + e^2 |k|^2)^(-3/2)."""
    e, k = 0.08, np.hypot.outer(np.arange(513), np.arange(513))
    found = coefficients(1.0, e, np.array([2 * np.pi, 2 * np.pi]), (512, 512))
    assert found == pytest.approx(2 * np.pi * e**2 * (1 + (e * k) ** 2) ** -1.5, rel=0, abs=1e-15)
