/* test_attn.c - attention of a block of tokens equals attention token by token and head by head, bit for bit: any group,
 * head size, split into segments, window. Scratch has exactly the promised size. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern/kern.h"

#include <stdlib.h>

static ash_rng g_rng;
static float rnd(void) { return (float)(ash_rng_f64(&g_rng) * 2 - 1); }

static void one(const ash_kern *k, int hd, int group, int n_q, int n_keys, int wrap, int window, bool f16, float cap) {
    enum { HEADS = 2 }; /* KV heads side by side in a token's row: the strides must be honoured */
    const size_t kv = (size_t)n_keys * (size_t)hd, row = (size_t)(HEADS * group * hd);
    float *fk = malloc(kv * 4), *fv = malloc(kv * 4), *q = malloc((size_t)n_q * row * 4);
    uint16_t *hk = malloc(kv * 2), *hv = malloc(kv * 2);
    float *got = calloc((size_t)n_q * row, 4), *want = calloc((size_t)n_q * row, 4);
    int *lo = malloc((size_t)n_q * sizeof *lo), *hi = malloc((size_t)n_q * sizeof *hi);
    for (size_t i = 0; i < kv; i++) fk[i] = rnd(), fv[i] = rnd();
    for (size_t i = 0; i < (size_t)n_q * row; i++) q[i] = rnd();
    k->to_f16(fk, hk, (int64_t)kv);
    k->to_f16(fv, hv, (int64_t)kv);
    for (int t = 0; t < n_q; t++) {
        hi[t] = n_keys - n_q + t + 1;
        lo[t] = window && hi[t] > window ? hi[t] - window : 0;
    }
    size_t es = f16 ? 2 : 4;
    const char *kp = f16 ? (const char *)hk : (const char *)fk, *vp = f16 ? (const char *)hv : (const char *)fv;
    ash_attn a = {.hd = hd, .n_k = wrap ? 2 : 1, .n_v = wrap ? 2 : 1, .group = group, .n_q = n_q, .q = q, .ldq = (int64_t)row, .out = got,
                  .ldo = (int64_t)row, .lo = lo, .hi = hi, .scale = 0.3f, .cap = cap};
    const int n0 = wrap ? wrap : n_keys;
    const ash_keys_form form = f16 ? ASH_KEYS_F16 : ASH_KEYS_F32;
    const size_t off = (size_t)n0 * (size_t)hd * es;
    a.k[0] = (ash_keys){form, kp, hd, n0}, a.k[1] = (ash_keys){form, kp + off, hd, n_keys - n0};
    a.v[0] = (ash_keys){form, vp, hd, n0}, a.v[1] = (ash_keys){form, vp + off, hd, n_keys - n0};
    size_t bytes = (ash_attn_scratch_bytes(hd, group, n_keys) + 63) / 64 * 64;
    void *scratch = aligned_alloc(64, bytes);
    ash_attn_run(k, &a, scratch);
    for (int t = 0; t < n_q; t++)
        for (int h = 0; h < group; h++) {
            ash_attn b = a;
            b.n_q = 1, b.group = 1, b.lo = lo + t, b.hi = hi + t;
            b.q = q + (size_t)t * row + (size_t)(h * hd), b.out = want + (size_t)t * row + (size_t)(h * hd);
            ash_attn_run(k, &b, scratch);
        }
    if (memcmp(got, want, (size_t)n_q * row * 4) != 0)
        fail_msg("hd %d group %d n_q %d n_keys %d wrap %d window %d f16 %d at %s", hd, group, n_q, n_keys, wrap, window, f16, ash_cpu_level_name(k->level));
    free(fk), free(fv), free(q), free(hk), free(hv), free(got), free(want), free(lo), free(hi), free(scratch);
}

static void blocks(void **st) {
    (void)st;
    static const int hds[] = {8, 16, 24, 64, 80, 256}, groups[] = {1, 3, 4, 9};
    ash_rng_seed(&g_rng, 1);
    for (int level = 0; level <= (int)ash_cpu_detect(); level++) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)level);
        for (size_t d = 0; d < ASH_ARRAY_LEN(hds); d++)
            for (size_t g = 0; g < ASH_ARRAY_LEN(groups); g++)
                for (int i = 0; i < 4; i++) {
                    int n_q = 1 + (int)ash_rng_below(&g_rng, 40), n_keys = n_q + (int)ash_rng_below(&g_rng, 120);
                    int wrap = i % 2 && n_keys > 1 ? 1 + (int)ash_rng_below(&g_rng, (uint64_t)n_keys - 1) : 0;
                    one(k, hds[d], groups[g], n_q, n_keys, wrap, i == 3 ? 20 : 0, i < 3, i == 2 ? 5.0f : 0);
                }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
