"""Pictures of error bars: over positions on a line, else in the order of the features."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

import attnflow as af

F = af.SquaredDistance(af.Circle())


def test_few_outputs_have_bars_of_95_percent_over_their_positions():
    tokens = af.VonMises(1.0).sample(100, rng=0)
    bars = af.error_bars(af.Attention(F, 0.1), tokens, np.cos(tokens), 3, queries=[[2.0], [0.5], [1.0]])
    ax = bars.plot()
    (segments,) = [c.get_segments() for c in ax.containers[0].lines[2]]
    ends = np.array(segments)[:, :, 1]
    order = [1, 2, 0]
    np.testing.assert_allclose(np.array(segments)[:, 0, 0], [0.5, 1.0, 2.0])
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * 1.96 * bars.noise[order, 0], rtol=1e-3)
    np.testing.assert_allclose(ends.mean(axis=1), bars.features[order, 0])
    limit = next(line for line in ax.lines if "limit" in line.get_label())
    np.testing.assert_allclose(limit.get_ydata(), (bars.features - bars.bias)[order, 0])
    assert f"{bars.noise_share:.2g}" in ax.get_title(loc="left") and "angle" in ax.get_xlabel()
    line = af.error_bars(af.Attention(af.SquaredDistance(af.Circle(1.0)), 0.1), tokens % 1, np.cos(tokens), 1).plot()
    assert line.get_xlabel() == "position $x$ (length)"


def test_many_outputs_in_space_have_a_band_in_their_order():
    tokens = np.random.default_rng(0).normal(size=(100, 2))
    ax = af.error_bars(af.Attention(af.SquaredDistance(af.Euclidean(2)), 0.3), tokens, tokens, 2, rng=0).plot(column=1)
    line = next(line for line in ax.lines if line.get_label() == "feature")
    assert (np.diff(line.get_ydata()) >= 0).all() and len(ax.collections) == 1
    assert "order" in ax.get_xlabel() and "column 2 of 2" in ax.get_ylabel()


def test_a_column_that_is_not_there_is_refused():
    tokens = np.random.default_rng(0).normal(size=(20, 2))
    bars = af.error_bars(af.Attention(af.SquaredDistance(af.Euclidean(2)), 0.3), tokens, tokens, 2)
    with pytest.raises(ValueError, match="column must be at most 1"):
        bars.plot(column=2)
