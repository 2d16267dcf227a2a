// Fused sums in low dimension: each thread keeps a few queries in registers, keys pass through shared memory.
//
// Compiled for REAL, DIM, COLUMNS, QUERIES (per thread), THREADS (per block), REDUCTION, GEODESIC, TRANSFORM, SHIFT.
// A block takes one chunk of queries past the keys of its ranges: all keys, a part of them, or some neighbouring cells.
// periods: DIM periods, then their inverses.
// A key is one row of memory: DIM coordinates, its bias, COLUMNS values, padded to 16 bytes.

#include "pairs.cuh"

constexpr int TILE = 128, MOST_RANGES = 32;
constexpr int PIECE = 16 / sizeof(REAL), WIDTH = (DIM + 1 + COLUMNS + PIECE - 1) / PIECE * PIECE;

struct alignas(16) Key {
    REAL number[WIDTH];
};

// partial: (splits, 2 + COLUMNS, query_count): top, sum of weights, weighted sums, in units of 2^top
extern "C" __global__ void __launch_bounds__(THREADS) absorb(
    const REAL* queries, const Key* keys, const int* chunks, const int* ranges,
    int range_count, int ranges_of_chunk, const REAL* periods, REAL scale, REAL exponent, int query_count,
    double* partial) {
    __shared__ Key tile[TILE];
    __shared__ int begin[MOST_RANGES], offset[MOST_RANGES + 1];

    const int first = chunks[blockIdx.x], last = chunks[blockIdx.x + 1];
    const int* range = ranges + 2 * (blockIdx.x * ranges_of_chunk + blockIdx.y * range_count);
    if (threadIdx.x == 0) {
        offset[0] = 0;
        for (int k = 0; k < range_count; ++k) {
            begin[k] = range[2 * k];
            offset[k + 1] = offset[k] + range[2 * k + 1] - range[2 * k];
        }
    }

    REAL u[QUERIES][DIM], period_of[DIM], inverse[DIM];
    Sums<REAL, COLUMNS> sums[QUERIES];
#pragma unroll
    for (int d = 0; d < DIM; ++d) period_of[d] = periods[d], inverse[d] = periods[DIM + d];
#pragma unroll
    for (int q = 0; q < QUERIES; ++q) {
        const int i = min(first + int(threadIdx.x) + q * THREADS, last - 1);  // the surplus repeats the last query
#pragma unroll
        for (int d = 0; d < DIM; ++d) u[q][d] = queries[i * (long long)DIM + d];
        sums[q].start(SHIFT == NONE ? REAL(0) : Range<REAL>::LOWEST);
    }
    __syncthreads();

    const int length = offset[range_count];  // the ranges lie end to end, as one list of keys
    int k = 0;
    for (int start = 0; start < length; start += TILE) {
        const int count = min(TILE, length - start);
        for (int j = threadIdx.x; j < count; j += THREADS) {
            while (start + j >= offset[k + 1]) ++k;
            tile[j] = keys[begin[k] + (start + j - offset[k])];
        }
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < count; ++j) {
            const REAL* key = tile[j].number;
            REAL t[QUERIES];
            bool exceeds = false;
#pragma unroll
            for (int q = 0; q < QUERIES; ++q) {
                REAL r = 0, along = 0;
#pragma unroll
                for (int d = 0; d < DIM; ++d)
                    accumulate<REDUCTION, GEODESIC>(u[q][d], key[d], period_of[d], inverse[d], r, along);
                if (GEODESIC) r = squared_angle(r, along);
                t[q] = logit<TRANSFORM>(r, scale, exponent, key[DIM]);
                if (SHIFT != NONE) t[q] = larger(t[q], Range<REAL>::LOWEST);  // an overflow or NaN weighs nothing
                if (SHIFT == RUNNING) exceeds |= t[q] - sums[q].top > Range<REAL>::SLACK;
            }
            if (exceeds) {
#pragma unroll
                for (int q = 0; q < QUERIES; ++q)
                    if (t[q] - sums[q].top > Range<REAL>::SLACK) sums[q].raise(t[q]);
            }
#pragma unroll
            for (int q = 0; q < QUERIES; ++q)
                sums[q].add(power_of_two(SHIFT == NONE ? t[q] : t[q] - sums[q].top), key + DIM + 1);
        }
#pragma unroll
        for (int q = 0; q < QUERIES; ++q) sums[q].close_tile();
        __syncthreads();
    }

#pragma unroll
    for (int q = 0; q < QUERIES; ++q) {
        const int i = first + int(threadIdx.x) + q * THREADS;
        if (i >= last) continue;
        double* out = partial + blockIdx.y * (2LL + COLUMNS) * query_count + i;
        out[0] = sums[q].top;
        out[query_count] = sums[q].total;
        for (int c = 0; c < COLUMNS; ++c) out[(2LL + c) * query_count] = sums[q].values[c];
    }
}

// Bring the parts of each query to their highest top: mean[i, column...] and log_sum_exp[i], natural again.
extern "C" __global__ void __launch_bounds__(128) merge(
    const double* partial, int splits, int query_count, int column, int columns, double* mean, double* log_sum_exp) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= query_count) return;
    const long long size = (2LL + COLUMNS) * query_count;
    double top = partial[i], total = 0;
    for (int s = 1; s < splits; ++s) top = larger(partial[s * size + i], top);
    for (int s = 0; s < splits; ++s)
        total = fma(partial[s * size + query_count + i], power_of_two(partial[s * size + i] - top), total);
    for (int c = 0; c < COLUMNS && column + c < columns; ++c) {
        double sum = 0;
        for (int s = 0; s < splits; ++s)
            sum = fma(partial[s * size + (2LL + c) * query_count + i], power_of_two(partial[s * size + i] - top), sum);
        mean[(long long)i * columns + column + c] = sum / total;
    }
    log_sum_exp[i] = 0.69314718055994530942 * (top + log2(total));
}
