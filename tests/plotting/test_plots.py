"""Figures: predictions under the points, labels with units, and no window."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import attnflow as af

P, F = af.VonMises(1.0), af.SquaredDistance(af.Circle())
TORUS = af.Torus([1.0, 1.0])


def cos(x):
    return np.cos(x[..., 0])


def wave(x):
    return np.cos(2 * np.pi * x[..., 0]) * np.sin(2 * np.pi * x[..., 1])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(ax):
    ax.figure.canvas.draw()
    assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title(loc="left")
    return ax


def test_a_study_draws_predictions_before_points():
    study = af.ConvergenceStudy(F, P, cos, 0.5, [0.2, 0.1, 0.05], [50, 100, np.inf], 3)
    result = study.run(progress=False)
    left, right = result.plot()
    for ax in (left, right):
        drawn(ax)
        assert ax.get_xscale() == ax.get_yscale() == "log"
    prediction, points = left.lines[2], left.lines[-1]
    assert prediction.get_zorder() < points.get_zorder()
    np.testing.assert_allclose(prediction.get_ydata(), [result.predicted.bias[e] for e in (0.05, 0.1, 0.2)])
    np.testing.assert_allclose(points.get_ydata(), result.bias()[1])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [result.predicted.deviation(0.05, n) for n in (50, 100)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: af.propagate(af.Attention(F, 0.1), P, cos, 5),
        lambda: af.propagate(af.Attention(F, 0.1), P.sample(50, 0), cos, 5),
        lambda: af.limit(af.Attention(F, 0.1), P).solve(cos, [0.0, 0.5]),
        lambda: af.Heat(TORUS).solve(wave, 0.01),
        lambda: af.propagate(af.Attention(af.SquaredDistance(TORUS), 0.01), af.Uniform(TORUS).sample(200, 0), wave, 2),
        lambda: af.evolve(af.Attention(af.DotProduct(), 0.1), af.Uniform(af.Sphere(2)).sample(20, 0), 5, constrain="sphere"),
        lambda: af.evolve(af.Attention(af.SquaredDistance(af.Euclidean(1)), 0.1), np.linspace(-2, 2, 30)[:, None], 5),
        lambda: af.propagate(af.Attention(af.Cosine(), 0.1), np.random.default_rng(0).normal(size=(40, 6)), lambda x: x, 2),
    ],
)
def test_every_solution_can_be_drawn(make):
    ax = make().plot()
    drawn(ax)
    assert ax.has_data()


def test_a_given_axes_is_used_and_returned():
    figure, ax = plt.subplots()
    run = af.propagate(af.Attention(F, 0.1), P, cos, 5)
    assert run.plot(ax) is ax
    assert af.compare(run, af.limit(af.Attention(F, 0.1), P).solve(cos, run.t), P).plot(ax) is ax


def test_rates_hang_from_zero_and_show_the_gap():
    spectrum = af.Attention(F, 0.1).spectrum(P.sample(100, 0), 4)
    ax = drawn(spectrum.plot())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), spectrum.rates)
    assert f"{spectrum.gap:.3g}" in ax.get_title(loc="left")
    (gap,) = ax.patches
    assert gap.get_y() == -spectrum.gap and gap.get_height() == spectrum.gap
    turned = af.Attention(af.DotProduct([[1.0, 0.9], [-0.9, 0.8]]), 0.1).spectrum(
        af.Uniform(af.Circle()).sample(90, 0) * [1, 0.3], 5
    )
    ax = drawn(turned.plot())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), turned.rates.real)


def test_modes_colour_the_plane_and_else_are_coordinates():
    from attnflow.plotting.spectra import plot_modes

    x = np.random.default_rng(0).uniform(size=(100, 3))
    for columns, modes in ((2, 2), (3, 3), (1, 3)):
        spectrum = af.Attention(af.SquaredDistance(af.Euclidean(columns)), 0.1).spectrum(x[:, :columns], modes)
        ax = drawn(plot_modes(spectrum))
        (points,) = ax.collections
        if columns == 2:
            np.testing.assert_array_equal(points.get_array(), spectrum.eigenvectors[1])
        expected = x[:, :2] if columns == 2 else spectrum.eigenvectors[1:3].T
        np.testing.assert_array_equal(points.get_offsets(), expected)


def test_animations_have_a_frame_per_time(tmp_path):
    run = af.evolve(af.Attention(af.DotProduct(), 0.1), af.Uniform(af.Sphere(2)).sample(20, 0), 5, constrain="sphere")
    for solution in (run, af.propagate(af.Attention(F, 0.1), P, cos, 5)):
        animation = solution.animate()
        animation.save(tmp_path / "a.gif", writer="pillow")
        assert (tmp_path / "a.gif").stat().st_size > 1000
