"""The CUDA source compiles without spilling registers, and its functions of one pair are as accurate as they say."""

import re
import shutil
import subprocess

import host_cuda
import mpmath
import numpy as np
import pytest

import attnflow as af
from attnflow.kernels.cupy_engine import launch as cuda

needs_compiler = pytest.mark.skipif(host_cuda.COMPILER is None, reason="needs g++")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
FUNCTIONS = """
#include "pairs.cuh"
extern "C" __global__ void exp2_double(const double* x, double* y, int n) {
    for (int i = 0; i < n; ++i) y[i] = power_of_two(x[i]);
}
extern "C" __global__ void exp2_float(const float* x, float* y, int n) {
    for (int i = 0; i < n; ++i) y[i] = power_of_two(x[i]);
}
extern "C" __global__ void wrap_double(const double* x, double* y, int n, double period) {
    for (int i = 0; i < n; ++i) y[i] = wrapped(x[i], period, 1 / period);
}
extern "C" __global__ void wrap_float(const float* x, float* y, int n, float period) {
    for (int i = 0; i < n; ++i) y[i] = wrapped(x[i], period, 1 / period);
}
extern "C" __global__ void sum_online(const double* t, const double* v, double* out, int n) {
    Sums<double, 1> sums;
    sums.start(Range<double>::LOWEST);
    for (int j = 0; j < n; ++j) {
        if (t[j] - sums.top > Range<double>::SLACK) sums.raise(t[j]);
        sums.add(power_of_two(t[j] - sums.top), v + j);
        if (j % 7 == 0) sums.close_tile();
    }
    sums.close_tile();
    out[0] = sums.top, out[1] = sums.total, out[2] = sums.values[0];
}
"""


def call(name, x, *arguments):
    header = (cuda._SOURCES / "pairs.cuh").read_text()
    module = host_cuda.RawModule(FUNCTIONS.replace('#include "pairs.cuh"\n', header), ())
    x = host_cuda.on_device(np.asarray(x))
    y = host_cuda.on_device(np.zeros_like(x))
    module.get_function(name)((1,), (1,), (x, y, np.int32(len(x)), *arguments))
    return np.asarray(y)


@needs_compiler
def test_exp2_is_good_to_half_a_billionth_of_a_millionth_wherever_it_is_a_normal_number():
    rng = np.random.default_rng(0)
    edges = np.array([-1021.9999999, -0.5, 0.5, 1.5, 1023.5, 1023.9999999, -1e-300, 1e-9])
    x = np.concatenate([edges, rng.uniform(-1022, 1024, 3000), rng.uniform(-1, 1, 3000)])
    y = call("exp2_double", x)
    with mpmath.workdps(40):
        errors = [abs(mpmath.mpf(b) / mpmath.mpf(2) ** mpmath.mpf(a) - 1) for a, b in zip(x.tolist(), y.tolist())]
    assert max(errors) < 5e-16
    assert call("exp2_double", [0.0, 3.0, -1022.0, -1022.5, -1074.0, -1e300, -np.inf]).tolist() == [1, 8, 0, 0, 0, 0, 0]
    assert np.isinf(call("exp2_double", [1024.0, 1e5, 1e300, np.inf])).all()


@needs_compiler
def test_exp2_in_single_precision_is_good_to_two_units():
    x = np.random.default_rng(1).uniform(-126, 127, 4000).astype(np.float32)
    assert np.abs(call("exp2_float", x) / np.exp2(x.astype(np.float64)) - 1).max() < 2e-7
    assert call("exp2_float", np.array([-np.inf, -3e38, 0.0], np.float32)).tolist() == [0, 0, 1]


@needs_compiler
@pytest.mark.parametrize("dtype, name", [(np.float64, "wrap_double"), (np.float32, "wrap_float")])
def test_a_wrapped_difference_is_the_one_to_the_nearest_image(dtype, name):
    period = dtype(2.5)
    near = np.random.default_rng(2).uniform(-1.24, 1.24, 500).astype(dtype)
    for turns in (0, 1, -3, 1000):
        got = call(name, near + turns * period, period)
        np.testing.assert_allclose(got, near, atol=4 * np.finfo(dtype).eps * (1 + 2.5 * abs(turns)))
    far = call(name, np.array([1.25, -1.25, 1.2500001, 2.5], dtype), period)
    np.testing.assert_allclose(np.abs(far), [1.25, 1.25, 1.25, 0.0], atol=2e-7)


@needs_compiler
@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_online_sums_forget_nothing_that_counts(order):
    rng = np.random.default_rng(3)
    t = np.sort(rng.uniform(-4000, 4000, 200))
    t = {"rising": t, "falling": t[::-1], "mixed": rng.permutation(t)}[order]
    t, v = np.append(t, t.max() - 1), rng.standard_normal(201)
    header = (cuda._SOURCES / "pairs.cuh").read_text()
    module = host_cuda.RawModule(FUNCTIONS.replace('#include "pairs.cuh"\n', header), ())
    out = host_cuda.on_device(np.zeros(3))
    module.get_function("sum_online")((1,), (1,), (*map(host_cuda.on_device, (t, v)), out, np.int32(201)))
    weights = np.exp2(t - t.max())
    assert out[0] + np.log2(out[1]) == pytest.approx(t.max() + np.log2(weights.sum()), abs=1e-12)
    assert out[2] / out[1] == pytest.approx(weights @ v / weights.sum(), abs=1e-14)


def specialisations():
    """What is asked most, and what needs most registers."""
    squared, wrapped = af.SquaredDistance(af.Euclidean(3)).pair, af.SquaredDistance(af.Torus([1.0, 1.0])).pair
    angle, power = af.SquaredDistance(af.Sphere(2)).pair, af.PowerDistance(af.Euclidean(8), 1.5).pair
    sums = [
        (squared, 3, 1, 4, 0, 128),
        (squared, 8, 8, 4, 1, 128),
        (wrapped, 2, 1, 4, 1, 32),
        (squared, 3, 1, 8, 0, 128),
        (wrapped, 3, 8, 8, 1, 128),
        (angle, 3, 1, 4, 0, 128),
        (power, 8, 4, 8, 1, 128),
    ]
    for pair, dim, columns, itemsize, subtracted, threads in sums:
        each = cuda.queries_per_thread(dim, columns, itemsize)
        transform = cuda.rule(pair, 0.1)[0]
        yield "sums.cu", cuda.sums_defines(pair, transform, dim, columns, itemsize, subtracted, each, threads)
    for pair, itemsize, source in [(squared, 4, 1), (wrapped, 8, 0)]:
        yield "blocks.cu", cuda.blocks_defines(pair, 0, itemsize, source)


def in_one_file():
    """All specialisations side by side, each in a namespace of its own: a compiler starts once."""
    yield (cuda._SOURCES / "pairs.cuh").read_text()
    for k, (file, defines) in enumerate(specialisations()):
        yield from (f"#define {name} {value}" for name, value in defines)
        text = (cuda._SOURCES / file).read_text().replace('#include "pairs.cuh"\n', "")
        yield f"namespace s{k} {{\n" + text.replace('extern "C" ', "") + "}"
        yield from (f"#undef {name}" for name, _ in defines)


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(tmp_path, architecture):
    (tmp_path / "all.cu").write_text("\n".join(in_one_file()))
    command = ["nvcc", *cuda.OPTIONS, f"-arch={architecture}", "-cubin", "-Xptxas", "-v"]
    done = subprocess.run([*command, "all.cu", "-o", "all.cubin"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = r"Function properties for (\w+)\n.*?(\d+) bytes spill stores.*?Used (\d+) reg"
    kernels = re.findall(report, done.stderr, re.S)
    assert len(kernels) == 2 * 7 + 2
    for name, spilled, registers in kernels:
        assert spilled == "0" and int(registers) <= 128, (name, spilled, registers)


@needs_nvcc
def test_a_pair_in_single_precision_costs_nine_operations_and_one_exp2(tmp_path):
    """Three dimensions, one column: 3 subtractions, 4 fused multiply-adds to the logit, 1 for each of two sums."""
    file, defines = next(specialisations())
    (tmp_path / "one.cu").write_text(cuda.code(file))
    flags = [f"-D{name}={value}" for name, value in defines]
    subprocess.run(["nvcc", *cuda.OPTIONS, *flags, "-arch=sm_80", "-ptx", "one.cu", "-o", "one.ptx"], cwd=tmp_path, check=True)
    ptx = (tmp_path / "one.ptx").read_text().partition("merge(")[0]
    pairs = len(re.findall(r"ex2\.approx\.ftz\.f32", ptx))
    arithmetic = len(re.findall(r"\b(?:add|sub|mul|fma)[.\w]*\.f32", ptx))
    assert pairs and arithmetic / pairs == pytest.approx(9, abs=0.2)
