"""What cannot fit or end is refused before any work, with the bytes or the steps it would take."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

import attnflow as af
from attnflow import capacity

LAYER = af.Attention(af.SquaredDistance(af.Euclidean(1)), 1.0)
NORMAL = af.Gaussian(0.0, 1.0)


def cosine(x):
    return np.cos(x[..., 0])


def heat(dim, **options):
    return af.Heat(af.Torus([2 * np.pi] * dim)).solve(cosine, **{"t": 0.1, **options})


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda: af.Torus([1.0, 1.0]).grid(10**6), "grid must fit into memory, got a request for 4.00e.13 bytes"),
        (lambda: af.Box([(0, 1)]).grid(10**12), "grid must fit into memory"),
        (lambda: af.Sphere(2).grid(10**6), "grid must fit into memory"),
        (lambda: NORMAL.grid(10**12), "grid must fit into memory"),
        (lambda: heat(3, grid=600), "grid must fit into memory, got a request for 4.97e.10 bytes"),
        (lambda: heat(1, grid=10**12), "grid must fit into memory"),
        (lambda: heat(2, grid=(10**6, 10**6)), "grid must fit into memory"),
        (lambda: heat(2, grid=64, t=np.linspace(0, 1, 10**6)), "t must fit into memory"),
        (lambda: af.Heat(af.Torus([1.0, 1.0])).operator(10**5), "grid must fit into memory"),
        (lambda: af.Heat(af.Circle()).spectrum(3, grid=10**9), "grid must fit into memory"),
        (lambda: af.propagate(LAYER, NORMAL, cosine, 3, grid=10**12), "grid must fit into memory"),
        (lambda: af.MeanField(LAYER, NORMAL).solve(1.0, grid=10**12), "grid must fit into memory"),
        (lambda: NORMAL.sample(10**12), "n must fit into memory, got a request for 2.40e.13 bytes"),
        (lambda: af.Density(af.Circle(), cosine).sample(10**12), "n must fit into memory"),
        (lambda: af.Mixture([NORMAL, NORMAL], [0.5, 0.5]).sample(10**12), "n must fit into memory"),
        (lambda: af.Euclidean(10**12).probe_points(), "dim must fit into memory"),
        (lambda: LAYER.weights(np.zeros((10**5, 1))), "tokens must make at most .* 8e.10 bytes"),
        (lambda: heat(1, grid=64, t=1e300, method="RK45"), "t must end within 30 days"),
        (lambda: heat(2, grid=16, t=1e300, method="chebyshev"), "t must end within 30 days, got .* applications"),
        (lambda: heat(2, grid=16, t=1e30, method="BDF"), "t must be at most .* for method 'BDF'"),
        (lambda: af.MeanField(LAYER, NORMAL).solve(1e300), "t must end within 30 days"),
    ],
)
def test_a_request_beyond_the_machine_is_refused_at_once(ask, message, monkeypatch):
    monkeypatch.setattr(capacity, "available", lambda: 2**33)
    with pytest.raises(ValueError, match=message):
        ask()


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("options", [{}, {"grid": 16}, {"grid": 16, "method": "rational"}], ids=["auto", "grid", "rational"])
def test_exact_solvers_reach_any_time(dim, options):
    pde = af.DriftDiffusion(af.Density(af.Torus([2 * np.pi] * dim), cosine))
    run = pde.solve(cosine, 1e300, **options)
    tolerance = {"rtol": 1e-7} if "method" not in options else {"rtol": 3e-2}  # 16 cells of second order
    np.testing.assert_allclose(run.y[-1], special.iv(1, 2) / special.iv(0, 2), **tolerance)  # the mean over p^2


@pytest.mark.skipif(os.name == "nt", reason="no such files or limits there")
@pytest.mark.slow
def test_available_memory_obeys_the_limit_of_the_process():
    import resource

    code = "from attnflow import capacity; print(capacity.available())"
    limit = 2**36

    def lower():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    run = subprocess.run([sys.executable, "-c", code], preexec_fn=lower, capture_output=True, text=True, env=os.environ)
    assert 0 < int(run.stdout) < limit


@pytest.mark.parametrize(
    "groups, files, left",
    [
        ("0::/job", {"job/memory.max": "max", "memory.max": "900", "memory.current": "500", "job/memory.current": "400"}, 400),
        ("0::/job", {"job/memory.max": "800", "job/memory.current": "500", "job/memory.stat": "inactive_file 100"}, 400),
        (
            "4:cpu:/\n3:memory:/job",
            {"memory/job/memory.limit_in_bytes": "800", "memory/job/memory.usage_in_bytes": "300"},
            500,
        ),
        ("0::/elsewhere/job", {"memory.max": "700", "memory.current": "800"}, 0),
    ],
)
def test_available_memory_obeys_control_groups(groups, files, left, tmp_path, monkeypatch):
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(groups)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
        stat = (root / name).parent / "memory.stat"
        stat.write_text(files.get(str(stat.relative_to(root)), "anon 7"))
    monkeypatch.setattr(capacity, "_PROC", proc)
    monkeypatch.setattr(capacity, "_CGROUPS", root)
    assert capacity._of_cgroup() == left


def test_numbers_of_any_size_are_counted():
    for steps in (10**12, 10**400, 1e300, np.inf, np.float64(1e13), np.int64(10**13)):
        with pytest.raises(ValueError, match="t must end within 30 days"):
            capacity.ends(steps, "t")
    capacity.ends(10**9, "t")
    with pytest.raises(ValueError, match="n must fit into memory, got a request for 8.00e.400 bytes"):
        capacity.fits(8 * 10**400, "n")
    capacity.fits(2**20, "n")
