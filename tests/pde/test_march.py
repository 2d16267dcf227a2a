"""Every integrator on the same operator, what it shares between output times, and what an interruption leaves."""

import types

import numpy as np
import pytest
from scipy.linalg import expm

import attnflow as af
from attnflow.pde import chebyshev
from attnflow.pde.volumes import march, stencil

TIMES = [0.0, 0.01, 0.3, 4.0]


def initial(x):
    return np.stack([np.sin(np.pi * x[:, 0]) + np.cos(np.pi * x[:, -1]), np.cos(2 * np.pi * x[:, 0])], axis=1)


def oblique(dim=2):
    tensor = np.eye(dim) + 0.3 * (np.eye(dim, k=1) + np.eye(dim, k=-1))
    space = af.Chart(lambda x: np.broadcast_to(tensor, (*x.shape, dim)), [(0, 2.0)] * dim, [True] + [False] * (dim - 1))
    return af.DriftDiffusion(af.Density(space, lambda x: np.cos(np.pi * x[..., 0]) - (dim > 1) * 0.5 * x[..., -1]))


def exact(pde, grid, values, boundary=None):
    L = pde.operator(grid, boundary).toarray()
    return np.stack([(expm(t * L) @ values.reshape(len(L), -1)).reshape(values.shape) for t in TIMES])


@pytest.mark.parametrize("dim, grid", [(1, 12), (2, (6, 7)), (3, (4, 5, 3))])
@pytest.mark.parametrize("method", ["chebyshev", "rational"])
def test_integration_in_time_is_exact(dim, grid, method):
    pde = oblique(dim)
    run = pde.solve(initial, TIMES, grid=grid, method=method)
    assert run.stats["integrator"] == method
    assert np.abs(run.y - exact(pde, grid, run.y[0])).max() < 2e-13


@pytest.mark.parametrize("method, tolerance", [("BDF", 3e-7), ("Radau", 1e-7), ("RK45", 1e-7), ("DOP853", 1e-7)])
def test_solve_ivp_methods_are_as_accurate_as_asked(method, tolerance):
    cells = oblique().cells((6, 7), ((None, None), (None, None)), 2)
    start = initial(cells.grid.points).reshape(6, 7, 2)
    fields, stats = march.march(cells, start, np.array(TIMES), 1e-8, method)
    assert stats["integrator"] == method and stats["evaluations"] > 0
    assert np.abs(fields - exact(oblique(), (6, 7), start)).max() < tolerance


def test_dirichlet_walls_are_a_source_for_both_exact_integrators():
    pde, walls = oblique(), [None, (("dirichlet", 1.0), ("dirichlet", lambda x: np.sin(np.pi * x[:, 0])))]
    runs = [pde.solve(initial, TIMES, grid=(6, 7), method=m, boundary=walls).y for m in ("chebyshev", "rational")]
    assert np.abs(runs[0] - runs[1]).max() < 1e-12
    late = pde.solve(initial, 50.0, grid=(6, 7), method="rational", boundary=walls).y
    assert np.abs(late - runs[0][-1]).max() > 1e-6  # at t = 4 the walls' steady state is not reached
    assert np.abs(pde.solve(lambda x: 0 * initial(x), 50.0, grid=(6, 7), boundary=walls).y - late).max() < 1e-10


def test_a_wall_may_change_in_time():
    pde = af.Heat(af.Box([(0, np.pi)]))
    walls = (("dirichlet", lambda x, t: np.full(len(x), np.exp(-t))), ("dirichlet", lambda x, t: -np.exp(-t) * np.ones(len(x))))
    run = pde.solve(lambda x: np.cos(x[:, 0]), [0.2, 0.5], boundary=walls, rtol=1e-5)
    x = np.linspace(0, np.pi, 20)[:, None]
    assert run.stats["integrator"] == "Radau" or run.stats["integrator"] == "BDF"
    assert np.abs(run.at(x)[:, 0] - np.exp(-0.5) * np.cos(x[:, 0])).max() < 1e-5


def test_output_times_share_the_terms():
    pde = oblique()
    one = pde.solve(initial, 0.5, grid=24, method="chebyshev").stats["applications"]
    many = pde.solve(initial, np.linspace(0.01, 0.5, 50), grid=24, method="chebyshev").stats["applications"]
    assert many == one < 400


@pytest.mark.parametrize("z", [0.5, 40.0, 3000.0])
def test_chebyshev_coefficients_are_cut_off_where_they_say(z):
    c = chebyshev.coefficients(np.array([1.0]), 2 * z, 1e-12)[:, 0]
    x = np.linspace(-1, 1, 101)
    assert np.abs(np.polynomial.chebyshev.chebval(x, c) - np.exp(z * (x - 1))).max() < 2e-12
    assert len(c) < 9 * np.sqrt(z) + 24
    d = chebyshev.integral_coefficients(np.array([1.0]), 2 * z, 1e-12)[:, 0]
    scaled = z * (x[:-1] - 1)
    assert np.abs(np.polynomial.chebyshev.chebval(x[:-1], d) - np.expm1(scaled) / scaled).max() < 1e-11


def test_the_compiled_march_is_the_shifted_sum():
    cells = oblique(3).cells((4, 5, 6), ((None, None),) * 3)
    operator = march._Stencil(cells, "numpy")
    values, weights = np.random.default_rng(0).normal(size=(120, 2)), np.random.default_rng(1).normal(size=(9, 3))
    compiled, done = operator.sum(values, weights, False)
    shifted = operator._sum_shifted(values, weights, False)[0]
    assert done == 9 and np.abs(compiled - shifted).max() < 1e-12 * np.abs(shifted).max()
    operator.rates[0, 1, 2, 3] *= 1 + 1e-6
    assert np.abs(operator.sum(values, weights, False)[0] - shifted).max() > 1e-9


def fake_cupy():
    """NumPy under another name, with what CuPy has more: the code path is the one of the graphics card."""
    module = types.ModuleType("cupy")
    module.__dict__.update({k: v for k, v in vars(np).items() if not k.startswith("__")})
    module.asnumpy = np.asarray
    module.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    return module


@pytest.mark.parametrize("method", ["spectral", "chebyshev"])
def test_the_arrays_own_namespace_does_the_work(monkeypatch, method):
    monkeypatch.setitem(__import__("sys").modules, "cupy", fake_cupy())
    pde = oblique()
    boundary = [None, ("no-flux", ("dirichlet", 0.5))] if method == "spectral" else None
    here, there = (
        pde.solve(initial, [0.1, 0.2], grid=(9, 10), method=method, boundary=boundary, backend=b) for b in ("numpy", "cupy")
    )
    assert there.stats["integrator"] == "chebyshev"
    assert np.abs(here.y - there.y).max() < 1e-11


def test_without_cupy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(ImportError, match=r"attnflow\[gpu\]"):
        oblique().solve(initial, 0.1, backend="cupy")


def test_dense_output_at_any_time():
    for pde, method in ((oblique(1), "auto"), (oblique(), "finite-volume")):
        run = pde.solve(initial, [0.1, 0.3], method=method, rtol=1e-4)
        again = pde.solve(initial, [0.05, 0.1, 0.17, 0.3], method=method, rtol=1e-4)
        x = pde.space.probe_points(5)
        assert np.abs(run.at(x, [0.17, 0.1, 0.05]) - again.at(x, [0.17, 0.1, 0.05])).max() < 1e-6
        with pytest.raises(ValueError, match="t must be a saved time"):
            run.at(x, -0.1)


def interrupt_after(monkeypatch, calls):
    left = [calls]

    def advance(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return stencil.advance(*arguments)

    monkeypatch.setattr(march, "advance", advance)
    monkeypatch.setattr(march, "_CHUNK", 1e-7)  # a look at the keyboard every two terms


def test_an_interrupted_solution_has_the_times_that_were_finished(monkeypatch):
    pde = oblique()
    whole = pde.solve(initial, [0.001, 0.01, 0.5], grid=20, method="chebyshev")
    interrupt_after(monkeypatch, whole.stats["applications"] // 4)
    run = pde.solve(initial, [0.001, 0.01, 0.5], grid=20, method="chebyshev")
    assert run.status == 1 and "interrupted" in run.message
    assert 1 <= len(run.t) < 3 and np.abs(run.y - whole.y[: len(run.t)]).max() < 1e-14


def test_an_interrupted_refinement_keeps_its_last_finished_estimate(monkeypatch):
    pde = oblique()
    calls = [0]
    counted = stencil.advance
    monkeypatch.setattr(march, "advance", lambda *a: (calls.__setitem__(0, calls[0] + 1), counted(*a))[1])
    pde.solve(initial, 0.2, rtol=1e-4, method="finite-volume")
    left = [calls[0]]

    def advance(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return counted(*arguments)

    monkeypatch.setattr(march, "advance", advance)
    run = pde.solve(initial, 0.2, rtol=1e-13, method="finite-volume")
    assert run.status == 1 and run.t[0] == 0.2 and run.stats["estimated_error"] < 1e-3


def test_monitors_show_mass_and_the_way_to_the_steady_state():
    run = af.DriftDiffusion(af.VonMises(1.0)).solve(lambda x: np.cos(x[:, 0]), [0.0, 1.0, 4.0, 30.0])
    assert np.ptp(run.stats["mean"]) < 1e-13 and run.stats["mean"][0][0] == pytest.approx(0.6977746580, abs=1e-9)
    deviation = np.array(run.stats["deviation"])[:, 0]
    assert (np.diff(deviation) < 0).all() and deviation[-1] < 1e-12
    assert np.log(deviation[1] / deviation[2]) / 3 == pytest.approx(1.6473653985, rel=2e-2)
