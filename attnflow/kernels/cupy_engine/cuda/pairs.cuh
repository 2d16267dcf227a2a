// One pair of tokens on the device: from two feature rows to a logit, from a logit to a weight, into running sums.
//
// Logits carry a factor log2(e), so that a weight is one exp2. NVRTC and nvcc compile this file; no host header is
// needed. float is meant with --ftz=true --prec-sqrt=false, where exp2f is one hardware instruction (2 units).

enum Reduction { SQUARED, WRAPPED, INNER, GENERAL };  // as in rules.py, like the transforms; the last by Python
enum Transform { IDENTITY, POWER, LOG1P, ROOT };
enum Subtracted { NONE, RUNNING };  // from the logits of a query

template <typename T> struct Range;
template <> struct Range<float> {
    static constexpr float LOWEST = -3.402823466e38f;
    static constexpr float ROUNDER = 12582912.0f;  // 1.5 x 2^23: x + ROUNDER - ROUNDER is the integer nearest x
    static constexpr float SLACK = 32.0f;          // 2^32 times the number of keys is far below the largest float
};
template <> struct Range<double> {
    static constexpr double LOWEST = -1.7976931348623157e308;
    static constexpr double ROUNDER = 6755399441055744.0;  // 1.5 x 2^52
    static constexpr double SLACK = 256.0;
};

template <typename T> __device__ __forceinline__ T larger(T x, T y) { return x > y ? x : y; }  // y where x is NaN

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }

// 2^x to 5e-16 (minimax of degree 10: 3.0e-16); 0 from -1022 down, infinity from 1024 up, 1 at 0
__device__ __forceinline__ double power_of_two(double x) {
    const double shifted = x + Range<double>::ROUNDER;  // its low word is the integer k nearest x
    const double r = x - (shifted - Range<double>::ROUNDER);
    double p = 7.1117598389906916e-09;
    p = fma(p, r, 1.0210506509439332e-07);
    p = fma(p, r, 1.3215235629158134e-06);
    p = fma(p, r, 1.5252647747448719e-05);
    p = fma(p, r, 1.5403530800826788e-04);
    p = fma(p, r, 1.3333558246481098e-03);
    p = fma(p, r, 9.6181291073807105e-03);
    p = fma(p, r, 5.5504108664346582e-02);
    p = fma(p, r, 2.4022650695910472e-01);
    p = fma(p, r, 6.931471805599516e-01);
    p = fma(p, r, 1.0);
    const int k = __double2loint(shifted), high = __double2hiint(x);
    const double scaled = __hiloint2double(__double2hiint(p) + int(unsigned(k) << 20), __double2loint(p));
    // the range is read off the high word: integer units are idle, those of float64 are not
    const bool small = static_cast<unsigned>(high) >= 0xC08FF000u, large = high >= 0x40900000;
    return small ? 0.0 : large ? __hiloint2double(0x7FF00000, 0) : scaled;
}

// x - y to the nearest image; exact rounding holds below 2^22 periods
template <typename T> __device__ __forceinline__ T wrapped(T difference, T period, T inverse) {
    const T turns = fma(difference, inverse, Range<T>::ROUNDER) - Range<T>::ROUNDER;
    return fma(-period, turns, difference);
}

// squared angle between unit vectors from |u - v|^2 and |u + v|^2: accurate for neighbours and antipodes alike
template <typename T> __device__ __forceinline__ T squared_angle(T across, T along) {
    const T angle = 2 * atan2(sqrt(across), sqrt(along));
    return angle * angle;
}

// one coordinate's part of r(u, v); `along` gathers |u + v|^2 for the angle
template <int reduction, bool geodesic, typename T>
__device__ __forceinline__ void accumulate(T x, T y, T period, T inverse, T& r, T& along) {
    if (reduction == INNER) {
        r = fma(x, y, r);
        return;
    }
    const T difference = reduction == WRAPPED ? wrapped(x - y, period, inverse) : x - y;
    r = fma(difference, difference, r);
    if (geodesic) along = fma(x + y, x + y, along);
}

// bias - scale h(r). The scale meets differences, never coordinates: at tiny epsilon that would lose their last digits
template <int transform, typename T> __device__ __forceinline__ T logit(T r, T scale, T exponent, T bias) {
    if (transform == POWER) r = power_of_two(exponent * log2(r));  // 0 at 0
    if (transform == LOG1P) r = log1p(r);
    if (transform == ROOT) r = sqrt(r);
    return fma(-scale, r, bias);
}

// Sums of weights and weighted values relative to 2^top: a tile's in T, the tiles' in double.
template <typename T, int columns> struct Sums {
    T top, tile, tile_values[columns + 1];  // one more: columns may be 0
    double total, values[columns + 1];

    __device__ __forceinline__ void start(T shift) {
        top = shift, tile = 0, total = 0;
        for (int k = 0; k < columns; ++k) tile_values[k] = 0, values[k] = 0;
    }
    __device__ __forceinline__ void add(T weight, const T* v) {
        tile += weight;
#pragma unroll
        for (int k = 0; k < columns; ++k) tile_values[k] = fma(weight, v[k], tile_values[k]);
    }
    __device__ __forceinline__ void close_tile() {
        total += tile, tile = 0;
#pragma unroll
        for (int k = 0; k < columns; ++k) values[k] += tile_values[k], tile_values[k] = 0;
    }
    // online softmax (Milakov and Gimelshein 2018); called only when a logit exceeds top by SLACK, so rarely
    __device__ __forceinline__ void raise(T next) {
        const T fade = power_of_two(top - next);
        top = next, tile *= fade, total *= fade;
#pragma unroll
        for (int k = 0; k < columns; ++k) tile_values[k] *= fade, values[k] *= fade;
    }
};
