/* test_kern_i8.c - the 8-bit activation path. Every type's panel form is checked against the decoder of
 * the format; every CPU level, matrix-vector and matrix-matrix must give the reference's bits; inputs lie
 * against unreadable pages so that reading past a row's end faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kern/kern.h"
#include "tensor/f16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_TOK 33

/* n bytes that end at an unreadable page. */
typedef struct {
    uint8_t *base, *p;
    size_t map;
} guarded;

static guarded guard_new(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (n + page - 1) / page * page;
    guarded g = {NULL, NULL, body + page};
    g.base = mmap(NULL, g.map, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.base != MAP_FAILED);
    assert_int_equal(mprotect(g.base + body, page, PROT_NONE), 0);
    g.p = g.base + body - n;
    return g;
}

static void guard_free(guarded g) { munmap(g.base, g.map); }

static ash_dtype types[ASH_DTYPE_MAX];
static int n_types;

static int setup(void **state) {
    (void)state;
    for (int i = 0; i < ASH_DTYPE_MAX; i++)
        if (ash_dtype_i8_form((ash_dtype)i).G) types[n_types++] = (ash_dtype)i;
    return 0;
}

/* Offsets of the float16 fields of a block; the rest of a block may be any bytes. */
static int half_fields(ash_dtype t, int *at) {
    switch (t) {
    case ASH_Q4_1: case ASH_Q5_1: case ASH_Q4_K: case ASH_Q5_K: at[0] = 0, at[1] = 2; return 2;
    case ASH_Q2_K: at[0] = 80, at[1] = 82; return 2;
    case ASH_Q3_K: at[0] = 108; return 1;
    case ASH_Q6_K: at[0] = 208; return 1;
    case ASH_TQ1_0: at[0] = 52; return 1;
    case ASH_TQ2_0: at[0] = 64; return 1;
    case ASH_IQ1_M: case ASH_MXFP4: case ASH_NVFP4: return 0;
    default: at[0] = 0; return 1;
    }
}

enum { FILL_RANDOM, FILL_ZERO, FILL_MAX, FILL_BIG_SCALE, N_FILLS };

static void fill_weights(ash_rng *rng, ash_dtype t, uint8_t *w, size_t n_blocks, int fill) {
    const ash_dtype_info *ti = ash_dtype_get((int)t);
    int at[2], nh = half_fields(t, at);
    for (size_t b = 0; b < n_blocks; b++, w += ti->block_bytes) {
        for (uint32_t i = 0; i < ti->block_bytes; i++) w[i] = fill == FILL_ZERO ? 0 : fill == FILL_MAX ? 0xff : (uint8_t)ash_rng_u64(rng);
        if (t == ASH_MXFP4) w[0] = (uint8_t)(fill == FILL_ZERO ? 0 : 100 + ash_rng_below(rng, 40));
        if (t == ASH_IQ1_M) { /* top nibbles of four words are the half: keep its exponent below the maximum */
            w[55] = (uint8_t)((w[55] & 0x0f) | (fill == FILL_ZERO ? 0 : 0x20));
        }
        for (int h = 0; h < nh; h++) {
            float v = fill == FILL_BIG_SCALE ? 65504.0f : (float)(ash_rng_f64(rng) * 0.2 - 0.05);
            if (fill == FILL_RANDOM && ash_rng_below(rng, 16) == 0) v = (float)(ash_rng_f64(rng) * 1e-7); /* subnormal half */
            if (fill == FILL_ZERO) v = 0;
            uint16_t bits = ash_f32_to_f16(v);
            memcpy(w + at[h], &bits, 2);
        }
    }
}

static void fill_floats(ash_rng *rng, float *x, int n, int t) {
    for (int i = 0; i < n; i++) {
        double u = ash_rng_f64(rng) * 2 - 1;
        x[i] = (float)(t % 5 == 3 ? (i % 2 ? 7.0 : -7.0) : t % 5 == 4 ? u * 1e-30 : u * u * u * 4);
        if (t % 5 == 2 && i / 32 % 2) x[i] = 0;
    }
}

typedef struct {
    guarded q, d, b;
    ash_act8 a;
} acts;

static acts acts_new(int K, int n_tok) {
    acts s = {guard_new((size_t)K * (size_t)n_tok), guard_new(sizeof(float) * (size_t)(K / 32 * n_tok)),
              guard_new(sizeof(int16_t) * (size_t)(K / 16 * n_tok)), {0}};
    s.a = (ash_act8){(int8_t *)s.q.p, (float *)(void *)s.d.p, (int16_t *)(void *)s.b.p, K, K / 32, K / 16};
    return s;
}

static void acts_free(acts s) {
    guard_free(s.q);
    guard_free(s.d);
    guard_free(s.b);
}

/* Quantizer: the reference obeys the definition, the levels equal it. */
static void test_quant8(void **state) {
    (void)state;
    ash_rng rng;
    ash_rng_seed(&rng, 11);
    const int Ks[] = {32, 64, 96, 576, 2048};
    for (size_t i = 0; i < ASH_ARRAY_LEN(Ks); i++)
        for (int t = 0; t < 10; t++) {
            int K = Ks[i];
            guarded x = guard_new(sizeof(float) * (size_t)K);
            float *xf = (float *)(void *)x.p;
            fill_floats(&rng, xf, K, t);
            if (t == 5) xf[3] = NAN;
            if (t == 6) xf[K - 1] = INFINITY;
            if (t == 7)
                for (int j = 0; j < K; j++) xf[j] *= 1e-42f;
            acts r = acts_new(K, 1);
            ash_kern_get(ASH_CPU_SCALAR)->quant8(xf, K, r.a.q, r.a.d, r.a.b);
            for (int g = 0; g < K / 32 && t < 5; g++) {
                float max = 0;
                int sum[2] = {0, 0};
                for (int j = 0; j < 32; j++) {
                    max = fmaxf(max, fabsf(xf[32 * g + j]));
                    assert_true(fabsf(xf[32 * g + j] - r.a.d[g] * (float)r.a.q[32 * g + j]) <= 0.5001f * r.a.d[g]);
                    sum[j / 16] += r.a.q[32 * g + j];
                }
                assert_true(r.a.d[g] == max / 127.0f);
                assert_int_equal(sum[0], r.a.b[2 * g]);
                assert_int_equal(sum[1], r.a.b[2 * g + 1]);
            }
            for (int l = ASH_CPU_SCALAR + 1; l <= (int)ash_cpu_detect(); l++) {
                acts o = acts_new(K, 1);
                ash_kern_get((ash_cpu_level)l)->quant8(xf, K, o.a.q, o.a.d, o.a.b);
                assert_memory_equal(o.a.q, r.a.q, (size_t)K);
                assert_memory_equal(o.a.d, r.a.d, sizeof(float) * (size_t)(K / 32));
                assert_memory_equal(o.a.b, r.a.b, sizeof(int16_t) * (size_t)(K / 16));
                acts_free(o);
            }
            acts_free(r);
            guard_free(x);
        }
}

static ash_panel8 panel_new(size_t K) { /* K: columns of all panels together */
    ash_panel8 p = {ash_alloc_aligned(K * 16, 64), ash_alloc_aligned(K * 4, 64), ash_alloc_aligned(K * 4, 64)};
    assert_true(p.q && p.s && p.m);
    memset(p.q, 0xaa, K * 16);
    memset(p.s, 0xaa, K * 4);
    memset(p.m, 0xaa, K * 4);
    return p;
}

static void panel_free(ash_panel8 p) {
    ash_free(p.q);
    ash_free(p.s);
    ash_free(p.m);
}

static double panel_value(ash_panel8 p, ash_i8_form f, int r, int k) {
    size_t g = (size_t)(k / f.G) * 16 + (size_t)r;
    return (double)p.s[g] * (p.q[(size_t)(k / 4) * 64 + (size_t)r * 4 + (size_t)(k % 4)] - f.zp) + (f.has_min ? (double)p.m[g] : 0);
}

/* Panels mean what the decoder says: exact without a minimum, else within the rounding of the decoder's two operations. */
static void test_unpack_values(void **state) {
    (void)state;
    ash_rng rng;
    ash_rng_seed(&rng, 12);
    for (int i = 0; i < n_types; i++) {
        ash_dtype t = types[i];
        const ash_dtype_info *ti = ash_dtype_get((int)t);
        ash_i8_form f = ash_dtype_i8_form(t);
        int K = (int)ti->block_elems * 3;
        size_t rb = (size_t)ash_dtype_row_bytes(t, (uint64_t)K);
        float *ref = ash_alloc(sizeof(float) * (size_t)K);
        for (int fill = 0; fill < N_FILLS; fill++)
            for (int n_rows = 1; n_rows <= 16; n_rows += 5)
                for (int l = 0; l <= (int)ash_cpu_detect(); l++) {
                    guarded w = guard_new(rb * (size_t)n_rows);
                    fill_weights(&rng, t, w.p, (size_t)n_rows * 3, fill);
                    ash_panel8 p = panel_new((size_t)K);
                    ash_kern_get((ash_cpu_level)l)->unpack8[t](w.p, rb, n_rows, K, p);
                    for (int r = 0; r < 16; r++) {
                        if (r < n_rows) assert_true(ash_dtype_decode(t, w.p + (size_t)r * rb, ref, (uint64_t)K));
                        else memset(ref, 0, sizeof(float) * (size_t)K);
                        for (int k = 0; k < K; k++) {
                            double v = panel_value(p, f, r, k), tol = f.has_min ? 2e-7 * (fabs(v) + 2 * fabs((double)p.m[k / f.G * 16 + r])) : 0;
                            if (!(fabs(v - (double)ref[k]) <= tol))
                                fail_msg("%s level %d row %d column %d: panel %.9g, decoder %.9g", ti->name, l, r, k, v, (double)ref[k]);
                            assert_true(p.q[(size_t)(k / 4) * 64 + (size_t)r * 4 + (size_t)(k % 4)] <= f.qmax);
                        }
                    }
                    panel_free(p);
                    guard_free(w);
                }
        ash_free(ref);
    }
}

static void check_equal(const char *what, ash_dtype t, int l, int K, int64_t n_rows, int n_tok, const float *a, const float *b, size_t n) {
    if (memcmp(a, b, n * sizeof(float)) == 0) return;
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, 4)) {
            if (isnan(a[i]) && isnan(b[i])) continue;
            fail_msg("%s %s level %d K %d rows %d tokens %d: [%zu] %.9g, not %.9g", what, ash_dtype_name(t), l, K, (int)n_rows, n_tok, i,
                     (double)a[i], (double)b[i]);
        }
}

/* One case: reference panels and products against gemv8 and unpack8 + gemm8 of every level. */
static void one_case(ash_rng *rng, ash_dtype t, int K, int n_rows, int n_tok, int fill) {
    ash_i8_form f = ash_dtype_i8_form(t);
    size_t rb = (size_t)ash_dtype_row_bytes(t, (uint64_t)K);
    guarded w = guard_new(rb * (size_t)n_rows), x = guard_new(sizeof(float) * (size_t)K);
    fill_weights(rng, t, w.p, (size_t)n_rows * rb / ash_dtype_get((int)t)->block_bytes, fill);
    acts a = acts_new(K, n_tok);
    const ash_kern *ref = ash_kern_get(ASH_CPU_SCALAR);
    for (int i = 0; i < n_tok; i++) {
        fill_floats(rng, (float *)(void *)x.p, K, i);
        ref->quant8((float *)(void *)x.p, K, a.a.q + i * a.a.ld_q, a.a.d + i * a.a.ld_d, a.a.b + i * a.a.ld_b);
    }
    size_t n = (size_t)n_rows * (size_t)n_tok;
    guarded want = guard_new(n * sizeof(float)), got = guard_new(n * sizeof(float));
    float *y0 = (float *)(void *)want.p, *y = (float *)(void *)got.p;
    for (int l = 0; l <= (int)ash_cpu_detect(); l++) {
        const ash_kern *k = ash_kern_get((ash_cpu_level)l);
        ash_gemm8_fn gemm = f.G == 32 ? (f.has_min ? k->gemm8_g32m : k->gemm8_g32) : f.has_min ? k->gemm8_g16m : k->gemm8_g16;
        float *out = l == 0 ? y0 : y;
        size_t n_panels = (size_t)(n_rows + 15) / 16, n_s = (size_t)(K / f.G) * 16;
        ash_panel8 p = panel_new(n_panels * (size_t)K);
        for (size_t i = 0; i < n_panels; i++) {
            int nr = n_rows - (int)i * 16 < 16 ? n_rows - (int)i * 16 : 16;
            k->unpack8[t](w.p + i * 16 * rb, rb, nr, K, (ash_panel8){p.q + i * (size_t)K * 16, p.s + i * n_s, p.m + i * n_s});
        }
        gemm(p, f, K, n_rows, a.a, n_tok, out, n_rows);
        panel_free(p);
        if (l > 0) check_equal("gemm8", t, l, K, n_rows, n_tok, y, y0, n);
        if (!k->gemv8[t]) continue;
        for (int i = 0; i < n_tok && i < 3; i++) {
            ash_act8 at = a.a;
            at.q += i * at.ld_q;
            at.d += i * at.ld_d;
            at.b += i * at.ld_b;
            guarded yv = guard_new((size_t)n_rows * sizeof(float));
            k->gemv8[t](w.p, rb, n_rows, K, at, (float *)(void *)yv.p);
            check_equal("gemv8", t, l, K, n_rows, n_tok, (float *)(void *)yv.p, y0 + (size_t)i * (size_t)n_rows, (size_t)n_rows);
            guard_free(yv);
        }
    }
    guard_free(want);
    guard_free(got);
    guard_free(w);
    guard_free(x);
    acts_free(a);
}

static void test_parity(void **state) {
    (void)state;
    ash_rng rng;
    ash_rng_seed(&rng, 13);
    const int rows[] = {1, 15, 16, 17, 40}, toks[] = {1, 2, 7, 8, 9, MAX_TOK};
    for (int i = 0; i < n_types; i++) {
        int B = (int)ash_dtype_get((int)types[i])->block_elems;
        const int Ks[] = {B, 2 * B, 5 * B};
        for (size_t k = 0; k < ASH_ARRAY_LEN(Ks); k++)
            for (size_t r = 0; r < ASH_ARRAY_LEN(rows); r++)
                one_case(&rng, types[i], Ks[k], rows[r], toks[(k + r + (size_t)i) % ASH_ARRAY_LEN(toks)], FILL_RANDOM);
        for (size_t n = 0; n < ASH_ARRAY_LEN(toks); n++) one_case(&rng, types[i], 2 * B, 17, toks[n], FILL_RANDOM);
        for (int fill = 1; fill < N_FILLS; fill++) one_case(&rng, types[i], 2 * B, 17, 9, fill);
        one_case(&rng, types[i], (1152 + B - 1) / B * B, 20, 3, FILL_RANDOM);
    }
    for (int i = 0; i < n_types; i++) one_case(&rng, types[i], 9216, 17, 2, FILL_RANDOM); /* beyond any internal column chunk */
}

/* The driver: any token count, thread count and mix of matrices gives what one token alone gives. */
static void test_driver(void **state) {
    (void)state;
    enum { K = 512, N = 3 };
    ash_rng rng;
    ash_rng_seed(&rng, 14);
    const ash_kern *k = ash_kern_get(ash_cpu_detect());
    const ash_dtype ts[N] = {ASH_Q4_1, ASH_F16, ASH_IQ2_S};
    const int64_t n_rows[N] = {130, 33, 70};
    ash_mat m[N];
    float *y[2][N];
    for (int i = 0; i < N; i++) {
        m[i] = (ash_mat){ts[i], NULL, (size_t)ash_dtype_row_bytes(ts[i], K), n_rows[i], K};
        uint8_t *w = ash_alloc(m[i].row_bytes * (size_t)n_rows[i]);
        m[i].data = w;
        if (ts[i] == ASH_F16)
            for (size_t j = 0; j < (size_t)n_rows[i] * K; j++) {
                uint16_t h = ash_f32_to_f16((float)ash_rng_f64(&rng));
                memcpy(w + 2 * j, &h, 2);
            }
        else fill_weights(&rng, ts[i], w, m[i].row_bytes * (size_t)n_rows[i] / ash_dtype_get((int)ts[i])->block_bytes, FILL_RANDOM);
        for (int s = 0; s < 2; s++) y[s][i] = ash_calloc(MAX_TOK * (size_t)n_rows[i], sizeof(float));
    }
    float *x = ash_alloc(sizeof(float) * K * MAX_TOK);
    for (int t = 0; t < MAX_TOK; t++) fill_floats(&rng, x + t * K, K, t);
    size_t sb = ash_mm_scratch_bytes(K);
    char *scratch = ash_alloc_aligned(sb * 3, 64);
    acts a = acts_new(K, MAX_TOK);
    ash_pool *pool;
    assert_int_equal(ash_pool_new(&pool, 3, NULL), ASH_OK);
    ash_mm_quant8(k, NULL, x, K, K, MAX_TOK, a.a);
    for (int t = 0; t < MAX_TOK; t++) {
        ash_act8 at = a.a;
        at.q += t * at.ld_q;
        at.d += t * at.ld_d;
        at.b += t * at.ld_b;
        ash_mm_job jobs[N];
        for (int i = 0; i < N; i++) jobs[i] = (ash_mm_job){&m[i], y[0][i] + t * n_rows[i], n_rows[i]};
        ash_mm_i8(k, NULL, scratch, sb, jobs, N, at, x + t * K, K, 1);
    }
    for (int n_tok = 1; n_tok <= MAX_TOK; n_tok += n_tok < 4 ? 1 : 29) {
        ash_mm_quant8(k, pool, x, K, K, n_tok, a.a);
        ash_mm_job jobs[N];
        for (int i = 0; i < N; i++) jobs[i] = (ash_mm_job){&m[i], y[1][i], n_rows[i]};
        ash_mm_i8(k, pool, scratch, sb, jobs, N, a.a, x, K, n_tok);
        for (int i = 0; i < N; i++)
            check_equal("mm_i8", ts[i], (int)k->level, K, n_rows[i], n_tok, y[1][i], y[0][i], (size_t)n_tok * (size_t)n_rows[i]);
    }
    for (int i = 0; i < N; i++) {
        ash_free((void *)(uintptr_t)m[i].data);
        ash_free(y[0][i]);
        ash_free(y[1][i]);
    }
    ash_free(x);
    ash_free(scratch);
    acts_free(a);
    ash_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant8),
        cmocka_unit_test(test_unpack_values),
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_driver),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
