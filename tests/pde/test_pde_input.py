"""What the equations refuse, and that the message names the argument."""

import numpy as np
import pytest

import attnflow as af
from attnflow.pde import DriftDiffusion, Heat
from attnflow.pde.nodes.operator import spectral_matrix

CIRCLE, LINE = DriftDiffusion(af.VonMises(1.0)), DriftDiffusion(af.Gaussian(0.0, 1.0))
BOX, SQUARE = Heat(af.Box([(0, 1)])), Heat(af.Box([(0, 1), (0, 1)]))


def vanishing(x):
    return np.where(x[..., 0] > 0.2, -0.05 / np.maximum(x[..., 0] - 0.2, 1e-300), -np.inf)


SPOTTED = DriftDiffusion(af.Density(af.Box([(0, 1)]), vanishing))


def ones(x):
    return np.ones(len(x))


@pytest.mark.parametrize(
    "pde, arguments, error, message",
    [
        (BOX, {"t": -1.0}, ValueError, "t must be"),
        (BOX, {"t": [0.2, 0.1]}, ValueError, "t must be"),
        (BOX, {"t": np.nan}, ValueError, "t must be finite"),
        (BOX, {"initial": lambda x: np.full(len(x), np.nan)}, ValueError, "initial.*must be finite"),
        (BOX, {"initial": lambda x: np.ones(3)}, ValueError, "initial.*must have shape"),
        (BOX, {"initial": "cos"}, TypeError, "initial must be"),
        (BOX, {"initial": np.ones(8)}, ValueError, "grid must be given"),
        (BOX, {"initial": np.ones(8), "grid": 9}, ValueError, "initial must have shape"),
        (SQUARE, {"initial": np.ones((8, 9)), "grid": 9}, ValueError, "initial must have shape"),
        (BOX, {"initial": np.full(9, np.inf), "grid": 9}, ValueError, "initial must be finite"),
        (BOX, {"grid": 0}, ValueError, "grid must be at least 3"),
        (BOX, {"grid": 9.5}, TypeError, "grid must be an integer"),
        (SQUARE, {"grid": (9, 9, 9)}, ValueError, "grid must be"),
        (BOX, {"rtol": 0.0}, ValueError, "rtol must be positive"),
        (BOX, {"method": "fourier"}, ValueError, "method must be one of 'BDF', 'DOP853'"),
        (BOX, {"method": "spectral", "initial": np.ones(9), "grid": 9}, ValueError, "method must be"),
        (LINE, {"method": "spectral"}, ValueError, "method must be"),
        (BOX, {"backend": "jax"}, ValueError, "backend must be one of 'cupy', 'numpy'"),
        (BOX, {"boundary": "neumann"}, ValueError, "boundary must be 'no-flux'"),
        (BOX, {"boundary": "dirichlet"}, ValueError, "boundary must be 'no-flux'"),
        (BOX, {"boundary": ("periodic", 1.0)}, ValueError, "boundary must be 'no-flux'"),
        (BOX, {"boundary": 3}, TypeError, "boundary must be 'no-flux'"),
        (BOX, {"boundary": ("dirichlet", "hot")}, TypeError, "Dirichlet value"),
        (BOX, {"boundary": ("dirichlet", np.nan)}, ValueError, "Dirichlet value"),
        (BOX, {"boundary": ("dirichlet", [1.0, 2.0])}, ValueError, "Dirichlet value"),
        (BOX, {"boundary": ("dirichlet", lambda x: np.ones(7))}, ValueError, "Dirichlet value"),
        (SQUARE, {"boundary": ["no-flux"] * 3}, ValueError, "boundary must have one entry per axis"),
        (CIRCLE, {"boundary": "no-flux"}, ValueError, "boundary must be None"),
        (LINE, {"boundary": ("dirichlet", 0.0)}, ValueError, "boundary must be None"),
        (SPOTTED, {}, ValueError, "density must be positive"),
    ],
)
def test_bad_arguments_are_refused_by_name(pde, arguments, error, message):
    with pytest.raises(error, match=message):
        pde.solve(**{"initial": ones, "t": 0.1, **arguments})


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: DriftDiffusion(np.ones(3)), TypeError, "density must be"),
        (lambda: DriftDiffusion(af.VonMises(1.0), drift=np.inf), ValueError, "drift must be finite"),
        (lambda: DriftDiffusion(af.Uniform(af.Box([(0, 1)] * 4))).operator(4), NotImplementedError, "dimension 1, 2 or 3"),
        (lambda: DriftDiffusion(af.Uniform(af.Sphere(3))).spectrum(2), NotImplementedError, "Sphere"),
        (lambda: DriftDiffusion(af.Uniform(af.Sphere(2))).operator((8, 9)), ValueError, "even number of longitudes"),
        (lambda: Heat(af.Euclidean(1)), ValueError, "space must be bounded"),
        (lambda: Heat(3), TypeError, "space must be"),
        (lambda: CIRCLE.spectrum(0), ValueError, "k must be at least 1"),
        (lambda: BOX.spectrum(8, grid=9), ValueError, "k must be at most 7"),
        (lambda: DriftDiffusion(af.Gaussian(0.0, 1.0), 0.0).spectrum(3), ValueError, "drift must be positive"),
        (lambda: spectral_matrix(CIRCLE.generator, CIRCLE.space.grid(8)), ValueError, "odd size"),
        (lambda: LINE.operator(None), ValueError, "grid must be"),
    ],
)
def test_what_cannot_be_built_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_grid_too_coarse_for_the_density_is_warned_of_with_the_number():
    with pytest.warns(af.checks.AccuracyWarning, match=r"changes by a factor 2.98e\+03 from one cell.*about 16 times more"):
        DriftDiffusion(af.Density(af.Box([(0, 1)]), lambda x: 40 * x[..., 0])).solve(ones, 0.1, grid=10)


def test_a_grid_that_cannot_see_the_density_is_refused():
    needle = DriftDiffusion(af.Density(af.Box([(0, 1)]), lambda x: -1e5 * (x[..., 0] - 0.5) ** 2))
    with pytest.raises(ValueError, match="grid must resolve the density"):
        needle.solve(ones, 0.1, grid=9)
