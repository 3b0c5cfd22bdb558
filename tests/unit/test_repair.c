/* test_repair.c - truncated decompositions against matrices of known rank, and adapters that bring a quantized model nearer to its
 * original. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ashlar/bake.h"
#include "ashlar/repair.h"
#include "quant/lowrank.h"
#include "tiny.h"

enum { ROWS = 37, COLS = 53, RANK = 4 };

static void random_block(ash_rng *r, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(ash_rng_f64(r) - 0.5);
}

/* A matrix of rank 4 comes back whole from 4 directions, columns weighted or not; factors are orthonormal; threads change no bit. */
static void recovers_low_rank(void **state) {
    (void)state;
    static float a[ROWS * RANK], b[RANK * COLS], e[ROWS * COLS], d[COLS], u[ROWS * RANK], s[RANK], v[COLS * RANK], u2[ROWS * RANK],
        s2[RANK], v2[COLS * RANK];
    ash_error err = {0};
    ash_rng r;
    ash_pool *pool;
    ash_rng_seed(&r, 7);
    random_block(&r, a, ROWS * RANK);
    random_block(&r, b, RANK * COLS);
    for (int weighted = 0; weighted < 2; weighted++) {
        for (int j = 0; j < COLS; j++) d[j] = weighted ? (float)(0.01 + 3 * ash_rng_f64(&r)) : 1.0f;
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLS; j++) {
                e[i * COLS + j] = 0;
                for (int k = 0; k < RANK; k++) e[i * COLS + j] += a[i * RANK + k] * b[k * COLS + j];
            }
        assert_int_equal(ash_lowrank(e, ROWS, COLS, d, RANK, 2, 1, NULL, u, s, v, &err), ASH_OK);
        for (int k = 1; k < RANK; k++) assert_true(s[k] <= s[k - 1]);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLS; j++) {
                double x = 0;
                for (int k = 0; k < RANK; k++) x += (double)u[i * RANK + k] * s[k] * v[j * RANK + k];
                assert_true(fabs(x / d[j] - e[i * COLS + j]) < 1e-4);
            }
        for (int p = 0; p < RANK; p++)
            for (int q = 0; q < RANK; q++) {
                double x = 0;
                for (int i = 0; i < ROWS; i++) x += (double)u[i * RANK + p] * u[i * RANK + q];
                assert_true(fabs(x - (p == q)) < 1e-4);
            }
        assert_int_equal(ash_pool_new(&pool, 3, &err), ASH_OK);
        assert_int_equal(ash_lowrank(e, ROWS, COLS, d, RANK, 2, 1, pool, u2, s2, v2, &err), ASH_OK);
        ash_pool_free(pool);
        assert_memory_equal(u, u2, sizeof u);
        assert_memory_equal(s, s2, sizeof s);
        assert_memory_equal(v, v2, sizeof v);
    }
}

static void nothing_from_nothing(void **state) {
    (void)state;
    static float e[6 * 5], d[5] = {1, 1, 1, 1, 1}, u[6 * 3], s[3], v[5 * 3];
    ash_error err = {0};
    assert_int_equal(ash_lowrank(e, 6, 5, d, 3, 2, 1, NULL, u, s, v, &err), ASH_OK);
    for (int k = 0; k < 3; k++) assert_true(s[k] == 0);
}

static void eigen_of_known(void **state) {
    (void)state;
    double a[9] = {2, 1, 0, 1, 2, 0, 0, 0, 5}, val[3], q[9];
    ash_sym_eigen(a, 3, val, q);
    assert_true(fabs(val[0] - 5) < 1e-12 && fabs(val[1] - 3) < 1e-12 && fabs(val[2] - 1) < 1e-12);
    assert_true(fabs(fabs(q[2 * 3 + 0]) - 1) < 1e-12 && fabs(fabs(q[0 * 3 + 1]) - sqrt(0.5)) < 1e-12);
}

static double kld_to(const ash_eval_ref *ref, ash_model *m, const ash_adapter *a) {
    ash_eval_opts o = ash_eval_defaults();
    ash_eval_result r;
    ash_error err = {0};
    float one = 1;
    o.n_threads = 2;
    if (a) o.adapters = &a, o.adapter_scales = &one, o.n_adapters = 1;
    if (ash_eval_measure(&r, m, NULL, ref, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    double k = r.kld.v;
    ash_eval_result_free(&r);
    return k;
}

static void brings_a_model_nearer(void **state) {
    (void)state;
    char quantized[64], adapter[64];
    ash_error err = {0};
    ash_model *m = tiny_model("llama"), *q = NULL;
    ash_gguf *gm, *gq;
    snprintf(quantized, sizeof quantized, "./test_repair_%d.gguf", (int)getpid());
    snprintf(adapter, sizeof adapter, "./test_repair_%d_lora.gguf", (int)getpid());
    char path[512];
    snprintf(path, sizeof path, "%s/golden/llama/model.gguf", getenv("ASH_TEST_DATA"));
    assert_int_equal(ash_gguf_open(&gm, path, &err), ASH_OK);
    ash_bake_opts bo = ash_bake_defaults();
    bo.type = ASH_Q4_0;
    if (ash_bake(NULL, gm, quantized, &bo, &err) != ASH_OK) fail_msg("%s", err.msg);
    assert_int_equal(ash_gguf_open(&gq, quantized, &err), ASH_OK);

    ash_eval_text t = tiny_text(m, 256, 3);
    ash_eval_opts eo = ash_eval_defaults();
    ash_eval_ref *ref;
    eo.n_ctx = 64;
    eo.n_threads = 2;
    if (ash_eval_ref_compute(&ref, m, &t, &eo, &err) != ASH_OK) fail_msg("%s", err.msg);
    if (ash_model_load(&q, quantized, &err) != ASH_OK) fail_msg("%s", err.msg);
    double before = kld_to(ref, q, NULL), last = before;
    assert_true(before > 0);
    for (int pct = 10; pct <= 40; pct += 30) { /* more bytes, less loss */
        ash_repair_opts o = ash_repair_defaults();
        ash_repair_result r;
        ash_adapter *a;
        o.n_threads = 2;
        o.budget_bytes = ash_gguf_file_bytes(gq) * (uint64_t)pct / 100;
        if (ash_repair(&r, gm, gq, adapter, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
        assert_true(r.tensor_bytes <= o.budget_bytes);
        for (size_t i = 0; i < r.n; i++) assert_true(r.t[i].rel_err_after <= r.t[i].rel_err + 1e-12);
        assert_true(r.damage_after < r.damage);
        ash_repair_result_free(&r);
        if (ash_adapter_load(&a, q, adapter, &err) != ASH_OK) fail_msg("%s", err.msg);
        double now = kld_to(ref, q, a);
        assert_true(now < last);
        last = now;
        ash_adapter_free(a);
    }
    /* what cannot be done */
    ash_repair_opts o = ash_repair_defaults();
    o.budget_bytes = 8;
    assert_int_equal(ash_repair(NULL, gm, gq, adapter, &o, &err), ASH_E_LIMIT);
    o.budget_bytes = 1 << 20;
    assert_int_equal(ash_repair(NULL, gm, gm, adapter, &o, &err), ASH_E_USAGE);
    unlink(quantized);
    unlink(adapter);
    ash_eval_ref_free(ref);
    ash_free(t.tokens);
    ash_gguf_close(gm);
    ash_gguf_close(gq);
    ash_model_free(m);
    ash_model_free(q);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(recovers_low_rank), cmocka_unit_test(nothing_from_nothing),
                                       cmocka_unit_test(eigen_of_known), cmocka_unit_test(brings_a_model_nearer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
