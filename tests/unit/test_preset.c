/* test_preset.c - stock presets give every tensor the type that llama-quantize gives it (tests/data/presets/expected.txt). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/plan.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    const char *label, *arch;
    int d, ff, wide, layers, heads, kv, experts; /* wide: row of attn_output */
    bool tied;
} shape;

static const shape shapes[] = {{"smollm2", "llama", 576, 1536, 576, 30, 9, 3, 0, true},
                               {"gemma3", "gemma3", 640, 2048, 1024, 18, 4, 1, 0, true},
                               {"moe8", "llama", 512, 1024, 512, 32, 8, 2, 8, false},
                               {"deep80", "llama", 512, 1024, 512, 80, 64, 8, 0, false}};

static char file[64];

static void declare(ash_gguf_writer *w, const char *name, int ne0, int experts) {
    uint64_t ne[ASH_GGUF_MAX_DIMS] = {(uint64_t)ne0, 2, (uint64_t)(experts ? experts : 1), 1};
    assert_int_equal(ash_gguf_add_tensor(w, name, ASH_F16, experts ? 3 : 2, ne, NULL), ASH_OK);
}

/* A model of two rows per matrix: rules look at row lengths, names and metadata only. */
static ash_gguf *make(const shape *s) {
    static const char *const leaf[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    static const struct { const char *key; size_t at; } keys[] = {{"block_count", offsetof(shape, layers)}, {"attention.head_count", offsetof(shape, heads)},
                                                                  {"attention.head_count_kv", offsetof(shape, kv)}, {"expert_count", offsetof(shape, experts)}};
    ash_gguf_writer *w;
    ash_gguf *g;
    ash_error e = {0};
    char name[96];
    snprintf(file, sizeof file, "./test_preset_%d.gguf", (int)getpid());
    assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
    assert_int_equal(ash_gguf_set_str(w, "general.architecture", s->arch, strlen(s->arch), NULL), ASH_OK);
    for (size_t i = 0; i < ASH_ARRAY_LEN(keys); i++) {
        int v;
        memcpy(&v, (const char *)s + keys[i].at, sizeof v);
        snprintf(name, sizeof name, "%s.%s", s->arch, keys[i].key);
        if (v) assert_int_equal(ash_gguf_set_u32(w, name, (uint32_t)v, NULL), ASH_OK);
    }
    declare(w, "token_embd.weight", s->d, 0);
    if (!s->tied) declare(w, "output.weight", s->d, 0);
    for (int l = 0; l < s->layers; l++)
        for (int k = 0; k < 7; k++) {
            int row = k == 3 ? s->wide : k == 6 ? s->ff : s->d;
            bool stack = k >= 4 && s->experts;
            snprintf(name, sizeof name, "blk.%d.%s%s.weight", l, leaf[k], stack ? "_exps" : "");
            declare(w, name, row, stack ? s->experts : 0);
        }
    uint64_t n = ash_gguf_writer_bytes(w);
    uint8_t *zero = calloc(1, n);
    assert_int_equal(ash_gguf_writer_begin(w, file, NULL), ASH_OK);
    for (int k = -1 - !s->tied; k < s->layers * 7; k++) {
        int j = k < 0 ? 0 : k % 7, row = k < 0 ? s->d : j == 3 ? s->wide : j == 6 ? s->ff : s->d;
        assert_int_equal(ash_gguf_writer_data(w, zero, (size_t)row * 4 * (size_t)(k >= 0 && j >= 4 && s->experts ? s->experts : 1), NULL), ASH_OK);
    }
    if (ash_gguf_writer_finish(w, &e) != ASH_OK) fail_msg("%s", e.msg);
    ash_gguf_writer_free(w);
    free(zero);
    assert_int_equal(ash_gguf_open(&g, file, NULL), ASH_OK);
    unlink(file);
    return g;
}

/* "ffn_down=Q4_1*3,Q4_0*27": types by layer. */
static void check_kind(const ash_recipe *r, char *field, const char *where) {
    char *types = strchr(field, '=');
    assert_non_null(types);
    *types++ = 0;
    bool block = strncmp(field, "attn_", 5) == 0 || strncmp(field, "ffn_", 4) == 0;
    int layer = 0;
    for (char *save, *t = strtok_r(types, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        char *star = strchr(t, '*'), name[96];
        int n = star ? atoi(star + 1) : 1;
        if (star) *star = 0;
        for (; n > 0; n--, layer++) {
            if (block) snprintf(name, sizeof name, "blk.%d.%s.weight", layer, field);
            else snprintf(name, sizeof name, "%s.weight", field);
            int64_t i = ash_recipe_find(r, name);
            if (i < 0) fail_msg("%s: no type for %s", where, name);
            const char *got = ash_dtype_name((ash_dtype)ash_recipe_rule_at(r, (size_t)i).type);
            if (strcmp(got, t) != 0) fail_msg("%s: %s is %s, not %s", where, name, got, t);
        }
    }
}

static void test_expected(void **state) {
    (void)state;
    char path[512];
    ash_buf b = {0};
    ash_gguf *g[ASH_ARRAY_LEN(shapes)];
    snprintf(path, sizeof path, "%s/presets/expected.txt", getenv("ASH_TEST_DATA"));
    assert_int_equal(ash_file_read(path, 1 << 20, &b, NULL), ASH_OK);
    ash_buf_addc(&b, 0);
    for (size_t i = 0; i < ASH_ARRAY_LEN(shapes); i++) g[i] = make(&shapes[i]);
    int n = 0;
    for (char *save, *line = strtok_r((char *)b.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save), n++) {
        char where[64], *save2, *label = strtok_r(line, " ", &save2), *name = strtok_r(NULL, " ", &save2), *im = strtok_r(NULL, " ", &save2), *rest = save2;
        size_t m = 0, preset;
        while (m < ASH_ARRAY_LEN(shapes) && strcmp(shapes[m].label, label) != 0) m++;
        assert_true(m < ASH_ARRAY_LEN(shapes));
        assert_true(ash_preset_find(name, &preset));
        for (int w = 0; w < 2; w++) {
            if (*im != '-' && *im != '0' + w) continue;
            ash_recipe *r;
            ash_error e = {0};
            char copy[4096];
            snprintf(where, sizeof where, "%s %s importance %d", label, name, w);
            if (ash_preset_recipe(&r, preset, g[m], 0, w, &e) != ASH_OK) fail_msg("%s: %s", where, e.msg);
            snprintf(copy, sizeof copy, "%s", rest);
            for (char *save3, *f = strtok_r(copy, " ", &save3); f; f = strtok_r(NULL, " ", &save3)) check_kind(r, f, where);
            ash_recipe_free(r);
        }
    }
    assert_true(n > 100);
    for (size_t i = 0; i < ASH_ARRAY_LEN(shapes); i++) ash_gguf_close(g[i]);
    ash_buf_free(&b);
}

static void test_names(void **state) {
    (void)state;
    size_t a = 0, b = 0;
    for (size_t i = 0; i < ash_preset_count(); i++) {
        assert_true(ash_preset_find(ash_preset_name(i), &a));
        assert_int_equal(a, i);
    }
    assert_true(ash_preset_find("q4_k", &a) && ash_preset_find("Q4_K_M", &b) && a == b);
    assert_false(ash_preset_find("Q7_K", &a));
    assert_string_equal(ash_preset_name(ash_preset_count()), "?");
    assert_true(ash_preset_find("IQ1_S", &a) && !ash_preset_general(a));
    assert_true(ash_preset_general(b));
    assert_int_equal(ash_preset_file_type(b), 15);
}

/* A row that neither the type nor a stand-in fits is an error that names the tensor. */
static void test_misfit(void **state) {
    (void)state;
    ash_gguf *g = make(&shapes[0]);
    size_t p;
    ash_recipe *r;
    ash_error e = {0};
    assert_true(ash_preset_find("Q1_0", &p));
    assert_int_equal(ash_preset_recipe(&r, p, g, 0, false, &e), ASH_E_USAGE);
    assert_non_null(strstr(e.msg, "blk.0.attn_q.weight"));
    assert_null(r);
    assert_int_equal(ash_preset_recipe(&r, ash_preset_count(), g, 0, false, &e), ASH_E_USAGE);
    ash_gguf_close(g);
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_expected), cmocka_unit_test(test_names), cmocka_unit_test(test_misfit)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
