/* kern_f32_bench.c - GMAC/s and GB/s of the float kernels, per CPU level, one thread.
 * Usage: kern_f32_bench [NAME-PREFIX] */
#include "kern/kern.h"

#include <stdio.h>
#include <stdlib.h>

static const char *g_want = "";
static volatile float g_sink;

static float *floats(size_t n, uint64_t seed) {
    float *p = ash_alloc_aligned(n * sizeof *p + 64, 64);
    ash_rng r;
    ash_rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++) p[i] = (float)(ash_rng_f64(&r) * 2 - 1);
    return p;
}

/* Median of 5 timings, each long enough to be measured. */
#define TIME(out, stmt)                                                                                                            \
    do {                                                                                                                           \
        double t_[5];                                                                                                              \
        int reps_ = 1;                                                                                                             \
        for (;; reps_ *= 2) {                                                                                                      \
            double a_ = ash_now();                                                                                                 \
            for (int i_ = 0; i_ < reps_; i_++) { stmt; }                                                                           \
            if (ash_now() - a_ > 0.02) break;                                                                                      \
        }                                                                                                                          \
        for (int j_ = 0; j_ < 5; j_++) {                                                                                           \
            double a_ = ash_now();                                                                                                 \
            for (int i_ = 0; i_ < reps_; i_++) { stmt; }                                                                           \
            t_[j_] = (ash_now() - a_) / reps_;                                                                                     \
        }                                                                                                                          \
        for (int j_ = 0; j_ < 5; j_++)                                                                                             \
            for (int k_ = j_ + 1; k_ < 5; k_++)                                                                                    \
                if (t_[k_] < t_[j_]) {                                                                                             \
                    double x_ = t_[j_];                                                                                            \
                    t_[j_] = t_[k_];                                                                                               \
                    t_[k_] = x_;                                                                                                   \
                }                                                                                                                  \
        out = t_[2];                                                                                                               \
    } while (0)

static bool wanted(const char *name) { return strncmp(name, g_want, strlen(g_want)) == 0; }

static void bench_gemmf(const ash_kern *k, const char *lv) {
    static const int shapes[][3] = {{576, 576, 96},   {576, 1536, 96},   {1536, 576, 96},  {640, 2048, 96},  {2048, 640, 96},
                                    {576, 1536, 512}, {2048, 640, 1024}, {640, 2048, 511}, {576, 1536, 1},   {576, 1536, 3},
                                    {576, 1536, 8},   {1024, 64, 96},    {576, 49152, 96}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(shapes); i++) {
        int K = shapes[i][0], R = shapes[i][1], T = shapes[i][2];
        if (k->level == ASH_CPU_SCALAR && (R > 1000 || T > 100)) continue;
        float *p = floats((size_t)R * (size_t)K, 1), *x = floats((size_t)T * (size_t)K, 2), *y = floats((size_t)T * (size_t)R, 3);
        double t;
        TIME(t, k->gemmf(p, K, R, x, K, T, y, R));
        printf("gemmf    %-7s K %4d rows %5d tok %4d  %8.2f GMAC/s\n", lv, K, R, T, (double)K * R * T / t * 1e-9);
        ash_free(p), ash_free(x), ash_free(y);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) g_want = argv[1];
    for (int l = ASH_CPU_AVX512; l >= 0; l--) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)l);
        if ((int)k->level != l) continue;
        const char *lv = ash_cpu_level_name((ash_cpu_level)l);
        if (wanted("gemmf")) bench_gemmf(k, lv);
    }
    return g_sink > 1e30f;
}
