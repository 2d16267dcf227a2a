"""Sources and reactions: exact in time where they are s(x) + r(x) H, to the tolerance elsewhere."""

import numpy as np
import pytest

import attnflow as af
from attnflow.pde import DriftDiffusion, Heat
from attnflow.pde.timing import asked_times

CIRCLE, X = Heat(af.Circle()), np.linspace(0, 6, 20)[:, None]
ROD = Heat(af.Box([(0, np.pi)]))


def cos(x):
    return np.cos(x[..., 0])


def zero(x):
    return 0 * x[..., 0]


@pytest.mark.parametrize("method", ["spectral", "chebyshev", "rational"])
def test_a_rate_and_a_constant_source_are_exact_in_time(method):
    run = CIRCLE.solve(cos, [0.7, 3.0], source=lambda x, t, H: 2 - H, method=method)
    for t in (0.7, 3.0, 1.1):  # the last by dense output
        assert run.at(X, t)[:, 0] == pytest.approx(np.exp(-2 * t) * cos(X) + 2 * (1 - np.exp(-t)), abs=1e-9)
    fed = CIRCLE.solve(cos, 3.0, source=lambda x, t, H: 3 * H + 1, method=method)
    assert fed.at(X)[:, 0] == pytest.approx(np.exp(6.0) * cos(X) + np.expm1(9.0) / 3, abs=1e-8 * np.exp(9.0))
    assert fed.stats["growth"] == pytest.approx(3.0, abs=1e-9)


@pytest.mark.parametrize("method", ["spectral", "chebyshev", "rational"])
def test_a_steady_state_that_only_the_source_holds(method):
    """H = sin x, kept by s = -(L + r) H, though r = 0.5 + cos x lets everything else grow."""

    def source(x, t, H):
        rate = 0.5 + np.cos(x)
        return rate * (H - np.sin(x)) + np.sin(x) + 2 * np.sin(x) * np.cos(x)

    run = DriftDiffusion(af.VonMises(1.0)).solve(lambda x: np.sin(x[:, 0]), [0.5, 2.0], source=source, method=method)
    assert run.at(X)[:, 0] == pytest.approx(np.sin(X[:, 0]), abs=1e-9)
    assert run.stats["integrator"] in ("eigenvectors", method) and run.stats["growth"] > 1


def test_a_rate_of_two_dimensions_by_every_method():
    torus = af.Torus([2 * np.pi] * 2)
    pde = DriftDiffusion(af.Density(torus, lambda x: 0.3 * np.cos(x[..., 0] + x[..., 1])))

    def source(x, t, H):
        return np.cos(x[:, [0]]) * H + np.sin(x[:, [1]])

    runs = [
        pde.solve(cos, 0.5, source=source, rtol=1e-5, method=method) for method in ("spectral", "chebyshev", "rational", "BDF")
    ]
    x = np.random.default_rng(0).uniform(0, 6, (20, 2))
    for run in runs[1:]:
        assert run.at(x) == pytest.approx(runs[0].at(x), abs=1e-5)
    assert runs[0].stats["estimated_error"] < 1e-5


@pytest.mark.parametrize("boundary", [("dirichlet", 0.0), ("robin", 2.0, 0.0)])
@pytest.mark.parametrize("method", ["spectral", "chebyshev", "rational"])
def test_a_source_between_walls_reaches_its_parabola(boundary, method):
    run = ROD.solve(zero, 80.0, source=lambda x, t, H: 2 + 0 * H, boundary=boundary, method=method)
    x = np.linspace(0, np.pi, 9)
    rise = np.pi / 2 if boundary[0] == "robin" else 0.0  # pi leaves at each end, 2 H there
    assert run.at(x[:, None])[:, 0] == pytest.approx(x * (np.pi - x) + rise, abs=1e-7)


def test_what_is_added_is_what_there_is_more():
    pde = DriftDiffusion(af.VonMises(1.0))
    run = pde.solve(cos, [0.0, 1.0, 50.0], grid=32, method="rational", source=lambda x, t, H: np.sin(x) + 0.5 + 0 * H)
    weight = np.exp(2 * np.cos(run.grid.points[:, 0]))
    mass = run.y[..., 0] @ weight / weight.sum()
    assert mass - mass[0] == pytest.approx(0.5 * np.array([0.0, 1.0, 50.0]), rel=1e-12)


@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_a_nonlinear_reaction_with_a_forcing_that_moves(rtol):
    def source(x, t, H):
        H1 = np.exp(-t) * np.cos(x)
        return H1**2 - H**2

    run = CIRCLE.solve(cos, [0.5, 1.0], source=source, rtol=rtol)
    assert run.stats["integrator"] == "Radau"
    for t in (1.0, 0.7):
        assert run.at(X, t)[:, 0] == pytest.approx(np.exp(-t) * cos(X), abs=rtol)


def test_columns_that_react_fast_with_each_other():
    """They become one at the rate 800; implicit steps that did not know of it would have to be as short as that."""
    run = Heat(af.Torus([2 * np.pi] * 2)).solve(
        lambda x: np.stack([cos(x), zero(x)], axis=1), 1.0, source=lambda x, t, H: 400 * (H[:, ::-1] - H), rtol=1e-3
    )
    x = np.random.default_rng(0).uniform(0, 6, (20, 2))
    assert run.at(x) == pytest.approx(np.exp(-1) * cos(x)[:, None] * [0.5, 0.5], abs=1e-3)
    assert run.stats["evaluations"] < 500


def test_winds_heads_and_the_forward_equation_take_sources_too():
    p = af.VonMises(1.0)
    wind = af.General(p, lambda x: np.full(x.shape, 0.3))
    heads = af.Heads([DriftDiffusion(p), Heat(af.Circle())], [0.5, 0.5])
    for pde in (wind, heads):  # constants only react
        run = pde.solve(zero, 1.0, source=lambda x, t, H: 1 - H, rtol=1e-5)
        assert run.y == pytest.approx(1 - np.exp(-1), abs=1e-6)
    walkers = af.FokkerPlanck(p).solve(lambda x: 1 + 0 * x[:, 0], [0.0, 2.0], source=lambda x, t, rho: 0.1 - rho)
    born = 2 * np.pi * (0.1 + 0.9 * np.exp(-2.0))
    assert np.array(walkers.stats["mass"])[:, 0] == pytest.approx([2 * np.pi, born], rel=1e-9)


def test_on_a_sphere_and_a_line():
    x = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    run = Heat(af.Sphere(2)).solve(lambda x: x[:, 2], 0.5, source=lambda x, t, H: H + 1, rtol=1e-5)
    assert run.at(x)[:, 0] == pytest.approx(np.exp(-0.5) * x[:, 2] + np.exp(0.5) - 1, abs=1e-5)
    line = DriftDiffusion(af.Gaussian(0.0, 1.0)).solve(lambda x: x[:, 0], 1.0, source=lambda x, t, H: H)
    assert line.at([[1.0]])[0, 0] == pytest.approx(np.exp(-1), abs=1e-8)


def test_a_source_that_turns_out_not_to_be_affine_is_integrated_as_such():
    """Probes reach three times the first features; these grow a hundredfold, where the rate is cut off."""

    def source(x, t, H):
        return np.minimum(2 * H, 20.0)

    run = CIRCLE.solve(lambda x: 1 + zero(x), [1.0, 2.5], source=source, rtol=1e-4)
    start = np.log(10) / 2
    assert run.stats["integrator"] == "Radau"
    assert run.y[:, 0, 0] == pytest.approx([np.exp(2.0), 10 + 20 * (2.5 - start)], rel=1e-4)


@pytest.mark.parametrize("rate", [0.0, -1.0, None])
@pytest.mark.parametrize("on, off", [(0.37, 0.4), (0.901, 0.95), (0.5021, 0.5095)])
def test_a_source_that_is_on_for_part_of_the_time_is_seen(rate, on, off):
    """Constants only react: the pulse adds up, decaying at the rate, or with H^2 from a start at 0."""

    def source(x, t, H):
        return (5.0 if on < t < off else 0.0) + (rate * H if rate is not None else -(H**2))

    run = CIRCLE.solve(zero, 1.0, source=source, rtol=1e-6)
    length, after = off - on, 1.0 - off
    if rate is None:
        peak = np.sqrt(5) * np.tanh(np.sqrt(5) * length)
        expected = peak / (1 + peak * after)
    else:
        expected = 5 * length if rate == 0 else 5 * -np.expm1(-length) * np.exp(-after)
    assert run.y == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("times, k", [([1.0], 40), ([1.0], 151), ([0.25, 0.5, 1.0], None)])
def test_a_pulse_however_short_is_met_once_it_was_seen(times, k):
    middle = 0.25 if k is None else asked_times(np.array(times))[k]
    on, off = middle - 0.7e-4, middle + 1.3e-4

    def source(x, t, H):
        return (5e3 if on < t < off else 0.0) - H

    run = CIRCLE.solve(zero, times, source=source, rtol=1e-6)
    assert run.y[-1] == pytest.approx(-5e3 * np.expm1(on - off) * np.exp(off - 1.0), rel=2e-6)


def test_a_source_with_a_large_constant_is_affine_all_the_same():
    run = CIRCLE.solve(cos, 2.0, source=lambda x, t, H: 3e7 - 0.7 * H)
    assert run.stats["integrator"] != "Radau"
    expected = np.exp(-2 * 1.7) * cos(X) - 3e7 / 0.7 * np.expm1(-1.4)
    assert run.at(X)[:, 0] == pytest.approx(expected, rel=1e-11)


def test_blowing_up_is_said():
    with pytest.raises(RuntimeError, match=r"failed at t = 1.*the source may let features grow without bound"):
        CIRCLE.solve(lambda x: 1 + zero(x), 2.0, source=lambda x, t, H: H**2, rtol=1e-3)


def test_sources_have_the_size_of_the_features():
    tiny = CIRCLE.solve(lambda x: 1e-200 * cos(x), 0.7, source=lambda x, t, H: 2e-200 - H)
    assert tiny.at(X)[:, 0] / 1e-200 == pytest.approx(np.exp(-1.4) * cos(X) + 2 * (1 - np.exp(-0.7)), abs=1e-9)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"source": 3.0}, TypeError, "source must be callable"),
        (
            {"source": lambda x, t, H: H[:, 0]},
            ValueError,
            r"source must return shape \(16, 1\) for H of that shape, got \(16,\)",
        ),
        ({"source": lambda x, t, H: np.ones((3, 1))}, ValueError, "source must return shape"),
        ({"source": lambda x, t, H: H / 0 if t > 0.05 else H}, ValueError, "source must be finite"),
        ({"source": lambda x, t, H: "H"}, TypeError, "source"),
        ({"source": lambda x, t, H: H**2, "method": "spectral"}, ValueError, "method must be 'finite-volume' or 'auto'"),
        ({"source": lambda x, t, H: H**2, "method": "rational"}, ValueError, r"or the source not s\(x\) \+ r\(x\) H"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_sources_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        CIRCLE.solve(cos, 0.1, **arguments)
