"""A solution as an xarray Dataset and as a pandas table: every number under its time, place and column."""

import sys

import numpy as np
import pytest

import attnflow as af

P = af.VonMises(1.0)
LAYER = af.Attention(af.SquaredDistance(af.Circle()), 0.1)


def start(x):
    return np.stack([np.cos(x[..., 0]), np.sin(x[..., 0])], axis=-1)


def on_globe():
    return af.Heat(af.Sphere(2)).solve(lambda x: x[..., 0], [0.0, 0.1], grid=(4, 8))


def on_tokens():
    return af.propagate(LAYER, P.sample(7, rng=0), start, 3)


def moving():
    return af.evolve(af.Attention(af.DotProduct(), 0.1), af.Sphere(2).probe_points(6), 2, constrain="sphere")


@pytest.mark.optional
def test_a_dataset_is_asked_by_time_and_angle(tmp_path):
    xarray = pytest.importorskip("xarray")
    solution = af.DriftDiffusion(P).solve(start, [0.0, 0.5], rtol=1e-10)
    dataset = solution.to_xarray()
    assert dataset.y.dims == ("t", "theta", "column") and dataset.theta.units == "rad"
    k = 5
    there = dataset.y.sel(t=0.5, theta=solution.grid.axes[0].nodes[k])
    np.testing.assert_array_equal(there, solution.y[1, k])
    np.testing.assert_array_equal(dataset.estimated_error, solution.node_errors())
    assert on_globe().to_xarray().y.dims == ("t", "colatitude", "longitude", "column")
    pytest.importorskip("zarr")
    dataset.to_zarr(tmp_path / "run.zarr", consolidated=False)
    assert xarray.open_zarr(tmp_path / "run.zarr", consolidated=False).equals(dataset)


@pytest.mark.optional
def test_tokens_carry_their_places_and_layers():
    pytest.importorskip("xarray")
    run = on_tokens()
    dataset = run.to_xarray()
    np.testing.assert_array_equal(dataset.x, run.points[:, 0])
    np.testing.assert_array_equal(dataset.layers, [0, 1, 2, 3])
    assert dataset.message == "finished" and '"engine"' in dataset.stats
    assert {*moving().to_xarray().coords} == {"t", "layers", "token"}


@pytest.mark.parametrize("make", [on_globe, on_tokens, moving])
def test_a_row_of_the_table_is_one_time_and_place(make):
    pytest.importorskip("pandas")
    solution = make()
    table = solution.to_dataframe()
    assert len(table) == solution.y.size // solution.y.shape[-1]
    columns = [name for name in table if name.startswith("y")]
    np.testing.assert_array_equal(table[columns].to_numpy(), solution.y.reshape(len(table), -1))
    np.testing.assert_array_equal(table.t.unique(), solution.t)
    if solution.grid is not None:
        here = table.iloc[len(table) // 2 + 11]
        place = [np.sin(here.colatitude) * np.cos(here.longitude), np.sin(here.colatitude) * np.sin(here.longitude)]
        np.testing.assert_allclose(solution.grid.points[11][:2], place, atol=1e-15)
    elif solution.points is not None:
        np.testing.assert_array_equal(table.x[:7], solution.points[:, 0])


@pytest.mark.parametrize("package, method", [("xarray", "to_xarray"), ("pandas", "to_dataframe")])
def test_what_to_install_is_said(monkeypatch, package, method):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{method} needs {package}: pip install "attnflow\[storage\]"'):
        getattr(on_tokens(), method)()
