"""An error known in a weighted norm is larger where the weight is small: estimates at points cover it there."""

import numpy as np
import pytest
from scipy.linalg import expm

import attnflow as af

ROUND = np.linspace(0, 2 * np.pi, 301)[:, None]


def galerkin(kappa, drift, t, start):
    """The solution for p ~ exp(kappa cos x) by plain Fourier modes, whose norm has no weight: as exact everywhere."""
    modes = np.arange(-100, 101)
    nodes = 2 * np.pi * np.arange(201) / 201
    advection = 0.5 * drift * kappa * modes  # drift (log p)' H' = -drift kappa sin x H'
    operator = np.diag(-(modes**2.0)) + np.diag(-advection[:-1], -1) + np.diag(advection[1:], 1)
    first = np.exp(-1j * np.outer(modes, nodes)) @ start(nodes[:, None]) / 201
    return lambda x: (np.exp(1j * np.outer(x[:, 0], modes)) @ expm(t * operator) @ first).real


@pytest.mark.parametrize("kappa, drift, t", [(100.0, 1.0, 0.01), (60.0, 2.0, 0.02), (3.0, 2.0, 0.1)])
def test_the_pointwise_estimate_covers_the_error_where_tokens_are_rare(kappa, drift, t):
    def start(x):
        return np.cos(x[:, 0]) + 0.3 * np.sin(2 * x[:, 0])

    H = af.DriftDiffusion(af.VonMises(kappa), drift).solve(start, t)
    off = np.abs(H.at(ROUND)[:, 0] - galerkin(kappa, drift, t, start)(ROUND))
    claimed = H.error(ROUND)
    assert claimed.shape == (301, 1)
    assert (off <= claimed[:, 0] + 1e-13).all()
    assert claimed[0, 0] < 1e-7 and claimed.max() < 2.6  # never more than the features can be off at all
    if kappa > 50:
        assert off.max() > 1e-4  # although the weighted estimate is
        assert H.stats["estimated_error"] < 1e-8


def test_on_a_line_the_estimate_holds_out_to_the_tails():
    # drift 2: x becomes normal with mean x exp(-2 t) and variance (1 - exp(-4 t)) / 2
    x, t = np.linspace(-5, 5, 101)[:, None], 0.3
    H = af.DriftDiffusion(af.Gaussian(0.0, 1.0)).solve(lambda x: np.stack([np.sin(x[:, 0]), np.cos(2 * x[:, 0])], 1), t)
    variance = (1 - np.exp(-4 * t)) / 2
    mean = np.exp(-2 * t) * x
    exact = np.hstack([np.sin(mean) * np.exp(-variance / 2), np.cos(2 * mean) * np.exp(-2 * variance)])
    assert (np.abs(H.at(x) - exact) <= H.error(x)).all()
    assert H.error(x).shape == (101, 2)
    assert (H.error(x)[[0, -1]] > 1e3 * H.error(x)[50]).all()


def test_a_density_is_least_certain_where_walkers_gather():
    p = af.VonMises(4.0)
    rho = af.FokkerPlanck(p).solve(lambda x: 1 + 0.5 * np.sin(x[:, 0]), 0.05)
    H = af.DriftDiffusion(p).solve(lambda x: (1 + 0.5 * np.sin(x[:, 0])) * np.exp(-8 * np.cos(x[:, 0])), 0.05)
    factor = np.exp(8 * np.cos(ROUND))
    assert (np.abs(rho.at(ROUND) - H.at(ROUND) * factor) <= rho.error(ROUND) + H.error(ROUND) * factor).all()
    assert rho.error(ROUND).argmax() in (0, 300)


def test_walls_that_feed_in_may_be_wrong_by_more_than_the_first_extrema():
    # H starts at zero, and between walls at one; where p is exp(-200 x) at most, the norm sees nothing near x = 1
    p = af.Density(af.Box([(0.0, 1.0)]), lambda x: -200 * x[..., 0])
    H = af.DriftDiffusion(p, 1.0).solve(lambda x: 0 * x[:, 0], 1e-3, boundary=("dirichlet", 1.0), rtol=1e-6)
    assert H.error(np.array([[0.99]])) > 1 > 1e-3 > H.error(np.array([[0.01]]))


def test_the_estimate_is_kept_in_files(tmp_path):
    H = af.DriftDiffusion(af.VonMises(100.0), 1.0).solve(lambda x: np.cos(x[:, 0]), 0.01)
    H.save(tmp_path / "run.npz")
    np.testing.assert_array_equal(af.load(tmp_path / "run.npz").error(ROUND), H.error(ROUND))


def test_where_nothing_is_known_the_estimate_is_refused():
    layer = af.Attention(af.SquaredDistance(af.Circle()), 0.1)
    p = af.VonMises(1.0)
    with pytest.raises(ValueError, match="points must be points of a field, but this solution lives on tokens"):
        af.propagate(layer, p.sample(20, 0), lambda x: np.cos(x[:, 0]), 2).error(ROUND)
    with pytest.raises(ValueError, match="points have no estimated error in this solution"):
        af.propagate(layer, p, lambda x: np.cos(x[:, 0]), 2).error(ROUND)
    with pytest.raises(ValueError, match="points must have 1 column"):
        af.Heat(af.Circle()).solve(lambda x: np.cos(x[:, 0]), 0.1).error(np.zeros((3, 2)))


def test_messages_say_which_norm_an_error_is_of():
    def message(pde):
        return pde.solve(lambda x: np.cos(x[:, 0]), 0.1, grid=32).message

    assert message(af.DriftDiffusion(af.VonMises(1.0))).endswith("in the norm weighted by p^2")
    assert message(af.DriftDiffusion(af.VonMises(1.0), 1.0)).endswith("in the norm weighted by p")
    mobile = af.DriftDiffusion(af.VonMises(1.0), mobility=lambda x: 2 + np.cos(x[..., 0]))
    assert message(mobile).endswith("p^2 / mobility")
    assert message(af.FokkerPlanck(af.VonMises(1.0))).endswith("in the norm weighted by p^-2")
    assert message(af.ConformalHeat(af.VonMises(1.0))).endswith("in the norm weighted by p^2")
    assert message(af.Heat(af.Circle())).endswith("in the L2 norm")
