"""The equations on S^2 and S^1: harmonics, poles, rotations, and a metric that is not round."""

import numpy as np
import pytest

import attnflow as af
from attnflow.geometry import Remetrised

SPHERE = af.Sphere(2)
DEGREES = [1, 1, 2, 2, 3, 3]


def harmonics(x):
    x, y, z = x.T
    return np.stack([z, x, x * y, 3 * z**2 - 1, x * y * z, 5 * z**3 - 3 * z], axis=1)


@pytest.mark.parametrize("rtol", [1e-3, 1e-4])
def test_harmonics_decay_at_their_rates_poles_included(rtol):
    run = af.Heat(SPHERE).solve(harmonics, 0.2, rtol=rtol, method="finite-volume")
    points = np.vstack([SPHERE.uniform(100, np.random.default_rng(0)), [[0, 0, 1.0], [0, 0, -1.0]]])
    rates = np.array(DEGREES) * (np.array(DEGREES) + 1)
    assert np.abs(run.at(points) - harmonics(points) * np.exp(-0.2 * rates)).max() < rtol
    assert run.stats["method"] == "finite-volume" and run.stats["monotone"]


def test_cells_are_exact_for_linear_functions():
    eigenvalues = af.Heat(SPHERE).spectrum(4, grid=(12, 24)).eigenvalues
    L = af.Heat(SPHERE).operator((12, 24))
    grid = af.Heat(SPHERE).solve(lambda x: x[:, 0], 0.0, grid=(12, 24)).grid
    assert np.abs(L @ grid.points + 2 * grid.points).max() < 1e-9
    assert eigenvalues == pytest.approx([0, -2, -2, -2], abs=1e-9)


def test_eigenvalues_fall_to_l_times_l_plus_1_with_order_two_and_four():
    exact = -np.repeat([0.0, 2, 6, 12], [1, 3, 5, 7])
    coarse, fine = (af.Heat(SPHERE).spectrum(16, grid=(n, 2 * n)).eigenvalues for n in (20, 40))
    assert np.log2(np.abs(coarse - exact)[4:] / np.abs(fine - exact)[4:]) == pytest.approx(2, abs=0.1)
    assert ((4 * fine - coarse) / 3)[4:] == pytest.approx(exact[4:], rel=2e-4)


def test_mass_and_extrema_on_the_sphere():
    pde = af.DriftDiffusion(af.VonMisesFisher([0.6, 0.0, 0.8], 2.0))
    run = pde.solve(lambda x: (x[:, 0] > 0.3).astype(float), [0.0, 0.01, 0.5, 20.0], grid=(16, 32))
    assert run.y.min() > -1e-12 and run.y.max() < 1 + 1e-12
    assert np.ptp(run.stats["mean"]) < 1e-14


def test_consensus_is_the_mean_weighted_by_p_squared():
    kappa, mu = 1.0, np.array([0.6, 0.0, 0.8])
    run = af.DriftDiffusion(af.VonMisesFisher(mu, kappa)).solve(lambda x: x @ mu, 30.0, rtol=1e-6)
    assert run.y == pytest.approx(1 / np.tanh(2 * kappa) - 1 / (2 * kappa), abs=1e-6)


def test_an_oblique_metric_on_the_sphere_is_that_of_the_ellipsoid_it_comes_from():
    """The pull-back of y = A x: functions of y, their Laplace-Beltrami from the mean curvature of the ellipsoid."""
    A = np.diag([1.2, 1.0, 0.9]) + 0.1 * np.eye(3, k=1) + 0.1 * np.eye(3, k=-1)
    space = Remetrised(SPHERE, lambda x: np.broadcast_to(A.T @ A, (*x.shape, 3)))
    pde = af.Heat(space)
    t, inverse = 1e-4, np.linalg.inv(A @ A.T)
    run = pde.solve(lambda x: x @ A.T, t, rtol=1e-8)
    x = SPHERE.uniform(200, np.random.default_rng(0))
    y = x @ A.T
    normal = y @ inverse
    size = np.linalg.norm(normal, axis=1)
    normal /= size[:, None]
    curvature = (np.trace(inverse) - np.einsum("mi,ij,mj->m", normal, inverse, normal)) / size  # sum of both
    laplacian = -curvature[:, None] * normal  # of the position vector
    assert np.abs((run.at(x) - y) / t - laplacian).max() < 2e-3 * np.abs(laplacian).max()


def test_the_limit_of_dot_product_attention_runs_on_half_the_round_metric():
    p = af.VonMisesFisher([0.0, 0.0, 1.0], 1.0)
    half = af.limit(af.Attention(af.DotProduct(), 0.05), p).solve(harmonics, 0.1, rtol=1e-4)
    whole = af.DriftDiffusion(p).solve(harmonics, 0.2, rtol=1e-4)
    points = SPHERE.uniform(50, np.random.default_rng(0))
    assert np.abs(half.at(points) - whole.at(points)).max() < 3e-4


def test_the_circle_as_a_sphere_is_the_circle():
    run = af.DriftDiffusion(af.VonMisesFisher([1.0, 0.0], 1.5)).solve(lambda x: x[:, 1] + x[:, 0] ** 2 - x[:, 1] ** 2, 0.5)
    exact = [0.49864295786505, 0.64223766233036, -0.11182504254730, -0.12039868885043]
    points = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])
    assert run.at(points)[:, 0] == pytest.approx(exact, abs=1e-8)


def test_a_bad_metric_says_where():
    with pytest.raises(ValueError, match="metric must be symmetric positive definite.*at"):
        af.Chart(lambda x: np.stack([np.stack([x[..., 0], 0 * x[..., 0]], -1), np.stack([0 * x[..., 0], x[..., 0] - 0.5], -1)], -2),
                 [(0.1, 1), (0, 1)])  # fmt: skip
