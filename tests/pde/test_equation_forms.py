"""Heat form, forward equation, mobility, extra velocities and heads, against closed forms and each other."""

import numpy as np
import pytest
from scipy.special import ive

import attnflow as af

CIRCLE = af.Circle()


def h0(x):
    return np.sin(x[:, 0]) + np.cos(2 * x[:, 0])


def test_theorem_4_in_one_dimension():
    p = af.VonMises(1.0)
    heat, drift = af.ConformalHeat(p), af.DriftDiffusion(p)
    x = np.linspace(0, 6, 40)[:, None]
    a, b = (pde.solve(h0, 0.3, rtol=1e-8) for pde in (heat, drift))
    assert np.abs(a.at(x) - b.at(x)).max() < 1e-10
    cells = [pde.solve(h0, 0.3, grid=64, method="finite-volume").y for pde in (heat, drift)]
    assert np.abs(cells[0] - cells[1]).max() < 1e-12  # term by term the same scheme


@pytest.mark.parametrize("drift", [2.0, 1.0])
def test_theorem_4_in_three_dimensions(drift):
    torus = af.Torus([2 * np.pi] * 3)
    p = af.Density(torus, lambda x: 0.4 * np.cos(x[..., 0]) + 0.3 * np.sin(x[..., 1] - x[..., 2]))
    x = np.random.default_rng(0).uniform(0, 6, (30, 3))
    a, b = (
        pde.solve(lambda x: np.sin(x[:, 0] + x[:, 1]), 0.2, rtol=1e-6)
        for pde in (af.ConformalHeat(p, drift), af.DriftDiffusion(p, drift))
    )
    assert np.abs(a.at(x) - b.at(x)).max() < 1e-6


def test_the_heat_form_follows_a_line_of_tokens_to_its_tails():
    p = af.Gaussian(0.2, 0.49)
    x = np.array([[-0.5], [0.0], [0.4], [1.1]])
    exact = [0.902404523462279, 0.913296183755108, 0.873861343782559, 0.708552953230377]
    assert af.ConformalHeat(p).solve(lambda x: np.cos(x[:, 0]), 0.15).at(x)[:, 0] == pytest.approx(exact, abs=1e-8)


def test_there_is_no_heat_form_in_the_plane():
    plane = af.Density(af.Torus([1.0, 1.0]), lambda x: np.cos(2 * np.pi * x[..., 0]))
    with pytest.raises(ValueError, match="density must be constant in dimension 2.*DriftDiffusion"):
        af.ConformalHeat(plane)
    uniform = af.ConformalHeat(af.Uniform(af.Torus([2 * np.pi] * 2)))
    value = uniform.solve(lambda x: np.cos(x[:, 0]), 0.5).at(np.zeros((1, 2)))
    assert value == pytest.approx(np.exp(-0.5), abs=1e-8)


def test_the_forward_equation_tends_to_p_squared_not_p():
    p = af.VonMises(1.0)
    run = af.FokkerPlanck(p).solve(lambda x: 1 + 0.5 * np.sin(x[:, 0]), [0.0, 1.0, 30.0])
    x = np.linspace(0, 6, 20)[:, None]
    assert run.at(x)[:, 0] == pytest.approx(np.exp(2 * np.cos(x[:, 0]) - 2) / ive(0, 2), abs=1e-7)  # mass 2 pi
    assert run.at(x, 0.0)[:, 0] == pytest.approx(1 + 0.5 * np.sin(x[:, 0]), abs=1e-7)
    assert np.array(run.stats["mass"])[:, 0] == pytest.approx(2 * np.pi, rel=1e-12)


def test_the_forward_equation_is_the_adjoint_of_the_backward_one():
    p, H0 = af.VonMises(1.5), lambda x: np.cos(x[:, 0] - 1)
    forward = af.FokkerPlanck(p).solve(lambda x: np.exp(np.sin(x[:, 0])), 0.3, grid=81)
    backward = af.DriftDiffusion(p).solve(H0, 0.3, grid=81)
    x = forward.grid.points
    assert forward.y[0, :, 0] @ H0(x) == pytest.approx(np.exp(np.sin(x[:, 0])) @ backward.y[0, :, 0], rel=1e-12)


def test_walkers_in_a_harmonic_well_stay_gaussian():
    sigma2, mean, var, t = 0.5, 0.6, 0.1, 0.2
    run = af.FokkerPlanck(af.Gaussian(0.0, sigma2)).solve(
        lambda x: np.exp(-((x[:, 0] - mean) ** 2) / (2 * var)) / np.sqrt(2 * np.pi * var), t, rtol=1e-7
    )
    decay = np.exp(-2 * t / sigma2)  # dX = -2 X / sigma^2 dt + sqrt(2) dW
    m, v = mean * decay, var * decay**2 + sigma2 / 2 * (1 - decay**2)
    x = np.linspace(-1.5, 1.5, 30)[:, None]
    assert run.at(x)[:, 0] == pytest.approx(np.exp(-((x[:, 0] - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v), abs=1e-6)


def test_walls_that_bring_walkers_in_are_refused():
    pde = af.FokkerPlanck(af.Uniform(af.Box([(0, 1)])))
    for boundary in (("dirichlet", 1.0), ("neumann", 1.0), ("robin", 1.0, 1.0), ("dirichlet", np.sin)):
        with pytest.raises(ValueError, match="boundary must be 'no-flux', .*for a density"):
            pde.solve(lambda x: x[:, 0], 0.1, boundary=boundary)


def test_walkers_are_absorbed_at_their_rate():
    run = af.FokkerPlanck(af.Uniform(af.Box([(0, np.pi)]))).solve(
        lambda x: np.sin(x[:, 0]), [0.0, 0.7], boundary=("dirichlet", 0.0)
    )
    mass = np.array(run.stats["mass"])[:, 0]
    assert mass == pytest.approx([2, 2 * np.exp(-0.7)], rel=1e-6)


def test_mobility_conserves_p_squared_over_m():
    def m(x):
        return np.exp(0.5 * np.sin(x[..., 0]))

    p = af.VonMises(1.0)
    pde = af.DriftDiffusion(p, mobility=m)
    x = pde.space.grid(201).points
    weight = np.exp(2 * np.cos(x[:, 0])) / m(x)
    consensus = weight @ h0(x) / weight.sum()
    for method in ("spectral", "finite-volume"):
        assert pde.solve(h0, 60.0, method=method).y == pytest.approx(consensus, abs=1e-8)
    short = pde.solve(lambda x: np.cos(x[:, 0]), 1e-5, rtol=1e-11).at(np.array([[0.9]]))[0, 0]
    L = m(np.array([[0.9]]))[0] * (-np.cos(0.9) + 2 * np.sin(0.9) ** 2)
    assert (short - np.cos(0.9)) / 1e-5 == pytest.approx(L, rel=1e-4)


def test_mobility_is_refused_where_it_is_not_positive():
    with pytest.raises(ValueError, match="mobility must be positive"):
        af.DriftDiffusion(af.VonMises(1.0), mobility=lambda x: np.cos(x[..., 0]))
    with pytest.raises(ValueError, match="mobility must return shape"):
        af.DriftDiffusion(af.VonMises(1.0), mobility=lambda x: np.ones((len(x), 1)))


def test_a_constant_wind_carries_waves_in_the_plane():
    torus, k, c = af.Torus([2 * np.pi] * 2), np.array([1.0, 2.0]), np.array([0.7, -0.3])
    pde = af.General(af.Uniform(torus), lambda x: np.broadcast_to(c, x.shape))
    run = pde.solve(lambda x: np.stack([np.cos(x @ k), np.sin(x @ k)], axis=1), 0.2, rtol=1e-4)
    x = np.random.default_rng(0).uniform(0, 6, (20, 2))
    phase = (x + 0.2 * c) @ k
    assert np.abs(run.at(x) - np.exp(-1.0) * np.stack([np.cos(phase), np.sin(phase)], axis=1)).max() < 1e-4


def test_a_velocity_that_is_a_gradient_is_a_drift():
    p = af.VonMises(1.0)
    wind = af.General(af.Uniform(CIRCLE), lambda x: -2 * np.sin(x), drift=0.0)
    run, expected = wind.solve(h0, 0.4, rtol=1e-6), af.DriftDiffusion(p).solve(h0, 0.4)
    x = np.linspace(0, 6, 20)[:, None]
    assert np.abs(run.at(x) - expected.at(x)).max() < 1e-6


def test_heads_mix_columns():
    """Two heads on one circle, speeds 1 and 4 (half the period's metric), rotating the two columns into each other."""
    slow = af.Heat(CIRCLE)
    fast = af.DriftDiffusion(af.Uniform(CIRCLE), 0.0, mobility=lambda x: np.full(len(x), 4.0))
    W1, W2 = np.array([[0.5, 0.2], [0.0, 0.5]]), np.array([[0.5, -0.2], [0.0, 0.5]])
    run = af.Heads([slow, fast], [W1, W2]).solve(lambda x: np.stack([np.cos(x[:, 0])] * 2, axis=1), 0.3, rtol=1e-6)
    generator = -(W1 + 4 * W2)  # on the mode cos: dh/dt = h generator, h a row
    from scipy.linalg import expm

    x = np.linspace(0, 6, 20)[:, None]
    assert np.abs(run.at(x) - np.cos(x) * (np.ones(2) @ expm(0.3 * generator))).max() < 1e-6


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: af.Heads([af.Heat(CIRCLE)], [0.5, 0.5]), ValueError, "mixing must have one entry per equation"),
        (lambda: af.Heads([], []), TypeError, "equations must be"),
        (lambda: af.Heads([af.Heat(CIRCLE)], [np.ones((2, 3))]), ValueError, "mixing must be numbers or square"),
        (lambda: af.Heads([af.Heat(CIRCLE), af.Heat(af.Circle(1.0))], [1, 1]), ValueError, "same coordinates"),
        (lambda: af.Heads([af.Heat(CIRCLE)], [np.eye(3)]).solve(h0, 0.1), ValueError, "initial must have the 3 columns"),
        (lambda: af.General(af.VonMises(1.0), lambda x: x[:, 0]), ValueError, "velocity must return shape"),
        (lambda: af.General(af.VonMises(1.0), lambda x: x * np.nan), ValueError, "velocity must be finite"),
        (lambda: af.General(af.VonMises(1.0), 3.0), TypeError, "velocity must be callable"),
        (lambda: af.General(af.VonMises(1.0), np.sin).solve(h0, 0.1, method="rational"), ValueError, "method must be 'auto'"),
    ],
)
def test_bad_heads_and_winds_are_refused_by_name(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_the_forward_operator_conserves_mass_and_is_the_one_that_is_solved():
    for space in (CIRCLE, af.Sphere(2), af.Chart(lambda x: (1 + x[..., 0] ** 2)[..., None, None], [(0, 1)])):
        p = af.Density(space, lambda x: np.sin(2 * x[..., 0]))
        forward, backward = (pde(p).operator(8) for pde in (af.FokkerPlanck, af.DriftDiffusion))
        assert np.abs(forward.sum(axis=0)).max() < 1e-11 * np.abs(forward).max()
        assert np.abs(backward.sum(axis=1)).max() < 1e-11 * np.abs(backward).max() < np.abs(forward.sum(axis=1)).max() * 1e-9
    p, grid = af.VonMises(1.0), 64
    rho = af.FokkerPlanck(p).solve(lambda x: 1 + np.sin(x[:, 0]), [0.0, 1e-6], grid=grid, method="finite-volume")
    rate = af.FokkerPlanck(p).operator(grid) @ rho.y[0, :, 0]
    np.testing.assert_allclose((rho.y[1] - rho.y[0])[:, 0] / 1e-6, rate, atol=1e-3 * np.abs(rate).max())


def test_the_forward_spectrum_has_the_invariant_density_in_front():
    """Of rates n, Hermite functions He_n p: harmonic oscillator, dX = -X dt + sqrt 2 dW."""
    spectrum = af.FokkerPlanck(af.Gaussian(0.0, 1.0), 1.0).spectrum(3)
    x = spectrum.grid.points[:, 0]
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    assert spectrum.eigenvalues == pytest.approx([0.0, -1.0, -2.0], abs=1e-9)
    for psi, polynomial in zip(spectrum.eigenfunctions, (1 + 0 * x, x, (x**2 - 1) / np.sqrt(2))):
        sign = np.sign(psi @ (polynomial * p))
        np.testing.assert_allclose(sign * psi, polynomial * p, atol=1e-8)
    wells = af.Density(CIRCLE, lambda x: 2 * np.cos(2 * x[..., 0]))
    sets = [pde(wells).spectrum(5).metastable_sets() for pde in (af.FokkerPlanck, af.DriftDiffusion)]
    np.testing.assert_array_equal(*sets)


def test_the_heat_form_has_the_spectrum_of_drift_diffusion_on_a_line_too():
    for p, k in ((af.Gaussian([0.0], [[1.0]]), 3), (af.VonMises(2.0), 5)):
        heat, drift = (pde(p).spectrum(k) for pde in (af.ConformalHeat, af.DriftDiffusion))
        np.testing.assert_allclose(heat.eigenvalues, drift.eigenvalues, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match="drift must be positive for a discrete spectrum on a line, got -1"):
        af.ConformalHeat(af.Gaussian([0.0], [[1.0]]), -1.0).spectrum(3)


def test_equations_are_equal_where_all_of_them_is():
    def one(x):
        return 0 * x + 1

    def two(x):
        return 0 * x + 2

    p = af.VonMises(1.0)
    assert af.General(p, one) == af.General(p, one) != af.General(p, two)
    assert "one" in repr(af.General(p, one)) and "two" in repr(af.General(p, two))
    parts = [af.Heat(CIRCLE)] * 2
    heads = [af.Heads(parts, [0.5, W]) for W in (0.5, 0.25, np.eye(2), 2 * np.eye(2))]
    assert all((a == b) == (a is b) for a in heads for b in heads) and "0.25" in repr(heads[1])
    assert len({af.General(p, one), af.General(p, one), af.General(p, two)}) == 2 and hash(heads[0]) == hash(heads[1])


def test_equations_that_are_not_self_adjoint_lack_operator_and_spectrum():
    for pde in (af.General(af.VonMises(1.0), lambda x: 0 * x), af.Heads([af.Heat(CIRCLE)], [1.0])):
        assert not hasattr(pde, "operator") and not hasattr(pde, "spectrum") and not isinstance(pde, af.DriftDiffusion)
    assert not isinstance(af.FokkerPlanck(af.VonMises(1.0)), af.DriftDiffusion)


def test_several_heads_say_in_which_weight_errors_are_measured():
    pde = af.Heads([af.DriftDiffusion(af.VonMises(1.0)), af.Heat(CIRCLE)], [0.5, 0.5])
    assert "weighted by p^2 of the first head" in pde.solve(h0, 0.1, grid=64).message


def test_the_heat_form_has_the_weight_of_drift_diffusion_and_its_eigenfunctions():
    x = np.linspace(0, 6, 7)[:, None]
    for p in (af.VonMises(1.0), af.Uniform(af.Torus((1, 2))), af.Gaussian(0.3, 0.5)):
        heat, drift = af.ConformalHeat(p), af.DriftDiffusion(p)
        at = x if p.space.dim == 1 else np.concatenate([x / 10, x / 5], axis=1)
        np.testing.assert_allclose(heat.log_weight(at), drift.log_weight(at), atol=1e-9)
    first = [pde(af.VonMises(1.0)).spectrum(2).eigenfunctions[0] for pde in (af.ConformalHeat, af.DriftDiffusion)]
    assert np.ptp(first[0]) < 1e-9 and first[0].mean() == pytest.approx(first[1].mean(), rel=1e-9)


def test_the_forward_equation_with_a_mobility():
    p, m = af.VonMises(1.0), lambda x: 1 + np.sin(x[..., 0]) / 2
    pde = af.FokkerPlanck(p, 2.0, m)
    spectrum = pde.spectrum(3)
    x, w = spectrum.grid.points, spectrum.grid.weights
    norms = spectrum.eigenfunctions**2 @ (w * m(x) / p.pdf(x) ** 2)
    np.testing.assert_allclose(norms, 1, rtol=1e-9)
    ratio = spectrum.eigenfunctions[0] * m(x) / p.pdf(x) ** 2
    assert np.ptp(ratio) < 1e-8 * ratio.max()
    assert "weighted by mobility p^-2" in pde.solve(lambda x: 1 + cos(x) / 2, 0.1, grid=64).message
    twice = spectrum.times(np.full(spectrum.grid.shape, 2.0))
    np.testing.assert_array_equal(twice.eigenfunctions, 2 * spectrum.eigenfunctions)


def cos(x):
    return np.cos(x[..., 0])
