// CUDA kernels as host C++: the threads of a block are fibres that run in turn from one barrier to the next.
#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

static inline int min(int x, int y) { return x < y ? x : y; }

struct Index {
    int x, y, z;
};
static Index threadIdx, blockIdx;
static jmp_buf scheduler, fibres[1024];

static void __syncthreads() {
    if (!_setjmp(fibres[threadIdx.x])) _longjmp(scheduler, 1);
}

static int __double2hiint(double x) {
    long long bits;
    memcpy(&bits, &x, 8);
    return int(bits >> 32);
}
static int __double2loint(double x) {
    long long bits;
    memcpy(&bits, &x, 8);
    return int(bits);
}
static double __hiloint2double(int high, int low) {
    const unsigned long long bits = (unsigned long long)unsigned(high) << 32 | unsigned(low);
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

// A kernel with its arguments, as bytes in memory.
template <typename... A> struct Launch {
    void (*kernel)(A...);
    void** arguments;
    bool ended;

    template <size_t... k> void call(std::index_sequence<k...>) { kernel(*static_cast<A*>(arguments[k])...); }
    static void enter(unsigned low, unsigned high) {
        auto* self = reinterpret_cast<Launch*>(size_t(low) | size_t(high) << 32);
        self->call(std::index_sequence_for<A...>());
        self->ended = true;
        _longjmp(scheduler, 1);
    }
    void start(int k) {  // on a stack of its own; later turns are jumps, which need no system call
        static char stacks[1024][1 << 15];
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = stacks[k];
        context.uc_stack.ss_size = sizeof(stacks[k]);
        context.uc_link = nullptr;
        const size_t self = reinterpret_cast<size_t>(this);
        makecontext(&context, reinterpret_cast<void (*)()>(&Launch::enter), 2, unsigned(self), unsigned(self >> 32));
        setcontext(&context);
    }
    void turn(int k, bool first) {  // until the next barrier or the end
        threadIdx.x = k;
        if (_setjmp(scheduler)) return;
        if (first) start(k);
        _longjmp(fibres[k], 1);
    }
    void block(int threads) {
        bool alive[1024];
        for (int k = 0; k < threads; ++k) alive[k] = true;
        bool first = true;
        for (int left = threads; left > 0; first = false)
            for (int k = 0; k < threads; ++k) {
                if (!alive[k]) continue;
                ended = false;
                turn(k, first);
                if (ended) alive[k] = false, --left;
            }
    }
};

template <typename A> int size_of() {
    if constexpr (std::is_pointer_v<A>) return -int(sizeof(std::remove_pointer_t<A>));
    else return sizeof(A);
}

// Run a grid, or say which argument doesn't fit. `sizes`: bytes of a scalar, minus those of an array's number.
template <typename... A>
int run(void (*kernel)(A...), int blocks_x, int blocks_y, int threads, void** arguments, const int* sizes, int count) {
    if (count != sizeof...(A)) return -1;
    const int expected[] = {size_of<A>()...};
    for (int k = 0; k < count; ++k)
        if ((sizes[k] < 0) != (expected[k] < 0) || expected[k] % sizes[k]) return 1 + k;
    Launch<A...> launch{kernel, arguments, false};
    for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x) launch.block(threads);
    return 0;
}
