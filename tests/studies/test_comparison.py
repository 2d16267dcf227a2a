"""compare: relative p-weighted errors of solutions on tokens and grids."""

import numpy as np
import pytest

import attnflow as af

P, F = af.VonMises(1.0), af.SquaredDistance(af.Circle())


def cos(x):
    return np.cos(x[..., 0])


def test_a_known_multiple_has_a_known_error():
    a = af.limit(af.Attention(F, 0.1), P).solve(cos, [0.0, 0.5])
    b = af.Solution(a.t, 1.25 * a.y, grid=a.grid)
    np.testing.assert_allclose(af.compare(b, a, P).error, 0.25, rtol=1e-12)
    np.testing.assert_array_equal(af.compare(a, a).error, 0)


def test_weights_are_those_of_the_density():
    grid = P.space.grid(64)
    one, bump = np.ones((1, 64, 1)), np.cos(grid.points)[None]
    a, b = (af.Solution(np.zeros(1), y, grid=grid) for y in (one + 0.1 * bump, one))
    p = P.pdf(grid.points)
    expected = 0.1 * np.sqrt(p @ np.cos(grid.points[:, 0]) ** 2 / p.sum())
    assert af.compare(a, b, P).error[0] == pytest.approx(expected, rel=1e-12)
    assert af.compare(a, b).error[0] == pytest.approx(0.1 * np.sqrt(0.5), rel=1e-12)


def test_tokens_against_a_field_use_only_common_times():
    tokens = P.sample(400, rng=0)
    run = af.propagate(af.Attention(F, 0.05), tokens, cos, 10)
    field = af.limit(af.Attention(F, 0.05), P).solve(cos, [0.1, 0.2, 7.0])
    comparison = af.compare(run, field)
    np.testing.assert_allclose(comparison.t, [0.1, 0.2])
    expected = [
        np.linalg.norm(run.y[k] - field.at(tokens, t)) / np.linalg.norm(field.at(tokens, t)) for k, t in ((4, 0.1), (8, 0.2))
    ]
    np.testing.assert_allclose(comparison.error, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: (a, af.Solution(a.t + 0.3, a.y, points=a.points)), "must share a saved time"),
        (lambda a: (a, af.Solution(a.t, np.repeat(a.y, 2, axis=-1), points=a.points)), "equally many columns"),
        (lambda a: (a, af.Solution(a.t, a.y, points=a.points + 1)), "the same fixed tokens"),
        (lambda a: (a, "b"), "b must be a Solution"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    tokens = P.sample(20, rng=0)
    with pytest.raises((ValueError, TypeError), match=message):
        af.compare(*change(af.propagate(af.Attention(F, 0.5), tokens, cos, 1)))


def test_fields_are_asked_only_where_they_are():
    x = np.random.default_rng(0).uniform(0, 2, (50, 1))
    start = lambda x: np.cos(np.pi * x[..., 0])  # noqa: E731
    run = af.propagate(af.Attention(af.SquaredDistance(af.Box([(0, 2)])), 0.05), x, start, 3)
    with pytest.raises(ValueError, match="points must lie on the grid's domain"):
        af.compare(run, af.Heat(af.Box([(0, 1)])).solve(start, run.t))
    turns = np.random.default_rng(0).uniform(0, 6, (50, 1))
    run = af.propagate(af.Attention(af.SquaredDistance(af.Circle()), 0.05), turns, lambda x: np.cos(x[..., 0]), 3)
    with pytest.raises(ValueError, match="got points over a length of 5.* where the other wraps after 1"):
        af.compare(run, af.Heat(af.Circle(1.0)).solve(lambda x: np.cos(2 * np.pi * x[..., 0]), run.t))
