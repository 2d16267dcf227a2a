// Softmax over a block of pairs held in memory: many dimensions, many columns, or an f that only Python knows.
//
// Compiled for REAL, REDUCTION, GEODESIC, TRANSFORM, SOURCE. One block of threads takes one query: its row of the block
// becomes logits, then weights relative to the running maximum, ready for the product with the values.

#include "pairs.cuh"

enum Source { PAIRS, PRODUCTS, VALUES };  // SOURCE: the row is yet to come, holds u.v, or holds f
constexpr int THREADS = 256;

template <typename T, bool LARGEST> __device__ T across_threads(T mine, T* shared) {
    __syncthreads();
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            const T other = shared[threadIdx.x + half];
            shared[threadIdx.x] = LARGEST ? larger(other, shared[threadIdx.x]) : shared[threadIdx.x] + other;
        }
        __syncthreads();
    }
    return shared[0];
}

// queries (rows, dim); keys (dim, key_count), of which the first key_here columns count; squares |u|^2, |v|^2.
// top, total, fade (rows): updated; earlier sums are to be multiplied by fade.
extern "C" __global__ void __launch_bounds__(THREADS) weigh(
    REAL* block, int keys_here, const REAL* queries, const REAL* keys, int dim, int key_count, const REAL* periods,
    const REAL* query_squares, const REAL* key_squares, const REAL* bias, REAL scale, REAL exponent, REAL* top,
    double* total, double* fade) {
    __shared__ double scratch[THREADS];
    const int i = blockIdx.x;
    REAL* row = block + (long long)i * keys_here;
    REAL highest = top[i];
    for (int j = threadIdx.x; j < keys_here; j += THREADS) {
        REAL r;
        if (SOURCE == PAIRS) {
            r = 0;
            REAL along = 0;
            for (int d = 0; d < dim; ++d) {
                const REAL x = queries[(long long)i * dim + d], y = keys[(long long)d * key_count + j];
                accumulate<REDUCTION, GEODESIC>(x, y, periods[d], periods[dim + d], r, along);
            }
            if (GEODESIC) r = squared_angle(r, along);
        } else if (SOURCE == PRODUCTS && REDUCTION != INNER) {
            r = larger(fma(REAL(-2), row[j], query_squares[i] + key_squares[j]), REAL(0));
        } else {
            r = row[j];
        }
        row[j] = larger(logit<TRANSFORM>(r, scale, exponent, bias[j]), Range<REAL>::LOWEST);
        highest = larger(row[j], highest);
    }
    highest = REAL(across_threads<double, true>(highest, scratch));

    REAL sum = 0;
    for (int j = threadIdx.x; j < keys_here; j += THREADS) {
        row[j] = power_of_two(row[j] - highest);
        sum += row[j];
    }
    const double all = across_threads<double, false>(sum, scratch);
    if (threadIdx.x == 0) {
        fade[i] = power_of_two(double(top[i]) - double(highest));
        total[i] = fma(total[i], fade[i], all);
        top[i] = highest;
    }
}
