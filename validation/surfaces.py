"""Labelled triangulated surfaces: bent, turned surfaces of revolution, and what no rotation changes at their vertices.

A profile r(z), 0 <= z <= 1, has an elliptic cap at either end and, between them, a bulge and a neck on a tube. It is
turned about its axis, the axis is bent to an arc of a circle, and the whole is rotated and scaled. Rings are spaced
by arc length, vertices moved within the surface and diagonals drawn at random: no two meshes are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial.transform import Rotation

__all__ = ["PARTS", "Surface", "join", "random_surface"]

PARTS = ("cap", "tube", "bulge", "neck")
FEATURES = 6
RINGS, SECTORS = 20, 10
_PLACES = np.array([0.35, 0.65])  # of the bulge and the neck, in either order
_WIDTH = 0.06  # standard deviation along the axis: there the profile turns the other way, and the part ends
_TIMES = (0.003, 0.01, 0.03)  # of the heat kernel, in areas: on a round sphere modes decay at 8 pi / area and more


@dataclass(frozen=True)
class Surface:
    """A closed triangulated surface with a part named at each vertex.

    Attributes
    ----------
    vertices : (V, 3) array
    triangles : (T, 3) array of int
        Counterclockwise seen from outside.
    labels : (V,) array of int
        Into `PARTS`.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    labels: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """(E, 2) pairs of a vertex and one it sees: itself and its neighbours, both ways."""
        each = np.arange(len(self.vertices))
        sides = self.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)  # closed: every side comes once each way
        return np.concatenate([np.stack([each, each], axis=1), sides])

    def features(self) -> np.ndarray:
        """What a vertex sees of the surface, whatever its place, turn and size.

        Returns
        -------
        (V, FEATURES) array
            asinh of the Gaussian curvature (angle defect over area) and of the mean curvature (cotangent Laplacian of
            the position, along the normal), logarithm of the heat kernel k_t(x, x) at three times, distance from the
            centroid; all in units in which the surface has area one.

        Notes
        -----
        Curvatures: Meyer, Desbrun, Schroeder and Barr (2003), with a third of each triangle's area to each corner.
        Heat kernel: Sun, Ovsjanikov and Guibas (2009).
        """
        corners = self.vertices[self.triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        double = np.linalg.norm(normals, axis=1)
        area = double.sum() / 2
        mass = self._gather(np.repeat(double / 6, 3)) / area
        angles, stiffness = self._angles(corners, double)
        gauss = (2 * np.pi - self._gather(angles)) / mass

        outward = np.stack([self._gather(np.repeat(normals[:, k], 3)) for k in range(3)], axis=1)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        mean = np.einsum("ij,ij->i", stiffness @ self.vertices, outward) / (2 * mass * np.sqrt(area))

        root = np.sqrt(mass)
        rates, modes = np.linalg.eigh(stiffness.toarray() / np.outer(root, root))
        heat = (modes / root[:, None]) ** 2 @ np.exp(-np.outer(rates, _TIMES))
        away = np.linalg.norm(self.vertices - mass @ self.vertices, axis=1) / np.sqrt(area)
        return np.column_stack([np.arcsinh(gauss), np.arcsinh(mean), np.log(heat), away])

    def _gather(self, values: np.ndarray) -> np.ndarray:
        """(V,) sums of what stands at the corners of triangles, (T * 3,)."""
        return np.bincount(self.triangles.ravel(), values.ravel(), len(self.vertices))

    def _angles(self, corners: np.ndarray, double: np.ndarray) -> tuple[np.ndarray, coo_array]:
        """(T, 3) angles at the corners, and the matrix of the Dirichlet energy by their cotangents."""
        along, back = np.roll(corners, -1, axis=1) - corners, np.roll(corners, 1, axis=1) - corners
        inner = np.einsum("tck,tck->tc", along, back)
        half = inner / double[:, None] / 2  # cot / 2: the weight of the side opposite
        i, j = np.roll(self.triangles, -1, axis=1).ravel(), np.roll(self.triangles, 1, axis=1).ravel()
        w = half.ravel()
        entries = np.concatenate([w, w, -w, -w]), (np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i]))
        return np.arctan2(double[:, None], inner), coo_array(entries, shape=(len(self.vertices),) * 2).tocsr()


def join(surfaces: Sequence[Surface]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, FEATURES), labels (N,) and edges (E, 2) of several surfaces as one set of tokens."""
    starts = np.cumsum([0, *(len(surface.vertices) for surface in surfaces)])
    edges = [surface.edges + start for surface, start in zip(surfaces, starts)]
    labels = [surface.labels for surface in surfaces]
    return np.concatenate([s.features() for s in surfaces]), np.concatenate(labels), np.concatenate(edges)


def random_surface(rng: np.random.Generator) -> Surface:
    """A surface of RINGS * SECTORS + 2 vertices.

    Parameters
    ----------
    rng : Generator

    Returns
    -------
    Surface
    """
    parts = rng.permutation(["bulge", "neck"])
    centres = _PLACES + rng.uniform(-0.03, 0.03, 2)
    heights = np.array([rng.uniform(0.4, 0.8) if part == "bulge" else rng.uniform(-0.5, -0.3) for part in parts])
    radius = rng.uniform(0.1, 0.15)
    caps = radius * rng.uniform(0.7, 1.1, 2)  # lengths along the axis

    def profile(z: np.ndarray) -> np.ndarray:
        bulges = np.exp(-(((z[:, None] - centres) / _WIDTH) ** 2) / 2) @ heights
        beyond = np.maximum(1 - z / caps[0], 1 - (1 - z) / caps[1]).clip(0)
        return radius * (1 + bulges) * np.sqrt(1 - beyond**2)

    z = (1 - np.cos(np.linspace(0, np.pi, 4000))) / 2  # dense where a cap is steep
    length = np.concatenate([[0], np.hypot(np.diff(z), np.diff(profile(z))).cumsum()])
    along = length[-1] * (np.arange(1, RINGS + 1) + rng.uniform(-0.1, 0.1, RINGS)) / (RINGS + 1)
    rings = np.interp(along, length, z)
    angles = 2 * np.pi * (np.arange(SECTORS) + rng.uniform(-0.1, 0.1, (RINGS, SECTORS))) / SECTORS
    z = np.append(np.repeat(rings, SECTORS), [0.0, 1.0])
    r, angle = profile(z), np.append(angles, [0.0, 0.0])

    labels = np.full(len(z), PARTS.index("tube"))
    for part, centre in zip(parts, centres):
        labels[np.abs(z - centre) < _WIDTH] = PARTS.index(part)
    labels[(z < caps[0]) | (1 - z < caps[1])] = PARTS.index("cap")

    bend = rng.uniform(0.3, 1.5)  # angle of the arc, whose length is one: bend * r < 1 keeps sheets apart
    x, y = 1 / bend - r * np.cos(angle), r * np.sin(angle)
    bent = np.stack([1 / bend - x * np.cos(bend * z), y, x * np.sin(bend * z)], axis=1)
    placed = rng.uniform(0.5, 2) * Rotation.random(rng=rng).apply(bent) + rng.standard_normal(3)
    return Surface(placed, _triangles(rng), labels)


def _triangles(rng: np.random.Generator) -> np.ndarray:
    """Quadrangles between rings, each cut along a random diagonal, and fans around the poles, which come last."""
    ids = np.arange(RINGS * SECTORS).reshape(RINGS, SECTORS)
    turned = np.roll(ids, -1, axis=1)
    a, b, c, d = (part.ravel() for part in (ids[:-1], turned[:-1], turned[1:], ids[1:]))
    cut = rng.integers(2, size=len(a), dtype=bool)
    first = np.where(cut, (a, b, c), (a, b, d)).T
    second = np.where(cut, (a, c, d), (b, c, d)).T
    south = np.stack([turned[0], ids[0], np.full(SECTORS, ids.size)], axis=1)
    north = np.stack([ids[-1], turned[-1], np.full(SECTORS, ids.size + 1)], axis=1)
    return np.concatenate([first, second, south, north])
