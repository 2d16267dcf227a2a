"""Which CUDA kernel sums, how it is specialised, and into what pieces the work is cut. Nothing here needs a device.

==========  ================================================================================================
way         when
==========  ================================================================================================
cells       m <= 3, a distance whose similarity dies within a short reach: neighbouring keys only (neighbours)
fused       m <= 8, at most 32 columns: queries in registers, keys through shared memory (cuda/sums.cu)
blocks      the rest: bounded blocks of logits, matrix products around a softmax in place (cuda/blocks.cu)
==========  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...similarity.pairs import Pair
from ..rules import REDUCTIONS, TRANSFORMS, transform_of

LOW_DIMENSION, FUSED_COLUMNS, PASS = 8, 32, 8  # a pass of the fused kernel over all pairs serves eight columns
TILE, BLOCK_THREADS = 128, 256  # keys in shared memory in sums.cu; threads of a block in blocks.cu
PARTIAL = 2**25  # numbers that the sums over parts of the keys may take
REGISTERS = 80  # what the queries of a thread may take of 255: half of a processor's threads are then resident
IDENTITY, LOG1P = TRANSFORMS["identity"], TRANSFORMS["log1p"]
NONE, RUNNING = 0, 1  # what is subtracted from the logits of a query
PAIRS, PRODUCTS, VALUES = 0, 1, 2  # where a block's logits come from
# float32: exp2 and square root are then single instructions, good to 2 units of rounding
OPTIONS = ("--std=c++17", "--ftz=true", "--prec-sqrt=false")
_SOURCES = Path(__file__).parent / "cuda"
_REAL = {4: "float", 8: "double"}

Defines = tuple[tuple[str, object], ...]


def rule(pair: Pair, epsilon: float) -> tuple[int, float, float, float]:
    """Transform, scale and exponent of the logit bias - scale h(r), and what it leaves out of every logit.

    An affine transform offset - r shifts all logits alike: it becomes the identity with a negative scale.
    """
    scale = 0.5 / epsilon
    if pair.transform == "affine":
        return IDENTITY, -scale, 1.0, -scale * pair.parameter
    if pair.transform == "log1p":
        return LOG1P, scale, 1.0, 0.0
    transform, exponent = transform_of(pair)
    return TRANSFORMS[transform], scale, exponent if pair.transform == "power" else 1.0, 0.0


def subtraction(pair: Pair, itemsize: int, own: bool, spread: float) -> int:
    """What keeps the exponentials of a query in range.

    The highest logit of a distance, for a query that is among the keys (`own`), lies between its own bias and the
    largest one, which is subtracted from all biases. Where their spread leaves every weight that counts above the
    smallest number, nothing more is needed. Else a running maximum.
    """
    limit = {4: 60.0, 8: 600.0}[itemsize]
    if own and pair.reduction in ("squared", "wrapped") and spread < limit:
        return NONE
    return RUNNING


def queries_per_thread(dim: int, columns: int, itemsize: int) -> int:
    """4, 2 or 1, so that coordinates and sums stay in registers."""
    words = itemsize // 4 * (dim + 2 + columns) + 2 * (1 + columns)
    return next(count for count in (4, 2, 1) if count * words <= REGISTERS or count == 1)


def passes(columns: int) -> tuple[int, int]:
    """How often the fused kernel meets all pairs, and how many columns each time."""
    count = max(-(-columns // PASS), 1)
    return count, -(-columns // count)


def splits(queries: int, keys: int, per_block: int, columns: int, processors: int) -> int:
    """Parts of the keys that different blocks of threads take, so that a device has enough blocks to fill it."""
    wanted = 64 * processors // -(-queries // per_block)
    return int(np.clip(wanted, 1, max(1, min(-(-keys // (4 * TILE)), PARTIAL // ((2 + columns) * queries)))))


def all_pairs(queries: int, keys: int, per_block: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Chunks of queries, and the parts of the keys that each of them meets."""
    size = TILE * -(-keys // (TILE * parts))
    edges = np.minimum(np.arange(parts + 1) * size, keys)
    chunks = np.append(np.arange(0, queries, per_block), queries)
    return chunks.astype(np.int32), np.stack([edges[:-1], edges[1:]], axis=-1).astype(np.int32)


def row_width(dim: int, columns: int, itemsize: int) -> int:
    """Numbers in the row of a key: coordinates, bias and values, filled up to 16 bytes."""
    piece = 16 // itemsize
    return -(-(dim + 1 + columns) // piece) * piece


def block_shape(queries: int, keys: int, most: int) -> tuple[int, int]:
    """Rows and columns of the blocks that bound the memory to `most` pairs."""
    columns = min(keys, 2**14)
    return min(queries, max(most // columns, 1)), columns


def logits_from(pair: Pair, transform: int, scale: float, largest_square: float, dtype: np.dtype, rtol: float) -> int:
    """Where the logits of a block come from: a callable, one matrix product, or pair by pair.

    |u|^2 + |v|^2 - 2 u.v has an error of a few units of rounding times `largest_square`, the sum of the largest |u|^2
    and |v|^2; times scale, that is the error of a logit where the transform has slopes up to one.
    """
    if pair.reduction == "general":
        return VALUES
    lost = 8 * np.finfo(dtype).eps * largest_square * abs(scale)
    expands = pair.reduction == "squared" and not pair.geodesic and transform in (IDENTITY, LOG1P)
    return PRODUCTS if pair.reduction == "inner" or (expands and lost <= rtol) else PAIRS


def sums_defines(
    pair: Pair, transform: int, dim: int, columns: int, itemsize: int, subtracted: int, queries: int, threads: int
) -> Defines:
    """The specialisation of `sums.cu`."""
    return (
        ("REAL", _REAL[itemsize]),
        ("DIM", dim),
        ("COLUMNS", columns),
        ("QUERIES", queries),
        ("THREADS", threads),
        ("REDUCTION", REDUCTIONS[pair.reduction]),
        ("GEODESIC", int(pair.geodesic)),
        ("TRANSFORM", transform),
        ("SHIFT", subtracted),
    )


def blocks_defines(pair: Pair, transform: int, itemsize: int, source: int) -> Defines:
    """The specialisation of `blocks.cu`."""
    return (
        ("REAL", _REAL[itemsize]),
        ("REDUCTION", REDUCTIONS[pair.reduction]),
        ("GEODESIC", int(pair.geodesic)),
        ("TRANSFORM", transform),
        ("SOURCE", source),
    )


def code(file: str) -> str:
    """CUDA source in one piece: the compiler needs no path, and CuPy's cache by content sees the header too."""
    header = (_SOURCES / "pairs.cuh").read_text()
    return (_SOURCES / file).read_text().replace('#include "pairs.cuh"\n', header)


@lru_cache(maxsize=256)
def kernel(file: str, name: str, defines: Defines) -> Callable:
    """A kernel, compiled when a device first runs it; CuPy keeps the result on disk."""
    import cupy

    options = *OPTIONS, *(f"-D{key}={value}" for key, value in defines)
    return cupy.RawModule(code=code(file), options=options).get_function(name)
