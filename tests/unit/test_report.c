/* test_report.c - renderings of one made-up fit: escaping, determinism, no outside references, valid JSON.
 * With ASH_REPORT_OUT set, the page is also written there, to be looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ashlar/report.h"
#include "base/base.h"

enum { LAYERS = 30 };
static ash_report_cell cells[LAYERS * 7 + 1];
static char names[LAYERS * 7][48];
static ash_report_file files[12];
static ash_report r;

static int setup(void **state) {
    (void)state;
    static const char *const role[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    static const struct { const char *n; double b; } ty[] = {{"IQ4_NL", 4.5}, {"Q5_0", 5.5}, {"Q4_K", 4.5}, {"Q8_0", 8.5}, {"Q5_1", 6}, {"Q6_K", 6.5625}, {"Q3_K", 3.4375}};
    ash_rng g;
    ash_rng_seed(&g, 3);
    size_t n = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int k = 0; k < 7; k++, n++) {
            snprintf(names[n], sizeof names[n], "blk.%d.%s.weight", l, role[k]);
            double s = 3e-4 * exp(2 * ash_rng_f64(&g) - (l > 4 ? 1 : 0) + (k == 2 || k == 6));
            size_t t = s > 8e-4 ? 1 + ash_rng_below(&g, 5) : ash_rng_below(&g, 7) % 2 ? 0 : 6;
            cells[n] = (ash_report_cell){l, k, names[n], ty[t].n, ty[t].b, 300000, s, s * exp2(-2 * (ty[t].b - 4.25)), true};
        }
    cells[n++] = (ash_report_cell){-1, 7, "token_embd.weight", "Q5_0", 5.5, 19464192, 0.02, 0.006, true};
    files[0] = (ash_report_file){ASH_RF_FIT, "this fit", 84990000, 5.05, 4.9, 0.055, {0.0571, 0.054, 0.0603}, {0.893, 0.887, 0.9}, {19.9, 19.1, 20.8}};
    static const struct { const char *n; uint64_t b; double k; } u[] = {{"Q4_0", 77600000, 0.201}, {"IQ4_NL", 77600000, 0.165}, {"Q5_0", 94500000, 0.047}, {"Q5_1", 102900000, 0.036}, {"Q8_0", 145000000, 0.0011}};
    for (size_t i = 0; i < 5; i++) files[1 + i] = (ash_report_file){ASH_RF_UNIFORM, u[i].n, u[i].b, 4.6, 4.5, NAN, {u[i].k, u[i].k * .93, u[i].k * 1.07}, {.85, .84, .86}, {22, 21, 23}};
    for (size_t i = 0; i < 3; i++) files[6 + i] = (ash_report_file){ASH_RF_RANDOM, "random mix", 84900000 - i * 10000, 5.05, 5, NAN, {.11 + .01 * (double)i, .1, .13}, {.85, .84, .86}, {22, 21, 23}};
    files[9] = (ash_report_file){ASH_RF_SOURCE, "reference", 269000000, 16, 16, NAN, {0, 0, 0}, {1, 1, 1}, {18.9, 18, 19.9}};
    static const ash_report_check checks[] = {{"final", .055, .0571, .003}, {"first plan", .052, .061, .003}, {"v and o promoted", .05, .057, .003}};
    static const ash_report_sample samples[] = {{"Give me three uses for an old brick.", "1. A doorstop.\n2. A planter.\n3. A bookend.", "1. Use it as a doorstop.\n2. As a planter.\n3. <b>A step</b>."}};
    static const ash_report_fact facts[] = {{"command", "ashlar fit smollm2.gguf --size 85MB -o out.gguf"}, {"source SHA-256", "0123456789abcdef"}, {"CPU", "AMD EPYC, avx512, 2 threads"}, {"seed", "1"}};
    static const char *const notes[] = {"The smallest stock preset was not measured."};
    r = (ash_report){.model = "Smol<script>alert(1)</script> \xff\"LM'", .arch = "llama", .n_weights = 134515008, .source_bytes = 269000000, .budget_bytes = 85000000, .budget_text = "--size 85MB",
                     .n_chunks = 16, .n_ctx = 512, .n_scored = 4080, .files = files, .n_files = 10, .cells = cells, .n_cells = n, .n_layer = LAYERS, .checks = checks, .n_checks = 3,
                     .samples = samples, .n_samples = 1, .facts = facts, .n_facts = 4, .notes = notes, .n_notes = 1};
    return 0;
}

static void html(void **state) {
    (void)state;
    char *a, *b;
    size_t n, m;
    assert_int_equal(ash_report_html(&r, &a, &n, NULL), ASH_OK);
    assert_int_equal(ash_report_html(&r, &b, &m, NULL), ASH_OK);
    assert_true(n == m && memcmp(a, b, n) == 0);
    assert_null(strstr(a, "<script"));
    assert_null(strstr(a, "<b>A step"));
    assert_null(strstr(a, "http:"));
    assert_null(strstr(a, "https:"));
    assert_null(strstr(a, "url("));
    assert_null(strstr(a, "src="));
    assert_null(strstr(a, "nan"));
    assert_null(strstr(a, "\xff"));
    assert_non_null(strstr(a, "token_embd.weight"));
    if (getenv("ASH_REPORT_OUT")) assert_int_equal(ash_file_write_atomic(getenv("ASH_REPORT_OUT"), a, n, NULL), ASH_OK);
    ash_report_free(a);
    ash_report_free(b);
}

static void json(void **state) {
    (void)state;
    char *a;
    size_t n;
    json_error_t e;
    assert_int_equal(ash_report_json(&r, &a, &n, NULL), ASH_OK);
    json_t *o = json_loadb(a, n, JSON_REJECT_DUPLICATES, &e);
    assert_non_null(o);
    assert_int_equal(json_array_size(json_object_get(o, "files")), 10);
    assert_int_equal(json_array_size(json_object_get(o, "tensors")), 211);
    json_t *f = json_array_get(json_object_get(o, "files"), 0);
    assert_true(fabs(json_number_value(json_object_get(json_object_get(f, "kld"), "mean")) - 0.0571) < 1e-9);
    json_decref(o);
    ash_report_free(a);
}

static void table(void **state) {
    (void)state;
    char *a;
    size_t n;
    assert_int_equal(ash_report_table(&r, &a, &n, NULL), ASH_OK);
    assert_non_null(strstr(a, "this fit"));
    assert_non_null(strstr(a, "85.0 MB"));
    assert_non_null(strstr(a, "0.0571 (0.0540-0.0603)"));
    ash_report_free(a);
}

static void out_of_memory_is_a_status(void **state) {
    (void)state;
    for (uint64_t k = 1;; k++) {
        char *a;
        ash_alloc_fail_after(k);
        ash_status st = ash_report_html(&r, &a, NULL, NULL);
        ash_alloc_fail_after(0);
        if (st == ASH_OK) {
            ash_report_free(a);
            break;
        }
        assert_int_equal(st, ASH_E_NOMEM);
        assert_true(k < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(html), cmocka_unit_test(json), cmocka_unit_test(table), cmocka_unit_test(out_of_memory_is_a_status)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
