"""What a layer larger than memory takes: measured in a process of its own, and continued by the laws of its engines."""

import numpy as np
import pytest

from validation import scale


def known(engine):
    return scale.Measured(engine, 10**6, 2**20, 3.0, 2.5, 2e8, 5e8, 2.0, 0.0)


@pytest.mark.parametrize("engine, core_seconds, moved", [("numba", 2, 2), ("cells", 1, 1), ("nufft", 1, 1)])
def test_predictions_follow_the_laws_of_the_engines(engine, core_seconds, moved):
    same = scale.predict(known(engine), 10**6)
    assert (same.core_seconds, same.alone, same.moved) == (5.0, 0.5, 2e8)
    sizes = 10.0 ** np.arange(9, 13)
    rows = [scale.predict(known(engine), int(size)) for size in sizes]
    slopes = [np.polyfit(np.log(sizes), np.log([getattr(row, of) for row in rows]), 1)[0] for of in ("core_seconds", "moved")]
    # near keys reach as far as log(2 N / rtol) asks: 7 % further for every ten times as many
    assert slopes[0] == pytest.approx(core_seconds, abs=0.03 if engine == "cells" else 1e-9)
    assert slopes[1] == pytest.approx(moved, abs=1e-9)
    assert (slopes[0] > core_seconds + 0.01) == (engine == "cells")
    assert [row.alone for row in rows] == [0.5 * size / 1e6 for size in sizes]


def test_numbers_are_said_in_a_few_digits():
    row = scale.table([known("nufft")])[0]
    assert row == ["nufft", "1e+09", "predicted", "5.5e-06", "200 GB", "", "8.42 min", "396 MB/s", ""]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["cells", pytest.param("nufft", marks=pytest.mark.optional)])
def test_a_layer_from_file_to_file_takes_the_memory_of_its_blocks(engine):
    if engine == "nufft":
        pytest.importorskip("finufft")
    few, many = (scale.measure(engine, size, 2**15) for size in (2**17, 2**21))
    assert max(few.error, many.error) < scale.RTOL
    assert many.peak < few.peak + 2**24  # the rows of so many more are four times as much
    assert many.moved / many.size == pytest.approx(few.moved / few.size, rel=0.2)


def test_near_keys_are_predicted_as_far_as_their_sort_goes():
    cells, nufft = ([row[1] for row in scale.table([known(engine)])] for engine in ("cells", "nufft"))
    assert cells == ["1e+09", "1e+10"] and nufft[-1] == "1e+12"
