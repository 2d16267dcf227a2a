"""Blocks of sums in registers: what they add up, and that they stay there on narrow and on wide vectors."""

import os
import platform
import re
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba import types

from attnflow.kernels.numba_engine import blocks

TERMS = {
    "product": lambda x, y, p: x * y,
    "square": lambda x, y, p: (x - y) ** 2,
    "wrapped": lambda x, y, p: (x - y - p * np.rint((x - y) / p)) ** 2,
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("term, vectors", [("product", 2), ("product", 1), ("square", 2), ("wrapped", 2)])
def test_a_block_adds_all_terms_and_no_others(term, vectors, dtype):
    length, rng = 5, np.random.default_rng(0)
    rows, width = blocks.ROWS, vectors * blocks.width(dtype) // blocks.VECTORS
    left, right, row, column = (
        rng.integers(-8, 8, shape).astype(dtype) for shape in ((length, rows), (length, width), width, rows)
    )
    sides = np.array([4.0, 8.0, 2.0, 16.0, 4.0], dtype)
    out = np.full((rows + 2, width + 3), 99, dtype)
    sums = blocks.block(term, (1, rows), vectors)

    @numba.njit(error_model="numpy")
    def run(left, right, row, column, sides, inverses, out):
        sums(left, 0, right, 0, length, sides, inverses, row, 0, column, 0, out, width + 4, width + 3)

    run(left.ravel(), right.ravel(), row, column, sides, 1 / sides, flat := out.ravel())
    terms = TERMS[term](left[:, :, None], right[:, None, :], sides[:, None, None])
    np.testing.assert_array_equal(flat.reshape(out.shape)[1:-1, 1:-2], terms.sum(axis=0) + row + column[:, None])
    assert (flat == 99).sum() >= flat.size - rows * width  # nothing beside it was touched


def loop(dtype=types.float64):
    """The code of a block's loop."""
    sums = blocks.block("product", (1, blocks.ROWS))

    @numba.njit(error_model="numpy")
    def run(left, right, length, none, out):
        sums(left, 0, right, 0, length, none, none, none, 0, none, 0, out, 0, 256)

    array = types.Array(dtype, 1, "C")
    run.compile((array, array, types.int64, array, array))
    (code,) = run.inspect_asm().values()
    return max(re.split(r"\n(?=\.LBB)", code), key=lambda part: len(re.findall(r"vfmadd\w+p[sd]", part)))


_CODE = r"""
import re, sys
sys.path.insert(0, sys.argv[1])
from test_blocks import blocks, loop
code = loop()
fused = re.findall(r"vfmadd\w+pd.*(%zmm\d+)$", code, re.MULTILINE)
assert (blocks.VECTOR_BYTES, blocks.REGISTERS) == (64, 32)
assert len(set(fused)) == blocks.ROWS * blocks.VECTORS and "%rsp" not in code, code
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the names of instructions are those of x86-64")
def test_all_sums_of_a_block_stay_in_registers():
    code = loop()
    if "vfmadd" not in code:
        pytest.skip("no fused multiply-add here")
    sums = re.findall(r"vfmadd\w+pd.*(%[xyz]mm\d+)$", code, re.MULTILINE)
    assert len(set(sums)) == blocks.ROWS * blocks.VECTORS and len(sums) % len(set(sums)) == 0  # unrolled on some processors
    assert "%rsp" not in code  # nothing is kept in memory


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the names of instructions are those of x86-64")
def test_wide_vectors_make_larger_blocks_that_stay_in_registers():  # compiled here, run nowhere
    environment = os.environ | {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", _CODE, os.path.dirname(__file__)], env=environment, check=True)
