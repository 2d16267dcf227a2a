"""The automatic choice: what it rests on, what it takes, and how it explains itself."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import attnflow as af
from attnflow.kernels import choice, choose, costs, plan
from attnflow.kernels.choice import dense_unit

SQUARE = af.SquaredDistance(af.Torus([1.0, 1.0]))
MANY = np.random.default_rng(0).random((20_000, 2))


def test_few_tokens_are_summed_densely_without_looking_further():
    chosen = choose(SQUARE, 1e-6, None, MANY[:500])
    assert chosen.engine == "numba" and list(chosen.seconds) == ["numba"]


def test_tokens_with_few_neighbours_are_summed_in_cells_as_their_plan_says():
    chosen = choose(SQUARE, 4e-6, None, MANY, rtol=1e-9)
    assert chosen.engine == "cells"
    reach = np.sqrt(2 * 4e-6 * np.log(2 * len(MANY) / 1e-9))
    assert chosen.facts["keys within reach"] == pytest.approx(np.pi * reach**2 * len(MANY), rel=0.3)
    assert plan(SQUARE, 4e-6, None, MANY, rtol=1e-9).engine == "cells"


@pytest.mark.optional
def test_wide_gaussians_of_many_tokens_are_summed_by_fourier_transform():
    pytest.importorskip("finufft")
    assert choose(SQUARE, 1e-3, None, MANY, rtol=1e-9).engine == "nufft"
    # the nearest image is not the sum of all images when the kernel is as wide as the torus
    refused = choose(SQUARE, 0.05, None, MANY, rtol=1e-9)
    assert refused.engine != "nufft" and "images" in refused.reasons["nufft"]


def test_a_pseudometric_without_decay_is_left_to_the_dense_engine_with_the_reason():
    unit = np.ones((3000, 1))
    for f in (af.DotProduct(), af.PseudoMetric(lambda x, y: (x - y)[..., 0] ** 2, 1)):
        chosen = choose(f, 0.5, None, unit)
        assert chosen.engine == "numba" and "use backend" in chosen.reasons["cells"]
        how = "" if f.pair.function is None else ", f evaluated by Python"
        assert str(chosen).splitlines()[0] == f"numba: queries 3000, keys 3000{how}"


def test_more_applications_and_columns_cost_more_and_float32_less():
    once, often = (choose(SQUARE, 1e-4, None, MANY, applications=k).seconds for k in (1, 50))
    assert all(10 * once[name] < often[name] <= 51 * once[name] for name in ("numba", "cells"))
    wide, single = (
        choose(SQUARE, 1e-4, None, MANY, columns=9).seconds,
        choose(SQUARE, 1e-4, None, MANY, "float32", 1e-5).seconds,
    )
    assert wide["numba"] > choose(SQUARE, 1e-4, None, MANY).seconds["numba"] > 2 * single["numba"]


def test_the_speed_of_a_pair_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice.dense_unit.cache_clear()
    unit = dense_unit()
    stored = tmp_path / "attnflow" / "speed.json"
    assert list(json.loads(stored.read_text()).values()) == [unit] and 1e-11 < unit < 1e-6
    stored.write_text(stored.read_text().replace(repr(unit), "0.5"))
    choice.dense_unit.cache_clear()
    assert dense_unit() == 0.5  # read back, not measured again
    stored.write_text("damaged")
    choice.dense_unit.cache_clear()
    assert dense_unit() < 1e-6
    choice.dense_unit.cache_clear()


def test_a_layer_explains_its_choice_and_follows_it():
    layer = af.Attention(SQUARE, 4e-6, rtol=1e-9)
    chosen = layer.plan(MANY, columns=2, layers=10)
    assert chosen.engine == "cells" and "cells" in str(chosen) and "s predicted" in str(chosen)
    bound = layer.bind(MANY)
    assert bound.stats["engine"] == bound.plan.engine == "cells"
    with pytest.raises(ValueError, match="columns must be"):
        layer.plan(MANY, columns=0)


def test_a_layer_that_chooses_its_keys_says_where_it_looks_and_does():
    near, rows = af.Attention(SQUARE, 1.0, af.TopK(8)), af.Attention(af.DotProduct(), 1.0, af.TopK(8))
    graph = af.Attention(SQUARE, 1.0, af.TopK(1), mask=[[i, i] for i in range(3000)])
    for layer, engine in ((near, "cells"), (rows, "numba"), (graph, "graph")):
        assert layer.plan(MANY[:3000]).engine == layer.bind(MANY[:3000]).stats["engine"] == engine
    assert str(near.plan(MANY)) == "cells: queries 20000, keys 20000, weights TopK(k=8)"
    assert near.plan(MANY[:300]).engine == "numba"


def test_an_engine_whose_package_is_absent_is_not_even_imported(monkeypatch):
    from attnflow.kernels.registry import ENGINES, Engine

    monkeypatch.setitem(ENGINES, "imaginary", Engine("nowhere_engine", ("no_such_package",), chosen=True))
    chosen = choose(SQUARE, 4e-6, None, MANY)
    assert chosen.engine == "cells" and chosen.reasons["imaginary"] == "needs the package no_such_package"


def test_a_process_that_computes_for_another_chooses_as_that_one_does(monkeypatch):
    seconds = {}
    for count in (1, 64):
        monkeypatch.setattr(costs, "_reckoned", None)
        costs.reckon_with(count)
        seconds[count] = choose(SQUARE, 1e-4, None, MANY).seconds
    begun = 2 * costs.BEGUN * dense_unit()  # of two applications
    assert seconds[1]["numba"] - begun == pytest.approx(64 * (seconds[64]["numba"] - begun))
    assert seconds[1]["cells"] < 32 * seconds[64]["cells"]  # what comes before the sums no thread shares


@pytest.mark.slow
def test_workers_of_a_study_reckon_with_its_threads(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(
        "import attnflow as af, numpy as np, numba\n"
        "from attnflow.kernels import costs\n"
        "def initial(x):\n"
        "    if costs._reckoned is not None:\n"
        f"        open({str(tmp_path / 'told')!r}, 'w').write(str(costs.threads()))\n"
        "    return np.cos(x[..., 0])\n"
        "if __name__ == '__main__':\n"
        "    f = af.SquaredDistance(af.Circle())\n"
        "    af.ConvergenceStudy(f, af.VonMises(1.0), initial, 0.1, (0.05,), (50,), 1).run(n_jobs=2, progress=False)\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, env=os.environ | {"NUMBA_NUM_THREADS": "3"})
    assert (tmp_path / "told").read_text() == "3"
