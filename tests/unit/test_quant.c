/* test_quant.c - encoders: error bars against stored figures, odd inputs, levels and threads agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "quant/encode.h"
#include "tensor/f16.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 4, COLS = 512 };
static const ash_dtype types[] = {ASH_F32,  ASH_F16,  ASH_BF16, ASH_Q4_0, ASH_Q4_1, ASH_Q5_0,   ASH_Q5_1,  ASH_Q8_0,
                                  ASH_Q2_K, ASH_Q3_K, ASH_Q4_K, ASH_Q5_K, ASH_Q6_K, ASH_IQ4_NL, ASH_IQ4_XS,
                                  ASH_IQ2_XXS, ASH_IQ2_XS, ASH_IQ2_S, ASH_IQ3_XXS, ASH_IQ3_S, ASH_IQ1_S, ASH_IQ1_M,
                                  ASH_TQ1_0,   ASH_TQ2_0,  ASH_Q2_0,  ASH_Q1_0,    ASH_MXFP4, ASH_NVFP4};
enum { N_TYPES = ASH_ARRAY_LEN(types) };

/* Types that have no zero, or so few values that a block's weights cannot differ much: a lone weight must be paid for by the others. */
static bool coarse(ash_dtype t) {
    return t == ASH_IQ2_XXS || t == ASH_IQ2_XS || t == ASH_IQ2_S || t == ASH_IQ3_XXS || t == ASH_IQ3_S || t == ASH_IQ1_S || t == ASH_IQ1_M || t == ASH_TQ1_0 ||
           t == ASH_TQ2_0 || t == ASH_Q2_0 || t == ASH_Q1_0 || t == ASH_MXFP4 || t == ASH_NVFP4;
}

static void data_path(char *path, size_t n, const char *name) { snprintf(path, n, "%s/quant-blocks/%s", getenv("ASH_TEST_DATA"), name); }

static void read_floats(const char *name, float *p, size_t n) {
    char path[512];
    data_path(path, sizeof path, name);
    ash_map m;
    assert_int_equal(ash_map_open(&m, path, NULL), ASH_OK);
    assert_int_equal(m.n, n * 4);
    memcpy(p, m.p, n * 4);
    ash_map_close(&m);
}

/* Encode and decode n columns; blocks in a guarded buffer, so that an overrun shows. */
static void round_trip(ash_dtype t, const float *x, float *y, uint64_t rows, uint64_t n, const float *imp) {
    size_t rb = ash_dtype_row_bytes(t, n);
    uint8_t *b = malloc(rb * rows + 16);
    assert_non_null(b);
    memset(b + rb * rows, 0xa5, 16);
    ash_error e = {0};
    if (ash_quant_rows(t, x, b, rows, n, imp, NULL, &e) != ASH_OK) fail_msg("%s: %s", ash_dtype_name(t), e.msg);
    for (int i = 0; i < 16; i++) assert_int_equal(b[rb * rows + i], 0xa5);
    for (uint64_t r = 0; r < rows; r++) assert_true(ash_dtype_decode(t, b + r * rb, y + r * n, n));
    free(b);
}

static double weighted_error(const float *x, const float *y, const float *w, uint64_t n) {
    double e = 0;
    for (uint64_t i = 0; i < n; i++) e += (w ? (double)w[i] : 1.0) * ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return e;
}

/* The reference quantizer's errors on the same rows are the bar: unweighted without importance,
 * weighted with it. Definitions: rmse_rel = RMS error / standard deviation, wrmse_rel = the square
 * root of sum w e^2 / sum w x^2. Figures are stored with six decimals, hence the half unit. */
static void test_bars(void **s) {
    (void)s;
    static float x[ROWS * COLS], y[ROWS * COLS], w[COLS];
    read_floats("source.f32", x, ROWS * COLS);
    read_floats("imatrix.f32", w, COLS);
    char path[512];
    data_path(path, sizeof path, "cases.json");
    json_t *root = json_load_file(path, 0, NULL), *all = json_object_get(root, "types");
    assert_non_null(all);
    int seen = 0, above = 0;
    for (int k = 0; k < N_TYPES; k++) {
        json_t *c = json_object_get(all, ash_dtype_name(types[k]));
        if (!c) continue;
        seen++;
        for (int weighted = 0; weighted < 2; weighted++) {
            /* types the reference refuses to make without importance: their one set of blocks was made with it */
            bool with = json_is_true(json_object_get(c, "used_imatrix"));
            json_t *bars = json_object_get(c, !weighted ? "rmse_rel" : with ? "wrmse_rel" : "wrmse_rel_with_imatrix");
            if (!bars) continue;
            round_trip(types[k], x, y, ROWS, COLS, weighted ? w : NULL);
            for (int r = 0; r < ROWS; r++) {
                const float *xr = x + r * COLS;
                double mean = 0, ss = 0, e = weighted_error(xr, y + r * COLS, weighted ? w : NULL, COLS);
                for (int i = 0; i < COLS; i++) mean += (double)xr[i] / COLS;
                for (int i = 0; i < COLS; i++) ss += weighted ? (double)w[i] * xr[i] * xr[i] : (xr[i] - mean) * (xr[i] - mean);
                double got = sqrt(e / ss), bar = json_real_value(json_array_get(bars, (size_t)r));
                if (got > bar + 0.5e-6) {
                    print_message("%s row %d %s: %.6f, bar %.6f\n", ash_dtype_name(types[k]), r, weighted ? "weighted" : "plain", got, bar);
                    above++;
                }
            }
        }
    }
    json_decref(root);
    assert_int_equal(seen, N_TYPES - 1);
    assert_int_equal(above, 0);
}

static void test_list(void **s) {
    (void)s;
    int n = 0;
    for (int id = 0; id < ASH_DTYPE_MAX; id++) n += ash_quant_can((ash_dtype)id);
    assert_int_equal(n, N_TYPES);
    ash_error e;
    float x[32] = {0};
    uint8_t b[64];
    assert_int_equal(ash_quant_row(ASH_I8, x, b, 32, NULL, &e), ASH_E_UNSUPPORTED);
    assert_int_equal(ash_quant_row(ASH_Q4_K, x, b, 32, NULL, &e), ASH_E_RANGE);
    assert_int_equal(ash_quant_row(ASH_Q4_0, x, b, 0, NULL, &e), ASH_OK);
}

/* Values that are already on a type's grid come back (nearly) as they are. */
static void test_requantize(void **s) {
    (void)s;
    static float x[ROWS * COLS], y[ROWS * COLS], z[ROWS * COLS];
    read_floats("source.f32", x, ROWS * COLS);
    for (int k = 0; k < N_TYPES; k++) {
        round_trip(types[k], x, y, ROWS, COLS, NULL);
        round_trip(types[k], y, z, ROWS, COLS, NULL);
        /* relative to the first error: the searches are not exhaustive */
        double first = weighted_error(x, y, NULL, ROWS * COLS), again = weighted_error(y, z, NULL, ROWS * COLS);
        if (again > 0.35 * first) fail_msg("%s: again %g, first %g", ash_dtype_name(types[k]), again, first);
    }
}

static void test_special(void **s) {
    (void)s;
    float x[512], y[512], w[512];
    for (int k = 0; k < N_TYPES; k++) {
        ash_dtype t = types[k];
        const char *name = ash_dtype_name(t);
        memset(x, 0, sizeof x);
        round_trip(t, x, y, 1, 512, NULL);
        for (int i = 0; i < 512; i++) assert_true(y[i] == 0);
        for (int sign = -1; sign <= 1; sign += 2) { /* constants */
            for (int i = 0; i < 512; i++) x[i] = (float)sign * 0.37f;
            round_trip(t, x, y, 1, 512, NULL);
            for (int i = 0; i < 512; i++)
                if (fabsf(y[i] - x[i]) > 0.37f * 0.02f) fail_msg("%s: constant %g became %g", name, (double)x[i], (double)y[i]);
        }
        /* one spike, denormals, the largest floats: finite results, no trap */
        memset(x, 0, sizeof x);
        x[100] = -3.0f;
        round_trip(t, x, y, 1, 512, NULL);
        if (coarse(t)) assert_true(y[100] < 0 && weighted_error(x, y, NULL, 512) < 9.0);
        else if (fabsf(y[100] + 3.0f) > 0.05f) fail_msg("%s: spike became %g", name, (double)y[100]);
        for (int i = 0; i < 512; i++) x[i] = (float)(i % 7 - 3) * 1e-42f;
        round_trip(t, x, y, 1, 512, NULL);
        for (int i = 0; i < 512; i++) assert_true(fabsf(y[i]) < 1e-6f);
        for (int i = 0; i < 512; i++) x[i] = (i % 2 ? -1.0f : 1.0f) * (i % 3 ? 3e38f : 1e30f);
        round_trip(t, x, y, 1, 512, NULL);
        for (int i = 0; i < 512; i++) assert_true(isfinite(y[i]));
        for (int i = 0; i < 512; i++) x[i] = (float)(i % 13 - 6) * 1e-5f; /* float16 scales are subnormal */
        round_trip(t, x, y, 1, 512, NULL);
        /* NVFP4's smallest step is 2^-10 */
        assert_true(weighted_error(x, y, NULL, 512) < (t == ASH_NVFP4 ? 1.01 : coarse(t) ? 0.75 : 0.5) * weighted_error(x, (float[512]){0}, NULL, 512));
        /* importance: none anywhere is as no importance; its scale does not matter; one column only */
        size_t rb = ash_dtype_row_bytes(t, 512);
        uint8_t *a = malloc(rb), *b = malloc(rb);
        for (int i = 0; i < 512; i++) x[i] = sinf((float)i * 1.7f) * (1.0f + (float)(i % 5)), w[i] = 0;
        assert_int_equal(ash_quant_row(t, x, a, 512, w, NULL), ASH_OK);
        assert_int_equal(ash_quant_row(t, x, b, 512, NULL, NULL), ASH_OK);
        assert_memory_equal(a, b, rb);
        for (int i = 0; i < 512; i++) w[i] = (float)(i % 9);
        assert_int_equal(ash_quant_row(t, x, a, 512, w, NULL), ASH_OK);
        for (int i = 0; i < 512; i++) w[i] *= 0x1p60f;
        assert_int_equal(ash_quant_row(t, x, b, 512, w, NULL), ASH_OK);
        assert_memory_equal(a, b, rb);
        memset(w, 0, sizeof w);
        w[300] = 1e-20f;
        round_trip(t, x, y, 1, 512, w);
        if (fabsf(y[300] - x[300]) > (t == ASH_MXFP4 ? 0.17f : coarse(t) ? 0.05f : 0.02f) * fabsf(x[300])) fail_msg("%s: the one column that matters: %g became %g", name, (double)x[300], (double)y[300]);
        free(a);
        free(b);
    }
}

static void test_reject(void **s) {
    (void)s;
    static float x[2 * 512];
    float w[512];
    static uint8_t b[2 * 512 * 4];
    ash_error e;
    for (int k = 0; k < N_TYPES; k++) {
        for (int i = 0; i < 1024; i++) x[i] = (float)(i % 11) - 5;
        x[512 + 77] = k % 2 ? NAN : -INFINITY;
        x[512 + 400] = NAN;
        assert_int_equal(ash_quant_rows(types[k], x, b, 2, 512, NULL, NULL, &e), ASH_E_FORMAT);
        assert_non_null(strstr(e.msg, "row 1, column 77 "));
        x[512 + 77] = x[512 + 400] = 0;
        for (int i = 0; i < 512; i++) w[i] = 1;
        w[3] = k % 2 ? -1 : NAN;
        assert_int_equal(ash_quant_rows(types[k], x, b, 2, 512, w, NULL, &e), ASH_E_RANGE);
        assert_non_null(strstr(e.msg, "column 3 "));
    }
}

/* Same bytes at every CPU level, thread count and grouping of rows. */
static void test_deterministic(void **s) {
    (void)s;
    enum { R = 7, N = 768 };
    static float x[R * N];
    float w[N];
    static uint8_t a[R * N * 4], b[R * N * 4];
    ash_rng r;
    ash_rng_seed(&r, 42);
    for (int i = 0; i < R * N; i++) {
        double u = ash_rng_f64(&r) + ash_rng_f64(&r) + ash_rng_f64(&r) - 1.5;
        x[i] = (float)(i % 61 ? u : 9 * u) * (i / N == 3 ? 1e-4f : 1.0f);
    }
    for (int i = 0; i < N; i++) w[i] = i % 50 ? (float)exp(4 * ash_rng_f64(&r)) : 0;
    ash_pool *pools[3] = {0};
    for (int n = 1; n <= 3; n++) assert_int_equal(ash_pool_new(&pools[n - 1], n, NULL), ASH_OK);
    for (int k = 0; k < N_TYPES; k++)
        for (int imp = 0; imp < 2; imp++) {
            size_t rb = ash_dtype_row_bytes(types[k], N);
            memset(a, 0, sizeof a);
            assert_int_equal(ash_quant_rows_at(ASH_CPU_SCALAR, types[k], x, a, R, N, imp ? w : NULL, NULL, NULL), ASH_OK);
            for (int l = 0; l < ASH_CPU_COUNT; l++) {
                memset(b, 0, sizeof b);
                assert_int_equal(ash_quant_rows_at((ash_cpu_level)l, types[k], x, b, R, N, imp ? w : NULL, pools[l % 3], NULL), ASH_OK);
                if (memcmp(a, b, rb * R)) fail_msg("%s differs at level %d, imp %d", ash_dtype_name(types[k]), l, imp);
            }
            for (int i = 0; i < R; i++) {
                assert_int_equal(ash_quant_row(types[k], x + i * N, b, N, imp ? w : NULL, NULL), ASH_OK);
                assert_memory_equal(a + (size_t)i * rb, b, rb);
            }
        }
    for (int n = 0; n < 3; n++) ash_pool_free(pools[n]);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_bars),    cmocka_unit_test(test_list),   cmocka_unit_test(test_requantize),
                                   cmocka_unit_test(test_special), cmocka_unit_test(test_reject), cmocka_unit_test(test_deterministic)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
