"""Stores that were damaged, or hold nothing yet."""

import json

import numpy as np
import pytest

import attnflow as af

PLANE = af.Attention(af.SquaredDistance(af.Euclidean(2)), 0.3)
CLOUD = np.random.default_rng(0).normal(size=(30, 2))


def test_a_damaged_store_is_refused_in_one_line(store_name, tmp_path):
    run = af.propagate(PLANE, CLOUD, CLOUD, 3, store=tmp_path / store_name)
    for path in sorted(path for path in (tmp_path / store_name).rglob("*") if path.is_file()):
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]):
            path.write_bytes(damaged)
            try:
                np.testing.assert_array_equal(af.load(tmp_path / store_name).y, run.y)
            except ValueError as error:
                assert str(error).startswith("path must be a file written by Solution.save, or the store of a run")
                assert "\n" not in str(error)
            else:
                assert len(damaged) == len(content)  # a bit that nobody reads
        path.write_bytes(content)
    np.testing.assert_array_equal(af.load(tmp_path / store_name).y, run.y)


@pytest.mark.optional
@pytest.mark.parametrize(
    "name, old, new",
    [
        ("y", '"little"', '"big"'),
        ("points", '"little"', '"big"'),
        ("y", "[4,30,2]", "[4,30,1]"),
        ("points", "[30,2]", "[30,1]"),
        ("t", '"shape":[4]', '"shape":[2]'),
        ("layers", '"zarr_format":3,', ""),
        ("points", '"zarr_format":3,', ""),
    ],
)
def test_damaged_metadata_are_refused_and_not_read_as_other_numbers(name, old, new, tmp_path):
    pytest.importorskip("zarr")
    af.propagate(PLANE, CLOUD, CLOUD, 3, store=tmp_path / "run.zarr")
    path = tmp_path / "run.zarr" / name / "zarr.json"
    text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match="^path must be a file written by Solution.save, or the store of a run"):
        af.load(tmp_path / "run.zarr")


def test_a_store_without_a_layer_says_so(tmp_path):
    af.evolve(PLANE, CLOUD, 3, store=tmp_path / "run")
    for path in (tmp_path / "run").glob("0*"):
        path.unlink()
    with pytest.raises(ValueError, match="nothing was finished"):
        af.load(tmp_path / "run")


@pytest.mark.parametrize("lost", ["run/000000002.npz", pytest.param("run.zarr/t/c/2", marks=pytest.mark.optional)])
def test_a_run_that_ended_is_not_read_without_its_last_layers(lost, tmp_path):
    store = tmp_path / lost.split("/")[0]
    if store.suffix == ".zarr":
        pytest.importorskip("zarr")
    af.evolve(PLANE, CLOUD, 3, store=store)
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=r"\(it lacks saved layers or times: 4 were written, 2 are whole\)"):
        af.load(store)
