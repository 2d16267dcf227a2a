"""A metric as ellipses: they are its unit circles, and shades are its volume element."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection, QuadMesh

import attnflow as af
from attnflow.plotting.metrics import plot_metric

G = np.array([[4.0, 1.0], [1.0, 1.0]])
BOX = [(-1.0, 1.0), (0.0, 1.0)]


def test_ellipses_are_circles_of_the_metric_all_of_the_radius_that_the_title_says():
    ax = plot_metric(af.Mahalanobis(G).metric, BOX)
    (rings,) = (part for part in ax.collections if isinstance(part, LineCollection))
    radius = float(ax.get_title(loc="left").split("radius ")[1].split(" ")[0])
    for ring in rings.get_segments():
        step = ring - ring[:-1].mean(axis=0)
        np.testing.assert_allclose(np.sqrt(np.einsum("ki,ij,kj->k", step, G, step)), radius, rtol=0.05)
    assert len(rings.get_segments()) == 13 * 6  # square cells, 13 along the longer side


def test_shades_are_the_volume_element_and_paths_are_drawn():
    path = np.array([[-1.0, 0.5], [1.0, 0.5]])
    ax = plot_metric(lambda x: np.eye(2) * np.exp(2 * x[..., 0, None, None]), BOX, [path])
    (mesh,) = (part for part in ax.collections if isinstance(part, QuadMesh))
    shades = np.asarray(mesh.get_array()).reshape(48, 96)
    np.testing.assert_allclose(shades[0], np.exp(2 * (2 * (np.arange(96) + 0.5) / 96 - 1)), rtol=1e-12)
    np.testing.assert_array_equal(np.stack(ax.lines[0].get_data(), axis=-1), path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("g", BOX), "metric must be callable"),
        ((af.Mahalanobis(G).metric, [(1.0, 0.0), (0.0, 1.0)]), "bounds must be pairs"),
        ((af.Mahalanobis(G).metric, [(0.0, 1.0)]), "bounds must have shape"),
        ((af.Mahalanobis([[1.0]]).metric, BOX), "must have shape"),
        ((lambda x: -np.eye(2) * np.ones((len(x), 1, 1)), BOX), "metric must be symmetric positive definite"),
        ((af.Mahalanobis(G).metric, BOX, [np.zeros(3)]), "paths must have shape"),
    ],
)
def test_bad_input_names_the_argument(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plot_metric(*arguments)
