"""Walls that let through a given flux, or one in proportion to the features: Neumann's and Robin's conditions."""

import numpy as np
import pytest
import sympy
from scipy.optimize import brentq

import attnflow as af
from attnflow.pde import DriftDiffusion, Heat

ROD = af.Box([(0, np.pi)])


def tilted(b):
    return DriftDiffusion(af.Density(ROD, lambda x: b * x[..., 0]))


def zero(x):
    return 0 * x[:, 0]


def slope(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("method", ["spectral", "chebyshev", "rational"])
def test_a_flux_in_and_a_leak_out_reach_their_steady_state(method):
    b, flux, leak, push = 0.5, 0.7, 1.3, 2.0  # H'' + 2 b H' = 0, -H'(0) = flux, H'(pi) + leak H(pi) = push
    H = tilted(b).solve(zero, 60.0, boundary=(("neumann", flux), ("robin", leak, push)), method=method)
    slope, end = flux / (2 * b), np.exp(-2 * b * np.pi)
    level = (push + 2 * b * slope * end) / leak - slope * end
    x = np.linspace(0, np.pi, 20)
    assert H.at(x[:, None])[:, 0] == pytest.approx(level + slope * np.exp(-2 * b * x), abs=1e-8)


def robin_rates(h, count):
    """The least rates of -H'' where -H'(0) + h H(0) = 0 = H'(pi) + h H(pi): H = cos k x + h sin(k x) / k, k^2 the rate."""

    def mismatch(rate):
        k = np.emath.sqrt(rate)
        return np.real(2 * h * np.cos(k * np.pi) + (h**2 - rate) * np.sin(k * np.pi) / k)

    ends = np.linspace(-3.0, 30.0, 1000)
    crossing = np.flatnonzero(np.sign(mismatch(ends[:-1])) != np.sign(mismatch(ends[1:])))
    return np.array([brentq(mismatch, ends[i], ends[i + 1], xtol=1e-14) for i in crossing[:count]])


@pytest.mark.parametrize("h", [0.8, -0.8])
@pytest.mark.filterwarnings("ignore::attnflow.checks.GrowthWarning")
def test_robin_eigenvalues_solve_their_transcendental_equation(h):
    exact = -robin_rates(h, 3)
    spectrum = Heat(ROD).spectrum(3, boundary=("robin", h, 7.0))  # whatever is held
    assert spectrum.eigenvalues == pytest.approx(exact, abs=1e-9)
    assert spectrum.estimated_error < 1e-9 and spectrum.gap == pytest.approx(-exact[0], abs=1e-9)
    sizes = np.array([32, 64, 128])
    cells = [Heat(ROD).spectrum(3, grid=int(n), boundary=("robin", h, 0.0)) for n in sizes]
    errors = [np.abs(found.eigenvalues - exact).max() for found in cells]
    assert slope(sizes, errors) == pytest.approx(2, abs=0.1)
    worst = np.abs(cells[-1].eigenvalues / exact - 1).max()
    assert worst < 1.2 * cells[-1].estimated_error < 2 * worst


@pytest.mark.filterwarnings("ignore::attnflow.checks.AttnflowWarning")
def test_refined_cells_find_robin_eigenvalues_where_the_density_has_a_kink():
    """log p = -3 |x - 1.1|; the eigenfunctions satisfy u'' -+ 6 u' = -lambda u and are matched at the kink."""
    kinked = DriftDiffusion(af.Density(ROD, lambda x: -3 * np.abs(x[..., 0] - 1.1)))
    for h in (0.5, -0.5):
        found = kinked.spectrum(2, boundary=("robin", h, 0.0))

        def mismatch(rate, h=h):
            def shoot(length, drift):
                root = np.emath.sqrt(drift**2 / 4 - rate)  # u = e^(-drift x / 2) (cosh + .. sinh), u(0) = 1, u' = h
                c, s = np.cosh(root * length), np.sinh(root * length) / root
                u = c + (h + drift / 2) * s
                return np.real(u), np.real(root**2 * s + (h + drift / 2) * c - drift / 2 * u)

            (u, du), (v, dv) = shoot(1.1, 6.0), shoot(np.pi - 1.1, 6.0)
            return u * dv + v * du

        for size in -found.eigenvalues:
            width = max(2e-3 * abs(size), 1e-6)
            assert mismatch(size - width) * mismatch(size + width) < 0


@pytest.mark.parametrize("method, tolerance", [("spectral", 1e-9), ("finite-volume", 1e-4)])
def test_an_annulus_that_cools_at_both_walls(method, tolerance):
    """H = (A r + B / r) cos theta: -H_r + H / 2 = 0 at r = 1 and H_r + 2 H = cos theta at r = 2."""
    r = sympy.Symbol("x0")
    annulus = af.Chart(sympy.diag(1, r**2), [(1, 2), (0, 2 * np.pi)], periodic=(False, True))
    walls = [(("robin", 0.5, 0.0), ("robin", lambda x: 2 + 0 * x[..., 0], lambda x: np.cos(x[:, 1]))), None]
    H = Heat(annulus).solve(zero, 40.0, boundary=walls, rtol=tolerance, method=method)
    A, B = np.linalg.solve([[-1 + 0.5, 1 + 0.5], [1 + 4, -1 / 4 + 1]], [0, 1])
    x = np.random.default_rng(0).uniform(1, 2, (20, 2))
    assert H.at(x)[:, 0] == pytest.approx((A * x[:, 0] + B / x[:, 0]) * np.cos(x[:, 1]), abs=tolerance)


@pytest.mark.parametrize("method", ["spectral", "finite-volume"])
def test_a_cube_with_one_leaking_wall(method):
    k = robin_rates(0.8, 1)[0] ** 0.5
    cube = Heat(af.Box([(0, np.pi / 2), (0, 1), (0, 1)]))  # even about pi/2, where it is cut

    def mode(x):
        return np.cos(k * (x[:, 0] - np.pi / 2)) * np.cos(np.pi * x[:, 1])

    boundary = [(("robin", 0.8, 0.0), "no-flux"), "no-flux", ("neumann", 0.0)]
    H = cube.solve(mode, 0.1, boundary=boundary, rtol=1e-3, method=method)
    x = np.random.default_rng(0).uniform(0, 1, (30, 3))
    assert H.at(x)[:, 0] == pytest.approx(np.exp(-0.1 * (k**2 + np.pi**2)) * mode(x), abs=1e-3)


def oblique():
    def metric(x):
        g = np.empty((*x.shape, 2))
        g[..., 0, 0], g[..., 1, 1] = 1.5 + 0.4 * np.sin(x[..., 0]), 1.2 + 0.3 * np.cos(x[..., 1])
        g[..., 0, 1] = g[..., 1, 0] = 0.4 + 0.2 * np.cos(x[..., 0] - x[..., 1])
        return g

    channel = af.Chart(metric, [(0, 2 * np.pi), (0, 2.0)], periodic=(True, False))
    return DriftDiffusion(af.Density(channel, lambda x: 0.5 * np.cos(x[..., 0]) - 0.3 * x[..., 1]))


@pytest.mark.parametrize("b", [0.0, lambda x: 1.5 + np.sin(x[..., 0])], ids=["neumann", "robin"])
def test_fluxes_through_oblique_walls_are_of_second_order(b):
    pde, walls = oblique(), ("robin", b, lambda x: np.cos(x[:, 0]))

    def initial(x):
        return np.cos(x[:, 0]) * (1 + np.sin(np.pi * x[:, 1] / 2) ** 4)

    reference = pde.solve(initial, 0.3, rtol=1e-6, method="spectral", boundary=walls)
    sizes, errors = np.array([16, 32, 64]), []
    for n in sizes:
        run = pde.solve(initial, 0.3, grid=(2 * int(n), int(n)), method="finite-volume", boundary=walls)
        errors.append(np.abs(run.y - reference.at(run.grid.points).reshape(run.y.shape)).max())
    assert slope(sizes, errors) == pytest.approx(2, abs=0.1)


def test_what_flows_in_is_what_there_is_more():
    """d/dt of the integral of H p^2 dvol is that of p^2 g dS: to round-off on cells, to the quadrature on nodes."""
    pde = oblique()
    walls = [None, (("neumann", lambda x: np.cos(x[:, 0]) + 0.5), ("neumann", lambda x: x[:, 0] * 0 - 0.2))]
    x = np.stack([np.linspace(0, 2 * np.pi, 400, endpoint=False), np.zeros(400)], axis=1)
    flux = 0.0
    for end, g in ((0.0, np.cos(x[:, 0]) + 0.5), (2.0, -0.2 * np.ones(400))):
        x[:, 1] = end  # dS is the length along the wall, sqrt(g_00) dx
        length = np.sqrt(pde.space.metric(x)[:, 0, 0])
        flux += (np.exp(2 * pde.density.log_pdf(x)) * length * g).sum() * 2 * np.pi / 400
    for options, tolerance in (({"grid": (48, 16), "method": "finite-volume"}, 1e-12), ({"method": "spectral"}, 1e-8)):
        run = pde.solve(lambda x: np.sin(x[:, 1]), [0.0, 0.3, 2.0], boundary=walls, rtol=1e-6, **options)
        weight = np.exp(pde.log_weight(run.grid.points)) * run.grid.weights
        mass = run.y.reshape(3, -1) @ weight
        assert mass[1:] - mass[0] == pytest.approx(flux * np.array([0.3, 2.0]), rel=1e-4 if options.get("grid") else tolerance)
        assert (mass[2] - mass[0]) / (mass[1] - mass[0]) == pytest.approx(2 / 0.3, rel=tolerance)


def test_the_normal_has_unit_length_in_the_metric_whatever_the_mobility_and_the_form():
    """p^2 H' = -flux p(0)^2 stands, with any mobility: walls know of the metric only."""
    p = af.Density(ROD, lambda x: 0.5 * x[..., 0])
    mobile = DriftDiffusion(p, mobility=lambda x: 2 + np.sin(x[..., 0]))
    walls, x = (("neumann", 0.7), ("robin", 1.3, 2.0)), np.linspace(0, np.pi, 9)[:, None]
    expected = DriftDiffusion(p).solve(zero, 60.0, boundary=walls).at(x)
    for method in ("spectral", "finite-volume"):
        assert mobile.solve(zero, 60.0, boundary=walls, method=method).at(x) == pytest.approx(expected, abs=1e-7)
        runs = [pde(p).solve(zero, 0.4, boundary=walls, method=method) for pde in (DriftDiffusion, af.ConformalHeat)]
        assert runs[1].at(x) == pytest.approx(runs[0].at(x), abs=1e-7)


def test_a_flux_may_change_in_time_and_differ_between_columns():
    def pushed(x, t):
        return np.exp(-t) * np.sin(x + 0.3) * np.where(x > 1, -1, 1)

    H = Heat(ROD).solve(lambda x: np.cos(x[:, 0] + 0.3), [0.2, 0.5], boundary=("neumann", pushed), rtol=1e-5)
    x = np.linspace(0, np.pi, 20)
    assert H.at(x[:, None])[:, 0] == pytest.approx(np.exp(-0.5) * np.cos(x + 0.3), abs=1e-5)
    two = Heat(ROD).solve(lambda x: np.stack([x[:, 0]] * 2, axis=1), 60.0, boundary=("robin", 1.0, [1.0, 3.0]))
    assert two.y == pytest.approx(np.broadcast_to([1.0, 3.0], two.y.shape), abs=1e-8)


def test_winds_and_heads_have_such_walls_too():
    p, walls, x = af.Density(ROD, lambda x: 0.5 * x[..., 0]), (("neumann", 0.7), ("robin", 1.3, 2.0)), [[0.0], [1.0], [3.0]]
    expected = DriftDiffusion(p).solve(np.cos, 0.5, boundary=walls).at(x)
    wind = af.General(af.Uniform(ROD), np.ones_like, drift=0.0)  # 2 grad log p = 1
    assert wind.solve(np.cos, 0.5, boundary=walls, rtol=1e-5).at(x) == pytest.approx(expected, abs=1e-5)
    heads = af.Heads([DriftDiffusion(p)] * 2, [0.25, 0.75])
    assert heads.solve(np.cos, 0.5, boundary=walls, rtol=1e-5).at(x) == pytest.approx(expected, abs=1e-5)


def test_no_flux_is_neumann_of_zero():
    runs = [tilted(0.5).solve(np.cos, 0.5, boundary=b).y for b in (None, ("neumann", 0.0), ("robin", 0.0, 0.0))]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])


def test_walls_that_let_features_grow_are_said_to():
    rate = -robin_rates(-0.8, 1)[0]
    for method in ("spectral", "chebyshev", "rational"):
        with pytest.warns(
            af.checks.GrowthWarning, match=r"features grow as exp\(0.811 t\): boundary's coefficient b is negative"
        ):
            H = Heat(ROD).solve(lambda x: x[:, 0], [10.0, 20.0], boundary=("robin", -0.8, 0.3), method=method)
        assert H.stats["growth"] == pytest.approx(rate, rel=1e-4)
        assert np.log(H.y[1] / H.y[0]).mean() / 10 == pytest.approx(rate, rel=1e-3)
        with pytest.warns(af.checks.GrowthWarning):  # though g = b H holds this one where it is
            flat = Heat(ROD).solve(lambda x: np.full(len(x), -0.375), 5.0, boundary=("robin", -0.8, 0.3), method=method)
        assert flat.y == pytest.approx(-0.375, abs=1e-7)
        with pytest.raises(ValueError, match="t must be at most 61[67]"):
            Heat(ROD).solve(np.cos, 1e4, boundary=("robin", -0.8, 0.0), method=method)
    with pytest.warns(af.checks.GrowthWarning, match="features grow"):
        Heat(ROD).spectrum(2, boundary=("robin", -0.8, 0.0))
    with pytest.warns(af.checks.GrowthWarning, match="features may grow"):
        af.Heads([Heat(ROD)], [1.0]).solve(np.cos, 0.1, boundary=("robin", -0.8, 0.0), rtol=1e-3)


@pytest.mark.parametrize("method", ["spectrum", "spectral", "finite-volume", "chebyshev"])
def test_next_to_a_critical_coefficient_growth_is_said_where_it_can_be_told(method, recwarn):
    e = np.e  # L = d^2 + d, neutral H = 2 - exp(-x): b = 1 at 0, and at 1 where H' + b H = 0
    critical = -1 / (2 * e - 1)
    slope = e * (2 - 1 / e) ** 2 / (4 * (e - 1) - 4 + 1 - 1 / e)  # of the rate, by w H^2 at the wall over its integral
    pde = DriftDiffusion(af.Density(af.Box([(0, 1)]), lambda x: 0.5 * x[..., 0]))
    for lowered, said in ((1e-4, "features grow as"), (0.0, "cannot be told from 0"), (-1e-4, None)):
        walls = (("robin", 1.0, 0.0), ("robin", critical - lowered, 0.0))
        if method == "spectrum":
            found = pde.spectrum(2, boundary=walls)
            doubt = found.estimated_error * abs(found.eigenvalues[0])
            low, high = found.eigenvalues[0] + np.array([-doubt, doubt])
        else:
            initial = lambda x: 2 - np.exp(-x[:, 0])  # noqa: E731
            low, high = pde.solve(initial, 1.0, boundary=walls, method=method).stats["growth_between"]
        assert low - 1e-8 <= slope * lowered <= high + 1e-8 and high - low < 1e-4  # second order in `lowered`
        told = [str(warning.message) for warning in recwarn if warning.category is af.checks.GrowthWarning]
        assert (said is None and not told) or said in told[0]
        recwarn.clear()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"method": "BDF"}, r"grow as exp\(0.811 t\)"),
        ({"boundary": ("robin", -0.8, lambda x, t: t * x[:, 0])}, r"grow as exp\(0.811 t\)"),
        ({"source": lambda x, t, H: -(H**3)}, "may grow"),
    ],
)
def test_solvers_in_time_say_so_too(options, said):
    with pytest.warns(af.checks.GrowthWarning, match=said):
        H = Heat(ROD).solve(np.cos, 0.3, **{"boundary": ("robin", -0.8, 0.0), "rtol": 1e-3, **options})
    assert H.stats["growth"] == pytest.approx(-robin_rates(-0.8, 1)[0], rel=1e-2)


def test_a_negative_coefficient_beside_a_held_wall_need_not_feed_growth(recwarn):
    H = Heat(ROD).solve(np.cos, 1.0, boundary=(("dirichlet", 0.0), ("robin", -0.1, 0.0)))
    assert H.stats["growth"] == 0.0 and not [w for w in recwarn if issubclass(w.category, af.checks.GrowthWarning)]


@pytest.mark.parametrize(
    "boundary, error, message",
    [
        (("robin", 1.0), ValueError, "boundary must be 'no-flux'"),
        (("neumann", 1.0, 2.0), ValueError, "boundary must have one entry"),
        (("neumann", "in"), TypeError, "boundary's flux g must be"),
        (("neumann", lambda x: np.ones(7)), ValueError, "boundary's flux g.*must have shape"),
        (("robin", "b", 0.0), TypeError, "boundary's coefficient b must be a real number"),
        (("robin", np.inf, 0.0), ValueError, "boundary's coefficient b must be finite"),
        (("robin", lambda x: np.ones((len(x), 1)), 0.0), ValueError, "boundary's coefficient b must return shape"),
        (("robin", lambda x: -np.inf * x[..., 0], 0.0), ValueError, "boundary's coefficient b.*must be finite"),
        (("robin", 1.0, [1.0, 2.0]), ValueError, "boundary's flux g must have 1 column"),
    ],
)
def test_bad_walls_are_refused_by_name(boundary, error, message):
    with pytest.raises(error, match=message):
        Heat(af.Box([(1, 2)])).solve(zero, 0.1, boundary=boundary)


def test_walls_where_there_are_none_and_cells_as_long_as_walls_feed_are_refused():
    with pytest.raises(ValueError, match="boundary must be None on a space without walls"):
        DriftDiffusion(af.VonMises(1.0)).solve(np.cos, 0.1, boundary=("robin", 1.0, 0.0))
    with pytest.raises(ValueError, match="grid must resolve the walls"):
        Heat(ROD).solve(np.cos, 0.1, grid=4, boundary=("robin", -3.0, 0.0))
