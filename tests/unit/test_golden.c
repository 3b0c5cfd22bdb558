/* test_golden.c - the engine against logits of an independent float32 implementation: every case, precision, CPU level
 * of this machine and thread count, within the tolerances the data came with. */
#include "golden.h"

static const char *const k_cases[] = {"llama", "llama-tied", "llama-yarn", "gemma3", "qwen3", "mistral-swa"};

static void check_case(const char *name, ash_precision prec, int level, int threads) {
    if (!g_exists(name, "model.gguf")) return; /* of the fuller set */
    json_t *cases = g_cases(name), *seqs = json_object_get(cases, "sequences");
    ash_model *m = g_model(name, "model.gguf");
    ash_session *s = g_session(m, (ash_session_opts){.n_ctx = 128, .n_threads = threads, .precision = prec, .cpu_level = level});
    for (size_t i = 0; i < json_array_size(seqs); i++) {
        json_t *q = json_array_get(seqs, i);
        g_seq t = g_ints(json_object_get(q, "tokens")), greedy = g_ints(json_object_get(q, "greedy"));
        size_t cols = (size_t)ash_model_n_vocab(m);
        float *want = g_floats(name, json_string_value(json_object_get(q, "logits_file")), t.n * cols), *got = calloc(t.n * cols, sizeof *got);
        ash_error err = {0};
        if (ash_session_eval_all(s, t.t, t.n, 0, g_keep, &(g_rows){got, cols}, &err) != ASH_OK) fail_msg("%s: %s", name, err.msg);
        g_diff d = g_compare(got, want, t.n, cols);
        double rel = prec == ASH_PREC_EXACT ? 1e-4 : 5e-3, rms = prec == ASH_PREC_EXACT ? 2e-5 : 2e-3;
        if (!(d.rel <= rel && d.rms <= rms))
            fail_msg("%s sequence %zu %s, %s, %d threads: rel %.3g (%.0e), rms %.3g (%.0e)", name, i, prec ? "fast" : "exact",
                     ash_cpu_level_name((ash_cpu_level)level), threads, d.rel, rel, d.rms, rms);
        if (getenv("ASH_VERBOSE"))
            print_message("%s seq %zu %s %s %d threads: rel %.2g rms %.2g\n", name, i, prec ? "fast" : "exact",
                          ash_cpu_level_name((ash_cpu_level)level), threads, d.rel, d.rms);
        if (prec == ASH_PREC_EXACT) {
            if (ash_session_sync(s, t.t, t.n, NULL, &err) != ASH_OK) fail_msg("%s: %s", name, err.msg);
            for (size_t g = 0; g < greedy.n; g++) {
                ash_token a = g_argmax(ash_session_logits(s), cols);
                assert_int_equal(a, greedy.t[g]);
                assert_int_equal(ash_session_append(s, a, &err), ASH_OK);
            }
        }
        free(want), free(got), free(t.t), free(greedy.t);
    }
    ash_session_free(s);
    ash_model_free(m);
    json_decref(cases);
}

static void all_cases(ash_precision prec) {
    for (size_t c = 0; c < ASH_ARRAY_LEN(k_cases); c++)
        for (int level = 0; level <= (int)ash_cpu_detect(); level++)
            for (int threads = 1; threads <= 2; threads++) check_case(k_cases[c], prec, level, threads);
}
static void exact_cases(void **st) { (void)st, all_cases(ASH_PREC_EXACT); }
static void fast_cases(void **st) { (void)st, all_cases(ASH_PREC_FAST); }

static void quant_models(void **st) {
    (void)st;
    const char *dir = "quant-models";
    json_t *cases = g_cases(dir), *val;
    g_seq t = g_ints(json_object_get(json_array_get(json_object_get(cases, "sequences"), 0), "tokens"));
    const char *type;
    int seen = 0;
    json_object_foreach(json_object_get(cases, "models"), type, val) {
        const char *file = json_string_value(json_object_get(val, "model"));
        if (!g_exists(dir, file)) continue;
        seen++;
        ash_model *m = g_model(dir, file);
        size_t cols = (size_t)ash_model_n_vocab(m);
        float *want = g_floats(dir, json_string_value(json_object_get(val, "logits_file")), t.n * cols), *got = calloc(t.n * cols, sizeof *got);
        for (int level = 0; level <= (int)ash_cpu_detect(); level++)
            for (int prec = 0; prec < 2; prec++)
                for (int threads = 1; threads <= 2; threads++) {
                    ash_session *s = g_session(m, (ash_session_opts){.n_ctx = 64, .n_threads = threads, .precision = (ash_precision)prec, .cpu_level = level});
                    ash_error err = {0};
                    assert_int_equal(ash_session_eval_all(s, t.t, t.n, 0, g_keep, &(g_rows){got, cols}, &err), ASH_OK);
                    ash_session_free(s);
                    g_diff d = g_compare(got, want, t.n, cols);
                    bool ok = prec == ASH_PREC_EXACT ? d.rel <= 1e-4 && d.rms <= 2e-5 : d.rel <= 5e-2 && d.rms <= 4e-2 && d.kld <= 1e-2;
                    if (!ok)
                        fail_msg("%s %s, %s, %d threads: rel %.3g, rms %.3g, KLD %.3g", type, prec ? "fast" : "exact",
                                 ash_cpu_level_name((ash_cpu_level)level), threads, d.rel, d.rms, d.kld);
                    if (getenv("ASH_VERBOSE") && threads == 1)
                        print_message("%s %s %s: rel %.2g rms %.2g kld %.2g\n", type, prec ? "fast" : "exact",
                                      ash_cpu_level_name((ash_cpu_level)level), d.rel, d.rms, d.kld);
                }
        free(want), free(got);
        ash_model_free(m);
    }
    assert_true(seen > 0);
    free(t.t);
    json_decref(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(exact_cases), cmocka_unit_test(fast_cases), cmocka_unit_test(quant_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
