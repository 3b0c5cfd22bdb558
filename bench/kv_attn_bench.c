/* kv_attn_bench.c - one token's attention on one KV head by type of cache and CPU level: microseconds of scores, weights and
 * outputs, best of many, on one thread. Usage: kv_attn_bench [keys] [head size] [group]. */
#include "kern/kv_block.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(const ash_kern *k, ash_keys *r, ash_keys_form form, int n, int hd, const float *x) {
    const size_t bytes = ash_kv_block_bytes(form, hd);
    *r = (ash_keys){.form = form, .ld = hd, .n = n};
    if (!bytes) {
        uint16_t *h = malloc((size_t)n * (size_t)hd * 2);
        if (!h) abort();
        k->to_f16(x, h, (int64_t)n * hd);
        r->p = h;
        return;
    }
    uint8_t *b = malloc(bytes * (size_t)n / ASH_KV_BLOCK);
    if (!b) abort();
    for (int i = 0; i < n / ASH_KV_BLOCK; i++) ash_kv_encode(k, form, x + (size_t)i * ASH_KV_BLOCK * (size_t)hd, hd, hd, b + (size_t)i * bytes);
    r->p = b;
}

int main(int argc, char **argv) {
    const int n = (argc > 1 ? atoi(argv[1]) : 4096) / ASH_KV_BLOCK * ASH_KV_BLOCK, hd = argc > 2 ? atoi(argv[2]) : 64, group = argc > 3 ? atoi(argv[3]) : 3;
    if (n < ASH_KV_BLOCK || hd < 1 || hd > 1024 || group < 1 || group > 64) return 2;
    float *x = malloc((size_t)n * (size_t)hd * sizeof *x), *q = malloc((size_t)(group * hd) * sizeof *q), *out = malloc((size_t)(group * hd) * sizeof *out);
    void *scratch = aligned_alloc(64, (ash_attn_scratch_bytes(hd, group, n) + 63) / 64 * 64);
    if (!x || !q || !out || !scratch) return 1;
    ash_rng rng;
    ash_rng_seed(&rng, 1);
    for (size_t i = 0; i < (size_t)n * (size_t)hd; i++) x[i] = (float)(ash_rng_f64(&rng) * 2 - 1);
    for (int i = 0; i < group * hd; i++) q[i] = (float)(ash_rng_f64(&rng) * 2 - 1);
    static const struct {
        const char *name;
        ash_keys_form k, v;
    } types[] = {{"f16", ASH_KEYS_F16, ASH_KEYS_F16}, {"q8_0", ASH_KEYS_K8, ASH_KEYS_V8}, {"q4_0", ASH_KEYS_K4, ASH_KEYS_V4}};
    printf("%d keys, head size %d, %d query heads: best us of scores, weights, outputs, all\n", n, hd, group);
    for (int level = 0; level <= (int)ash_cpu_detect(); level++) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)level);
        for (size_t f = 0; f < ASH_ARRAY_LEN(types); f++) {
            const int lo = 0, hi = n;
            ash_attn a = {.hd = hd, .n_k = 1, .n_v = 1, .group = group, .n_q = 1, .q = q, .ldq = 0, .out = out, .lo = &lo, .hi = &hi, .scale = 0.125f};
            fill(k, &a.k[0], types[f].k, n, hd, x);
            fill(k, &a.v[0], types[f].v, n, hd, x);
            ash_attn_scores s = ash_attn_shape(&a);
            s.s = ash_attn_shared(scratch, hd, group);
            double best[3] = {1e9, 1e9, 1e9};
            const double until = now() + 0.3;
            while (now() < until) {
                const double t0 = now();
                ash_attn_score(k, &a, &s, 0, n, scratch);
                const double t1 = now();
                for (int r = 0; r < group; r++) ash_attn_weigh(k, &a, &s, r);
                const double t2 = now();
                ash_attn_sum(k, &a, &s, 0, hd, scratch);
                const double t3 = now();
                best[0] = fmin(best[0], t1 - t0), best[1] = fmin(best[1], t2 - t1), best[2] = fmin(best[2], t3 - t2);
            }
            printf("%-8s %-5s %8.1f %8.1f %8.1f %8.1f\n", ash_cpu_level_name(k->level), types[f].name, 1e6 * best[0], 1e6 * best[1], 1e6 * best[2],
                   1e6 * (best[0] + best[1] + best[2]));
            free((void *)(uintptr_t)a.k[0].p), free((void *)(uintptr_t)a.v[0].p);
        }
    }
    free(x), free(q), free(out), free(scratch);
    return 0;
}
