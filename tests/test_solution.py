"""Solutions interpolate at saved times and survive being written and read."""

import numpy as np
import pytest

import attnflow as af
from attnflow.solution import Solution


def heat():
    grid = af.Torus([2 * np.pi, 1.0]).grid((16, 8))
    mode = np.cos(3 * grid.points[:, 0]).reshape(16, 8, 1)
    return Solution(t=np.array([0.0, 0.1]), y=np.stack([mode, 0.5 * mode]), grid=grid, stats={"sweeps": np.int64(3)})


def test_a_field_is_interpolated_at_saved_times():
    x = np.array([[0.2, 0.7], [1.0, 0.1]])
    exact = np.cos(3 * x[:, :1])
    np.testing.assert_allclose(heat().at(x), 0.5 * exact, atol=1e-14)
    np.testing.assert_allclose(heat().at(x, 0.0), exact, atol=1e-14)
    np.testing.assert_allclose(heat().at(x, [0.0, 0.1]), [exact, 0.5 * exact], atol=1e-14)


@pytest.mark.parametrize(
    "make",
    [
        heat,
        lambda: Solution(
            t=np.array([0.0, 0.2]),
            y=np.ones((2, 5, 3)),
            layers=np.array([0, 4]),
            points=np.ones((5, 2)),
            status=1,
            message="interrupted",
        ),
        lambda: Solution(t=np.array([0.0]), y=np.ones((1, 4, 8, 1)), grid=af.Sphere(2).grid(4)),
    ],
    ids=["field", "tokens", "sphere"],
)
def test_a_solution_reads_back_as_it_was_written(make, tmp_path):
    before = make()
    before.save(tmp_path / "run.npz")
    after = af.load(tmp_path / "run.npz")
    for name in ("t", "y", "layers", "points"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.grid, after.status, after.message) == (before.grid, before.status, before.message)
    assert after.stats == before.stats
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_a_time_that_was_not_saved_is_refused():
    with pytest.raises(ValueError, match="t must be a saved time, got 0.04; the nearest saved one is 0.0"):
        heat().at(np.zeros((1, 2)), 0.04)


def test_tokens_have_no_values_in_between():
    with pytest.raises(ValueError, match="queries=points"):
        Solution(t=np.zeros(1), y=np.ones((1, 2, 1))).at(np.zeros((1, 2)))


@pytest.mark.parametrize("content", [b"", b"not a file", b"PK\x03\x04 truncated"])
def test_a_file_that_is_no_solution_is_refused(content, tmp_path):
    (tmp_path / "run.npz").write_bytes(content)
    with pytest.raises(ValueError, match="path must be a file written by Solution.save"):
        af.load(tmp_path / "run.npz")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "run.npz", meta=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="path must be a file written by Solution.save"):
        af.load(tmp_path / "run.npz")


def test_a_missing_file_is_missing():
    with pytest.raises(FileNotFoundError):
        af.load("no such file.npz")
