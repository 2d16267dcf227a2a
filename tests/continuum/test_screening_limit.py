"""The region that Screening keeps of infinitely many tokens: of the mass it is given, between points of one Delta p / p."""

import numpy as np
import pytest

import attnflow as af


@pytest.mark.parametrize(
    "fraction", [0.3, pytest.param(0.7, marks=pytest.mark.slow), pytest.param(0.95, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "space, log_p, slope",  # log p, and Delta p / p = (log p)'' + (log p)'^2
    [
        (af.Box(((0.0, 3.0),)), np.sin, lambda x: np.cos(x) ** 2 - np.sin(x)),
        (af.Box(((1.0, 5.0),)), lambda x: -((x - 2) ** 2), lambda x: 4 * (x - 2) ** 2 - 2),
        (af.Euclidean(1), lambda x: -(x**2) / 2, lambda x: x**2 - 1),
        (af.Circle(), lambda x: np.cos(x - 1) / 3, lambda x: np.sin(x - 1) ** 2 / 9 - np.cos(x - 1) / 3),
    ],
    ids=["box", "box with one wall", "line", "circle"],
)
def test_the_region_holds_the_fraction_and_ends_where_the_sums_agree(space, log_p, slope, fraction):
    density = af.Density(space, lambda x: log_p(x[..., 0]))
    equation = af.limit(af.Attention(af.SquaredDistance(space), 1e-3, af.Screening(fraction)), density)
    ((low, high),) = equation.space.bounds
    nodes, weights = np.polynomial.legendre.leggauss(60)
    inside = (low + (high - low) * (nodes + 1) / 2)[:, None]
    assert weights @ density.pdf(inside) * (high - low) / 2 == pytest.approx(fraction, abs=5e-4)
    ends = [x for x in (low, high) if x not in space.bounds[0]]
    values = slope(np.array(ends))
    assert len(ends) and np.ptp(values) < 1e-4 and (slope(inside[:, 0]) <= values.max() + 1e-9).all()
