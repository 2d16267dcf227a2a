"""Weights of a layer as a picture."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import attnflow as af
from attnflow.plotting.weights import plot_weights

TOKENS = af.VonMises(1.0).sample(60, rng=0)
WEIGHTS = af.Attention(af.SquaredDistance(af.Circle()), 0.05, af.TopK(6)).weights(TOKENS)


def test_pixels_are_the_sorted_weights_and_zeros_are_white():
    ax = plot_weights(WEIGHTS, TOKENS[:, 0])
    ax.figure.canvas.draw()
    (image,) = ax.images
    order = np.argsort(TOKENS[:, 0])
    expected = WEIGHTS[order][:, order]
    np.testing.assert_array_equal(image.get_array().filled(0), expected)
    colours = image.to_rgba(image.get_array())
    white = (colours == 1).all(axis=-1)
    np.testing.assert_array_equal(white, expected == 0)
    assert ax.get_title(loc="left") == "10 % of the weights are not zero"
    luminance = colours[..., :3] @ [0.299, 0.587, 0.114]
    assert luminance[expected == expected.max()].max() < luminance[(expected > 0) & (expected < 0.02)].min()


def test_queries_elsewhere_keep_their_order_and_a_given_axes_is_used():
    figure, ax = plt.subplots()
    some = WEIGHTS[:7]
    assert plot_weights(some, TOKENS[:, 0], ax) is ax
    np.testing.assert_array_equal(ax.images[0].get_array().filled(0), some[:, np.argsort(TOKENS[:, 0])])
    assert ax.get_xlabel() == "key, sorted" and ax.get_ylabel() == "query"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((WEIGHTS[0],), "^weights must"),
        ((-WEIGHTS,), "^weights must be nonnegative"),
        ((0 * WEIGHTS,), "^weights must be nonnegative and not all zero"),
        ((WEIGHTS, TOKENS[:9, 0]), "^along must"),
    ],
)
def test_what_is_no_matrix_of_weights_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_weights(*arguments)
    assert not plt.get_fignums()
