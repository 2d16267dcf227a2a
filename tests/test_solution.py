"""Solutions interpolate at saved times and survive being written and read."""

import json
import random

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


@pytest.mark.parametrize("flips", [range(60), pytest.param(range(60, 300), marks=pytest.mark.slow)], ids=["60", "300"])
def test_a_file_with_a_byte_flipped_loads_the_same_or_is_refused_in_one_line(flips, tmp_path):
    before = heat()
    before.save(tmp_path / "run.npz")
    content, path = (tmp_path / "run.npz").read_bytes(), tmp_path / "flipped.npz"
    for seed in flips:
        chance = random.Random(seed)
        flipped = bytearray(content)
        # half of them where archives describe themselves: the directory at the end
        first = 0 if seed % 2 else content.index(b"PK\x01\x02")
        for _ in range(chance.choice([1, 1, 1, 5])):
            flipped[chance.randrange(first, len(flipped))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped[: chance.randrange(len(flipped))] if seed % 10 == 0 else flipped)
        try:
            after = af.load(path)
        except ValueError as error:
            assert str(error).startswith("path must ") and len(str(error).splitlines()) == 1, seed
        else:
            np.testing.assert_array_equal(after.y, before.y)
            assert after.t.tolist() == before.t.tolist() and after.grid == before.grid and after.stats == before.stats


def described(**changes) -> str:
    meta = {"axes": [], "sphere": False, "endless": [], "status": 0, "message": "finished", "stats": {}}
    return json.dumps({**meta, **changes})


@pytest.mark.parametrize(
    "meta, arrays",
    [
        ("[" * 100_000, {}),
        ("{", {}),
        ("7", {}),
        ("[]", {}),
        ("{}", {}),
        (described(status=float("inf")), {}),
        (described(status=1.5), {}),
        (described(status=True), {}),
        (described(status=3), {}),
        (described(stats=[1]), {}),
        (described(message=None), {}),
        (described(axes=[["fourier", 5, 0.0, 1.0]]), {}),
        (described(axes=[["fourier", 10**12, 0.0, 1.0]]), {}),
        (described(axes=[["colatitude", 2, 0.0, 1.0]]), {}),
        (described(axes=[["spiral", 2, 0.0, 1.0]]), {}),
        (described(axes=[["fourier", 2, 0.0, 1.0]], endless=[[True, True]] * 3), {}),
        (described(axes=7), {}),
        (described(endless=None), {}),
        (7.0, {}),
        (["a", "b"], {}),
        (described(), {"y": [[["a"], ["b"]]]}),
        (described(), {"y": np.full((1, 2, 1), 1j)}),
        (described(), {"y": np.full((1, 2, 1), np.nan)}),
        (described(), {"y": [1.0]}),
        (described(), {"y": np.ones((2, 2, 1))}),
        (described(), {"t": [[0.0]]}),
        (described(), {"t": [np.inf]}),
        (described(), {"layers": [1, 2]}),
        (described(), {"layers": ["one"]}),
        (described(), {"points": np.ones((3, 2))}),
        (described(), {"points": [1.0, 2.0]}),
        (described(), {"embedding": np.ones((2, 2))}),
        (described(), {"dense": [1.0]}),
        (described(), {"status": [1.0]}),
    ],
)
def test_a_file_of_the_right_kind_with_wrong_content_is_refused_in_one_line(meta, arrays, tmp_path):
    np.savez(tmp_path / "run.npz", **{"meta": np.array(meta), "t": [0.0], "y": np.ones((1, 2, 1)), **arrays})
    with pytest.raises(ValueError, match="^path must ") as refused:
        af.load(tmp_path / "run.npz")
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "change, message",
    [
        ({"t": [0.0, 0.0]}, "t must be increasing"),
        ({"t": [1.0, 0.5]}, "t must be increasing"),
        ({"t": [0.0, np.nan]}, "t must be finite"),
        ({"t": 0.0}, "t must have shape"),
        ({"t": []}, "t must not be empty"),
        ({"t": ["a", "b"]}, "t must be an array of real numbers"),
        ({"y": np.ones(2)}, r"y must have shape \(2, any, any\)"),
        ({"y": np.ones((2, 5))}, "y must have shape"),
        ({"y": np.ones((2, 0, 1))}, "y must not be empty"),
        ({"y": np.ones((2, 5, 1), complex)}, "y must be an array of real numbers"),
        ({"y": np.full((2, 5, 1), "a")}, "y must be an array of real numbers"),
        ({"y": np.full((2, 5, 1), np.inf)}, "y must be finite"),
        ({"y": np.full((2, 5, 1), None), "status": -1}, "y must be an array of real numbers"),
        ({"layers": [3, 2]}, "layers must be increasing"),
        ({"layers": [0, 1, 2]}, "layers must have shape"),
        ({"points": np.ones((4, 2))}, "points must be 5 as y has"),
        ({"points": np.ones(5)}, "points must have shape"),
        ({"points": np.full((5, 1), np.nan)}, "points must be finite"),
        ({"embedding": np.ones((5, 2))}, "embedding must be None without a grid"),
        ({"grid": "a grid"}, "grid must be a Grid"),
        ({"grid": af.Circle().grid(4)}, r"y must have shape \(2, 4, any\)"),
        ({"grid": af.Circle().grid(5), "points": np.ones((5, 1))}, "points must be None for a field"),
        ({"grid": af.Circle().grid(5), "embedding": np.ones((5, 4))}, "embedding must have 2 or 3 columns"),
        ({"grid": af.Circle().grid(5), "embedding": np.ones((4, 2))}, "embedding must have shape"),
        ({"status": 2}, "status must be -1, 0 or 1"),
        ({"status": "finished"}, "status must be an integer"),
        ({"message": 1}, "message must be a string"),
        ({"stats": None}, "stats must be a dict"),
        ({"dense": 1}, "dense must be callable"),
    ],
)
def test_a_solution_checks_what_it_is_given(change, message):
    good = {"t": [0.0, 1.0], "y": np.ones((2, 5, 1))}
    Solution(**good)
    with pytest.raises((ValueError, TypeError), match=message):
        Solution(**{**good, **change})


def test_only_a_failed_run_may_hold_what_is_not_finite(tmp_path):
    y = np.array([1.0, np.inf, np.nan]).reshape(1, 3, 1)
    Solution(t=[0.0], y=y, status=-1, message="overflowed").save(tmp_path / "run.npz")
    np.testing.assert_array_equal(af.load(tmp_path / "run.npz").y, y)
