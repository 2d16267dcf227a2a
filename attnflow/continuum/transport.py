"""How a layer carries a density across the cells of a grid: positive, conservative finite volumes.

The velocity normal to a face is the layer's own, asked at the face's centre; what crosses it is taken upwind from van
Leer's limited slopes; steps are SSP Runge-Kutta of order 3 (Shu & Osher 1988).

- Mass: what leaves a cell enters its neighbour, so mass changes by round-off only. Nothing crosses the ends of the
  grid: A_rho x is a mean of cell centres, so the velocity points inwards there.
- Positivity: both face values of a cell along an axis are >= 0 and add up to 2 rho, so a stage takes at most
  dt * rho * sum over axes of 2 max(outflow right, outflow left) out of it. Every stage keeps that below rho, or the
  step is repeated with a smaller dt.
- Cost: cells of less than 1e-16 of the mass are no keys, and faces between cells of less than 1e-20 stand still.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..attention import Attention
from ..grid import Grid

_COURANT = 0.9  # of the step that keeps rho positive; the rest is for velocities that grow within a step
_NO_KEY, _STILL = 1e-16, 1e-20  # mass of a cell, of 1
_NARROW = 0.3  # drop of rho two cells from a peak: a Gaussian cluster two cells wide (1.7 to 2.4, as it lies)
_CLUSTER = 1e-4  # share of the mass that a peak's cell must hold to count


class Flow:
    """The velocity of a layer through the faces of a grid, and the steps of rho it makes.

    Face i of an axis is that between cells i and i + 1, the last one wraps. Where nothing wraps it has no area: a wall,
    or a pole.

    Parameters
    ----------
    layer : Attention
    grid : Grid
        Of cells on flat space, or on S^1 or S^2.
    """

    def __init__(self, layer: Attention, grid: Grid) -> None:
        self.layer, self.grid, self.volumes = layer, grid, cell_volumes(grid)
        self.areas, points, normals = [], [], []
        for k, axis in enumerate(grid.axes):
            coordinates = [a.nodes + (a.spacing / 2 if j == k else 0.0) for j, a in enumerate(grid.axes)]
            mesh = np.meshgrid(*coordinates, indexing="ij")
            area = np.full(grid.shape, np.prod([a.spacing for j, a in enumerate(grid.axes) if j != k]))
            if grid.sphere:
                face, normal = _on_sphere(mesh, k)
                area = area * (np.sin(mesh[0]) if axis.kind == "colatitude" else 1.0)
            else:
                face, normal = np.stack(mesh, axis=-1), np.broadcast_to(np.eye(len(mesh))[k], (*grid.shape, len(mesh)))
            if axis.kind in ("cells", "colatitude"):
                np.moveaxis(area, k, 0)[-1] = 0.0
            self.areas.append(area)
            points.append(face.reshape(grid.size, -1))
            normals.append(normal.reshape(grid.size, -1))
        self.faces, self.normals = np.concatenate(points), np.concatenate(normals)

    def steps(self, rho: np.ndarray, times: np.ndarray, largest: float) -> Iterator[tuple[float, np.ndarray]]:
        """(t, rho) after each step; steps end on the output times."""
        t = 0.0
        for end in times:
            while t < end:
                through, rate = self._through_faces(rho)
                dt = min(largest, _COURANT / rate if rate > 0 else np.inf)
                count = np.ceil((end - t) / dt * (1 - 1e-12))
                dt = (end - t) / count
                while (new := self._step(rho, through, dt)) is None:
                    count, dt = 2 * count, dt / 2
                t, rho = (end if count == 1 else t + dt), new
                yield float(t), rho

    def _step(self, rho: np.ndarray, through: list[np.ndarray], dt: float) -> np.ndarray | None:
        """One SSP Runge-Kutta step of order 3, or None where a later stage's velocities would not keep rho positive."""
        first = rho + dt * self._gain(rho, through)
        through, rate = self._through_faces(first)
        if dt * rate > 1:
            return None
        second = 0.75 * rho + 0.25 * (first + dt * self._gain(first, through))
        through, rate = self._through_faces(second)
        if dt * rate > 1:
            return None
        return rho / 3 + 2 / 3 * (second + dt * self._gain(second, through))

    def _through_faces(self, rho: np.ndarray) -> tuple[list[np.ndarray], float]:
        """Volume per layer through the faces of each axis, and the largest share of a cell's mass that may leave it."""
        mass = rho * self.grid.weights.reshape(rho.shape)  # not the volumes: the uniform sphere must stand still
        keys = mass.ravel() > _NO_KEY
        bound = self.layer.bind(self.grid.points[keys], np.log(mass.ravel()[keys]))
        some = [np.maximum(mass, np.roll(mass, -1, axis=k)).ravel() > _STILL for k in range(rho.ndim)]
        moving = np.concatenate(some)
        faces, velocity = self.faces[moving], np.zeros(len(moving))
        velocity[moving] = np.sum((bound.attend(bound.tokens, faces).mean - faces) * self.normals[moving], axis=1)
        through = [v.reshape(rho.shape) * area for v, area in zip(np.split(velocity, len(self.areas)), self.areas)]
        leaving = sum(2 * np.maximum(np.maximum(u, 0), np.maximum(-np.roll(u, 1, axis=k), 0)) for k, u in enumerate(through))
        return through, float(np.max(leaving / self.volumes))

    def _gain(self, rho: np.ndarray, through: list[np.ndarray]) -> np.ndarray:
        """-div(rho v): upwind values from van Leer's slope 2ab / (a + b), which stays between the neighbours."""
        gain = np.zeros_like(rho)
        for k, u in enumerate(through):
            _, left, right, _ = _neighbours(rho, self.grid, k)
            a, b = rho - left, right - rho
            slope = np.divide(2 * a * b, a + b, out=np.zeros_like(rho), where=a * b > 0)
            behind, ahead = rho + slope / 2, np.roll(rho - slope / 2, -1, axis=k)
            flux = np.maximum(u, 0) * behind + np.minimum(u, 0) * ahead
            gain -= flux - np.roll(flux, 1, axis=k)
        return gain / self.volumes


def too_narrow(rho: np.ndarray, grid: Grid) -> bool:
    """Whether some cluster falls off within two cells, on both sides along some axis."""
    if not (mass := rho * cell_volumes(grid)).max() > 0:
        return True
    peaks = mass > _CLUSTER
    for k in range(rho.ndim):
        back, _, _, ahead = _neighbours(rho, grid, k)
        if (peaks & (rho - np.maximum(back, ahead) > _NARROW * rho)).any():
            return True
    return False


def cell_volumes(grid: Grid) -> np.ndarray:
    """(*grid,) volumes of the cells."""
    volumes = np.full(grid.shape, np.prod([axis.spacing for axis in grid.axes]))
    first = grid.axes[0]
    if first.kind == "colatitude":  # exact: integral of sin over the cell, sin(centre) times 2 sin(h/2) / h
        volumes *= (2 * np.sin(first.spacing / 2) / first.spacing * np.sin(first.nodes))[:, None]
    return volumes


def _on_sphere(angles: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors at (colatitude,) longitude angles, and the unit tangent along angle k."""
    cos, sin, zero = np.cos(angles[-1]), np.sin(angles[-1]), np.zeros_like(angles[-1])
    if len(angles) == 1:
        return np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)
    down, out = np.cos(angles[0]), np.sin(angles[0])
    tangent = (down * cos, down * sin, -out) if k == 0 else (-sin, cos, zero)
    return np.stack([out * cos, out * sin, down], axis=-1), np.stack(tangent, axis=-1)


def _neighbours(rho: np.ndarray, grid: Grid, k: int) -> list[np.ndarray]:
    """rho two and one cells back, one and two ahead along axis k: across a pole, itself beyond a wall."""
    kind = grid.axes[k].kind
    if kind == "colatitude":
        half = grid.shape[1] // 2
        padded = np.concatenate([np.roll(rho[1::-1], half, axis=1), rho, np.roll(rho[:-3:-1], half, axis=1)])
    else:
        width = [(2, 2) if j == k else (0, 0) for j in range(rho.ndim)]
        padded = np.pad(rho, width, mode="wrap" if kind == "fourier" else "edge")
    return [np.take(padded, np.arange(start, start + grid.shape[k]), axis=k) for start in (0, 1, 3, 4)]
