"""Equations are linear and know no unit: what initial values and lengths are multiplied by changes nothing else."""

import warnings

import numpy as np
import pytest

import attnflow as af

CIRCLE, BOX, P = af.Circle(), af.Box([(0, 1)]), af.VonMises(1.0)
SIZES = [2.0**-900, 2.0**-530, 2.0**515, 2.0**1000]  # squares vanish, or overflow


def cos(x):
    return np.cos(x[..., 0])


def kink(x):
    return abs(x[..., 0] - 0.3)


@pytest.fixture(autouse=True)
def no_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        yield


def same(got, right):
    np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-12 * np.max(np.abs(right)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "pde, initial",
    [
        (af.DriftDiffusion(P), cos),
        (af.Heat(BOX), kink),
        (af.Heat(af.Sphere(2)), lambda x: x[..., 2] ** 2),
        (af.FokkerPlanck(P), lambda x: 1 + cos(x) / 2),
        (af.Heads([af.Heat(CIRCLE)] * 2, [0.25, 0.75]), cos),
    ],
)
def test_initial_values_of_any_size_are_solved_alike(pde, initial, size):
    right = pde.solve(initial, [0.05, 0.1], rtol=1e-6)
    run = pde.solve(lambda x: size * initial(x), [0.05, 0.1], rtol=1e-6)
    x = right.grid.points[:5]
    same(run.y / size, right.y)
    same(run.at(x, 0.07) / size, right.at(x, 0.07))
    np.testing.assert_allclose(run.error(x) / size, right.error(x), rtol=1e-6)
    same(run.stats["estimated_error"], right.stats["estimated_error"])
    for name in {"mean", "deviation", "mass"} & set(run.stats):
        np.testing.assert_allclose(np.array(run.stats[name]) / size, right.stats[name], rtol=1e-9, atol=1e-15)


def test_each_column_has_its_own_size():
    columns = lambda x: np.stack([cos(x) * 1e-290, 1 + cos(x), cos(x) * 1e290], axis=-1)  # noqa: E731
    run, alone = af.DriftDiffusion(P).solve(columns, 0.1), af.DriftDiffusion(P).solve(cos, 0.1)
    x = np.linspace(0, 6, 9)[:, None]
    same(run.at(x) / [1e-290, 1.0, 1e290] - [0.0, 1.0, 0.0], np.repeat(alone.at(x), 3, axis=1))


def test_walls_have_the_size_of_the_values_they_hold():
    for size in (1e-250, 1e250):
        for value in (size, lambda x, t: size * np.cos(t) + 0 * x[:, 0]):
            usual = 1.0 if value is size else lambda x, t: np.cos(t) + 0 * x[:, 0]
            wall = lambda v: ("no-flux", ("dirichlet", v))  # noqa: E731
            run = af.Heat(BOX).solve(lambda x: size * kink(x), 0.1, boundary=wall(value), rtol=1e-4)
            right = af.Heat(BOX).solve(kink, 0.1, boundary=wall(usual), rtol=1e-4)
            np.testing.assert_allclose(run.y / size, right.y, rtol=1e-9)
    run = af.Heat(BOX).solve(lambda x: 0 * x[:, 0], 100.0, boundary=("dirichlet", 1e-250))
    same(run.y / 1e-250, 1.0)


@pytest.mark.parametrize("side", [2.0**-400, 2.0**-280, 2.0**280, 2.0**400])
def test_lengths_of_any_unit_are_solved_alike(side):
    run = af.Heat(af.Box([(0, side)])).solve(lambda x: kink(x / side), 0.1 * side**2, rtol=1e-6)
    np.testing.assert_array_equal(run.y, af.Heat(BOX).solve(kink, 0.1, rtol=1e-6).y)


@pytest.mark.parametrize("size", SIZES)
def test_studies_predictions_and_paths_know_no_unit(size):
    big = lambda x: size * cos(x)  # noqa: E731
    layer, x = af.Attention(af.SquaredDistance(CIRCLE), 0.05), np.linspace(0, 6, 5)[:, None]
    same(af.predicted_noise(layer, P, big, 0.5, 100)(x) / size, af.predicted_noise(layer, P, cos, 0.5, 100)(x))
    same(af.predicted_bias(layer, P, big, 0.5)(x) / size, af.predicted_bias(layer, P, cos, 0.5)(x))
    layers = [af.propagate(layer, P, initial, layers=5) for initial in (big, cos)]
    same(layers[0].stats["quadrature_error"], layers[1].stats["quadrature_error"])
    same(af.compare(layers[0], af.limit(layer, P).solve(big, layers[0].t), P).error,
         af.compare(layers[1], af.limit(layer, P).solve(cos, layers[1].t), P).error)  # fmt: skip
    paths = [af.feynman_kac(P, initial, x, 0.3, paths=200, rng=0) for initial in (big, cos)]
    same(paths[0].standard_error / size, paths[1].standard_error)
    studies = [af.ConvergenceStudy(af.SquaredDistance(CIRCLE), P, u, 0.47, (0.1, 0.05), (60,), 2) for u in (big, cos)]
    big, usual = (study.run(progress=False) for study in studies)
    for a, b in zip(big.cells, usual.cells):
        np.testing.assert_allclose([a["error"], a["deviation"]], [b["error"], b["deviation"]], rtol=1e-9)
    same(big.predicted.constant["size"], usual.predicted.constant["size"])
