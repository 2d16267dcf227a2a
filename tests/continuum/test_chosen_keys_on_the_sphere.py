"""The predicted bias of queries that choose their keys on S^2, against infinite-token layers summed over caps."""

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander

import attnflow as af

N, K, KAPPA, T = 1e4, 1000, 0.6, 4.0
SPHERE = af.Sphere(2)
P = af.VonMisesFisher([0.0, 0.0, 1.0], KAPPA)
Z, _ = leggauss(40)
POINTS = np.stack([np.sqrt(1 - Z**2), 0 * Z, Z], axis=1)
RADII, ANGLES = (1 + leggauss(24)[0]) / 2, 2 * np.pi * np.arange(40) / 40


def start(x):
    return x[..., 2] + 0.5 * x[..., 2] ** 2


def cap_layer(k):
    """Averages over the geodesic discs that hold k of N tokens, of features of the height alone, held by the nodes."""

    def heights(R):
        r = R[:, None, None] * RADII[:, None]
        z = Z[:, None, None] * np.cos(r) + np.sqrt(1 - Z**2)[:, None, None] * np.sin(r) * np.cos(ANGLES)
        p = KAPPA / (4 * np.pi * np.sinh(KAPPA)) * np.exp(KAPPA * z)
        return z, p * np.sin(r) * R[:, None, None] * (leggauss(24)[1] / 2 * 2 * np.pi / 40)[:, None]

    low, high = np.full(40, 1e-3), np.full(40, 3.0)
    for _ in range(50):  # halved
        R = (low + high) / 2
        few = heights(R)[1].sum(axis=(1, 2)) < k / N
        low, high = np.where(few, R, low), np.where(few, high, R)
    z, weights = heights(low)
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    return np.einsum("ira,irak->ik", weights, legvander(z, 39)) @ np.linalg.inv(legvander(Z, 39))


def test_the_nearest_keys_on_a_sphere_have_the_predicted_bias():
    layer = af.Attention(af.SquaredDistance(SPHERE), 1e9, af.TopK(K))
    exact, errors, scales = af.limit(layer, P, N).solve(start, T, rtol=1e-10).at(POINTS)[:, 0], [], []
    for count in (8, 16, 32):
        scales.append(T / count)
        errors.append((np.linalg.matrix_power(cap_layer(K * scales[-1]), count) @ start(POINTS) - exact) / scales[-1])
    wanted = np.linalg.solve(np.vander(scales), errors)[-1]
    found = af.predicted_bias(layer, P, start, T, N)(POINTS)[:, 0]
    np.testing.assert_allclose(found, wanted, atol=5e-3 * np.abs(wanted).max())
