"""Walls that act for a part of the time only: no solver steps over what they do."""

import numpy as np
import pytest

import attnflow as af
from attnflow.pde.timing import Timing, asked_times

ROD = af.Heat(af.Box([(0, 1)]))
MEAN = np.full((1, 1), 0.5)


def constant(value):
    return lambda x: value + 0 * x[..., 0]


def window(on, off, total=1.0):
    return lambda x, t: total / (off - on) * (on < t < off) + 0 * x[..., 0]


def pulse(middle, width):
    return lambda x, t: np.exp(-(((t - middle) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi)) + 0 * x[..., 0]


@pytest.mark.parametrize("flux, start", [(window(0.2, 0.25), 0.0), (window(0.3, 0.4), 100.0), (pulse(0.2137, 0.005), 1.0)])
def test_what_comes_in_for_a_while_stays(flux, start):
    run = ROD.solve(constant(start), 3.0, rtol=1e-4, boundary=[(("neumann", flux), "no-flux")])
    assert run.at(MEAN).item() == pytest.approx(start + 1.0, abs=1e-4 * (start + 1))


def test_a_pulse_however_short_is_met_once_it_was_seen():
    middle = asked_times(np.array([2.0]))[40]
    flux = window(middle - 0.7e-4, middle + 1.3e-4)
    run = ROD.solve(constant(0.0), 2.0, rtol=1e-4, boundary=["no-flux", ("neumann", flux)])
    assert run.at(MEAN).item() == pytest.approx(1.0, rel=1e-4)


def held(t):
    """Mean of a rod that begins at 0 and is held at 1 at one end, the other closed."""
    k = np.pi * (np.arange(400) + 0.5)
    return 1 - (2 / k**2 * np.exp(-(k**2) * t)).sum()


def test_a_wall_held_for_a_while_leaves_what_it_let_in():
    boundary = [(("dirichlet", lambda x, t: 1.0 * (0.2 < t < 0.25) + 0 * x[..., 0]), "no-flux")]
    run = ROD.solve(constant(0.0), 0.5, rtol=1e-4, boundary=boundary)
    assert run.stats["mean"][-1][0] == pytest.approx(held(0.3) - held(0.25), rel=1e-3)


def test_a_leaking_wall_is_fed_for_a_while():
    """What leaks at the rate b H decays as exp(-b t) where b is small."""
    boundary = [(("robin", 1e-3, window(0.2, 0.25)), "no-flux")]
    run = ROD.solve(constant(0.0), 10.0, rtol=1e-4, boundary=boundary)
    assert run.at(MEAN).item() == pytest.approx(np.exp(-1e-3 * 9.775), rel=1e-3)


@pytest.mark.parametrize("wind", [False, True])
def test_in_the_plane_and_with_a_velocity_too(wind):
    box = af.Box([(0, 1)] if wind else [(0, 1), (0, 1)])
    pde = af.General(af.Uniform(box), lambda x: 0 * x) if wind else af.Heat(box)
    boundary = [(("neumann", window(0.2, 0.25)), "no-flux"), *["no-flux"] * (box.dim - 1)]
    run = pde.solve(constant(0.0), 2.0, rtol=1e-3, boundary=boundary)
    assert run.at(np.full((1, box.dim), 0.5)).item() == pytest.approx(1.0, rel=1e-3)


def test_a_wall_and_a_source_at_different_times_are_both_met():
    def source(x, t, H):
        return 10.0 * (1.1 < t < 1.2) - 1e-9 * H**2

    run = ROD.solve(constant(0.0), 3.0, rtol=1e-4, boundary=[(("neumann", window(0.2, 0.215)), "no-flux")], source=source)
    assert run.at(MEAN).item() == pytest.approx(2.0, rel=1e-4)


def test_jumps_that_overlap_are_one():
    both = Timing(((0.1, 0.2), (0.5, 0.6)), 1.0).beside(Timing(((0.15, 0.3), (0.7, 0.8)), 0.5))
    assert both == Timing(((0.1, 0.3), (0.5, 0.6), (0.7, 0.8)), 0.5)


def test_at_time_0_there_is_nothing_to_ask():
    run = ROD.solve(constant(2.0), 0.0, rtol=1e-2, boundary=[(("neumann", window(0.2, 0.25)), "no-flux")])
    assert run.y == pytest.approx(2.0)
    assert ROD.solve(constant(2.0), 0.0, rtol=1e-2, source=lambda x, t, H: -(H**2)).y == pytest.approx(2.0)


def test_rounding_errors_in_time_are_no_changes():
    def flux(x, t):
        return np.sin(t) ** 2 + np.cos(t) ** 2 + 0 * x[..., 0]

    run = ROD.solve(constant(0.0), 1.0, rtol=1e-3, boundary=[(("neumann", flux), "no-flux")])
    assert run.stats["mean"][-1][0] == pytest.approx(1.0, rel=1e-4) and run.stats["evaluations"] < 400
