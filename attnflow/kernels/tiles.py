"""The compiled half of the CPU engine: tiles of pairs that stay in the first-level cache.

Per tile each query fills a row with its weights 2^l, l the logit in bits; the block of weight rows then meets the
value columns, which are thereby read once per block. Where the sum of a query is known beforehand to within a few
hundred bits, its weights are taken relative to that; otherwise to the running maximum of its logits, and what was
summed before a new maximum is rescaled (the online softmax of Milakov and Gimelshein, arXiv 1805.02867). Keys and
values lie transposed, so that every inner loop runs over contiguous keys and vectorises; which reduction and
transform runs is decided outside it.

Everything compiled is in this one file because numba's disk cache notices changes of the file of the outermost
function only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..compilation import cached_njit

TILE, LONG_TILE = 256, 2048  # keys at a time; where no row of weights is kept
QUERIES = 8  # queries that share a tile; even
TOGETHER = 8  # coordinates that share a loop
REDUCTIONS = {"squared": 0, "wrapped": 1, "inner": 2, "general": 3}
TRANSFORMS = {"identity": 0, "power": 1, "log1p": 2, "affine": 3, "root": 4}
_SQUARED, _WRAPPED, _INNER, _GENERAL = REDUCTIONS.values()
_IDENTITY, _POWER, _LOG1P, _AFFINE, _ROOT = TRANSFORMS.values()

_contract = {"contract"}  # fused multiply-add and nothing that forgets about rounding, NaN or infinity
_compiled = numba.njit(fastmath=_contract, error_model="numpy")
_inlined = numba.njit(fastmath=_contract, error_model="numpy", forceinline=True)
_summing = numba.njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
_comparing = numba.njit(fastmath={"contract", "nnan", "nsz"}, error_model="numpy")  # only where _logit removed NaN


@cached_njit(fastmath=_contract, error_model="numpy")
def absorb(first, last, codes, numbers, period, queries, keys, values, bias, f_values, steady, top, total, mean):
    """For every pseudo-metric, number of columns and shift: add keys (m, N) with values (c, N) and bias (N,) in bits to
    the sums of weights and the weighted sums of some queries, relative to 2^top; `steady`: top is known and stays."""
    reduction, geodesic, transform = codes
    parameter, scale = numbers
    weights = np.zeros((QUERIES, TILE), keys.dtype)
    scratch = np.empty(TILE, keys.dtype)
    fade = np.ones(QUERIES)
    for block in range(first, last, QUERIES):
        size = min(QUERIES, last - block)
        for start in range(0, bias.size, TILE):
            stop = min(start + TILE, bias.size)
            tilt = bias[start:stop]
            _reduce(reduction, queries, block, size, keys, period, f_values, start, stop, weights)
            for k in range(size):
                i, row = block + k, weights[k, : stop - start]
                if geodesic:
                    _square_of_angle(queries[i], keys, start, row, scratch)
                _transform(transform, parameter, row)
                if steady:
                    total[i] += _weigh(row, tilt, scale, row.dtype.type(top[i]))
                else:
                    fade[k] = _weigh_rising(row, tilt, scale, top, total, i)
            _average(weights, values, start, stop, fade, mean, block, size)


@lru_cache
def gaussian(reduction: int, dim: int) -> Callable:
    """`absorb` for exp(-r / (2 eps)) in at most three dimensions, at most one value column and a known top.

    No row of weights is kept, and each of the (reduction, dim) compiles alone: only what is needed, in about a second.
    """
    second, third = min(1, dim - 1), dim - 1

    @cached_njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
    def absorb_gaussian(first, last, scale, period, queries, keys, values, bias, top, total, mean):
        one, columns = bias.dtype.type(1), len(values)
        p0, p1, p2 = period[0], period[second], period[third]
        i0, i1, i2 = one / p0, one / p1, one / p2
        for block in range(first, last, QUERIES):
            for start in range(0, bias.size, LONG_TILE):
                stop = min(start + LONG_TILE, bias.size)
                y0, y1, y2 = keys[0, start:stop], keys[second, start:stop], keys[third, start:stop]
                tilt = bias[start:stop]
                column = values[0, start:stop] if columns else tilt
                for i in range(block, min(block + QUERIES, last)):
                    x0, x1, x2, shift = queries[i, 0], queries[i, second], queries[i, third], bias.dtype.type(top[i])
                    t = m = bias.dtype.type(0)
                    for j in range(tilt.size):
                        r = _term(reduction, x0, y0[j], p0, i0)
                        if dim > 1:
                            r += _term(reduction, x1, y1[j], p1, i1)
                        if dim > 2:
                            r += _term(reduction, x2, y2[j], p2, i2)
                        w = _exp2((tilt[j] - shift) - r * scale)
                        t += w
                        m += w * column[j]
                    total[i] += t
                    if columns:
                        mean[i, 0] += m

    return absorb_gaussian


@_inlined
def _term(reduction, x, y, side, inverse):
    """What one coordinate adds to r."""
    if reduction == _INNER:
        return x * y
    difference = x - y
    if reduction == _WRAPPED:
        difference -= side * np.rint(difference * inverse)
    return difference * difference


@_inlined
def _four(reduction, r, x0, x1, x2, x3, y0, y1, y2, y3):
    """r and what four coordinates add to it; on a line, not a torus."""
    r += _term(reduction, x0, y0, r, r)
    r += _term(reduction, x1, y1, r, r)
    r += _term(reduction, x2, y2, r, r)
    return r + _term(reduction, x3, y3, r, r)


def _adding(reduction: int, together: int) -> Callable:
    """Compiled sums of terms over the coordinates, eight of them `together` or one by one: so many share one loading
    of a sum, and a block of queries shares one of a tile of keys.
    """

    @_compiled
    def add(queries, block, size, keys, period, start, stop, weights):
        length, whole, one = stop - start, 0, weights.dtype.type(1)
        if together == TOGETHER:
            whole = len(keys) - len(keys) % 8
            for d in range(0, whole, 8):
                y0, y1 = keys[d, start:stop], keys[d + 1, start:stop]
                y2, y3 = keys[d + 2, start:stop], keys[d + 3, start:stop]
                y4, y5 = keys[d + 4, start:stop], keys[d + 5, start:stop]
                y6, y7 = keys[d + 6, start:stop], keys[d + 7, start:stop]
                for k in range(size):
                    u, row = queries[block + k], weights[k, :length]
                    x0, x1, x2, x3 = u[d], u[d + 1], u[d + 2], u[d + 3]
                    x4, x5, x6, x7 = u[d + 4], u[d + 5], u[d + 6], u[d + 7]
                    for j in range(length):
                        r = _four(reduction, row[j], x0, x1, x2, x3, y0[j], y1[j], y2[j], y3[j])
                        row[j] = _four(reduction, r, x4, x5, x6, x7, y4[j], y5[j], y6[j], y7[j])
        for d in range(whole, len(keys)):
            side, y = period[d], keys[d, start:stop]
            inverse = one / side
            for k in range(size):
                x, row = queries[block + k, d], weights[k, :length]
                for j in range(length):
                    row[j] += _term(reduction, x, y[j], side, inverse)

    return add


_add_squares, _add_products = _adding(_SQUARED, TOGETHER), _adding(_INNER, TOGETHER)
_add_wrapped_squares = _adding(_WRAPPED, 1)


@_compiled
def _reduce(reduction, queries, block, size, keys, period, f_values, start, stop, weights):
    """r for a block of queries and a tile of keys."""
    if reduction == _GENERAL:
        for k in range(size):
            weights[k, : stop - start] = f_values[block + k, start:stop]
        return
    weights[:, :] = 0
    if reduction == _SQUARED:
        _add_squares(queries, block, size, keys, period, start, stop, weights)
    elif reduction == _WRAPPED:
        _add_wrapped_squares(queries, block, size, keys, period, start, stop, weights)
    else:
        _add_products(queries, block, size, keys, period, start, stop, weights)


@_compiled
def _square_of_angle(u, keys, start, row, scratch):
    """The squared angle between unit vectors from r = |u - v|^2; near r = 4 only |u + v|^2 still resolves it."""
    for j in range(row.size):
        scratch[j] = 0
    for d in range(u.size):
        x, coordinate = u[d], keys[d, start : start + row.size]
        for j in range(row.size):
            both = x + coordinate[j]
            scratch[j] += both * both
    for j in range(row.size):
        angle = _angle(row[j], scratch[j])
        row[j] = angle * angle


@_compiled
def _transform(transform, parameter, row):
    """f from r, in place."""
    if transform == _ROOT:
        for j in range(row.size):
            row[j] = np.sqrt(row[j])
    elif transform == _POWER:
        for j in range(row.size):
            row[j] = _power(row[j], parameter)
    elif transform == _LOG1P:
        for j in range(row.size):
            row[j] = _log1p(row[j])
    elif transform == _AFFINE:
        for j in range(row.size):
            row[j] = parameter - row[j]


@_summing
def _weigh(row, bias, scale, shift):
    """Turn f into weights relative to 2^shift; their sum is returned."""
    total = row.dtype.type(0)
    for j in range(row.size):
        row[j] = _exp2((bias[j] - shift) - row[j] * scale)
        total += row[j]
    return total


@_compiled
def _weigh_rising(row, bias, scale, top, total, i):
    """Turn f into weights relative to the running maximum; the factor by which earlier sums fade is returned."""
    highest = _logits(row, bias, scale)
    fade = 1.0
    if highest > top[i]:
        fade = 2.0 ** (top[i] - highest)
        top[i] = highest
    for j in range(row.size):
        row[j] = _exp2(row[j] - row.dtype.type(top[i]))
    total[i] = total[i] * fade + _sum(row)
    return fade


@_comparing
def _logits(row, bias, scale):
    highest = _limits(row[0])[0]
    for j in range(row.size):
        row[j] = _logit(row[j], bias[j], scale)
        highest = _larger(highest, row[j])
    return highest


@intrinsic
def _larger(typing_context, x, y):
    """The larger of two numbers: LLVM recognises a maximum over a loop in this form only."""

    def build(context, builder, signature, arguments):
        number = arguments[0].type
        kind = ir.FunctionType(number, [number, number])
        larger = builder.module.declare_intrinsic("llvm.maxnum", [number], kind)
        return builder.call(larger, arguments)

    return x(x, y), build


@_inlined
def _logit(f, bias, scale):
    logit = bias - f * scale
    lowest = _limits(f)[0]
    return logit if logit > lowest else lowest  # an overflowing f, and inf - inf, weigh nothing


@_summing
def _sum(row):
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    return total


@_summing
def _average(weights, values, start, stop, fade, mean, block, size):
    """mean <- fade * mean + weights @ values', two queries and four columns at a time."""
    columns, length = len(values), stop - start
    whole = columns - columns % 4
    for k in range(0, whole, 4):
        v0, v1 = values[k, start:stop], values[k + 1, start:stop]
        v2, v3 = values[k + 2, start:stop], values[k + 3, start:stop]
        for i in range(0, size, 2):
            row, other = weights[i, :length], weights[i + 1, :length]
            s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = row.dtype.type(0)
            for j in range(length):
                s0 += row[j] * v0[j]
                s1 += row[j] * v1[j]
                s2 += row[j] * v2[j]
                s3 += row[j] * v3[j]
                t0 += other[j] * v0[j]
                t1 += other[j] * v1[j]
                t2 += other[j] * v2[j]
                t3 += other[j] * v3[j]
            _fade(mean[block + i], k, fade[i], s0, s1, s2, s3)
            if i + 1 < size:
                _fade(mean[block + i + 1], k, fade[i + 1], t0, t1, t2, t3)
    for k in range(whole, columns):
        column = values[k, start:stop]
        for i in range(size):
            row = weights[i, :length]
            s = row.dtype.type(0)
            for j in range(length):
                s += row[j] * column[j]
            mean[block + i, k] = mean[block + i, k] * fade[i] + s


@_inlined
def _fade(mean, k, factor, s0, s1, s2, s3):
    mean[k] = mean[k] * factor + s0
    mean[k + 1] = mean[k + 1] * factor + s1
    mean[k + 2] = mean[k + 2] * factor + s2
    mean[k + 3] = mean[k + 3] * factor + s3


# Elementary functions that LLVM can vectorise: no branch, no call, no table. Polynomials are minimax (Remez), highest
# power first, relative errors of the functions they stand for: 2^x 3.1e-18 and 1.9e-9 (float64, float32), log 1.2e-18
# and 8.1e-10, arcsin 1.1e-16 and 1.6e-8. Rounding adds one to three units.

_EXP2_64 = (
    4.435282706957277e-10, 7.074105613508143e-09, 1.0178198021671931e-07, 1.32154330896764e-06, 1.5252733489988525e-05,
    0.00015403530462514432, 0.0013333558146789923, 0.009618129107588335, 0.055504108664819925, 0.24022650695910155,
    0.6931471805599453, 1.0,
)
_EXP2_32 = (
    0.00015345812161311629, 0.0013399931177239738, 0.009618488956331182, 0.05550328777105325, 0.24022646890645522,
    0.6931472057371958, 1.0000000005541647,
)
_LOG_64 = (
    0.14796104909184404, 0.1531403588132796, 0.1818356486518509, 0.22222198563507706, 0.2857142874247472,
    0.3999999999941432, 0.6666666666666734, 2.0,
)
_LOG_32 = (0.2987186185799117, 0.39977536996839597, 0.6666677641498042, 2.0)
_ARCSIN_64 = (
    0.7349603051899088, -2.5461459623996117, 4.204077532466902, -4.24981104621008, 2.9469903316635087,
    -1.4537299524400207, 0.5422990188536502, -0.13817636181524848, 0.039880984543874606, 0.006933423281918485,
    0.014486077101207941, 0.017310470319535077, 0.022374537786068262, 0.03038185680858536, 0.04464285907406653,
    0.07499999997835971, 0.16666666666675192, 1.0,
)
_ARCSIN_32 = (
    0.11206585371517143, -0.09392658729294065, 0.07786471999831827, 0.016089344659689267, 0.04655326839242796,
    0.07488084562020053, 0.16666916033869816, 1.0,
)
# log 2 in two parts, the first short enough that its product with an exponent is exact (Cody and Waite)
_LOG_2_64 = 0.693147180369123816490, 1.90821492927058770002e-10
_LOG_2_32 = 0.693359375, -2.12194440054690583e-4


def _by_dtype(table_64, table_32):
    """A compiled function of x that returns the table in x's own type: a literal would widen float32 to float64."""

    @intrinsic
    def table(typing_context, x):
        numbers = table_64 if x == types.float64 else table_32
        row = types.UniTuple(x, len(numbers))

        def build(context, builder, signature, arguments):
            return context.make_tuple(builder, row, [context.get_constant(x, number) for number in numbers])

        return row(x), build

    return table


_exp2_series = _by_dtype(_EXP2_64, _EXP2_32)
_log_series = _by_dtype(_LOG_64, _LOG_32)
_arcsin_series = _by_dtype(_ARCSIN_64, _ARCSIN_32)
_log_2 = _by_dtype(_LOG_2_64, _LOG_2_32)
# where the exponent's bits of 2^x, and with them all others, are 0, and where 2^x is as large as a number can be
_exp2_range = _by_dtype((-1023.0, 1023.0), (-127.0, 127.0))
_bits = _by_dtype((1 / math.log(2),), (1 / math.log(2),))
_limits = _by_dtype(  # lowest finite and smallest normal number
    (-np.finfo(np.float64).max.item(), np.finfo(np.float64).tiny.item()),
    (-np.finfo(np.float32).max.item(), np.finfo(np.float32).tiny.item()),
)
_units = _by_dtype((0.0, 1.0, math.pi), (0.0, 1.0, math.pi))


@_inlined
def _exp2(x):
    """2^x to 2 units of rounding, below the overflow; 0 from -1023 (-127) down and for NaN, and less than 2^x, though not
    by more than 2^-1023 (2^-127), for half a unit of x above."""
    least = _exp2_range(x)[0]
    x = x if x > least else least
    k = np.rint(x)
    return _times_two_to_the(_polynomial_in_pairs(_exp2_series(x), x - k), k)


@_inlined
def _log(x, relative_correction):
    """log(x (1 + relative_correction)) for a normal x > 0 and a correction of the size of rounding."""
    _, one, _ = _units(x)
    high, low = _log_2(x)
    mantissa, k = _split(x)
    s = (mantissa - one) / (mantissa + one)
    return k * high + (s * _polynomial(_log_series(x), s * s) + (k * low + relative_correction))


@_inlined
def _log1p(x):
    """log(1 + x) for x >= 0; what 1 + x rounded away comes back to first order."""
    _, one, _ = _units(x)
    y = one + x
    return _log(y, (x - (y - one)) / y)


@_inlined
def _power(x, exponent):
    """x ** exponent for x >= 0 and a positive exponent, to max(1, |log x ** exponent|) units of rounding."""
    zero, tiny, most = _units(x)[0], _limits(x)[1], _exp2_range(x)[1]
    y = exponent * (_log(x if x > tiny else tiny, zero) * _bits(x)[0])
    result = _exp2(y if y < most else most)
    return result if x > zero else zero


@_inlined
def _angle(r, s):
    """Angle between unit vectors with |u - v|^2 = r and |u + v|^2 = s."""
    _, _, pi = _units(r)
    less = r if r < s else s
    z = less / (r + s)
    half = np.sqrt(z) * _polynomial(_arcsin_series(r), z)
    return half + half if r < s else pi - (half + half)


@intrinsic
def _polynomial(typing_context, coefficients, x):
    """Horner's rule, highest power first; a loop would have to be unrolled before the one around it vectorises."""

    def build(context, builder, signature, arguments):
        table, number = arguments
        value = builder.extract_value(table, 0)
        for k in range(1, len(coefficients)):
            value = builder.fadd(builder.fmul(value, number), builder.extract_value(table, k))
        return value

    return x(coefficients, x), build


@intrinsic
def _polynomial_in_pairs(typing_context, coefficients, x):
    """Estrin's rule, highest power first: more multiplications in a shorter chain."""

    def build(context, builder, signature, arguments):
        table, power = arguments
        terms = [builder.extract_value(table, k) for k in reversed(range(len(coefficients)))]
        while len(terms) > 1:
            pairs = [builder.fadd(terms[k], builder.fmul(terms[k + 1], power)) for k in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[2 * len(pairs) :]
            power = builder.fmul(power, power)
        return terms[0]

    return x(coefficients, x), build


_FORMATS = {types.float64: (64, 52, 1023), types.float32: (32, 23, 127)}  # bits, of which mantissa; exponent bias


@intrinsic
def _times_two_to_the(typing_context, x, k):
    """x 2^k for an integer-valued float k, where x and the result are normal: k is added to the exponent's bits. 1 becomes
    0 where that leaves no bit."""
    width, mantissa, _ = _FORMATS[x]

    def build(context, builder, signature, arguments):
        x, k = arguments
        word = ir.IntType(width)
        # 1.5 * 2^mantissa has k in its last bits, whatever its sign; AVX2 has no conversion to 64-bit integers
        shifted = builder.fadd(k, ir.Constant(k.type, 1.5 * 2.0**mantissa))
        exponent = builder.shl(builder.bitcast(shifted, word), word(mantissa))
        return builder.bitcast(builder.add(builder.bitcast(x, word), exponent), x.type)

    return x(x, k), build


@intrinsic
def _split(typing_context, x):
    """Mantissa in [sqrt(1/2), sqrt(2)) and exponent, both as floats, of a positive normal number."""
    width, mantissa, bias = _FORMATS[x]
    pair = types.UniTuple(x, 2)

    def build(context, builder, signature, arguments):
        word, number = ir.IntType(width), arguments[0].type
        one = bias << mantissa
        root = int(np.sqrt(0.5).astype(f"f{width // 8}").view(f"i{width // 8}"))
        shifted = builder.add(builder.bitcast(arguments[0], word), word(one - root))
        exponent = builder.lshr(shifted, word(mantissa))
        exponent = builder.trunc(exponent, ir.IntType(32)) if width > 32 else exponent
        exponent = builder.sitofp(builder.sub(exponent, exponent.type(bias)), number)
        bits = builder.add(builder.and_(shifted, word((1 << mantissa) - 1)), word(root))
        return context.make_tuple(builder, pair, (builder.bitcast(bits, number), exponent))

    return pair(x), build
