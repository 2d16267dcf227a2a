"""One library's ten slowest modes of tokens in a process of its own: python -m validation.benchmarks.spectrum_worker CASE METHOD.

It speaks the language of `protocol`. Each is asked for the same modes: of exp(-|x - y|^2 / (2 eps)) with rows that sum to
one (softmax; SpectralEmbedding leaves out a token's weight on itself), or with the density divided out first (alpha = 1).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import attnflow as af

from . import protocol
from .protocol import own_output, read_arguments
from .sums_worker import _version

SIZE, EPSILON, MODES, RTOL = 20_000, 4e-4, 10, 1e-7  # the accuracy that the neighbours below leave to pyDiffMap
NEIGHBOURS = 700  # that weigh at least e^-14 beside a token itself
CASES = {"softmax": "softmax", "alpha = 1": af.DensityCorrected(1.0)}


def main(arguments: list[str] | None = None) -> int:
    """Serve one method; returns 2 for unknown names."""
    read = read_arguments("spectrum_worker", arguments, {"CASE": CASES, "METHOD": METHODS})
    if read is None:
        return 2
    answer, (case, method) = own_output(), read
    package, solve = METHODS[method]
    tokens = np.random.default_rng(0).random((SIZE, 2))
    layer = af.Attention(af.SquaredDistance(af.Euclidean(2)), EPSILON, CASES[case], rtol=RTOL)

    def prepare() -> tuple[dict, Callable[[], dict]]:
        few = np.random.default_rng(1).random((1000, 2))
        solve(af.Attention(layer.f, 0.01, layer.normalization), few, few)  # imports and compiles

        def run() -> dict:
            began = time.process_time()
            rows = solve(layer, tokens, tokens)
            return {"seconds": time.process_time() - began, "error": residual(layer, tokens, rows)}

        return {"setting": ""}, run

    protocol.serve([package], prepare, sys.stdin, answer, _version)
    return 0


def residual(layer: af.Attention, tokens: np.ndarray, rows: np.ndarray) -> float:
    """Of the worst of some vectors (k, N) as eigenvectors of the layer, relative, in its conserved weight."""
    bound = layer.bind(tokens)
    weight = bound.conserved_weight()
    vectors = (rows / np.sqrt(rows**2 @ weight)[:, None]).T
    image = bound.attend(np.ascontiguousarray(vectors)).mean
    left = image - vectors * (vectors * image * weight[:, None]).sum(axis=0)
    return float(np.sqrt((left**2).T @ weight).max())


def _attnflow(layer, tokens, _):
    return layer.spectrum(tokens, MODES).eigenvectors


def _spectral_embedding(layer, tokens, _, solver):
    from sklearn.manifold import SpectralEmbedding

    if layer.normalization != af.attention.Softmax():
        raise NotImplementedError("has no alpha")
    gamma = 1 / (2 * layer.epsilon)
    model = SpectralEmbedding(MODES - 1, affinity="rbf", gamma=gamma, eigen_solver=solver, random_state=0)
    return model.fit_transform(tokens).T


def _pydiffmap(layer, tokens, _):
    from pydiffmap import diffusion_map

    alpha = getattr(layer.normalization, "alpha", 0.0)
    near = min(NEIGHBOURS, len(tokens) - 1)
    options = {"n_evecs": MODES - 1, "epsilon": layer.epsilon / 2, "alpha": alpha, "k": near}  # exp(-d^2 / (4 epsilon))
    return diffusion_map.DiffusionMap.from_sklearn(**options).fit(tokens).evecs.T


METHODS = {
    "attnflow": ("attnflow", _attnflow),
    "SpectralEmbedding, arpack": ("scikit-learn", partial(_spectral_embedding, solver="arpack")),
    "SpectralEmbedding, lobpcg": ("scikit-learn", partial(_spectral_embedding, solver="lobpcg")),
    "pyDiffMap": ("pydiffmap", _pydiffmap),
}

if __name__ == "__main__":
    sys.exit(main())
