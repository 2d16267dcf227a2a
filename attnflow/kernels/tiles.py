"""The compiled half of the CPU engine: tiles of pairs that stay in the first-level cache.

Per tile each query fills a row with r, turns it into logits, then into weights relative to the running maximum of
its logits; the block of weight rows then meets the value columns, which are thereby read once per block. What was
summed before a new maximum is rescaled (the online softmax of Milakov and Gimelshein, arXiv 1805.02867). Keys and
values lie transposed, so that every inner loop runs over contiguous keys and vectorises; which reduction and
transform runs is decided outside it.

Everything compiled is in this one file because numba's disk cache notices changes of the file of the outermost
function only.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

TILE = 512  # keys at a time
QUERIES = 8  # queries that share a tile
REDUCTIONS = {"squared": 0, "wrapped": 1, "inner": 2, "general": 3}
TRANSFORMS = {"identity": 0, "power": 1, "log1p": 2, "affine": 3, "root": 4}
_SQUARED, _WRAPPED, _INNER, _GENERAL = REDUCTIONS.values()
_IDENTITY, _POWER, _LOG1P, _AFFINE, _ROOT = TRANSFORMS.values()

_contract = {"contract"}  # fused multiply-add and nothing that forgets about rounding, NaN or infinity
_compiled = numba.njit(fastmath=_contract, error_model="numpy")
_inlined = numba.njit(fastmath=_contract, error_model="numpy", forceinline=True)
_summing = numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")
_comparing = numba.njit(fastmath={"contract", "nnan", "nsz"}, error_model="numpy")  # only where _logit removed NaN


@numba.njit(nogil=True, cache=True, fastmath=_contract, error_model="numpy")
def absorb(first, last, codes, numbers, period, queries, keys, values, bias, f_values, top, total, mean):
    """Add keys (m, N) with values (c, N) to the running maximum, sum of weights and weighted sum of some queries."""
    reduction, geodesic, transform = codes
    parameter, scale = numbers
    weights = np.empty((QUERIES, TILE), keys.dtype)
    scratch = np.empty(TILE, keys.dtype)
    fade = np.empty(QUERIES)
    for block in range(first, last, QUERIES):
        size = min(QUERIES, last - block)
        for start in range(0, bias.size, TILE):
            length = min(TILE, bias.size - start)
            for k in range(size):
                i, row = block + k, weights[k, :length]
                _reduce(reduction, queries[i], keys, period, f_values, i, start, row)
                if geodesic:
                    _square_of_angle(queries[i], keys, start, row, scratch)
                _transform(transform, parameter, row)
                fade[k] = _weigh(row, bias[start : start + length], scale, top, total, i)
            _average(weights, values, start, length, fade, mean[block : block + size])


@_compiled
def _reduce(reduction, u, keys, period, f_values, i, start, row):
    """r for one query and a tile of keys."""
    if reduction == _GENERAL:
        for j in range(row.size):
            row[j] = f_values[i, start + j]
        return
    for j in range(row.size):
        row[j] = 0
    for d in range(u.size):
        x, side, coordinate = u[d], period[d], keys[d, start : start + row.size]
        if reduction == _SQUARED:
            for j in range(row.size):
                difference = x - coordinate[j]
                row[j] += difference * difference
        elif reduction == _WRAPPED:
            inverse = row.dtype.type(1) / side
            for j in range(row.size):
                difference = x - coordinate[j]
                difference -= side * np.rint(difference * inverse)
                row[j] += difference * difference
        else:
            for j in range(row.size):
                row[j] += x * coordinate[j]


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


@_compiled
def _weigh(row, bias, scale, top, total, i):
    """Turn f into weights relative to the running maximum; the factor by which earlier sums fade is returned."""
    highest = _logits(row, bias, scale)
    fade = 1.0
    if highest > top[i]:
        fade = math.exp(top[i] - highest)
        top[i] = highest
    for j in range(row.size):
        row[j] = _exp(row[j] - row.dtype.type(top[i]))
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
def _average(weights, values, start, length, fade, mean):
    """mean <- fade * mean + weights @ values', four columns at a time so that each weight is read once for them."""
    rows, columns, stop = len(mean), len(values), start + length
    whole = columns - columns % 4
    for k in range(0, whole, 4):
        v0, v1 = values[k, start:stop], values[k + 1, start:stop]
        v2, v3 = values[k + 2, start:stop], values[k + 3, start:stop]
        for i in range(rows):
            row = weights[i, :length]
            s0 = s1 = s2 = s3 = row.dtype.type(0)
            for j in range(length):
                s0 += row[j] * v0[j]
                s1 += row[j] * v1[j]
                s2 += row[j] * v2[j]
                s3 += row[j] * v3[j]
            mean[i, k] = mean[i, k] * fade[i] + s0
            mean[i, k + 1] = mean[i, k + 1] * fade[i] + s1
            mean[i, k + 2] = mean[i, k + 2] * fade[i] + s2
            mean[i, k + 3] = mean[i, k + 3] * fade[i] + s3
    for k in range(whole, columns):
        column = values[k, start:stop]
        for i in range(rows):
            row = weights[i, :length]
            s = row.dtype.type(0)
            for j in range(length):
                s += row[j] * column[j]
            mean[i, k] = mean[i, k] * fade[i] + s


# Elementary functions that LLVM can vectorise: no branch, no call, no table. Polynomials are minimax (Remez), highest
# power first, relative errors of the functions they stand for: exp 2.2e-16 and 2.0e-9 (float64, float32), log 1.2e-18
# and 8.1e-10, arcsin 1.1e-16 and 1.6e-8. Rounding adds one to three units.

_EXP_64 = (
    2.749196616327711e-07, 2.763920289265503e-06, 2.4801900422047028e-05, 0.00019841173050796145,
    0.0013888888528831521, 0.008333333382970059, 0.04166666666820413, 0.1666666666656456, 0.4999999999999798,
    1.0000000000000056, 1.0,
)
_EXP_32 = (
    0.0013843646134270244, 0.008374163393494317, 0.04166800253689601, 0.1666643116987445, 0.4999999420572701,
    1.0000000321838785, 1.0,
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


_exp_series = _by_dtype(_EXP_64, _EXP_32)
_log_series = _by_dtype(_LOG_64, _LOG_32)
_arcsin_series = _by_dtype(_ARCSIN_64, _ARCSIN_32)
_log_2 = _by_dtype(_LOG_2_64, _LOG_2_32)
# one over log 2; where exp is 0: 2^-1023 and 2^-127 have no normal number; where it is largest
_exp_range = _by_dtype((1 / math.log(2), -1023 * math.log(2), 709.4), (1 / math.log(2), -127 * math.log(2), 88.3))
_limits = _by_dtype(  # lowest finite and smallest normal number
    (-np.finfo(np.float64).max.item(), np.finfo(np.float64).tiny.item()),
    (-np.finfo(np.float32).max.item(), np.finfo(np.float32).tiny.item()),
)
_units = _by_dtype((0.0, 1.0, math.pi), (0.0, 1.0, math.pi))


@_inlined
def _exp(x):
    """exp(x) to 2 units of rounding, below the overflow; 0 where the result would not be a normal number."""
    per_unit, least, _ = _exp_range(x)
    high, low = _log_2(x)
    x = x if x > least else least
    k = np.rint(x * per_unit)
    rest = (x - k * high) - k * low
    return _polynomial(_exp_series(x), rest) * _two_to_the(k)


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
    zero, tiny, most = _units(x)[0], _limits(x)[1], _exp_range(x)[2]
    y = exponent * _log(x if x > tiny else tiny, zero)
    result = _exp(y if y < most else most)
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


_FORMATS = {types.float64: (64, 52, 1023), types.float32: (32, 23, 127)}  # bits, of which mantissa; exponent bias


@intrinsic
def _two_to_the(typing_context, k):
    """2^k for an integer-valued float k in the exponent range, 0 for the one below: the exponent bits themselves."""
    width, mantissa, bias = _FORMATS[k]

    def build(context, builder, signature, arguments):
        word = ir.IntType(width)
        power = builder.fptosi(arguments[0], ir.IntType(32))  # AVX2 has no conversion to 64 bits
        power = builder.sext(power, word) if width > 32 else power
        bits = builder.shl(builder.add(power, word(bias)), word(mantissa))
        return builder.bitcast(bits, arguments[0].type)

    return k(k), build


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
