/* test_assess.c - sizes of published files to 0.01 MiB, exact file sizes against quantize, the same facts from a config.json and from its GGUF, a file that
 * is cut off, the rule's forms and its score, and the table of models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/assess.h"
#include "ashlar/bake.h"
#include "ashlar/convert.h"
#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *data(const char *fmt, const char *name) {
    static char p[2][600];
    static int k;
    char rel[256];
    snprintf(rel, sizeof rel, fmt, name);
    k ^= 1;
    snprintf(p[k], sizeof p[k], "%s/%s", getenv("ASH_TEST_DATA") ? getenv("ASH_TEST_DATA") : "tests/data", rel);
    return p[k];
}

static ash_assess *open_opts(const char *path, const ash_assess_opts *o) {
    ash_assess *a;
    ash_error e = {0};
    if (ash_assess_new(&a, path, o, &e) != ASH_OK) fail_msg("%s: %s", path, e.msg);
    return a;
}

static ash_assess *open_plain(const char *path) {
    ash_assess_opts o = ash_assess_defaults();
    o.session.n_threads = 1;
    return open_opts(path, &o);
}

static const ash_assess_recipe *recipe(const ash_assess *a, const char *name) {
    size_t i;
    assert_true(ash_preset_find(name, &i));
    return ash_assess_recipe_at(a, i);
}

/* ---- sizes that llama-quantize printed for the real models ---- */
static void test_published_sizes(void **state) {
    (void)state;
    static const struct { const char *model, *recipe; double mib; uint64_t tensors; } k[] = {
        {"e2b", "BF16", 8864.87, 601},  {"e2b", "Q2_K", 2835.53, 601},  {"e2b", "Q3_K_S", 2951.05, 601},
        {"e4b", "BF16", 14340.66, 720}, {"e4b", "Q2_K", 4182.33, 720}, {"e4b", "Q3_K_S", 4423.92, 720}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
        ash_assess *a = open_plain(data("assess/%s.json", k[i].model));
        const double got = (double)recipe(a, k[i].recipe)->tensor_bytes / 1048576;
        if (fabs(got - k[i].mib) > 0.005 + 1e-9) fail_msg("%s %s: %.3f MiB, not %.2f", k[i].model, k[i].recipe, got, k[i].mib);
        assert_int_equal(ash_assess_facts(a)->n_tensors, k[i].tensors);
        ash_assess_free(a);
    }
}

static void test_shapes(void **state) {
    (void)state;
    ash_assess *a = open_plain(data("assess/%s.json", "e2b"));
    const ash_model_facts *f = ash_assess_facts(a);
    const ash_layer_facts *l = ash_assess_layers(a);
    int n_kv = 0;
    assert_true(f->runs && f->from_config && !f->has_weights && f->tied);
    assert_int_equal(f->n_layer, 35);
    for (int i = 0; i < 35; i++) {
        assert_int_equal(l[i].n_ff, i < 15 ? 6144 : 12288);
        assert_int_equal(l[i].window, i % 5 == 4 ? 0 : 512);
        assert_int_equal(l[i].head_dim, i % 5 == 4 ? 512 : 256);
        assert_int_equal(l[i].kv_layer, i < 15 ? i : i % 5 == 4 ? 14 : 13);
    }
    for (size_t i = 0; ash_assess_dead(a, i); i++) n_kv += strstr(ash_assess_dead(a, i), "_norm") == NULL;
    assert_int_equal(n_kv, 40); /* keys and values of 20 layers: what an importance matrix cannot cover */
    assert_true(fabs(f->ffn_ratio - 4) < 1e-9 && fabs(f->ffn_ratio_max - 8) < 1e-9);
    assert_true(f->n_weights > 4646000000u && f->n_weights < 4648000000u);
    assert_true((double)f->embd_weights / (double)f->n_weights > 0.59);
    ash_assess_free(a);
    a = open_plain(data("assess/%s.json", "qwen2.5-7b"));
    f = ash_assess_facts(a);
    assert_true(fabs(f->ffn_ratio - 5.29) < 0.005 && !f->tied && f->n_window == 0);
    assert_true(fabs((double)recipe(a, "Q2_K")->tensor_bytes / 1073741824.0 - 2.81) < 0.01);
    assert_true(fabs((double)recipe(a, "F16")->tensor_bytes / 1073741824.0 - 14.19) < 0.01);
    ash_assess_free(a);
    a = open_plain(data("assess/%s.json", "phi-4"));
    assert_true(fabs((double)recipe(a, "Q2_K")->tensor_bytes / 1073741824.0 - 5.51) < 0.01);
    ash_assess_free(a);
    a = open_plain(data("assess/%s.json", "mistral-7b"));
    assert_true(fabs((double)recipe(a, "Q2_K")->tensor_bytes / 1073741824.0 - 2.54) < 0.01);
    ash_assess_free(a);
}

/* ---- a GGUF and the config.json it was made from ---- */
static const char *const k_cases[] = {"llama",   "llama-tied", "llama-yarn", "mistral-swa", "mixtral",      "qwen2",      "qwen3", "qwen3-moe",      "phi3",
                                      "phi3-longrope", "gemma2", "gemma3",     "gemma4-e",    "gemma4-dense", "gemma4-moe", "bert",  "gemma-embedding"};

static void test_config_and_gguf(void **state) {
    (void)state;
    for (size_t c = 0; c < ASH_ARRAY_LEN(k_cases); c++) {
        ash_assess *a = open_plain(data("convert/%s/config.json", k_cases[c])), *b = open_plain(data("golden/%s/model.gguf", k_cases[c]));
        const ash_model_facts *f = ash_assess_facts(a), *g = ash_assess_facts(b);
        print_message("%s\n", k_cases[c]);
        assert_string_equal(f->arch, g->arch);
        assert_true(f->runs && g->runs);
        assert_int_equal(f->n_layer, g->n_layer);
        assert_int_equal(f->n_embd, g->n_embd);
        assert_int_equal(f->n_vocab, g->n_vocab);
        assert_int_equal(f->n_ctx_train, g->n_ctx_train);
        assert_int_equal(f->n_expert, g->n_expert);
        assert_int_equal(f->tied, g->tied);
        assert_int_equal(f->n_window, g->n_window);
        assert_int_equal(f->lookup_weights, g->lookup_weights);
        const bool keeps_dead = f->n_dead > g->n_dead; /* the published Gemma 4 files hold them, the golden ones do not */
        if (!keeps_dead) {
            assert_int_equal(f->n_tensors, g->n_tensors);
            assert_int_equal(f->n_weights, g->n_weights);
        }
        assert_int_equal(f->n_weights - f->dead_weights, g->n_weights - g->dead_weights);
        for (int64_t i = 0; i < f->n_layer; i++) {
            ash_layer_facts x = ash_assess_layers(a)[i], y = ash_assess_layers(b)[i];
            assert_true(x.n_ff == y.n_ff && x.n_head == y.n_head && x.n_head_kv == y.n_head_kv && x.head_dim == y.head_dim);
            assert_true(x.window == y.window && x.kv_layer == y.kv_layer && x.experts == y.experts);
        }
        for (size_t i = 0; !keeps_dead && i < ash_assess_n_recipes(a); i++) {
            const ash_assess_recipe *r = ash_assess_recipe_at(a, i), *s = ash_assess_recipe_at(b, i);
            assert_int_equal(r->possible, s->possible);
            if (r->possible) assert_int_equal(r->tensor_bytes, s->tensor_bytes);
        }
        ash_assess_free(a);
        ash_assess_free(b);
    }
}

/* ---- file sizes are those of the files that quantize would write ---- */
static void test_exact_files(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "gemma4-e", "mixtral", "phi3", "qwen2"};
    for (size_t m = 0; m < ASH_ARRAY_LEN(models); m++) {
        const char *path = data("golden/%s/model.gguf", models[m]);
        ash_assess *a = open_plain(path);
        ash_gguf *g;
        assert_int_equal(ash_gguf_open(&g, path, NULL), ASH_OK);
        int n = 0;
        for (size_t p = 0; p < ash_preset_count(); p++) {
            const ash_assess_recipe *r = ash_assess_recipe_at(a, p);
            ash_bake_opts o = ash_bake_defaults();
            ash_bake_result br;
            ash_recipe *rec;
            if (!r->possible) continue;
            assert_int_equal(ash_preset_recipe(&rec, p, g, 0, false, NULL), ASH_OK);
            o.recipe = rec;
            o.type = ASH_BAKE_RECIPE;
            o.file_type = ash_preset_file_type(p);
            assert_int_equal(ash_bake_dry(&br, g, &o, NULL), ASH_OK);
            if (br.file_bytes != r->file_bytes) fail_msg("%s %s: %llu bytes, quantize says %llu", models[m], r->name, (unsigned long long)r->file_bytes, (unsigned long long)br.file_bytes);
            ash_bake_result_free(&br);
            ash_recipe_free(rec);
            n++;
        }
        assert_true(n > 10);
        ash_gguf_close(g);
        ash_assess_free(a);
    }
}

/* ---- files that end early ---- */
static void test_cut(void **state) {
    (void)state;
    const char *path = data("golden/%s/model.gguf", "llama");
    ash_buf b = {0};
    ash_gguf *g;
    ash_error e = {0};
    char tmp[64];
    assert_int_equal(ash_file_read(path, 1 << 24, &b, NULL), ASH_OK);
    assert_int_equal(ash_gguf_open_mem(&g, b.p, b.n, NULL), ASH_OK);
    const uint64_t head = ash_gguf_data_offset(g);
    ash_gguf_close(g);
    snprintf(tmp, sizeof tmp, "./test_assess_%d.gguf", (int)getpid());
    assert_int_equal(ash_file_write_atomic(tmp, b.p, head, NULL), ASH_OK);
    ash_assess *a = open_plain(tmp), *whole = open_plain(path);
    assert_int_equal(ash_assess_facts(a)->lost_bytes, b.n - head);
    assert_true(ash_assess_facts(a)->runs && !ash_assess_facts(a)->has_weights);
    for (size_t i = 0; i < ash_assess_n_recipes(a); i++) assert_int_equal(ash_assess_recipe_at(a, i)->file_bytes, ash_assess_recipe_at(whole, i)->file_bytes);
    ash_assess_free(a);
    ash_assess_free(whole);
    assert_int_equal(ash_file_write_atomic(tmp, b.p, head / 2, NULL), ASH_OK); /* within the header: no facts */
    ash_assess_opts o = ash_assess_defaults();
    assert_int_equal(ash_assess_new(&a, tmp, &o, &e), ASH_E_FORMAT);
    assert_null(a);
    unlink(tmp);
    assert_int_equal(ash_assess_new(&a, tmp, &o, &e), ASH_E_IO);
    assert_int_equal(ash_gguf_open_header(&g, b.p, head - 40, &e), ASH_E_FORMAT);
    ash_buf_free(&b);
}

/* ---- prediction and advice ---- */
static void test_predict(void **state) {
    (void)state;
    ash_assess_opts o = ash_assess_defaults();
    o.predict = true;
    o.n_threads = o.session.n_threads = 2;
    ash_assess *a = open_opts(data("golden/%s/model.gguf", "llama"), &o);
    const ash_assess_recipe *q8 = recipe(a, "Q8_0"), *q4 = recipe(a, "Q4_0");
    assert_true(q8->predicted && q4->predicted && q8->kld > 0 && q4->kld > 10 * q8->kld);
    assert_true(q4->kld_lo < q4->kld && q4->kld < q4->kld_hi);
    assert_false(recipe(a, "IQ1_S")->predicted);
    ash_assess_free(a);
}

static void test_advice(void **state) {
    (void)state;
    ash_assess_opts o = ash_assess_defaults();
    o.session.n_threads = 2;
    o.session.n_ctx = 8192;
    o.ram = 7600000000u;
    ash_assess *a = open_opts(data("assess/%s.json", "mistral-7b"), &o);
    ash_assess_advice v = ash_assess_advise(a);
    assert_true(v.known && v.n_fit == 3 && v.budget < v.ram && v.n_ctx == 8192);
    for (int i = 0; i < v.n_fit; i++) {
        const ash_assess_recipe *r = ash_assess_recipe_at(a, v.fit[i]);
        assert_true(r->fits && r->general && r->resident <= v.budget);
        if (i) assert_true(r->file_bytes < ash_assess_recipe_at(a, v.fit[i - 1])->file_bytes);
    }
    assert_true(v.n_ladder >= 3);
    assert_false(recipe(a, "F16")->fits);
    ash_assess_free(a);
    o.ram = 1500000000u;
    a = open_opts(data("assess/%s.json", "mistral-7b"), &o);
    v = ash_assess_advise(a);
    assert_true(v.known && v.n_fit == 0 && v.n_ladder == 0);
    ash_assess_free(a);
}

/* ---- the rule ---- */
static void test_rule(void **state) {
    (void)state;
    assert_int_equal(ash_ffn_rule(0, 2.69, 0).q2k, ASH_RULE_WORKS);
    assert_true(fabs(ash_ffn_rule(0, 2.69, 0).confidence - 0.90) < 1e-9);
    assert_true(fabs(ash_ffn_rule(0, 6.4, 0).confidence - 0.85) < 1e-9);
    for (int i = 0; i < 2; i++) { /* both ends belong to the zone */
        const double r = i ? 5.5 : 3.0;
        assert_int_equal(ash_ffn_rule(0, r, 0).q2k, ASH_RULE_FAILS);
        assert_true(fabs(ash_ffn_rule(0, r, 0).confidence - 0.95) < 1e-9);
        assert_true(fabs(ash_ffn_rule(1, r, 0).confidence - 0.80) < 1e-9);
        assert_true(fabs(ash_ffn_rule(1, r, 0.5).confidence - 0.95) < 1e-9);
        assert_int_equal(ash_ffn_rule(2, r, 0).q2k, ASH_RULE_UNDECIDED);
        assert_int_equal(ash_ffn_rule(2, r, 0.5).q2k, ASH_RULE_FAILS);
    }
    assert_string_equal(ash_ffn_rule(1, 4, 1).risk, "HIGH");
    assert_string_equal(ash_ffn_rule(1, 4, 0).risk, "MODERATE-HIGH");
    assert_string_equal(ash_ffn_rule(1, 6, 0).risk, "LOW-MODERATE");
    assert_string_equal(ash_ffn_rule(1, 4, 0).fallback, "Q4_K_M");
}

static const char k_head[] = "name,kind,type,n_embd,n_ff,window_share,bpw,ppl,ppl_ref,ref,outcome,source,quote\n";

static ash_status parse(const char *rows, ash_known_models *k) {
    char text[4096];
    int n = snprintf(text, sizeof text, "%s%s", k_head, rows);
    return ash_known_models_parse(k, text, (size_t)n, "table", NULL);
}

static void test_table(void **state) {
    (void)state;
    ash_known_models k;
    char path[600];
    snprintf(path, sizeof path, "%s/../../data/models.csv", getenv("ASH_TEST_DATA") ? getenv("ASH_TEST_DATA") : "tests/data");
    ash_error e = {0};
    if (ash_known_models_load(&k, path, &e) != ASH_OK) fail_msg("%s", e.msg);
    size_t n_ppl = 0, qwen = 0;
    for (size_t i = 0; i < k.n; i++) {
        assert_true(strncmp(k.row[i].source, "https://", 8) == 0 && *k.row[i].quote);
        n_ppl += strcmp(k.row[i].kind, "ppl") == 0;
        if (strcmp(k.row[i].name, "Qwen2.5 7B") == 0) {
            assert_true(fabs((double)k.row[i].n_ff / (double)k.row[i].n_embd - 5.29) < 0.005);
            assert_string_equal(k.row[i].outcome, "pass");
            qwen++;
        }
    }
    assert_true(n_ppl >= 12 && qwen == 1);
    ash_rule_score s = ash_ffn_rule_score(0, &k, 2);
    assert_true(s.n == (int)n_ppl && s.right < s.works && s.lo < (double)s.right / s.n && s.hi > (double)s.right / s.n);
    s = ash_ffn_rule_score(2, &k, 2);
    assert_int_equal(s.n + s.undecided, (int)n_ppl);
    ash_known_models_free(&k);

    assert_int_equal(parse("A,ppl,Q2_K,10,20,0,,2,1,F16,,https://x,\"a \"\"b\"\", c\"\n# note\n\nB,probe,Q2_K,10,40,1,3,,,,fail,https://y,q", &k), ASH_OK);
    assert_int_equal(k.n, 2);
    assert_string_equal(k.row[0].quote, "a \"b\", c");
    ash_known_models_free(&k);
    static const char *const bad[] = {"A,ppl\n", "A,ppl,Q2_K,10,20,0,,0,1,F16,,s,q\n", "A,other,Q2_K,10,20,0,,2,1,F16,,s,q\n", "A,ppl,Q2_K,x,20,0,,2,1,F16,,s,q\n",
                                      "A,ppl,Q2_K,10,20,2,,2,1,F16,,s,q\n", "A,ppl,Q2_K,10,20,0,,2,1,F16,,s,\"q\n", "A,ppl,Q2_K,10,20,0,,2,1,F16,,s,q,more\n",
                                      "A,ppl,Q2_K,10,20,0,,nan,1,F16,,s,q\n", "A,probe,Q2_K,10,20,0,,,,,,s,q\n"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) assert_int_equal(parse(bad[i], &k), ASH_E_FORMAT);
    assert_int_equal(ash_known_models_parse(&k, "x\n", 2, "table", NULL), ASH_E_FORMAT);
    assert_int_equal(ash_known_models_parse(&k, "", 0, "table", NULL), ASH_OK);
    assert_int_equal(k.n, 0);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_published_sizes), cmocka_unit_test(test_shapes), cmocka_unit_test(test_config_and_gguf), cmocka_unit_test(test_exact_files),
                                   cmocka_unit_test(test_cut),             cmocka_unit_test(test_predict), cmocka_unit_test(test_advice),          cmocka_unit_test(test_rule),
                                   cmocka_unit_test(test_table)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
