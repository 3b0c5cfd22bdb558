/* test_bake.c - widening keeps the logits, baking keeps its promises (exact size, copies, errors), the planner fills its budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ashlar/bake.h"
#include "ashlar/engine.h"
#include "ashlar/quant.h"
#include "base/base.h"

static char path_buf[8][512];
static const char *data(const char *name) {
    snprintf(path_buf[0], sizeof path_buf[0], "%s/golden/%s/model.gguf", getenv("ASH_TEST_DATA") ? getenv("ASH_TEST_DATA") : "tests/data", name);
    return path_buf[0];
}
static const char *tmp(int i, const char *name) {
    snprintf(path_buf[i], sizeof path_buf[i], "./test_bake_%d_%s.gguf", (int)getpid(), name);
    return path_buf[i];
}

typedef struct { float *p; size_t n_vocab; } sink;
static ash_status keep(void *ctx, size_t pos, const float *logits, ash_error *err) {
    sink *s = ctx;
    (void)err;
    memcpy(s->p + pos * s->n_vocab, logits, s->n_vocab * sizeof *logits);
    return ASH_OK;
}

/* logits of 40 tokens, exact path; free with free() */
static float *logits_of(const char *path, size_t *n) {
    ash_error err = {0};
    ash_model *m;
    ash_session *s;
    ash_token t[40];
    if (ash_model_load(&m, path, &err) != ASH_OK) fail_msg("%s", err.msg);
    sink k = {NULL, (size_t)ash_model_n_vocab(m)};
    for (int i = 0; i < 40; i++) t[i] = (ash_token)((i * 37 + 5) % (int)k.n_vocab);
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 64;
    o.n_threads = 2;
    if (ash_session_new(&s, m, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    k.p = malloc(40 * k.n_vocab * sizeof *k.p);
    if (ash_session_eval_all(s, t, 40, 0, keep, &k, &err) != ASH_OK) fail_msg("%s", err.msg);
    ash_session_free(s);
    ash_model_free(m);
    *n = 40 * k.n_vocab;
    return k.p;
}

static ash_gguf *open_ok(const char *p) {
    ash_gguf *g;
    ash_error err = {0};
    if (ash_gguf_open(&g, p, &err) != ASH_OK) fail_msg("%s", err.msg);
    return g;
}

static void widening_keeps_the_logits(void **state) {
    static const char *const models[] = {"llama", "llama-tied", "qwen3", "gemma3"};
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_LEN(models); i++) {
        const char *out = tmp(1, "wide");
        ash_gguf *g = open_ok(data(models[i]));
        ash_bake_opts o = ash_bake_defaults();
        ash_error err = {0};
        o.type = ASH_F32; /* gemma's scaled table is not exact in F16 */
        o.widen = 256;
        ash_bake_result r;
        if (ash_bake(&r, g, out, &o, &err) != ASH_OK) fail_msg("%s: %s", models[i], err.msg);
        size_t n, m;
        float *a = logits_of(data(models[i]), &n), *b = logits_of(out, &m);
        assert_int_equal(n, m);
        double worst = 0, big = 0;
        for (size_t k = 0; k < n; k++) worst = fmax(worst, fabs((double)a[k] - b[k])), big = fmax(big, fabs((double)a[k]));
        print_message("%s widened: rel %.2e\n", models[i], worst / big);
        assert_true(worst <= 1e-4 * big);
        ash_gguf *w = open_ok(out);
        assert_true(ash_gguf_file_bytes(w) == r.file_bytes);
        for (size_t k = 0; k < ash_gguf_n_tensors(w); k++)
            if (ash_plan_is_matrix(ash_gguf_tensor_at(w, k)) && !strstr(ash_gguf_tensor_at(w, k)->name, "ffn_down")) assert_int_equal(ash_gguf_tensor_at(w, k)->ne[0] % 256, 0);
        ash_gguf_close(w);
        ash_gguf_close(g);
        ash_bake_result_free(&r);
        free(a);
        free(b);
        unlink(out);
    }
}

static ash_recipe *recipe(const char *s) {
    ash_recipe *r;
    ash_error err = {0};
    if (ash_recipe_parse(&r, s, strlen(s), "test", &err) != ASH_OK) fail_msg("%s", err.msg);
    return r;
}

static void recipes_decide(void **state) {
    (void)state;
    ash_gguf *g = open_ok(data("llama"));
    ash_bake_opts o = ash_bake_defaults();
    ash_bake_result r;
    ash_error err = {0};
    const char *out = tmp(1, "recipe"), *again = tmp(2, "again");
    ash_recipe *q = recipe("blk.0.attn_q.weight = Q8_0\nblk.*.ffn_*.weight = Q5_0\nblk.*.attn_?.weight = IQ4_NL\ntoken_embd.weight = keep");
    o.recipe = q;
    o.n_threads = 2;
    if (ash_bake(&r, g, out, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    ash_gguf *w = open_ok(out);
    assert_int_equal(ash_gguf_find_tensor(w, "blk.0.attn_q.weight")->type, ASH_Q8_0);
    assert_int_equal(ash_gguf_find_tensor(w, "blk.1.attn_q.weight")->type, ASH_IQ4_NL);
    assert_int_equal(ash_gguf_find_tensor(w, "blk.1.ffn_down.weight")->type, ASH_Q5_0);
    const ash_gguf_tensor *a = ash_gguf_find_tensor(g, "token_embd.weight"), *b = ash_gguf_find_tensor(w, "token_embd.weight");
    assert_true(a->type == b->type && a->n_bytes == b->n_bytes && memcmp(a->data, b->data, a->n_bytes) == 0);
    assert_true(ash_gguf_file_bytes(w) == r.file_bytes);
    uint64_t v;
    assert_true(ash_gguf_get_u64(w, "general.quantization_version", &v) && v == 2);
    /* one thread, and tensors taken over from the first file: the same bytes */
    const ash_gguf *reuse[] = {w};
    ash_bake_result_free(&r);
    o.n_threads = 1;
    assert_int_equal(ash_bake(&r, g, again, &o, &err), ASH_OK);
    ash_gguf *w2 = open_ok(again);
    char h1[65], h2[65];
    assert_int_equal(ash_sha256_file(out, h1, NULL), ASH_OK);
    assert_int_equal(ash_sha256_file(again, h2, NULL), ASH_OK);
    assert_string_equal(h1, h2);
    ash_gguf_close(w2);
    ash_bake_result_free(&r);
    o.reuse = reuse;
    o.n_reuse = 1;
    assert_int_equal(ash_bake(NULL, g, again, &o, &err), ASH_OK);
    assert_int_equal(ash_sha256_file(again, h2, NULL), ASH_OK);
    assert_string_equal(h1, h2);
    ash_gguf_close(w);
    ash_recipe_free(q);
    ash_gguf_close(g);
    unlink(out);
    unlink(again);
}

static void refusals(void **state) {
    static const struct { const char *recipe, *says; } bad[] = {
        {"blk.99.* = Q8_0", "decides no tensor"}, {"* = Q8_0\nblk.0.attn_q.weight = Q4_0", "decides no tensor"}, {"output_norm.weight = Q8_0", "cannot be quantized"},
        {"blk.0.attn_q.weight = Q4_K", "do not fit"}, {"nothing.at.all = Q8_0", "decides no tensor"}, {"* = IQ1_S", "IQ1_S"}};
    (void)state;
    ash_gguf *g = open_ok(data("llama"));
    const char *out = tmp(1, "refused");
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        ash_recipe *q = recipe(bad[i].recipe);
        ash_bake_opts o = ash_bake_defaults();
        ash_error err = {0};
        o.recipe = q;
        ash_status st = ash_bake(NULL, g, out, &o, &err);
        assert_int_not_equal(st, ASH_OK);
        if (!strstr(err.msg, bad[i].says)) fail_msg("%s -> %s", bad[i].recipe, err.msg);
        assert_int_not_equal(access(out, F_OK), 0);
        ash_recipe_free(q);
    }
    ash_bake_opts o = ash_bake_defaults();
    ash_bake_result r;
    ash_error err = {0};
    o.type = ASH_Q4_K;
    assert_int_equal(ash_bake_dry(&r, g, &o, &err), ASH_OK); /* falls back, and says so */
    assert_true(r.n_fallback > 0);
    for (size_t i = 0; i < r.n; i++)
        if (r.t[i].fallback) assert_int_equal(r.t[i].to, ASH_IQ4_NL);
    ash_bake_result_free(&r);
    o.strict = true;
    assert_int_equal(ash_bake_dry(&r, g, &o, &err), ASH_E_USAGE);
    ash_gguf_close(g);
}

static bool stop(void *ctx, const char *stage, double done, double total, const char *note) {
    (void)ctx, (void)stage, (void)total, (void)note;
    return done < 1;
}
static void cancel_leaves_the_old_file(void **state) {
    (void)state;
    ash_gguf *g = open_ok(data("llama"));
    const char *out = tmp(1, "cancel");
    assert_int_equal(ash_file_write_atomic(out, "old", 3, NULL), ASH_OK);
    ash_bake_opts o = ash_bake_defaults();
    o.type = ASH_Q8_0;
    o.progress = (ash_progress){stop, NULL};
    assert_int_equal(ash_bake(NULL, g, out, &o, NULL), ASH_E_CANCELLED);
    ash_buf b = {0};
    assert_int_equal(ash_file_read(out, 100, &b, NULL), ASH_OK);
    assert_string_equal(b.p, "old");
    ash_buf_free(&b);
    ash_gguf_close(g);
    unlink(out);
}

static void planner_fills_the_budget(void **state) {
    (void)state;
    ash_gguf *g = open_ok(data("llama"));
    ash_planner_opts o = ash_planner_defaults();
    ash_planner *p;
    ash_error err = {0};
    for (uint32_t widen = 0; widen <= 256; widen += 256) {
        o.widen = widen;
        o.n_threads = 2;
        assert_int_equal(ash_bake_fixed_bytes(&o.fixed_bytes, g, widen, &err), ASH_OK);
        if (ash_planner_new(&p, g, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
        size_t n = ash_planner_n_units(p);
        int *choice = malloc(n * sizeof *choice);
        ash_solution s;
        assert_int_equal(ash_planner_solve(p, 1, choice, &s, &err), ASH_E_LIMIT);
        uint64_t least = s.bytes, budget = least * 3 / 2;
        for (int random = 0; random < 2; random++) {
            ash_status st = random ? ash_planner_random(p, budget, 5, choice, &s, &err) : ash_planner_solve(p, budget, choice, &s, &err);
            if (st != ASH_OK) fail_msg("%s", err.msg);
            assert_true(s.bytes <= budget && s.bytes >= budget - budget / 100);
            ash_recipe *r;
            ash_bake_opts b = ash_bake_defaults();
            ash_bake_result res;
            assert_int_equal(ash_planner_recipe(p, choice, &r, &err), ASH_OK);
            b.recipe = r;
            if (ash_bake_dry(&res, g, &b, &err) != ASH_OK) fail_msg("%s", err.msg);
            assert_true(res.file_bytes == s.bytes); /* the prediction is exact */
            ash_bake_result_free(&res);
            ash_recipe_free(r);
        }
        /* a matrix that was measured to be precious gets more bits */
        assert_int_equal(ash_planner_solve(p, budget, choice, &s, &err), ASH_OK);
        ash_plan_unit before = ash_planner_unit(p, 2);
        double was = before.opts[choice[2]].rel_err;
        for (size_t u = 0; u < n; u++)
            assert_int_equal(ash_planner_measured(p, ash_planner_unit(p, u).tensor, 0.005, u == 2 ? 5.0 : 0.01, 0.001, &err), ASH_OK);
        ash_planner_calibrate(p, 0);
        assert_int_equal(ash_planner_solve(p, budget, choice, &s, &err), ASH_OK);
        assert_true(ash_planner_unit(p, 2).opts[choice[2]].rel_err < was || was == 0);
        free(choice);
        ash_planner_free(p);
    }
    ash_gguf_close(g);
}

/* Measurements that follow the role alone: the header says all of it; with noise from another seed, nothing is certain. */
static void ranks_of_predictors(void **state) {
    (void)state;
    char path[512];
    ash_error err = {0};
    ash_gguf *g;
    ash_planner *p;
    snprintf(path, sizeof path, "%s/golden/llama/model.gguf", getenv("ASH_TEST_DATA"));
    assert_int_equal(ash_gguf_open(&g, path, &err), ASH_OK);
    for (int noise = 0; noise < 2; noise++) {
        ash_planner_opts o = ash_planner_defaults();
        static const double by_role[7] = {1, 2, 4, 1.5, 5, 5, 6}; /* the order of the typical sensitivities */
        ash_rng rng;
        ash_rng_seed(&rng, 3);
        o.n_threads = 2;
        if (ash_planner_new(&p, g, &o, &err) != ASH_OK) fail_msg("%s", err.msg);
        ash_plan_rank r;
        assert_int_equal(ash_planner_rank(p, ASH_PREDICT_HEADER, 1, &r, &err), ASH_OK);
        assert_true(r.n == 0); /* nothing measured yet */
        size_t n = 0;
        for (size_t i = 0; i < ash_planner_n_units(p); i++) {
            ash_plan_unit u = ash_planner_unit(p, i);
            if (u.layer < 0) continue;
            double kld = noise ? ash_rng_f64(&rng) + 0.01 : by_role[u.role] * 1e-3;
            assert_int_equal(ash_planner_measured(p, u.tensor, 0.005, kld, kld / 10, &err), ASH_OK);
            n++;
        }
        for (int what = ASH_PREDICT_WEIGHTS; what <= ASH_PREDICT_HEADER; what++) {
            assert_int_equal(ash_planner_rank(p, (ash_predictor)what, 1, &r, &err), ASH_OK);
            assert_true(r.n == n && r.lo <= r.rho && r.rho <= r.hi);
            if (noise) assert_true(r.rho < 0.9 && r.hi - r.lo > 0.1);
            else assert_true(r.rho > 0.999 && r.lo > 0.999);
        }
        ash_planner_free(p);
    }
    ash_gguf_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(widening_keeps_the_logits), cmocka_unit_test(recipes_decide), cmocka_unit_test(refusals),
                                       cmocka_unit_test(cancel_leaves_the_old_file), cmocka_unit_test(planner_fills_the_budget), cmocka_unit_test(ranks_of_predictors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
