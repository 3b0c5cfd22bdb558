/* kern_i8_bench.c - speed of the 8-bit kernels: gemv8 in GB/s of weight bytes (matrix in cache, and
 * streamed from memory), unpack8 in GB/s, gemm8 in GMAC/s, per type and CPU level, on one thread.
 *
 *   kern_i8_bench [-t Q4_1,...] [-l avx512,...] [-s KxN,...] [-n TOKENS] [-j THREADS]
 *
 * With -s the whole driver (ash_mm_i8) is timed on those shapes with -j threads, 1 token and TOKENS. */
#include "kern/kern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static ash_rng rng;

static void *bytes(size_t n, bool random) {
    uint8_t *p = ash_alloc_aligned(n, 64);
    if (!p) exit(4);
    if (random)
        for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(ash_rng_u64(&rng) & 0x3f); /* small half exponents: no NaN, no overflow */
    else memset(p, 0, n);
    return p;
}

static ash_act8 acts(const ash_kern *k, int K, int n_tok) {
    ash_act8 a = {bytes((size_t)K * (size_t)n_tok, false), bytes((size_t)K / 8 * (size_t)n_tok, false),
                  bytes((size_t)K / 8 * (size_t)n_tok, false), K, K / 32, K / 16};
    float *x = bytes(sizeof(float) * (size_t)K * (size_t)n_tok, false);
    for (int i = 0; i < K * n_tok; i++) x[i] = (float)(ash_rng_f64(&rng) - 0.5);
    ash_mm_quant8(k, NULL, x, K, K, n_tok, a);
    ash_free(x);
    return a;
}

/* Processor time of this thread: other processes on the machine disturb it less. With workers, wall time. */
static bool threaded;
static double now(void) {
    struct timespec t;
    if (threaded) return ash_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Best of many short runs: seconds per call. */
#define TIME(stmt)                                        \
    ({                                                    \
        double best_ = 1e9;                               \
        for (int rep_ = 0; rep_ < 40; rep_++) {            \
            int n_ = 0;                                   \
            double t0_ = now(), t_;                   \
            do { stmt; n_++; } while ((t_ = now() - t0_) < 1e-3); \
            best_ = ASH_MIN(best_, t_ / n_);              \
        }                                                 \
        best_;                                            \
    })

static bool listed(const char *list, const char *name) {
    if (!list) return true;
    size_t n = strlen(name);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strncasecmp(p, name, n) == 0 && (p[n] == ',' || !p[n])) return true;
    return false;
}

enum { K_CACHE = 1536, N_CACHE = 192, K_MEM = 1536, MEM_BYTES = 96 << 20 };

static void one(const ash_kern *k, ash_dtype t, const uint8_t *mem, int n_tok) {
    ash_i8_form f = ash_dtype_i8_form(t);
    size_t rb = (size_t)ash_dtype_row_bytes(t, K_CACHE);
    ash_act8 a = acts(k, K_CACHE, n_tok);
    int64_t n_mem = (int64_t)(MEM_BYTES / rb);
    float *y = bytes(sizeof(float) * (size_t)ASH_MAX(n_mem, (int64_t)n_tok * 32), false);
    ash_panel8 p = {bytes((size_t)K_CACHE * 32, false), bytes((size_t)K_CACHE * 8, false), bytes((size_t)K_CACHE * 8, false)};
    ash_gemm8_fn gemm = f.G == 32 ? (f.has_min ? k->gemm8_g32m : k->gemm8_g32) : f.has_min ? k->gemm8_g16m : k->gemm8_g16;
    printf("%-8s %-7s", ash_dtype_name(t), ash_cpu_level_name(k->level));
    if (k->gemv8[t]) {
        double hot = TIME(k->gemv8[t](mem, rb, N_CACHE, K_CACHE, a, y));
        double cold = k->level ? TIME(k->gemv8[t](mem, rb, n_mem, K_CACHE, a, y)) : 0;
        printf(" %9.1f %9.1f", (double)rb * N_CACHE / hot * 1e-9, cold > 0 ? (double)rb * (double)n_mem / cold * 1e-9 : 0);
    } else printf(" %9s %9s", "-", "-");
    double u = TIME(k->unpack8[t](mem, rb, 16, K_CACHE, p));
    double g = TIME(gemm(p, f, K_CACHE, 32, a, n_tok, y, 32));
    printf(" %9.1f %9.1f\n", (double)rb * 16 / u * 1e-9, 32.0 * K_CACHE * n_tok / g * 1e-9);
    ash_free(a.q), ash_free(a.d), ash_free(a.b), ash_free(y), ash_free(p.q), ash_free(p.s), ash_free(p.m);
}

static void shape(const ash_kern *k, ash_dtype t, const uint8_t *mem, int K, int64_t n, int n_tok, ash_pool *pool) {
    ash_mat w = {t, mem, (size_t)ash_dtype_row_bytes(t, (uint64_t)K), n, K};
    size_t sb = ash_mm_scratch_bytes(K);
    if (!w.row_bytes || w.row_bytes * (size_t)n > MEM_BYTES) return;
    void *scratch = bytes(sb * (size_t)ash_pool_threads(pool), false);
    ash_act8 a = acts(k, K, n_tok);
    float *y = bytes(sizeof(float) * (size_t)n * (size_t)n_tok, false);
    ash_mm_job j = {&w, y, n};
    double one_tok = TIME(ash_mm_i8(k, pool, scratch, sb, &j, 1, a, NULL, 0, 1));
    double many = TIME(ash_mm_i8(k, pool, scratch, sb, &j, 1, a, NULL, 0, n_tok));
    printf("%-8s %-7s %6dx%-7d %9.1f GB/s %9.1f GMAC/s (%d tokens)\n", ash_dtype_name(t), ash_cpu_level_name(k->level), K, (int)n,
           (double)w.row_bytes * (double)n / one_tok * 1e-9, (double)K * (double)n * n_tok / many * 1e-9, n_tok);
    ash_free(scratch), ash_free(a.q), ash_free(a.d), ash_free(a.b), ash_free(y);
}

int main(int argc, char **argv) {
    const char *types = NULL, *levels = NULL, *shapes = NULL;
    int n_tok = 192, threads = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "-t")) types = argv[i + 1];
        else if (!strcmp(argv[i], "-l")) levels = argv[i + 1];
        else if (!strcmp(argv[i], "-s")) shapes = argv[i + 1];
        else if (!strcmp(argv[i], "-n")) n_tok = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "-j")) threads = atoi(argv[i + 1]);
        else return 2;
    }
    ash_pool *pool;
    if (n_tok < 1 || ash_pool_new(&pool, threads, NULL) != ASH_OK) return 2;
    threaded = threads > 1;
    ash_rng_seed(&rng, 1);
    uint8_t *mem = bytes(MEM_BYTES, true);
    if (!shapes) printf("%-8s %-7s %9s %9s %9s %9s\n", "type", "level", "gemv GB/s", "from mem", "unpack", "GMAC/s");
    for (int l = ASH_CPU_COUNT - 1; l >= 0; l--) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)l);
        if ((int)k->level != l || !listed(levels, ash_cpu_level_name((ash_cpu_level)l))) continue;
        for (int i = 0; i < ASH_DTYPE_MAX; i++) {
            if (!ash_dtype_i8_form((ash_dtype)i).G || !listed(types, ash_dtype_name((ash_dtype)i))) continue;
            if (!shapes) one(k, (ash_dtype)i, mem, n_tok);
            for (const char *s = shapes; s && *s; s += strcspn(s, ","), s += *s == ',') {
                int K = 0, n = 0;
                if (sscanf(s, "%dx%d", &K, &n) == 2 && K > 0 && n > 0) shape(k, (ash_dtype)i, mem, K, n, n_tok, pool);
            }
        }
    }
    ash_free(mem);
    ash_pool_free(pool);
    return 0;
}
