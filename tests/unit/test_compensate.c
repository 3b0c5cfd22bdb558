/* test_compensate.c - rounding with second moments: factors, the error that must fall and never rise, levels and threads, moments of a
 * model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/quant.h"
#include "eval/imatrix.h"
#include "eval/moments.h"
#include "quant/compensate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { K = 256, ROWS = 21, SEEN = 400 };

static float gauss(ash_rng *r) {
    double s = -6;
    for (int i = 0; i < 12; i++) s += ash_rng_f64(r);
    return (float)s;
}

/* Inputs that share a few causes, as a model's do; the last `dead` columns never move. */
static float *moments_of(uint64_t seed, int dead) {
    ash_rng r;
    ash_rng_seed(&r, seed);
    static float mix[12][K], x[K];
    for (int c = 0; c < 12; c++)
        for (int i = 0; i < K; i++) mix[c][i] = gauss(&r);
    float *H = ash_alloc_aligned(sizeof(float) * K * K, 64);
    assert_non_null(H);
    memset(H, 0, sizeof(float) * K * K);
    for (int t = 0; t < SEEN; t++) {
        float cause[12];
        for (int c = 0; c < 12; c++) cause[c] = gauss(&r);
        for (int i = 0; i < K; i++) {
            x[i] = 0.7f * gauss(&r);
            for (int c = 0; c < 12; c++) x[i] += 0.5f * mix[c][i] * cause[c];
            if (i % 37 == 5) x[i] *= 8;
            if (i >= K - dead) x[i] = 0;
        }
        for (int i = 0; i < K; i++)
            for (int j = i; j < K; j++) H[i * K + j] += x[i] * x[j];
    }
    return H;
}

static void hess(ash_hess *h, uint64_t seed, int dead, double damp) {
    ash_error e = {0};
    if (ash_hess_make(h, moments_of(seed, dead), K, damp, NULL, &e) != ASH_OK) fail_msg("%s", e.msg);
}

static void factors_make_the_matrix(void **state) {
    (void)state;
    for (int dead = 0; dead <= 40; dead += 40) {
        ash_hess h;
        hess(&h, 3, dead, 0.01);
        double worst = 0;
        for (int a = 0; a < K; a++)
            for (int b = 0; b <= a; b++) {
                double s = 0; /* sum over k of U_ak D_k U_bk, with U^T in the rows of L */
                for (int k = a; k < K; k++) {
                    const double ua = k == a ? 1 : h.L[k * K + a], ub = k == b ? 1 : h.L[k * K + b];
                    s += ua * h.D[k] * ub;
                }
                const double d = fabs(s - h.H[a * K + b]) / sqrt((double)h.H[a * K + a] * h.H[b * K + b]);
                worst = d > worst ? d : worst;
            }
        assert_true(worst < 1e-4);
        ash_hess_free(&h);
    }
}

static void odd_moments_are_refused(void **state) {
    (void)state;
    ash_hess h;
    ash_error e = {0};
    float *H = ash_alloc_aligned(sizeof(float) * K * K, 64);
    assert_non_null(H);
    memset(H, 0, sizeof(float) * K * K);
    assert_int_equal(ash_hess_make(&h, H, K, 0.01, NULL, &e), ASH_E_RANGE);
    H = moments_of(1, 0);
    H[5 * K + 5] = INFINITY;
    assert_int_equal(ash_hess_make(&h, H, K, 0.01, NULL, &e), ASH_E_RANGE);
}

static double loss(const ash_hess *h, const float *w, const float *q) {
    double s = 0, e[K];
    for (int i = 0; i < K; i++) e[i] = (double)w[i] - q[i];
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) s += e[i] * h->H[i * K + j] * e[j];
    return s;
}

static void every_type_gains(void **state) {
    (void)state;
    static float w[ROWS * K], q[K];
    static uint8_t plain[ROWS * K * 4], comp[ROWS * K * 4], again[ROWS * K * 4];
    const ash_comp_opts o = {ASH_COMP_ALL, 2};
    ash_hess h;
    ash_rng r;
    ash_error e = {0};
    ash_pool *pool;
    hess(&h, 9, 16, 0.01);
    ash_rng_seed(&r, 4);
    for (int i = 0; i < ROWS * K; i++) w[i] = 0.02f * gauss(&r) * (i % 91 == 3 ? 4 : 1);
    for (int i = 0; i < K; i++) w[2 * K + i] = 0; /* a row of zeros */
    assert_int_equal(ash_pool_new(&pool, 3, &e), ASH_OK);
    int n = 0;
    for (int t = 0; t < ASH_DTYPE_MAX; t++) {
        if (!ash_comp_can((ash_dtype)t)) continue;
        const size_t rb = ash_dtype_row_bytes((ash_dtype)t, K);
        double said[2] = {0, 0}, sum[2] = {0, 0};
        n++;
        assert_int_equal(ash_quant_rows((ash_dtype)t, w, plain, ROWS, K, h.diag, NULL, &e), ASH_OK);
        assert_int_equal(ash_comp_rows_at(ash_cpu_detect(), (ash_dtype)t, w, comp, ROWS, &h, &o, NULL, said, &e), ASH_OK);
        for (int k = 0; k < ROWS; k++) {
            assert_true(ash_dtype_decode((ash_dtype)t, plain + (size_t)k * rb, q, K));
            const double a = loss(&h, w + k * K, q);
            assert_true(ash_dtype_decode((ash_dtype)t, comp + (size_t)k * rb, q, K));
            const double b = loss(&h, w + k * K, q);
            if (b > a * 1.0001) fail_msg("%s: row %d: %g after %g", ash_dtype_name((ash_dtype)t), k, b, a);
            sum[0] += a, sum[1] += b;
        }
        if (!(sum[1] < 0.9 * sum[0])) fail_msg("%s: %g after %g", ash_dtype_name((ash_dtype)t), sum[1], sum[0]);
        for (int k = 0; k < 2; k++) assert_true(fabs(said[k] - sum[k]) < 1e-3 * sum[k]);
        assert_int_equal(ash_comp_rows_at(ASH_CPU_SCALAR, (ash_dtype)t, w, again, ROWS, &h, &o, pool, NULL, &e), ASH_OK);
        if (memcmp(comp, again, ROWS * rb) != 0) fail_msg("%s: threads or the CPU level change the bytes", ash_dtype_name((ash_dtype)t));
    }
    assert_int_equal(n, 24);
    ash_pool_free(pool);
    w[3 * K + 7] = NAN;
    assert_int_equal(ash_comp_rows_at(ash_cpu_detect(), ASH_Q4_0, w, comp, ROWS, &h, &o, NULL, NULL, &e), ASH_E_FORMAT);
    assert_int_equal(e.pos, 3 * K + 7);
    assert_int_equal(ash_comp_rows_at(ash_cpu_detect(), ASH_F16, w, comp, ROWS, &h, &o, NULL, NULL, &e), ASH_E_UNSUPPORTED);
    ash_hess_free(&h);
}

/* ---- moments of a model ---- */

static void diagonal_is_the_importance(void **state) {
    (void)state;
    char path[512];
    ash_error e = {0};
    ash_model *m;
    ash_token tok[32 * 5];
    snprintf(path, sizeof path, "%s/golden/llama/model.gguf", getenv("ASH_TEST_DATA"));
    assert_int_equal(ash_model_load(&m, path, &e), ASH_OK);
    for (int i = 0; i < 160; i++) tok[i] = (ash_token)((i * 7919 + 13) % m->hp.n_vocab);
    const ash_eval_text t = {.tokens = tok, .n = 160};
    ash_eval_opts o = ash_eval_defaults();
    o.n_ctx = 32;
    ash_imatrix *im;
    assert_int_equal(ash_imatrix_collect(&im, m, &t, "babble", &o, &e), ASH_OK);
    for (int prefix = 0; prefix < 2; prefix++) {
        ash_moments *mo;
        o.n_threads = 1 + 2 * prefix;
        assert_int_equal(ash_moments_new(&mo, m, &t, prefix, &o, &e), ASH_OK);
        for (int l = 0; l < m->hp.n_layer; l++) {
            assert_int_equal(ash_moments_layer(mo, l, true, &e), ASH_OK);
            for (int r = 0; r < ASH_W_COUNT; r++) {
                int n;
                const ash_tap_point p = ash_role_tap((ash_role)r);
                float *H = ash_moments_take(mo, p, &n);
                if (!H) continue;
                const float *w = ash_imatrix_weights(im, m->layers[l].name[r], (uint64_t)n);
                assert_non_null(w);
                double sum[2] = {0, 0};
                const bool even = p == ASH_TAP_ATTN_IN ||
                                  p == ASH_TAP_FFN_IN; /* tokens count equally there, but for the first: 16 times (a share of 32) */
                for (int i = 0; i < n; i++) {
                    const double d = H[(size_t)i * (size_t)n + (size_t)i];
                    assert_true(even ? d >= 160.0 * w[i] * (1 - 1e-4) && d <= 160.0 * ASH_MOMENT_FIRST * 32 * w[i] * (1 + 1e-4)
                                     : (d > 0) == (w[i] > 0));
                    sum[0] += d, sum[1] += w[i];
                }
                ash_free(H);
                if (even) assert_true(sum[0] > 160.0 * sum[1] * 1.01 && sum[0] < 160.0 * sum[1] * 8);
            }
            const ash_mat none[ASH_W_COUNT] = {0};
            if (prefix) assert_int_equal(ash_moments_replace(mo, l, none, &e), ASH_OK);
        }
        ash_moments_free(mo);
    }
    ash_imatrix_free(im);
    ash_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(factors_make_the_matrix), cmocka_unit_test(odd_moments_are_refused),
                                       cmocka_unit_test(every_type_gains), cmocka_unit_test(diagonal_is_the_importance)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
