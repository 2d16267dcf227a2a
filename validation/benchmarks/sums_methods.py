"""One pairwise sum by every library, each tuned to its best chunk: a function without arguments that returns the means.

A function is made from a case and a chunk of queries; CHUNKS lists what is tried. All run on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .sums_cases import Sum

METHODS: dict[str, tuple[str, tuple[int, ...]]] = {  # name: package, chunks of queries to try
    "attnflow": ("attnflow", (0,)),
    "attnflow, dense": ("attnflow", (0,)),
    "numpy": ("numpy", (32, 128, 512)),
    "torch SDPA": ("torch", (0,)),
    "torch": ("torch", (64, 256, 1000)),
    "jax": ("jax", (40, 250, 1000)),
    "pykeops": ("pykeops", (0,)),
    "cKDTree": ("scipy", (0,)),
    "KernelDensity": ("scikit-learn", (20, 40, 80)),
    "finufft pair": ("finufft", (0,)),
}


def make(method: str, case: Sum, chunk: int) -> Callable[[], np.ndarray]:
    """The sum, ready to run: one call is one layer.

    Raises
    ------
    NotImplementedError
        If the method does not do such a sum.
    """
    x, v = case.tokens()
    return _MAKERS[method](case, x, v, chunk)


def _attnflow(case, x, v, chunk, backend="auto"):
    import attnflow as af
    from attnflow.kernels import plan

    f = af.DotProduct() if case.inner else af.SquaredDistance(af.Euclidean(case.dim))
    ready = plan(f, case.epsilon, None, x.astype(float), backend, case.dtype, case.rtol, case.columns, 100)
    values = v.astype(float)
    bias = np.zeros(case.size)

    def layer():
        bias[0] = -bias[0] if bias[0] else 1e-300  # a new bias: nothing of the last call's row sums is used again
        return ready(values, bias).mean

    layer.describe = lambda: ready.engine
    return layer


def _numpy(case, x, v, chunk):
    scale, square = -1 / (2 * case.epsilon), (x * x).sum(axis=1)

    def layer():
        result = np.empty_like(v)
        for first in range(0, len(x), chunk):
            q = x[first : first + chunk]
            if case.inner:
                f = -(q @ x.T)
            elif case.dim <= 3:
                f = np.subtract.outer(q[:, 0], x[:, 0])
                f *= f
                for k in range(1, case.dim):
                    part = np.subtract.outer(q[:, k], x[:, k])
                    part *= part
                    f += part
            else:
                f = q @ x.T
                f *= -2
                f += square
                f += square[first : first + chunk, None]
            f *= scale
            f -= f.max(axis=1, keepdims=True)
            np.exp(f, out=f)
            result[first : first + chunk] = (f @ v) / f.sum(axis=1, keepdims=True)
        return result

    return layer


def _with_bias_column(case, x):
    """Queries and keys whose inner product is -|x - y|^2 / (2 eps) up to a number per query."""
    if case.inner:
        return x / (2 * case.epsilon), x
    ones, square = np.ones((len(x), 1), x.dtype), (x * x).sum(axis=1, keepdims=True)
    return np.hstack([x / case.epsilon, ones]), np.hstack([x, -square / (2 * case.epsilon)]).astype(x.dtype)


def _torch_sdpa(case, x, v, chunk):
    import torch

    torch.set_num_threads(1)
    q, k = (torch.tensor(np.ascontiguousarray(a))[None, None] for a in _with_bias_column(case, x))
    values = torch.tensor(v)[None, None]
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, values, scale=1.0)[0, 0].numpy()


def _torch(case, x, v, chunk):
    import torch

    torch.set_num_threads(1)
    q, k = (torch.tensor(np.ascontiguousarray(a)) for a in _with_bias_column(case, x))
    values, transposed = torch.tensor(v), k.T.contiguous()

    def layer():
        return torch.cat([torch.softmax(part @ transposed, dim=1) @ values for part in q.split(chunk)]).numpy()

    return layer


def _jax(case, x, v, chunk):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    keys, values, scale = jnp.asarray(x), jnp.asarray(v), 1 / (2 * case.epsilon)
    square = (keys * keys).sum(axis=1)

    def rows(q):
        if case.inner:
            logits = scale * (q @ keys.T)
        elif case.dim <= 8:
            logits = -scale * sum((q[:, None, k] - keys[:, k]) ** 2 for k in range(case.dim))
        else:
            logits = scale * (2 * q @ keys.T - square)
        weights = jnp.exp(logits - logits.max(axis=1, keepdims=True))
        return (weights @ values) / weights.sum(axis=1, keepdims=True)

    compiled = jax.jit(lambda x: jax.lax.map(rows, x.reshape(-1, chunk, case.dim)).reshape(-1, case.columns))
    return lambda: np.asarray(compiled(keys))


def _pykeops(case, x, v, chunk):
    from pykeops.numpy import LazyTensor

    xi, xj, values = LazyTensor(x[:, None, :]), LazyTensor(x[None, :, :]), LazyTensor(v[None, :, :])
    logits = (xi | xj) / (2 * case.epsilon) if case.inner else -((xi - xj) ** 2).sum(-1) / (2 * case.epsilon)
    return lambda: logits.sumsoftmaxweight(values, axis=1)


def _ckdtree(case, x, v, chunk):
    from scipy.spatial import cKDTree

    radius = np.sqrt(2 * case.epsilon * np.log(2 * case.size / case.rtol))

    def layer():
        i, j = cKDTree(x).query_pairs(radius, output_type="ndarray").T
        w = np.exp(-((x[i] - x[j]) ** 2).sum(axis=1) / (2 * case.epsilon))
        total = 1 + np.bincount(i, w, len(x)) + np.bincount(j, w, len(x))
        mean = v[:, 0] + np.bincount(i, w * v[j, 0], len(x)) + np.bincount(j, w * v[i, 0], len(x))
        return (mean / total)[:, None]

    return layer


def _kernel_density(case, x, v, chunk):
    from sklearn.neighbors import KernelDensity

    shifted = v[:, 0] - v.min() + 1.0  # weights must be positive
    bandwidth = np.sqrt(case.epsilon)

    def layer():
        logs = []
        for weights in (np.ones(len(x)), shifted):
            density = KernelDensity(bandwidth=bandwidth, rtol=case.rtol, leaf_size=chunk).fit(x, sample_weight=weights)
            logs.append(density.score_samples(x) + np.log(weights.sum()))
        return (np.exp(logs[1] - logs[0]) - 1.0 + v.min())[:, None]

    return layer


def _finufft_pair(case, x, v, chunk):
    """Type 1 and type 2 on as many modes as the Gaussian has, as a hand-written layer would call them."""
    import finufft

    margin = case.width * np.sqrt(2 * np.log(1 / case.rtol))
    period = 1 + 2 * margin
    top = int(np.ceil(np.sqrt(2 * np.log(1 / case.rtol)) / case.width * period / (2 * np.pi)))
    angle = np.ascontiguousarray((2 * np.pi / period * (x - 0.5)).T)
    k = 2 * np.pi / period * np.arange(-top, top + 1)
    decay = np.exp(-case.epsilon / 2 * (k[:, None] ** 2 + k**2))
    strengths = (v[:, 0] + 1j).astype(complex)

    def layer():
        modes = finufft.nufft2d1(*angle, strengths, (2 * top + 1,) * 2, eps=case.rtol, nthreads=1)
        sums = finufft.nufft2d2(*angle, modes * decay, eps=case.rtol, nthreads=1)
        return (sums.real / sums.imag)[:, None]

    return layer


_MAKERS = {
    "attnflow": _attnflow,
    "attnflow, dense": partial(_attnflow, backend="numba"),
    "numpy": _numpy,
    "torch SDPA": _torch_sdpa,
    "torch": _torch,
    "jax": _jax,
    "pykeops": _pykeops,
    "cKDTree": _ckdtree,
    "KernelDensity": _kernel_density,
    "finufft pair": _finufft_pair,
}
