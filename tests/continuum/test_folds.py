"""A limit warns where f puts distant tokens together at the layer's temperature, and only there."""

import warnings

import numpy as np
import pytest

import attnflow as af
from attnflow import checks
from attnflow.attention import bind_density

SQUARE = af.Box([(-1.0, 1.0), (-1.0, 1.0)])


def hairpin(gap, x):
    """A line bent at its middle into two arms `gap` apart."""
    return np.concatenate([np.sqrt(x**2 + 0.01), gap / 2 * np.tanh(10 * x)], axis=-1)


def roll(x):
    """A plane sheet rolled up: turns at radii 2 and 2 + 2 pi, seen along its length."""
    angle = 1.5 * np.pi * (1 + x[..., 0])
    return np.stack([(2 + angle) * np.cos(angle), (2 + angle) * np.sin(angle), 6 * x[..., 1]], axis=-1)


def bounded(c, x):
    """x - c tanh(3 x W) W' / 3, W orthogonal, three times as large: injective for c < 1, folded beyond."""
    W = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 2)))[0]
    return 3 * (x - c * np.tanh(3 * x @ W) / 3 @ W.T)


def told(f, density, epsilon, normalization="softmax"):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        af.limit(af.Attention(f, epsilon, normalization), density)
    return [str(one.message) for one in seen if one.category is checks.FoldingWarning]


@pytest.mark.parametrize(
    "gap, epsilon, folds",
    [
        (0.1, 0.01, True),  # the other arm is one standard deviation away
        (0.1, 1e-4, False),  # ten
        (1.0, 0.01, False),
    ],
)
def test_a_hairpin_folds_where_its_arms_are_in_reach(gap, epsilon, folds):
    line = af.Uniform(af.Box([(-2.0, 2.0)]))
    f = af.SquaredMap(lambda x: hairpin(gap, x))
    messages = told(f, line, epsilon)
    assert bool(messages) == folds
    assert not folds or "f folds at epsilon = 0.01" in messages[0]
    # what the warning means: a layer on a feature that differs from arm to arm, against its limit
    bound, nodes = bind_density(af.Attention(f, epsilon), line, 1500)
    s, feature = nodes.points[:, 0], np.sin(nodes.points * np.pi / 2)
    rate = (bound.attend(feature).mean - feature)[:, 0] / (epsilon / 2)
    g = f.metric(nodes.points)[:, 0, 0]
    slope = np.gradient(feature[:, 0], s)
    expected = np.gradient(slope, s) / g - 1.5 * np.gradient(g, s) * slope / g**2
    arms = np.abs(np.abs(s) - 1) < 0.3
    error = np.abs(rate - expected)[arms].max() / np.abs(expected[arms]).max()
    assert error > 3 if folds else error < 0.05


@pytest.mark.parametrize(
    "f, density, epsilon",
    [
        (af.SquaredMap(roll), af.Uniform(SQUARE), 0.3),  # turns are more than ten widths apart
        (af.SquaredMap(lambda x: bounded(0.9, x)), af.Uniform(SQUARE), 0.05),
        (af.SquaredMap(lambda x: np.concatenate([np.cos(x), np.sin(x)], axis=-1)), af.VonMises(0.5), 0.1),  # across 2 pi
        (af.SquaredMap(lambda x: x), af.Uniform(af.Sphere(2)), 0.1),  # along great circles
        (af.DotProduct(), af.VonMisesFisher([0.0, 0.0, 1.0], 2.0), 0.1),
        (af.Mahalanobis(np.diag([1.0, 100.0])), af.Gaussian([0.0, 0.0], np.eye(2)), 0.5),
        (af.PseudoMetric(lambda x, y: 2 - 2 * np.cos((x - y)[..., 0]), 1), af.VonMises(1.0), 0.1),
    ],
    ids=["roll", "residual", "circle", "sphere", "dot product", "Mahalanobis", "cosine of angles"],
)
def test_embeddings_do_not_fold(f, density, epsilon):
    assert not told(f, density, epsilon)


def test_a_map_folds_by_its_bound_and_under_every_normalisation_with_all_keys():
    folded = af.SquaredMap(lambda x: bounded(2.5, x))
    for normalization in ("softmax", "sinkhorn", af.DensityCorrected(0.5)):
        assert told(folded, af.Uniform(SQUARE), 0.05, normalization), normalization


def test_tokens_follow_the_equation_of_a_residual_map_with_room_around_it():
    density = af.Density(SQUARE, lambda x: -2 * (x**2).sum(axis=-1))
    tokens, layer = density.sample(3000, rng=1), af.Attention(af.SquaredMap(lambda x: bounded(0.5, x)), 0.05)
    wave = lambda x: np.sin(2 * x[..., 0] + x[..., 1])  # noqa: E731
    run = af.propagate(layer, tokens, wave, 6, save_every=6)
    expected = af.limit(layer, density).solve(wave, run.t[-1], rtol=1e-3).at(tokens)
    moved, apart = np.linalg.norm(run.y - expected, axis=(1, 2)) / np.linalg.norm(expected)
    assert moved > 0.4 and apart < 0.08
