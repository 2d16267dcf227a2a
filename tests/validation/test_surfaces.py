"""Meshes of the validation are closed spheres, and what is learned from does not see how they lie."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from validation.surfaces import _TIMES, FEATURES, PARTS, Surface, join, random_surface


@pytest.fixture(scope="module", params=range(3))
def surface(request):
    return random_surface(np.random.default_rng(request.param))


def test_a_surface_is_a_closed_oriented_sphere(surface):
    sides = [tuple(side) for side in surface.edges if side[0] != side[1]]
    assert len(set(sides)) == len(sides) and {(j, i) for i, j in sides} == set(sides)
    assert len(surface.vertices) - len(sides) // 2 + len(surface.triangles) == 2
    a, b, c = np.moveaxis(surface.vertices[surface.triangles] - surface.vertices.mean(axis=0), 1, 0)
    assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0  # six times the volume: normals point outward
    assert {PARTS[label] for label in surface.labels} >= {"cap", "bulge", "neck"}


def test_features_see_neither_place_nor_turn_nor_size(surface):
    moved = 3.7 * Rotation.from_rotvec([0.4, -1.1, 2.0]).apply(surface.vertices) + [5.0, -2.0, 1.0]
    turned = Surface(moved, surface.triangles, surface.labels).features()
    assert turned.shape == (len(surface.vertices), FEATURES)
    np.testing.assert_allclose(turned, surface.features(), atol=1e-10)


def test_features_of_an_icosahedron_are_known():
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array([[0, 1, golden], [0, -1, golden], [0, 1, -golden], [0, -1, -golden]])
    vertices = np.concatenate([np.roll(corners, shift, axis=1) for shift in range(3)])
    gaps = np.linalg.norm(vertices[:, None] - vertices, axis=2)
    near = [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if max(gaps[i, j], gaps[j, k], gaps[k, i]) < 2.1]
    triangles = [t if np.linalg.det(vertices[list(t)]) > 0 else t[::-1] for t in near]
    features = Surface(vertices, np.array(triangles), np.zeros(12, dtype=int)).features()

    radius, area = np.sqrt(1 + golden**2), 20 * np.sqrt(3)
    spectrum = np.repeat([0, 5 - np.sqrt(5), 6, 5 + np.sqrt(5)], [1, 3, 5, 3])  # of the graph; an edge weighs cot 60
    heat = np.log(np.exp(-np.outer(_TIMES, 12 / np.sqrt(3) * spectrum)).sum(axis=1))
    known = [np.arcsinh(4 * np.pi), np.arcsinh(np.sqrt(area) / radius), *heat, radius / np.sqrt(area)]
    np.testing.assert_allclose(features, np.broadcast_to(known, features.shape), atol=1e-12)


def test_joined_surfaces_keep_to_themselves(surface):
    tokens, labels, edges = join([surface, surface])
    half = len(surface.vertices)
    np.testing.assert_array_equal(tokens[:half], tokens[half:])
    assert len(labels) == len(tokens) and ((edges[:, 0] < half) == (edges[:, 1] < half)).all()
