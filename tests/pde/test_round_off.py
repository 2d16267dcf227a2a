"""Rounding errors of |L| t: what they may take is in every estimate, and where they can be avoided they are."""

import warnings

import numpy as np
import pytest
from scipy import linalg

import attnflow as af
from attnflow.checks import AccuracyWarning
from attnflow.pde.volumes.chain import Chain
from attnflow.pde.volumes.march import march
from attnflow.pde.volumes.rational import LineExponential

LEFT = np.exp(-1.0)
GAP = {6: 1.1287326203422745e-9, 50: 3.5152200064017785e-85, 100: 9.741663327808446e-172}  # test_rare_exchange, drift 2


def wells(c, space=None):
    return af.DriftDiffusion(af.Density(space or af.Circle(), lambda x: c * np.cos(2 * x[..., 0])))


@pytest.fixture
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("length", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("held", [False, True])
def test_the_long_side_of_a_thin_box_relaxes_at_its_own_rate(strict, length, axis, held):
    """A wave along it falls by e, between walls that reflect it or hold it at zero; across all is even long before."""
    box = af.Box([(0, length), (0, 1)][:: 1 - 2 * axis])
    wave = np.sin if held else np.cos
    boundary = [("dirichlet", 0.0), "no-flux"][:: 1 - 2 * axis] if held else None
    across = 0.0 if held else 1.0
    run = af.Heat(box).solve(
        lambda x: wave(np.pi * x[..., axis] / length) + across * np.cos(np.pi * x[..., 1 - axis]),
        (length / np.pi) ** 2,
        boundary=boundary,
    )
    point = np.array([0.1 * length, 0.3])[:: 1 - 2 * axis]
    assert run.at(point[None])[0, 0] == pytest.approx(LEFT * wave(0.1 * np.pi), abs=1e-12)
    assert run.stats["estimated_error"] < 1e-11


@pytest.mark.parametrize("length", [1.0, 1e6])
def test_a_weight_that_is_a_product_has_a_constant_on_each_axis(strict, length):
    """What is left of a wave across is its mean under w = exp(2 x): of cos(pi x) that is -4 / (4 + pi^2) coth(1)."""
    box = af.Density(af.Box([(0, 1), (0, length)]), lambda x: x[..., 0] + np.cos(np.pi * x[..., 1] / length))
    line = af.Density(af.Box([(0, 1)]), lambda x: np.cos(np.pi * x[..., 0]))
    long = af.DriftDiffusion(line).solve(lambda x: np.cos(np.pi * x[..., 0]), 2.0)
    run = af.DriftDiffusion(box).solve(lambda x: np.cos(np.pi * x[..., 1] / length) + np.cos(np.pi * x[..., 0]), 2 * length**2)
    mean = -4 / (4 + np.pi**2) / np.tanh(1.0)
    assert run.at([[0.3, 0.1 * length]])[0, 0] == pytest.approx(long.at([[0.1]])[0, 0] + mean, abs=1e-9)


@pytest.mark.parametrize("c", GAP)
@pytest.mark.parametrize("early", [(), (0.1,)])
def test_wells_exchange_in_their_own_time_however_long(strict, c, early):
    times = [1.0, *(part / GAP[c] for part in early), 1 / GAP[c]]
    run = wells(c).solve(lambda x: np.cos(x[..., 0]), times)
    heights = run.at([[0.0]], times).ravel()
    assert heights[1:] / heights[0] == pytest.approx(np.exp([-part for part in (*early, 1.0)]), rel=1e-8)


@pytest.mark.parametrize("fed", [False, True])
def test_escape_through_a_wall_takes_its_time(strict, fed):
    """The rate is that of Kramers' integrals, as in test_rare_exchange; fed at that rate, 1 fills up as it would empty."""
    rate = 60**2 / (np.exp(60.0) - 61)
    pde = af.DriftDiffusion(af.Density(af.Box([(0, 1)]), lambda x: 60 * x[..., 0]), 1.0)
    source = (lambda x, t, H: rate + 0 * H) if fed else None
    run = pde.solve(
        lambda x: np.full(len(x), float(not fed)), 1 / rate, boundary=[(("dirichlet", 0.0), "no-flux")], source=source
    )
    assert run.at([[1.0]])[0, 0] == pytest.approx(1 - LEFT if fed else LEFT, rel=1e-7)


@pytest.mark.parametrize("space", [af.Circle(), af.Box([(0, 2.0)])])
@pytest.mark.parametrize("wall", [0.0, 3.0])
def test_elimination_along_a_line_is_the_exponential(space, wall):
    pde = af.DriftDiffusion(af.Density(space, lambda x: np.sin(3 * x[..., 0])), 1.0)
    cells = pde.cells((30,), (None,)).less(wall)
    values = np.cos(cells.grid.points)
    right = linalg.expm(0.1 * cells.operator().toarray()) @ values
    assert LineExponential(Chain.of(cells)).step(values, 0.1) == pytest.approx(right, abs=1e-12)
    if not isinstance(space, af.Circle):
        right = linalg.expm(0.1 * cells.operator().toarray().T) @ values
        assert LineExponential(Chain.of(cells), adjoint=True).step(values, 0.1) == pytest.approx(right, abs=1e-12)


def test_what_cells_of_a_plane_lose_to_rounding_errors_is_said():
    """Where w is a product, so are the cells of the plane; those of the line lose nothing."""
    plane = af.DriftDiffusion(
        af.Density(af.Torus([2 * np.pi] * 2), lambda x: 6 * np.cos(2 * x[..., 0]) + np.cos(x[..., 1]))
    ).cells((24, 24), (None, None))
    line, times = wells(6).cells((24,), (None,)), np.array([1.0, 1 / GAP[6]])
    right, exact = march(line, np.cos(line.grid.points), times, 1e-10)
    found, stats = march(plane, np.cos(plane.grid.points[:, :1]).reshape(24, 24, 1), times, 1e-10)
    error = np.sqrt(plane.mass @ (found - right[:, :, None]).reshape(2, -1).T ** 2)[1]
    assert "round_off" not in exact and 1e-8 < error < stats["round_off"] < 100 * error


def test_lost_digits_are_warned_of():
    square = af.Density(af.Box([(0, np.pi)] * 2), lambda x: 6 * np.cos(2 * x[..., 0]) + np.cos(x[..., 1]))
    with pytest.warns(AccuracyWarning, match="estimated relative error"):
        run = af.DriftDiffusion(square).solve(lambda x: np.cos(x[..., 0]), [1, 1 / GAP[6]], rtol=1e-5, method="spectral")
    before, after = run.at([[0.0, 0.0]], [1, 1 / GAP[6]]).ravel()
    assert 1e-5 < abs(after / before - LEFT) < run.stats["estimated_error"]


@pytest.mark.parametrize("b", [1e8, 1e12, 1e14])
def test_a_stiff_wall_is_left_to_finite_volumes(strict, b):
    """As between walls held at 0, to the first order in 1 / b: the side is longer by 2 / b."""
    run = af.Heat(af.Box([(0, 1)])).solve(lambda x: np.sin(np.pi * x[..., 0]), 0.1, boundary=("robin", b, 0.0))
    assert run.at([[0.5]])[0, 0] == pytest.approx(np.exp(-0.1 * np.pi**2 * (1 - 4 / b)), rel=1e-8)
    assert run.stats["method"] == "finite-volume"


@pytest.mark.parametrize("b", [1e12, 1e14])
def test_nodes_that_are_insisted_on_know_what_a_stiff_wall_costs(b):
    with pytest.warns(AccuracyWarning, match="rounding errors of L"):
        run = af.Heat(af.Box([(0, 1)])).solve(
            lambda x: np.sin(np.pi * x[..., 0]), 0.1, boundary=("robin", b, 0.0), method="spectral"
        )
    assert abs(run.at([[0.5]])[0, 0] - np.exp(-0.1 * np.pi**2)) < run.stats["estimated_error"]


@pytest.mark.parametrize("space", [af.Circle(), af.Box([(0, 1)]), af.Box([(0, 2 * np.pi)])])
@pytest.mark.parametrize("c", [0.0, 1.0])
def test_an_ordinary_solution_keeps_its_digits(strict, space, c):
    pde = af.DriftDiffusion(af.Density(space, lambda x: c * np.cos(x[..., 0])))
    stats = pde.solve(lambda x: np.cos(x[..., 0]), 1.0, grid=64, method="spectral").stats
    assert stats["round_off"] < 3e-12 and stats["estimated_error"] < 3e-11


@pytest.mark.parametrize("t", [1e3, 1e13])
@pytest.mark.parametrize("held", [False, True])
def test_what_has_come_to_rest_stays_however_long(strict, t, held):
    pde = af.Heat(af.Box([(0, 1)] * 2))
    walls = [(("dirichlet", 0.0), ("dirichlet", 1.0)), "no-flux"] if held else None
    run = pde.solve(lambda x: np.cos(np.pi * x[..., 0]) + x[..., 0], t, boundary=walls, method="finite-volume", rtol=1e-6)
    assert run.at([[0.2, 0.3]])[0, 0] == pytest.approx(0.2 if held else 0.5, abs=1e-6)
