"""Elementary functions that LLVM can vectorise: no branch, no call, no table.

Polynomials are minimax (Remez), highest power first, relative errors of the functions they stand for: 2^x 3.1e-18 and
1.9e-9 (float64, float32), log 1.2e-18 and 8.1e-10, arcsin 1.1e-16 and 1.6e-8. Rounding adds one to three units.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

CONTRACT = {"contract"}  # fused multiply-add and nothing that forgets about rounding, NaN or infinity
inlined = numba.njit(fastmath=CONTRACT, error_model="numpy", forceinline=True)

_EXP2_64 = (
    4.435282706957277e-10,
    7.074105613508143e-09,
    1.0178198021671931e-07,
    1.32154330896764e-06,
    1.5252733489988525e-05,
    0.00015403530462514432,
    0.0013333558146789923,
    0.009618129107588335,
    0.055504108664819925,
    0.24022650695910155,
    0.6931471805599453,
    1.0,
)
_EXP2_32 = (
    0.00015345812161311629,
    0.0013399931177239738,
    0.009618488956331182,
    0.05550328777105325,
    0.24022646890645522,
    0.6931472057371958,
    1.0000000005541647,
)
_LOG_64 = (
    0.14796104909184404,
    0.1531403588132796,
    0.1818356486518509,
    0.22222198563507706,
    0.2857142874247472,
    0.3999999999941432,
    0.6666666666666734,
    2.0,
)
_LOG_32 = (0.2987186185799117, 0.39977536996839597, 0.6666677641498042, 2.0)
_ARCSIN_64 = (
    0.7349603051899088,
    -2.5461459623996117,
    4.204077532466902,
    -4.24981104621008,
    2.9469903316635087,
    -1.4537299524400207,
    0.5422990188536502,
    -0.13817636181524848,
    0.039880984543874606,
    0.006933423281918485,
    0.014486077101207941,
    0.017310470319535077,
    0.022374537786068262,
    0.03038185680858536,
    0.04464285907406653,
    0.07499999997835971,
    0.16666666666675192,
    1.0,
)
_ARCSIN_32 = (
    0.11206585371517143,
    -0.09392658729294065,
    0.07786471999831827,
    0.016089344659689267,
    0.04655326839242796,
    0.07488084562020053,
    0.16666916033869816,
    1.0,
)
_SIN_64 = (
    2.7314289869116175e-15,
    -7.64396903111606e-13,
    1.6058977272817488e-10,
    -2.5052107616384624e-08,
    2.755731921915843e-06,
    -0.00019841269841254955,
    0.008333333333333316,
    -0.16666666666666666,
)
# pi in three parts: products of the first two with an integer below 2^20 are exact
_PI_PARTS = 3.14159265346825122833, 1.21542010126079319532e-10, 4.04453249759190126308e-21
_PER_PI, _PER_LOG_2 = 1 / math.pi, 1 / math.log(2)  # no division in a loop
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
_exp2m1_series = _by_dtype(_EXP2_64[:-1], _EXP2_32[:-1])  # (2^x - 1) / x
_sin_series = _by_dtype(_SIN_64, _SIN_64)
_log_2 = _by_dtype(_LOG_2_64, _LOG_2_32)
# where the exponent's bits of 2^x, and with them all others, are 0, and where 2^x is as large as a number can be
_exp2_range = _by_dtype((-1023.0, 1023.0), (-127.0, 127.0))
_bits = _by_dtype((1 / math.log(2),), (1 / math.log(2),))
limits = _by_dtype(  # lowest finite and smallest normal number
    (-np.finfo(np.float64).max.item(), np.finfo(np.float64).tiny.item()),
    (-np.finfo(np.float32).max.item(), np.finfo(np.float32).tiny.item()),
)
_units = _by_dtype((0.0, 1.0, math.pi), (0.0, 1.0, math.pi))


@inlined
def exp2(x):
    """2^x to 2 units of rounding, below the overflow; 0 from -1023 (-127) down and for NaN, and less than 2^x, though not
    by more than 2^-1023 (2^-127), for half a unit of x above."""
    least = _exp2_range(x)[0]
    x = x if x > least else least
    k = np.rint(x)
    return _times_two_to_the(_polynomial_in_pairs(_exp2_series(x), x - k), k)


@inlined
def log(x, relative_correction):
    """log(x (1 + relative_correction)) for a normal x > 0 and a correction of the size of rounding."""
    _, one, _ = _units(x)
    high, low = _log_2(x)
    mantissa, k = _split(x)
    s = (mantissa - one) / (mantissa + one)
    return k * high + (s * _polynomial(_log_series(x), s * s) + (k * low + relative_correction))


@inlined
def log1p(x):
    """log(1 + x) for x >= 0; what 1 + x rounded away comes back to first order."""
    _, one, _ = _units(x)
    y = one + x
    return log(y, (x - (y - one)) / y)


@inlined
def power(x, exponent):
    """x ** exponent for x >= 0 and a positive exponent, to max(1, |log x ** exponent|) units of rounding."""
    zero, tiny, most = _units(x)[0], limits(x)[1], _exp2_range(x)[1]
    y = exponent * (log(x if x > tiny else tiny, zero) * _bits(x)[0])
    result = exp2(y if y < most else most)
    return result if x > zero else zero


@inlined
def angle_of(r, s):
    """Angle between unit vectors with |u - v|^2 = r and |u + v|^2 = s."""
    _, _, pi = _units(r)
    less = r if r < s else s
    z = less / (r + s)
    half = np.sqrt(z) * _polynomial(_arcsin_series(r), z)
    return half + half if r < s else pi - (half + half)


@inlined
def sin(x):
    """sin(x) in float64 to 2 units of rounding for |x| < 10^6, NaN beyond: that is left to others."""
    high, middle, low = _PI_PARTS
    k = np.rint(x * _PER_PI)
    r = ((x - k * high) - k * middle) - k * low
    z = r * r
    value = r + r * (z * _polynomial(_sin_series(x), z))
    odd = np.abs(0.5 * k - np.rint(0.5 * k))  # a half, or 0
    return value * (1.0 - 4.0 * odd) if np.abs(x) < 1e6 else np.nan


@inlined
def cos(x):
    """cos(x) in float64 to 4 units of 1 for |x| < 2 10^6, NaN beyond; at most 1, and 1 for 0."""
    half = sin(0.5 * x)
    return 1.0 - 2.0 * (half * half)


@inlined
def exp(x):
    """exp(x) in float64 to 2 units of rounding; 0 where it is no normal number, inf from 2^1023 up."""
    k = np.rint(x * _PER_LOG_2)
    high, low = _LOG_2_64
    k = k if k < 1023.0 else 1023.0
    r = (x - k * high) - k * low
    value = _times_two_to_the(_polynomial_in_pairs(_exp2_series(x), r * _PER_LOG_2), k)
    value = 0.0 if x <= -708.0 else value
    return value if x < 709.0 else x + np.inf


@inlined
def tan(x):
    """tan(x) in float64 for |x| < 10^6 to the units of rounding that cos has, relative to it; NaN beyond."""
    return sin(x) / cos(x)


@inlined
def expm1(x):
    """exp(x) - 1 in float64 to 3 units of rounding for |x| < 709, of which nothing cancels."""
    k = np.rint(x * _PER_LOG_2)
    high, low = _LOG_2_64
    y = ((x - k * high) - k * low) * _PER_LOG_2
    power = _times_two_to_the(1.0, k)
    return power * (y * _polynomial_in_pairs(_exp2m1_series(x), y)) + (power - 1.0)


@inlined
def tanh(x):
    """tanh(x) in float64 to 4 units of rounding."""
    size = np.abs(x)
    t = expm1(40.0 if size > 20.0 else 2.0 * size)
    value = t / (t + 2.0)
    return -value if x < 0.0 else value


@inlined
def sinh(x):
    """sinh(x) in float64 to 4 units of rounding, infinite from |x| = 709 up."""
    size = np.abs(x)
    t = expm1(709.0 if size > 709.0 else size)
    value = 0.5 * (t + t / (t + 1.0))
    value = np.inf if size > 709.0 else value
    return -value if x < 0.0 else value


@inlined
def cosh(x):
    """cosh(x) in float64 to 3 units of rounding, infinite from |x| = 709 up."""
    e = exp(np.abs(x))
    return 0.5 * (e + 1.0 / e)


@inlined
def log_of_any(x):
    """log(x) in float64; NaN for what is no positive normal number: that is left to others."""
    return log(x, 0.0) if limits(x)[1] <= x <= -limits(x)[0] else np.nan


@inlined
def power_of_any(x, exponent):
    """x ** exponent in float64 for a positive exponent; NaN for what is no number >= 0: that is left to others."""
    return power(x, exponent) if 0.0 <= x <= -limits(x)[0] else np.nan


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


@intrinsic
def larger(typing_context, x, y):
    """The larger of two numbers: LLVM recognises a maximum over a loop in this form only."""

    def build(context, builder, signature, arguments):
        number = arguments[0].type
        kind = ir.FunctionType(number, [number, number])
        larger = builder.module.declare_intrinsic("llvm.maxnum", [number], kind)
        return builder.call(larger, arguments)

    return x(x, y), build
