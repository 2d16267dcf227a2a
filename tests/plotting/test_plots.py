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


def test_angles_are_named_angles_with_quarter_turns():
    ax = drawn(af.Heat(af.Circle()).solve(cos, [0.0, 0.1], grid=16).plot())
    assert ax.get_xlabel() == r"angle $\theta$ (rad)"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["$0$", r"$\pi/2$", r"$\pi$", r"$3\pi/2$", r"$2\pi$"]
    ax = drawn(af.Heat(af.Torus([2 * np.pi, 1.0])).solve(cos, 0.1, grid=16).plot())
    assert (ax.get_xlabel(), ax.get_ylabel()) == (r"angle $\theta_1$ (rad)", "$x_2$ (length)")
    assert drawn(af.Heat(af.Sphere(1)).solve(cos, 0.1, grid=16).plot()).get_xlabel() == "longitude (rad)"
    angle = r"angle $\theta$ (rad)"
    tokens = af.VonMises(1.0).sample(20, rng=0)
    run = af.propagate(af.Attention(af.SquaredDistance(af.Circle()), 0.1), tokens, np.cos(tokens), 2)
    assert drawn(run.plot()).get_xlabel() == angle
    assert drawn(af.langevin(af.VonMises(1.0), tokens, [0.0, 0.1], 2, rng=0).plot()).get_ylabel() == angle
    torus = af.Uniform(af.Torus([2 * np.pi] * 2))
    paths = af.langevin(torus, torus.sample(3, rng=0), [0.0, 0.1], 2, rng=0)
    assert (drawn(paths.plot()).get_xlabel(), drawn(paths.plot()).get_ylabel()) == (r"$\theta_1$ (rad)", r"$\theta_2$ (rad)")
    assert "length" in drawn(af.Heat(af.Circle(1.0)).solve(lambda x: 0 * x[..., 0], 0.1, grid=16).plot()).get_xlabel()


def test_a_history_has_time_upwards():
    solution = af.Heat(af.Circle()).solve(cos, [0.0, 0.1, 0.4], grid=16)
    ax = drawn(solution.plot(kind="history"))
    (image,) = [part for part in ax.collections if part.get_array() is not None]
    np.testing.assert_array_equal(np.reshape(image.get_array(), (3, 16)), solution.y[..., 0])
    np.testing.assert_array_equal(image.get_coordinates()[..., 1], np.repeat(solution.t, 16).reshape(3, 16))


def test_kind_chooses_between_plane_and_space():
    globe = af.Heat(af.Sphere(2)).solve(cos, 0.1, grid=(6, 12))
    assert globe.plot(kind="plane").name == "rectilinear" and globe.plot(kind="space").name == "3d"
    moved = af.evolve(af.Attention(af.DotProduct(), 0.1), af.Uniform(af.Sphere(2)).sample(20, 0), 2, constrain="sphere")
    assert moved.plot(kind="plane").name == "rectilinear" and moved.plot().name == "3d"
    flat = af.Heat(TORUS).solve(wave, 0.01, grid=8)
    for solution, kind in ((flat, "space"), (flat, "history"), (moved, "history")):
        with pytest.raises(ValueError, match="^kind must be"):
            solution.plot(kind=kind)
    with pytest.raises(ValueError, match="^kind must be None for Axes that are given"):
        globe.plot(plt.subplots()[1], kind="plane")
    with pytest.raises(ValueError, match="^t must be at least two times"):
        af.Heat(af.Circle()).solve(cos, 0.1, grid=16).plot(kind="history")


def test_rates_of_equations_are_drawn_as_those_of_layers():
    spectrum = af.Heat(af.Circle()).spectrum(5)
    ax = drawn(spectrum.plot())
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), spectrum.eigenvalues)
    assert ax.get_title(loc="left") == "All but the mean decays at rates from 1"
    held = af.Heat(af.Box([(0, np.pi)])).spectrum(3, boundary=("dirichlet", 0.0))  # rates 1, 4, 9: nothing stays
    ax = drawn(held.plot())
    assert ax.get_title(loc="left") == "Features decay at rates from 1" and ax.patches[0].get_height() == pytest.approx(1)


def test_notebooks_play_animations_and_files_are_named_by_what_they_are(tmp_path):
    film = af.Heat(af.Circle()).solve(cos, [0.0, 0.1], grid=16).animate()
    assert "anim" in film._repr_html_() and film._repr_html_().count("data:image/png") == 2
    film.save(tmp_path / "film.html")
    assert "<script" in (tmp_path / "film.html").read_text()
    with pytest.raises(ValueError, match=r"^filename must end in .gif, .mp4 or .html, got 'film.xyz'"):
        film.save(tmp_path / "film.xyz")
    from matplotlib.animation import writers

    if not writers.is_available("ffmpeg"):
        with pytest.raises(ValueError, match="^filename must end in .gif or .html where ffmpeg is not installed"):
            film.save(tmp_path / "film.mp4")
