"""The density of moving tokens: closed forms, moving tokens, mass, positivity, and where it must stop."""

import numpy as np
import pytest

import attnflow as af
from attnflow import checks
from attnflow.continuum import MeanField
from attnflow.continuum.transport import cell_volumes

LINE, CIRCLE, SPHERE = af.Euclidean(1), af.Sphere(1), af.Sphere(2)
F, NORMAL = af.SquaredDistance(LINE), af.Gaussian([0.0], [[1.0]])
CLUSTERS = af.Mixture([af.Gaussian([-1.0], [[0.15]]), af.Gaussian([1.2], [[0.3]])], [0.7, 0.3])


def attention(epsilon, normalization="softmax"):
    return af.Attention(F, epsilon, normalization)


def variance(run):
    """Per saved time, about the origin."""
    return (run.y[..., 0] * run.grid.weights) @ run.grid.points[:, 0] ** 2


def masses(run):
    return np.sum(run.y[..., 0] * cell_volumes(run.grid), axis=tuple(range(1, run.y.ndim - 1)))


def order(errors, sizes):
    return -np.polyfit(np.log(sizes), np.log(np.abs(errors)), 1)[0]


def test_gaussian_tokens_stay_gaussian_with_the_variance_of_softmax_flow():
    # Sigma + s ln Sigma falls by 2 s per layer
    exact, sizes = np.array([0.8198619328, 0.6440048952, 0.1745528003]), (120, 240)
    runs = [MeanField(attention(0.1), NORMAL).solve([1, 2, 5], grid=n) for n in sizes]
    errors = np.array([variance(run) - exact for run in runs])
    assert (np.abs(errors[1]) < [4e-4, 8e-4, 2e-3]).all()
    for k in range(3):
        assert order(errors[:, k], sizes) == pytest.approx(2.0, abs=0.2)
    x = runs[1].grid.points[:, 0]
    for rho, Sigma in zip(runs[1].y[..., 0], exact):
        gaussian = np.exp(-(x**2) / (2 * Sigma)) / np.sqrt(2 * np.pi * Sigma)
        assert np.sum(np.abs(rho - gaussian) * runs[1].grid.weights) < 3 * runs[1].stats["estimated_error"]
    np.testing.assert_array_equal(runs[1].t, [1, 2, 5])
    np.testing.assert_array_equal(runs[1].layers, [1, 2, 5])


@pytest.mark.parametrize(
    "normalization, exact",  # dSigma/dt = -2 (1 - kappa) Sigma at t = 0.5 and 1, s = 0.4
    [
        ("softmax", (0.7273428996, 0.4874373796)),
        (af.Sinkhorn(tol=1e-6), (0.8217719734, 0.6486219556)),
        (af.DensityCorrected(0.5), (0.7975159796, 0.6015652474)),
        (af.DensityCorrected(1.0), (0.8944819021, 0.7825639454)),
        ("column", (0.8944819021, 0.7825639454)),
    ],
    ids=str,
)
def test_every_normalisation_narrows_gaussian_tokens_at_its_own_rate(normalization, exact):
    sizes = (60, 120)
    equation = MeanField(attention(0.4, normalization), NORMAL)
    coarse, fine = (variance(equation.solve([0.5, 1], grid=n)) for n in sizes)
    np.testing.assert_allclose((4 * fine - coarse) / 3, exact, atol=6e-4)  # extrapolated to spacing zero
    for k in range(2):
        assert order([coarse[k] - exact[k], fine[k] - exact[k]], sizes) == pytest.approx(2.0, abs=0.2)


@pytest.mark.slow
def test_correlated_gaussian_tokens_in_the_plane_follow_their_covariance():
    # dSigma/dt = B Sigma + Sigma B', B = Sigma (Sigma + s)^-1 - 1, t = 0.1, s = 1
    exact = np.array([[0.90359703, 0.18912714], [0.18912714, 0.80903345]])
    layer, sizes = af.Attention(af.SquaredDistance(af.Euclidean(2)), 1.0), (50, 70)
    equation = MeanField(layer, af.Gaussian([0.0, 0.0], [[1.0, 0.2], [0.2, 0.9]]))
    found = []
    for n in sizes:
        run = equation.solve(0.1, grid=n)
        x, mass = run.grid.points, run.y[-1].ravel() * run.grid.weights
        found.append((x.T * mass) @ x)
    coarse, fine = found
    np.testing.assert_allclose(fine + (fine - coarse) / (1.4**2 - 1), exact, atol=3e-4)  # extrapolated to spacing zero
    for k in range(2):
        assert order([coarse[k, k] - exact[k, k], fine[k, k] - exact[k, k]], sizes) == pytest.approx(2.0, abs=0.2)


def wave(space, shape, size=1e-3):
    return af.Density(space, lambda x: np.log1p(size * shape(x)))


@pytest.mark.parametrize("k, rate", [(1, 0.094859982595), (2, 0.324112013924), (3, 0.562039030827)])
def test_waves_on_the_circle_grow_at_k_squared_a_k_over_beta(k, rate):
    layer, sizes = af.Attention(af.DotProduct(), 0.05), (64, 128)  # beta = 10
    grown = []
    for n in sizes:
        density = wave(CIRCLE, lambda x: np.cos(k * np.arctan2(x[..., 1], x[..., 0])))
        run = MeanField(layer, density).solve([0, 1], grid=n)
        start, end = run.y[..., 0] @ np.cos(k * run.grid.axes[0].nodes)
        grown.append(np.log(end / start) - rate)
    assert abs(grown[1]) < 1e-3 * rate
    assert order(grown, sizes) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    "shape", [lambda x: x[..., 2] ** 2 - 1 / 3, lambda x: x[..., 0] * x[..., 2]], ids=["zonal", "tesseral"]
)
def test_waves_on_the_sphere_grow_at_l_times_l_plus_1_a_l_over_beta(shape):
    layer, sizes = af.Attention(af.DotProduct(), 0.125), (14, 28)  # beta = 4
    grown = []
    for n in sizes:
        run = MeanField(layer, wave(SPHERE, shape)).solve([0, 0.5], grid=n)
        start, end = ((rho.ravel() * run.grid.weights) @ shape(run.grid.points) for rho in run.y)
        grown.append(np.log(end / start) / 0.5 - 0.6554949558)
    assert abs(grown[1]) < 5e-3
    assert order(grown, sizes) == pytest.approx(2.0, abs=0.2)


def test_uniform_tokens_on_the_sphere_stand_still():
    run = MeanField(af.Attention(af.DotProduct(), 0.125), af.Uniform(SPHERE)).solve(0.5, grid=24)
    np.testing.assert_allclose(run.y, 1 / (4 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("normalization", ["softmax", af.DensityCorrected(0.5)], ids=str)
def test_tokens_on_the_line_end_up_distributed_as_rho(normalization):
    x = np.linspace(-6, 6, 20_001)
    below = np.cumsum(CLUSTERS.pdf(x[:, None]))
    tokens = np.interp((np.arange(400) + 0.5) / 400, below / below[-1], x)[:, None]  # quantiles: no sampling error
    moved = np.sort(af.evolve_continuous(attention(0.1, normalization), tokens, 1.5, rtol=1e-5).y[-1, :, 0])
    run = MeanField(attention(0.1, normalization), CLUSTERS).solve(1.5, grid=300)
    spacing = run.grid.axes[0].spacing
    share = np.interp(moved, run.grid.points[:, 0] + spacing / 2, np.cumsum(run.y[-1, :, 0]) * spacing)
    assert np.abs(share - (np.arange(400) + 0.5) / 400).max() < 3e-3


def test_tokens_on_the_sphere_gather_as_rho_does():
    kappa, u = 1.5, (np.arange(600) + 0.5) / 600
    height, turn = 1 + np.log(u + (1 - u) * np.exp(-2 * kappa)) / kappa, np.pi * (3 - np.sqrt(5)) * np.arange(600)
    across = np.sqrt(1 - height**2)
    tokens = np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)  # a spiral: no sampling error
    axis, tilt = np.array([0.0, 0.6, 0.8]), np.array([[1.0, 0.0, 0.0], [0.0, 0.8, 0.6], [0.0, -0.6, 0.8]])
    layer = af.Attention(af.DotProduct(), 0.125)
    moved = af.evolve_continuous(layer, tokens @ tilt.T, 0.5, rtol=1e-4, constrain="sphere").y[-1] @ axis
    coarse, fine = (MeanField(layer, af.VonMisesFisher(axis, kappa)).solve(0.5, grid=n) for n in (16, 24))
    for power in (1, 2):  # the layer moved these means by 0.09 and 0.05
        means = ((run.y[-1].ravel() * run.grid.weights) @ (run.grid.points @ axis) ** power for run in (coarse, fine))
        there, here = means
        assert here + (here - there) / (1.5**2 - 1) == pytest.approx(np.mean(moved**power), abs=1e-4)


def blocks(x):
    inside = ((x[..., 0] > -1.5) & (x[..., 0] < -0.5)) | ((x[..., 0] > 0.7) & (x[..., 0] < 1.2))
    return np.where(inside, 0.0, -np.inf)


@pytest.mark.parametrize(
    "layer, density, grid, t",
    [
        (attention(0.1), af.Density(LINE, blocks), 150, 1.5),
        (attention(0.1, "column"), af.Density(LINE, blocks), 150, 1.5),
        (attention(0.1), CLUSTERS, 300, 2.5),
        (af.Attention(af.SquaredDistance(af.Euclidean(2)), 1.0), af.Gaussian([0.0, 0.0], np.eye(2)), 40, 0.2),
        (af.Attention(af.DotProduct(), 0.125), af.VonMisesFisher([1.0, 0.0, 0.0], 2.0), 16, 1.0),
        (af.Attention(af.DotProduct(), 0.125), af.VonMisesFisher([1.0, 0.0], 2.0), 60, 1.0),
    ],
    ids=["blocks", "blocks, column", "clusters", "plane", "sphere", "circle"],
)
def test_rho_stays_positive_and_its_mass_one(layer, density, grid, t):
    run = MeanField(layer, density).solve([t / 2, t], grid=grid, rtol=1.0)  # nothing but positivity limits the steps
    assert run.status == 0
    assert run.y.min() >= 0
    np.testing.assert_allclose(masses(run), 1.0, rtol=0, atol=1e-13)
    assert run.stats["mass_error"] < 1e-13


def test_a_chosen_grid_meets_rtol():
    Sigma = 0.8198619328
    for rtol in (1e-2, 1e-3):
        run = MeanField(attention(0.1), NORMAL).solve(1.0, rtol=rtol)
        gaussian = np.exp(-(run.grid.points[:, 0] ** 2) / (2 * Sigma)) / np.sqrt(2 * np.pi * Sigma)
        error = np.sum(np.abs(run.y[-1, :, 0] - gaussian) * run.grid.weights)
        assert error < 2 * rtol
        assert run.stats["estimated_error"] == pytest.approx(error, rel=1.0)
    assert run.message == "finished"


def test_clusters_below_the_cells_stop_the_run_and_say_so():
    with pytest.warns(checks.AccuracyWarning, match="ill-posed"):
        run = MeanField(attention(0.1), NORMAL).solve([1.0, 20.0], grid=120)
    assert run.status == -1
    assert "narrower than two of the (120,) cells" in run.message
    assert run.t[0] == 1.0 and 5.0 < run.t[1] < 6.9
    assert np.sqrt(variance(run)[1]) == pytest.approx(2 * run.grid.axes[0].spacing, rel=0.35)


def test_a_grid_that_misses_rtol_says_so():
    with pytest.warns(checks.AccuracyWarning, match="above rtol = 1e-08"):
        run = MeanField(attention(4.0), NORMAL).solve(0.01, rtol=1e-8)
    assert run.grid.shape == (1024,)


def test_the_formal_limit_is_refused_where_it_is_backward_heat():
    with pytest.raises(ValueError, match=r"-0.1 Delta rho per layer: the backward heat equation, which is ill-posed"):
        MeanField(attention(0.1), NORMAL).formal_limit()
    with pytest.raises(ValueError, match=r"exp\(0.05 k\^2 t\)"):
        MeanField(attention(0.1, "sinkhorn"), NORMAL).formal_limit()
    assert MeanField(attention(0.1, "column"), NORMAL).formal_limit() == 0
    spreading = MeanField(af.Attention(af.DotProduct(), 0.1, af.DensityCorrected(1.5)), af.Uniform(SPHERE))
    assert spreading.formal_limit() == pytest.approx(0.05)


def test_an_interrupted_run_returns_what_it_has(monkeypatch):
    calls, bind = [], af.Attention.bind

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) > 100:
            raise KeyboardInterrupt
        return bind(self, *args)

    monkeypatch.setattr(af.Attention, "bind", interrupted)
    run = MeanField(attention(0.1), NORMAL).solve([0.0, 1.0, 4.0], grid=120)
    assert run.status == 1 and "interrupted after 1 of 4 layers" in run.message
    np.testing.assert_array_equal(run.t, [0.0, 1.0])


def test_a_solution_is_saved_read_and_asked_in_between(tmp_path):
    run = MeanField(af.Attention(af.DotProduct(), 0.125), af.VonMisesFisher([0.0, 0.0, 1.0], 1.0)).solve(0.5, grid=16)
    run.save(tmp_path / "run.npz")
    again = af.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(again.y, run.y)
    assert again.at(np.array([[0.0, 0.0, 1.0]]), t=0.5).shape == (1, 1)


NARROW = af.Gaussian([0.0], [[1e-4]])


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: MeanField(F, NORMAL), "layer must be an attnflow.Attention"),
        (lambda: MeanField(attention(0.1), "normal"), "density must be an attnflow density"),
        (lambda: MeanField(attention(0.1), af.Gaussian([0.0, 0.0], np.eye(2))), "density must live on the space of f"),
        (lambda: MeanField(af.Attention(F, 0.1, residual=0.5), NORMAL), "layer must have residual 1"),
        (lambda: MeanField(af.Attention(af.SquaredDistance(af.Circle()), 0.1), af.VonMises(1.0)), "density must live on Euclidean or Sphere"),
        (lambda: MeanField(af.Attention(af.DotProduct(), 0.1), af.Uniform(af.Sphere(3))), "of dimension 1 or 2"),
        (lambda: MeanField(attention(0.1, af.DensityCorrected(1.5)), NORMAL), r"layer must not spread tokens \(alpha <= 1\)"),
        (lambda: MeanField(attention(0.1), NORMAL).solve(-1.0), "t must be a time >= 0"),
        (lambda: MeanField(attention(0.1), NORMAL).solve(1.0, rtol=0.0), "rtol must be positive"),
        (lambda: MeanField(attention(0.1), NORMAL).solve(1.0, grid=100), "grid must have at least 2 cells per kernel width .* got 1.7.* ill-posed"),
        (lambda: MeanField(attention(0.1), NORMAL).solve(1.0, grid=4), "grid must have at least 8 cells"),
        (lambda: MeanField(attention(0.1), NORMAL).solve(1.0, grid=(100, 100)), "grid must have one size"),
        (lambda: MeanField(attention(1e-6), NORMAL).solve(1.0), "grid must be given: epsilon = 1e-06"),
        (lambda: MeanField(attention(1.0), NARROW).solve(1.0, grid=9), "grid must resolve the density"),
        (lambda: MeanField(af.Attention(af.DotProduct(), 0.1), NORMAL).solve(1.0), "x'Wx must be constant"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_waves_of_the_start_between_the_cells_are_in_the_estimate():
    density = af.Density(af.Sphere(1), lambda x: 0.5 * np.cos(64 * np.arctan2(x[..., 1], x[..., 0])))
    equation = MeanField(af.Attention(af.DotProduct(), 0.5), density)
    with pytest.raises(ValueError, match="grid must resolve the density"):
        equation.solve(0.1, grid=64)
    assert equation.solve(0.1).stats["grid"][0] >= 512
