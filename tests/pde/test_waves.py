"""Waves of any number are solved for, or their error is told: the check between the nodes, seen from outside."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, special

import attnflow as af
from attnflow.checks import AccuracyWarning

RTOL = 1e-6
phases = st.floats(0, 2 * np.pi)


def waves_on_a_line(space, numbers, phases):
    """Sums of cos(m x + phase), no-flux walls or none: initial values, and the solution's as a sum of cosines."""

    def initial(x):
        angle = np.arctan2(x[:, 1], x[:, 0]) if space == "S1" else x[:, 0]
        return np.stack([np.cos(m * angle + phase) for m, phase in zip(numbers, phases)], axis=1)

    return initial, lambda x, t: initial(x) * np.exp(-(np.array(numbers, dtype=float) ** 2) * t)


def solved(pde, initial, exact, t, points):
    """Error over the larger of claim and rtol, and whether there was a warning; in three columns and in their sum."""
    mixed = lambda x: np.concatenate([initial(x)[:, :2], 1e-8 * initial(x).sum(axis=1, keepdims=True)], axis=1)  # noqa: E731
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = pde.solve(mixed, t, rtol=RTOL)
    right, start = exact(points, t), mixed(points)
    right = np.concatenate([right[:, :2], 1e-8 * right.sum(axis=1, keepdims=True)], axis=1)
    error = np.sqrt(np.mean((run.at(points) - right) ** 2, axis=0) / np.mean(start**2, axis=0)).max()
    return error / max(run.stats["estimated_error"], RTOL), any(issubclass(w.category, AccuracyWarning) for w in caught)


def on_a_line(kind, numbers, phases, share):
    space = {"circle": af.Circle(), "S1": af.Sphere(1), "box": af.Box([(0, np.pi)])}[kind]
    phases = [0.0] * 3 if kind == "box" else phases
    x = np.random.default_rng(0).uniform(0, np.pi, (300, 1))
    points = np.concatenate([np.cos(x), np.sin(x)], axis=1) if kind == "S1" else x
    return solved(af.Heat(space), *waves_on_a_line(kind, numbers, phases), share / max(numbers) ** 2, points)


def on_the_torus(numbers, phases, share):
    sides = np.array([2 * np.pi, 2 * np.pi])

    def initial(x):
        return np.stack([np.cos(x @ m + phase) for m, phase in zip(numbers, phases)], axis=1)

    rates = np.array([m @ m for m in np.array(numbers, dtype=float)])
    points = np.random.default_rng(0).uniform(0, 2 * np.pi, (200, 2))
    return solved(af.Heat(af.Torus(sides)), initial, lambda x, t: initial(x) * np.exp(-rates * t), share / rates.max(), points)


def on_the_sphere(degrees, seed, share):
    poles = np.random.default_rng(seed).normal(size=(3, 3))
    poles /= np.linalg.norm(poles, axis=1, keepdims=True)
    rates = np.array([n * (n + 1.0) for n in degrees])

    def initial(x):
        return np.stack([special.eval_legendre(n, np.clip(x @ p, -1, 1)) * np.sqrt(n) for n, p in zip(degrees, poles)], axis=1)

    points = np.random.default_rng(1).normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return solved(af.Heat(af.Sphere(2)), initial, lambda x, t: initial(x) * np.exp(-rates * t), share / rates.max(), points)


lines = st.tuples(
    st.sampled_from(["circle", "S1", "box"]), st.lists(st.integers(1, 2000), min_size=3, max_size=3),
    st.lists(phases, min_size=3, max_size=3), st.floats(1e-3, 1),
)  # fmt: skip
pairs = st.tuples(st.integers(0, 130), st.integers(1, 130)).map(np.array)
tori = st.tuples(st.lists(pairs, min_size=3, max_size=3), st.lists(phases, min_size=3, max_size=3), st.floats(1e-3, 1))
spheres = st.tuples(st.lists(st.integers(1, 128), min_size=3, max_size=3), st.integers(0, 999), st.floats(1e-3, 1))


def hold(case, arguments):
    ratio, _ = case(*arguments)
    assert ratio < 3


@settings(max_examples=35, deadline=None, derandomize=True)
@given(lines)
@pytest.mark.slow
def test_no_wave_on_a_line_is_wrong_by_more_than_is_said(arguments):
    hold(on_a_line, arguments)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(tori)
@pytest.mark.slow
def test_no_wave_on_the_torus_is_wrong_by_more_than_is_said(arguments):
    hold(on_the_torus, arguments)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(spheres)
def test_no_harmonic_is_wrong_by_more_than_is_said(arguments):
    hold(on_the_sphere, arguments)


def random_case(rng):
    share, angles = rng.uniform(1e-3, 1), rng.uniform(0, 2 * np.pi, 3).tolist()
    kind = rng.choice(["circle", "S1", "box", "torus", "sphere"])
    if kind == "torus":
        return on_the_torus(list(rng.integers(1, 131, (3, 2))), angles, share)
    if kind == "sphere":
        return on_the_sphere(rng.integers(1, 129, 3).tolist(), int(rng.integers(999)), share)
    return on_a_line(kind, rng.integers(1, 2001, 3).tolist(), angles, share)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))  # as many parts, for as many processes
def test_hundreds_of_random_waves_are_right_and_few_are_warned_of(seed):
    rng = np.random.default_rng(seed)
    ratios, warned = zip(*(random_case(rng) for _ in range(110)))
    assert max(ratios) < 3 and np.mean(warned) < 0.1


def test_a_wave_beyond_the_finest_cells_is_told():
    m, t = 200_003, 1e-12
    with pytest.warns(AccuracyWarning):
        run = af.Heat(af.Box([(0, np.pi)])).solve(lambda x: np.cos(m * x[:, 0]), t)
    assert run.stats["estimated_error"] > 0.1


@pytest.mark.parametrize("method", ["auto", "spectral", "finite-volume"])
@pytest.mark.parametrize("size", [64, 100])
def test_waves_that_a_given_grid_cannot_hold_are_in_its_estimate(method, size):
    run = af.Heat(af.Circle()).solve(lambda x: np.cos(64 * x[:, 0]), 1e-6, grid=size, method=method)
    assert run.stats["estimated_error"] > 0.3


def test_fast_waves_of_density_and_metric_are_seen():
    fast = af.Chart(lambda x: (1 + 0.5 * np.cos(64 * x[..., 0]))[..., None, None], [(0, 2 * np.pi)], periodic=True)
    for pde in (af.Heat(fast), af.DriftDiffusion(af.Density(af.Circle(), lambda x: np.cos(64 * x[..., 0])))):
        for method in ("spectral", "finite-volume"):
            run = pde.solve(lambda x: np.cos(x[:, 0]), 0.1, grid=64, method=method)
            assert run.stats["estimated_error"] > 0.05


@pytest.mark.parametrize("m", [600, pytest.param(1000, marks=pytest.mark.slow)])
def test_fast_waves_of_a_weight_are_solved_as_said(m):
    """H = sum_j h_j exp(i (1 + m j) x) for the weight exp(cos(m x)): a system of Bessel functions."""
    j = np.arange(-20, 21)
    weight, k = special.iv(j[:, None] - j, 1.0), 1.0 + m * j
    rates, modes = linalg.eigh(k[:, None] * weight * k, weight)
    h = modes @ (np.exp(-0.5 * rates) * (modes.T @ weight[:, 20]))
    x = 2 * np.pi * np.random.default_rng(m).random(2000)
    pde = af.DriftDiffusion(af.Density(af.Circle(), lambda x: 0.5 * np.cos(m * x[..., 0])))
    solution = pde.solve(lambda x: np.cos(x[:, 0]), 0.5, rtol=1e-6)
    w = np.exp(np.cos(m * x))
    error = solution.at(x[:, None])[:, 0] - (np.exp(1j * np.outer(x, k)) @ h).real
    assert np.sqrt(np.sum(w * error**2) / np.sum(w * np.cos(x) ** 2)) < max(1e-6, 3 * solution.stats["estimated_error"])


def test_the_weighted_mean_under_a_narrow_weight_is_that_of_bessel_functions():
    x = np.array([[0.3], [0.0]])
    run = af.DriftDiffusion(af.VonMises(5000.0)).solve(lambda x: np.cos(x[:, 0]), t=100.0)
    assert run.at(x)[:, 0] == pytest.approx(0.9999499987498750, abs=1e-10)


def test_sums_of_operators_along_the_axes_are_finite_volumes_too():
    p = af.Density(af.Box([(0, 1), (0, 1)]), lambda x: x[..., 0] ** 2 + np.sin(3 * x[..., 1]))
    x = np.random.default_rng(0).uniform(0.1, 0.9, (50, 2))
    values = lambda x: np.cos(np.pi * x[:, 0]) + x[:, 1] ** 2  # noqa: E731
    walls = [None, ("no-flux", ("dirichlet", 1.0))]
    for boundary in (None, walls):
        modes, cells = (
            af.DriftDiffusion(p).solve(values, 0.05, boundary=boundary, rtol=1e-5, method=m)
            for m in ("spectral", "finite-volume")
        )
        assert modes.stats["integrator"] == "eigenvectors"
        assert np.abs(modes.at(x) - cells.at(x)).max() < 1e-4


def test_an_array_of_cell_values_is_never_taken_for_nodes():
    cells, points = 256, np.random.default_rng(3).random((50, 2))
    x = (np.arange(cells) + 0.5) / cells
    start = np.broadcast_to(np.cos(70 * np.pi * x)[:, None], (cells, cells))
    run = af.Heat(af.Box([(0, 1)] * 2)).solve(start, 1e-7, grid=(cells, cells), rtol=1e-4)
    exact = np.exp(-((70 * np.pi) ** 2) * 1e-7) * np.cos(70 * np.pi * points[:, 0])
    error = np.sqrt(np.mean((run.at(points)[:, 0] - exact) ** 2) / np.mean(exact**2))
    assert error < 3 * run.stats["estimated_error"] < 0.1


def test_a_metric_that_aliases_on_given_nodes_is_in_the_estimate():
    def metric(x):
        s = np.cos(1419 * x[..., 0])
        return np.stack([np.exp(s), 0 * s, 0 * s, np.exp(-s)], axis=-1).reshape(*x.shape, 2)

    chart = af.Chart(metric, [(0, 2 * np.pi)] * 2, periodic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        run = af.Heat(chart).solve(lambda x: np.cos(x[..., 0]), 0.1, grid=33, method="spectral")
    assert run.stats["estimated_error"] > 0.1
