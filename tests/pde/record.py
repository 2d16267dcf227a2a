"""Solves and spectra by every method, dimension and kind of space, bit for bit: what moving files must not change.

    python tests/pde/record.py before.npz                # write
    python tests/pde/record.py after.npz before.npz      # write, and compare: exit status 1 where a bit differs

Bits depend on the machine and its libraries, so no record is kept here.
"""

import sys
import warnings

import numpy as np

import attnflow as af

CIRCLE, TORUS, SPHERE = af.Circle(), af.Torus((2 * np.pi, 2 * np.pi)), af.Sphere(2)
SQUARE, SPACE = af.Box([(0, 1), (0, 1)]), af.Torus((2 * np.pi,) * 3)
VON_MISES = af.VonMises(1.0)
PAIR = af.Density(SQUARE, lambda x: np.sin(3 * x[..., 0]) * x[..., 1])
WAVY = af.Density(TORUS, lambda x: np.cos(x[..., 0]) + np.sin(x[..., 0] - x[..., 1]) / 2)
SKEW = af.Chart(lambda x: np.stack([np.stack([1 + x[..., 0] ** 2, x[..., 1] / 4], -1),
                                    np.stack([x[..., 1] / 4, 1 + 0 * x[..., 0]], -1)], -2), [(0, 1), (0, 1)])  # fmt: skip
POLES = af.Density(SPHERE, lambda x: 1.5 * x[..., 2])
WELLS = af.Density(af.Euclidean(1), lambda x: -8 * (x[..., 0] ** 2 - 1) ** 2)
MOBILE = af.DriftDiffusion(VON_MISES, 2.0, lambda x: 1 + np.sin(x[..., 0]) / 2)


def wave(x):
    return np.stack([np.cos(x[..., 0]), np.sin(x[..., 0]) * np.cos(x[..., -1])], axis=-1)


def kink(x):
    return abs(x[..., 0] - 0.3)


def velocity(x):
    return np.full_like(x, 0.5)


def wall(x, t):
    return np.cos(t) + 0 * x[..., 0]


SOLVES = {
    "circle": (af.DriftDiffusion(VON_MISES), wave, {}),
    "circle, given nodes": (af.DriftDiffusion(VON_MISES), wave, {"grid": 40, "method": "spectral"}),
    "circle, mobility": (MOBILE, wave, {}),
    "torus": (af.DriftDiffusion(WAVY), wave, {"rtol": 1e-6}),
    "torus, chebyshev": (af.DriftDiffusion(WAVY), wave, {"rtol": 1e-3, "method": "chebyshev"}),
    "torus, rational": (af.DriftDiffusion(WAVY), wave, {"grid": (24, 20), "method": "rational"}),
    "torus, BDF": (af.DriftDiffusion(WAVY), wave, {"grid": 24, "method": "BDF"}),
    "box, kink": (af.Heat(af.Box([(0, 1)])), kink, {"rtol": 1e-5}),
    "square": (af.DriftDiffusion(PAIR, 1.0), wave, {"rtol": 1e-4}),
    "square, Legendre": (af.DriftDiffusion(PAIR), wave, {"rtol": 1e-7}),
    "square, Dirichlet": (af.DriftDiffusion(PAIR), wave, {"rtol": 1e-4, "boundary": ("dirichlet", 0.5)}),
    "line, moving wall": (af.Heat(af.Box([(0, 1)])), kink, {"rtol": 1e-3, "boundary": ("no-flux", ("dirichlet", wall))}),
    "cube of waves": (af.Heat(SPACE), wave, {"rtol": 1e-4}),
    "three dimensions, cells": (af.Heat(SPACE), wave, {"grid": 12, "method": "finite-volume"}),
    "line": (af.DriftDiffusion(af.Gaussian(0.0, 1.0)), wave, {"rtol": 1e-6}),
    "line without drift": (af.DriftDiffusion(af.Gaussian(0.0, 1.0), 0.0), wave, {"rtol": 1e-4}),
    "chart": (af.Heat(SKEW), wave, {"rtol": 1e-3}),
    "chart, Legendre": (af.Heat(SKEW), wave, {"rtol": 1e-6, "method": "spectral"}),
    "sphere": (af.DriftDiffusion(POLES), wave, {"rtol": 1e-6}),
    "sphere, given nodes": (af.DriftDiffusion(POLES), wave, {"grid": (20, 40), "method": "spectral"}),
    "sphere, cells": (af.DriftDiffusion(POLES), wave, {"grid": 16}),
    "general": (af.General(VON_MISES, velocity), wave, {"rtol": 1e-3}),
    "heads": (af.Heads([af.DriftDiffusion(VON_MISES), af.Heat(CIRCLE)], [0.5, np.array([[0.5, 0.1], [0.0, 0.5]])]),
              wave, {"rtol": 1e-3}),
    "forward": (af.FokkerPlanck(VON_MISES), lambda x: 1 + wave(x) / 2, {"rtol": 1e-6}),
    "forward, line": (af.FokkerPlanck(af.Gaussian(0.0, 1.0)), lambda x: np.exp(-2 * x[..., 0] ** 2), {"rtol": 1e-5}),
    "conformal": (af.ConformalHeat(VON_MISES), wave, {"rtol": 1e-6}),
}  # fmt: skip
SPECTRA = {
    "circle": (af.DriftDiffusion(VON_MISES), {}),
    "circle, given": (af.DriftDiffusion(VON_MISES), {"grid": 60}),
    "line": (af.DriftDiffusion(WELLS, 1.0), {}),
    "box": (af.Heat(af.Box([(0, 1)])), {"boundary": ("dirichlet", 0.0)}),
    "torus": (af.DriftDiffusion(WAVY), {}),
    "square": (af.DriftDiffusion(PAIR), {"grid": (20, 24)}),
    "chart": (af.Heat(SKEW), {}),
    "sphere": (af.DriftDiffusion(POLES), {}),
    "plane": (af.DriftDiffusion(af.Gaussian([0.0, 0.0], [[1.0, 0.3], [0.3, 2.0]])), {}),
    "conformal": (af.ConformalHeat(VON_MISES), {}),
}


def record() -> dict[str, np.ndarray]:
    """Every array by name."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.checks.AccuracyWarning)
        for name, (pde, initial, options) in SOLVES.items():
            run = pde.solve(initial, [0.05, 0.2], **options)
            keys = ("mean", "deviation", "mass", "estimated_error")
            found[f"solve {name}: y"] = run.y
            found[f"solve {name}: at"] = run.at(run.grid.points[::7], 0.1)
            found[f"solve {name}: error"] = run.error(run.grid.points[::7])
            found |= {f"solve {name}: {key}": np.array(run.stats[key]) for key in keys if key in run.stats}
            found[f"solve {name}: message"] = np.array(run.message)
        for name, (pde, options) in SPECTRA.items():
            spectrum = pde.spectrum(4, **options)
            found[f"spectrum {name}: values"], found[f"spectrum {name}: functions"] = spectrum
            found[f"spectrum {name}: error"] = np.array(spectrum.estimated_error)
        found["operator"] = af.DriftDiffusion(WAVY).operator(8).toarray()
    return found


if __name__ == "__main__":
    found = record()
    np.savez(sys.argv[1], **found)
    if len(sys.argv) > 2:
        before = np.load(sys.argv[2])
        differ = [name for name in sorted(set(found) | set(before)) if name not in found or name not in before
                  or not np.array_equal(found[name], before[name])]  # fmt: skip
        print(f"{len(found)} arrays, {len(differ)} differ", *differ, sep="\n  ")
        sys.exit(bool(differ))
    print(f"{len(found)} arrays")
