/* test_slice.c - sets of layers, slices, merges and patches on the tiny models of every kind: what must be equal is equal
 * byte for byte, what must be refused is refused with the right status. That llama.cpp computes the same from a slice is
 * checked by tests/long/slices.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ashlar/quant.h"
#include "ashlar/slice.h"
#include "tiny.h"

static const char *golden(const char *name) {
    static char p[512];
    snprintf(p, sizeof p, "%s/golden/%s/model.gguf", getenv("ASH_TEST_DATA"), name);
    return p;
}
static char g_tmp[4][64];
static const char *tmp(int i) {
    snprintf(g_tmp[i], sizeof g_tmp[i], "./test_slice_%d_%d.gguf", (int)getpid(), i);
    return g_tmp[i];
}
static int cleanup(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) remove(tmp(i));
    return 0;
}

static ash_buf slurp(const char *path) {
    ash_buf b = {0};
    ash_error err = {0};
    if (ash_file_read(path, 1u << 30, &b, &err) != ASH_OK) fail_msg("%s", err.msg);
    return b;
}
static void assert_same_file(const char *a, const char *b) {
    ash_buf x = slurp(a), y = slurp(b);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.p, y.p, x.n);
    ash_buf_free(&x);
    ash_buf_free(&y);
}
static void ok(ash_status st, const ash_error *err) {
    if (st != ASH_OK) fail_msg("%s", err->msg);
}

/* ---- rules ---- */
static void rules_name_layers(void **state) {
    (void)state;
    static const struct {
        const char *rule, *want;
    } t[] = {{"3", "3"}, {"0-2", "012"}, {"5-", "567"}, {"all", "01234567"}, {"swa", "01356"}, {"full", "247"}, {"own", "01234"}, {"shared", "567"}, {"even", "0246"},
             {"odd", "1357"}, {"first:3", "012"}, {"last:2", "67"}, {"every:3", "036"}, {"!7", "0123456"}, {"all,!swa", "247"}, {"0-3,!1,5,6", "02356"}, {"!0-3,1", "14567"},
             {"7,0", "07"}};
    ash_error err = {0};
    ash_model *m = tiny_model("gemma4-e");
    for (size_t i = 0; i < ASH_ARRAY_LEN(t); i++) {
        uint32_t *l, n;
        char got[16] = "";
        ok(ash_layers_parse(&l, &n, m, 8, t[i].rule, 1, &err), &err);
        for (uint32_t k = 0; k < n; k++) got[k] = (char)('0' + l[k]);
        got[n] = 0;
        assert_string_equal(got, t[i].want);
        ash_layers_free(l);
    }
    uint32_t *a, *b, na, nb; /* the draw is the seed's */
    ok(ash_layers_parse(&a, &na, m, 8, "random:4", 7, &err), &err);
    ok(ash_layers_parse(&b, &nb, m, 8, "random:4", 7, &err), &err);
    assert_int_equal(na, 4);
    assert_memory_equal(a, b, 4 * sizeof *a);
    ash_layers_free(a);
    ash_layers_free(b);
    ash_model_free(m);
}

static void rules_refuse(void **state) {
    (void)state;
    static const char *const bad[] = {"", ",", "0,", ",0", "x", "-1", "-", "8", "0-8", "5-3", "1-2-3", "0x1", " 0", "0 ", "999999999999999999999", "4294967296", "0-99999999999",
                                      "first:0", "first:9", "first:", "first:-1", "random:9", "random:x", "every:0", "every:", ":", "nth:3", "!", "!!0", "all,!all", "SWA", "swa:1",
                                      "\n", "\xff\xfe", "0,\x01", "0;1", "0..3", "*"};
    ash_model *m = tiny_model("gemma4-e");
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        uint32_t *l, n;
        ash_error err = {0};
        if (ash_layers_parse(&l, &n, m, 8, bad[i], 1, &err) != ASH_E_USAGE) fail_msg("\"%s\" was taken or refused otherwise", bad[i]);
        assert_true(err.msg[0] != 0);
        assert_null(l);
    }
    uint32_t *l, n;
    assert_int_equal(ash_layers_parse(&l, &n, NULL, 8, "swa", 1, NULL), ASH_E_USAGE);
    assert_int_equal(ash_layers_parse(&l, &n, NULL, 0, "0", 1, NULL), ASH_E_USAGE);
    ash_model_free(m);
}

/* ---- slices ---- */
static void all_layers_are_the_file(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "llama-tied", "mixtral", "mistral-swa", "qwen2", "qwen3", "qwen3-moe", "phi3", "phi3-longrope", "gemma2",
                                        "gemma3", "gemma4-e", "gemma4-dense", "gemma4-moe", "bert", "gemma-embedding"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) {
        ash_error err = {0};
        ash_model *m = tiny_model(names[i]);
        uint32_t *l, n;
        ok(ash_layers_parse(&l, &n, m, (uint32_t)ash_model_n_layer(m), "all", 1, &err), &err);
        ok(ash_slice_write(NULL, m, l, n, tmp(0), true, NULL, &err), &err);
        assert_same_file(golden(names[i]), tmp(0));
        /* every single layer out, and alone: written, loaded and compared by the writer itself, or refused for its keys */
        for (uint32_t k = 0; k < n; k++) {
            uint32_t rest[64], r = 0;
            for (uint32_t j = 0; j < n; j++)
                if (j != k) rest[r++] = j;
            ash_status st = ash_slice_write(NULL, m, rest, r, tmp(0), false, NULL, &err);
            if (st != ASH_OK && st != ASH_E_USAGE) fail_msg("%s without %u: %s", names[i], k, err.msg);
            st = ash_slice_write(NULL, m, &k, 1, tmp(0), false, NULL, &err);
            if (st != ASH_OK && !(st == ASH_E_USAGE && m->layers[k].kv_layer != (int)k)) fail_msg("%s only %u: %s", names[i], k, err.msg);
        }
        ash_layers_free(l);
        ash_model_free(m);
    }
}

static void a_slice_of_a_slice_is_a_slice(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint32_t a[8], na, b[8], nb, ab[8];
    } t[] = {{"gemma4-e", {0, 1, 2, 4, 5, 6, 7}, 7, {0, 2, 3, 5, 6}, 5, {0, 2, 4, 6, 7}}, {"gemma3", {0, 2, 3, 5, 6}, 5, {1, 3, 4}, 3, {2, 5, 6}},
             {"gemma2", {0, 1, 3}, 3, {1, 2}, 2, {1, 3}},                                 {"gemma4-dense", {1, 2, 4, 5}, 4, {0, 3}, 2, {1, 5}}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(t); i++) {
        ash_error err = {0};
        ash_model *m = tiny_model(t[i].name), *once = NULL, *twice = NULL, *straight = NULL;
        ok(ash_slice_write(NULL, m, t[i].a, t[i].na, tmp(0), false, NULL, &err), &err);
        ok(ash_model_load(&once, tmp(0), &err), &err);
        ok(ash_slice_write(NULL, once, t[i].b, t[i].nb, tmp(1), false, NULL, &err), &err);
        ok(ash_slice_write(NULL, m, t[i].ab, t[i].nb, tmp(2), false, NULL, &err), &err);
        ok(ash_model_load(&twice, tmp(1), &err), &err);
        ok(ash_model_load(&straight, tmp(2), &err), &err);
        const ash_gguf *x = ash_model_gguf(twice), *y = ash_model_gguf(straight);
        assert_int_equal(ash_gguf_n_tensors(x), ash_gguf_n_tensors(y));
        for (size_t k = 0; k < ash_gguf_n_tensors(x); k++) {
            const ash_gguf_tensor *p = ash_gguf_tensor_at(x, k), *q = ash_gguf_tensor_at(y, k);
            assert_string_equal(p->name, q->name);
            assert_int_equal(p->n_bytes, q->n_bytes);
            assert_memory_equal(p->data, q->data, p->n_bytes);
        }
        for (uint32_t j = 0; j < t[i].nb; j++) {
            assert_int_equal(twice->layers[j].window, straight->layers[j].window);
            assert_int_equal(twice->layers[j].kv_layer, straight->layers[j].kv_layer);
            assert_int_equal(twice->layers[j].rope, straight->layers[j].rope);
        }
        ash_model_free(m);
        ash_model_free(once);
        ash_model_free(twice);
        ash_model_free(straight);
    }
}

/* The columns of per-layer embeddings, seen from the weights' side: tables in types whose blocks span layers become F16. */
static void embeddings_per_layer_follow(void **state) {
    (void)state;
    ash_error err = {0};
    ash_model *m = tiny_model("gemma4-e"), *s = NULL;
    const uint32_t l[] = {1, 4, 6, 7};
    ok(ash_slice_write(NULL, m, l, 4, tmp(0), false, NULL, &err), &err);
    ok(ash_model_load(&s, tmp(0), &err), &err);
    const int p = m->hp.n_ple;
    const size_t col = m->ple_embd.row_bytes / 8; /* bytes of a layer's part of a row */
    for (int r = 0; r < m->hp.n_vocab; r++)
        for (uint32_t j = 0; j < 4; j++)
            assert_memory_equal(s->ple_embd.data + (size_t)r * 4 * col + j * col, m->ple_embd.data + (size_t)r * 8 * col + l[j] * col, col);
    for (uint32_t j = 0; j < 4; j++)
        assert_memory_equal(s->ple_proj.data + j * (size_t)p * s->ple_proj.row_bytes, m->ple_proj.data + l[j] * (size_t)p * m->ple_proj.row_bytes,
                            (size_t)p * m->ple_proj.row_bytes);
    ash_model_free(s);

    /* the same file with a Q8_0 table: 32 values per block, 16 per layer */
    ash_gguf_writer *w;
    const ash_gguf *g = ash_model_gguf(m);
    ok(ash_gguf_writer_new(&w, &err), &err);
    ok(ash_gguf_copy_kv(w, g, &err), &err);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        ok(ash_gguf_add_tensor(w, t->name, strcmp(t->name, "per_layer_token_embd.weight") == 0 ? ASH_Q8_0 : t->type, t->n_dims, t->ne, &err), &err);
    }
    ok(ash_gguf_writer_begin(w, tmp(1), &err), &err);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        if (strcmp(t->name, "per_layer_token_embd.weight") != 0) {
            ok(ash_gguf_writer_data(w, t->data, t->n_bytes, &err), &err);
            continue;
        }
        uint8_t row[256];
        float x[128];
        for (uint64_t r = 0; r < t->ne[1]; r++) {
            assert_true(ash_dtype_decode(t->type, t->data + r * m->ple_embd.row_bytes, x, t->ne[0]));
            ok(ash_quant_row(ASH_Q8_0, x, row, t->ne[0], NULL, &err), &err);
            ok(ash_gguf_writer_data(w, row, ash_dtype_row_bytes(ASH_Q8_0, t->ne[0]), &err), &err);
        }
    }
    ok(ash_gguf_writer_finish(w, &err), &err);
    ash_gguf_writer_free(w);
    ash_model_free(m);
    ash_slice_info info;
    ok(ash_model_load(&m, tmp(1), &err), &err);
    ok(ash_slice_write(&info, m, l, 4, tmp(0), false, NULL, &err), &err);
    assert_true(info.tables_f16);
    ok(ash_model_load(&s, tmp(0), &err), &err);
    assert_int_equal(s->ple_embd.type, ASH_F16);
    float x[128], y[64];
    for (int r = 0; r < m->hp.n_vocab; r++) {
        assert_true(ash_dtype_decode(ASH_Q8_0, m->ple_embd.data + (size_t)r * m->ple_embd.row_bytes, x, 128));
        assert_true(ash_dtype_decode(ASH_F16, s->ple_embd.data + (size_t)r * s->ple_embd.row_bytes, y, 64));
        for (uint32_t j = 0; j < 4; j++)
            for (int k = 0; k < p; k++) assert_true(fabsf(x[l[j] * (uint32_t)p + (uint32_t)k] - y[j * (uint32_t)p + (uint32_t)k]) <= 1e-3f * fabsf(x[l[j] * (uint32_t)p + (uint32_t)k]) + 1e-7f);
    }
    ash_model_free(s);
    ash_model_free(m);
}

static void keys_are_found_or_refused(void **state) {
    (void)state;
    ash_error err = {0};
    ash_slice_info info;
    ash_model *m = tiny_model("gemma4-e"); /* windowed: 0 1 3 5 6, own keys: 0-4 */
    const uint32_t gone[] = {0, 2, 4, 5, 7}, none[] = {2, 4, 5}, order[] = {1, 0};
    ok(ash_slice_check(m, gone, 5, &info, &err), &err);
    assert_int_equal(info.n_shared, 2);
    assert_int_equal(info.n_retargeted, 1); /* 5 read layer 3 and now reads 0; 7 still reads 4 */
    assert_true(info.note[0] != 0);
    assert_int_equal(ash_slice_check(m, none, 3, &info, &err), ASH_E_USAGE);
    assert_non_null(strstr(err.msg, "layer 5"));
    assert_int_equal(ash_slice_check(m, order, 2, &info, &err), ASH_E_USAGE);
    assert_int_equal(ash_slice_check(m, order, 0, &info, &err), ASH_E_USAGE);
    uint32_t l[8];
    for (uint64_t seed = 0; seed < 50; seed++) {
        ok(ash_slice_random(m, 3, seed, l, &err), &err);
        assert_int_equal(ash_slice_check(m, l, 3, &info, NULL), ASH_OK);
    }
    assert_int_equal(ash_slice_random(m, 9, 1, l, &err), ASH_E_USAGE);
    ash_model_free(m);
}

/* ---- merge ---- */
static void merging_is_exact(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "gemma4-e", "gemma3", "qwen3-moe"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) {
        ash_error err = {0};
        ash_merge_info info;
        const uint32_t l[] = {0, 2};
        ok(ash_merge(&info, golden(names[i]), golden(names[i]), l, 2, tmp(0), NULL, &err), &err);
        assert_true(info.identity);
        assert_same_file(golden(names[i]), tmp(0));
    }
    /* another file of the same shape: the slice of all layers with one tensor's sign turned */
    ash_error err = {0};
    ash_merge_info info;
    ash_buf b = slurp(golden("llama"));
    ash_gguf *g, *r;
    ok(ash_gguf_open_mem(&g, b.p, b.n, &err), &err);
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, "blk.1.ffn_up.weight");
    uint64_t at = (uint64_t)(t->data - (const uint8_t *)b.p);
    for (uint64_t k = 1; k < t->n_bytes; k += 2) b.p[at + k] = (char)((uint8_t)b.p[at + k] ^ 0x80);
    ok(ash_file_write_atomic(tmp(1), b.p, b.n, &err), &err);
    ash_gguf_close(g);
    ok(ash_gguf_open_mem(&g, b.p, b.n, &err), &err);
    const uint32_t one[] = {1};
    ok(ash_merge(&info, golden("llama"), tmp(1), one, 1, tmp(0), NULL, &err), &err);
    assert_false(info.identity);
    assert_string_equal(info.note, "");
    ok(ash_gguf_open(&r, tmp(0), &err), &err);
    for (size_t k = 0; k < ash_gguf_n_tensors(r); k++) {
        const ash_gguf_tensor *x = ash_gguf_tensor_at(r, k), *y = ash_gguf_find_tensor(g, x->name);
        assert_memory_equal(x->data, y->data, x->n_bytes); /* layer 1 is the donor's, the rest is the same in both */
    }
    ash_str s;
    assert_true(ash_gguf_get_str(r, "ashlar.merge.donor_sha256", &s));
    assert_memory_equal(s.p, info.sha_donor, 64);
    assert_non_null(ash_gguf_find(r, "ashlar.merge.layers"));
    ash_gguf_close(r);
    ash_gguf_close(g);
    ash_buf_free(&b);
    /* and what may not be mixed */
    char qwen[512];
    snprintf(qwen, sizeof qwen, "%s", golden("qwen3"));
    assert_int_equal(ash_merge(&info, golden("llama"), qwen, one, 1, tmp(0), NULL, &err), ASH_E_FORMAT);
    ash_model *m = tiny_model("llama");
    ok(ash_slice_write(NULL, m, one, 1, tmp(1), false, NULL, &err), &err);
    ash_model_free(m);
    assert_int_equal(ash_merge(&info, golden("llama"), tmp(1), one, 1, tmp(0), NULL, &err), ASH_E_FORMAT);
    assert_non_null(strstr(err.msg, "layers"));
}

/* ---- patch ---- */
static void patches_are_foreseen_and_taken_back(void **state) {
    (void)state;
    ash_error err = {0};
    ash_patch_info i;
    ash_buf b = slurp(golden("gemma4-e"));
    ok(ash_file_write_atomic(tmp(0), b.p, b.n, &err), &err);
    remove(tmp(3));
    /* the lab's patch: no windows, no sharing. Windowed layers would have to be as wide as full ones. */
    const char *deswa[] = {"gemma4.attention.shared_kv_layers=0", "gemma4.attention.sliding_window_pattern[*]=false"};
    ash_patch_opts o = {.log = tmp(3), .dry_run = true};
    ok(ash_patch(&i, tmp(0), deswa, 2, &o, &err), &err);
    assert_true(i.checked && !i.written);
    assert_int_equal(i.n_conflicts, 24); /* q, output and q_norm of five layers, k, v and k_norm of the three with keys */
    assert_non_null(strstr(i.conflicts, "blk.0.attn_q.weight is 64 x 32, and 64 x 64 would be expected"));
    assert_null(strstr(i.conflicts, "blk.2."));
    ash_patch_info_free(&i);
    o.dry_run = false;
    assert_int_equal(ash_patch(&i, tmp(0), deswa, 2, &o, &err), ASH_E_RANGE);
    ash_patch_info_free(&i);
    assert_same_file(golden("gemma4-e"), tmp(0));
    assert_true(access(tmp(3), F_OK) != 0);
    o.force = true;
    ok(ash_patch(&i, tmp(0), deswa, 2, &o, &err), &err);
    assert_true(i.written);
    ash_patch_info_free(&i);
    ash_model *m;
    assert_int_not_equal(ash_model_load(&m, tmp(0), &err), ASH_OK);
    /* two more on top: a harmless one, a new key; then all back */
    const char *more[] = {"general.name=another", "gemma4.rope.freq_base=50000", "ashlar.test=u32:7", "gemma4.feed_forward_length=[48,48,48,48,48,96,96,96]", "general.name=third"};
    ok(ash_patch(&i, tmp(0), more, 5, &o, &err), &err);
    ash_patch_info_free(&i);
    const char *elem[] = {"gemma4.attention.sliding_window_pattern[3]=true"};
    ok(ash_patch(&i, tmp(0), elem, 1, &o, &err), &err);
    ash_patch_info_free(&i);
    for (int k = 0; k < 3; k++) ok(ash_patch_undo(tmp(0), tmp(3), &err), &err);
    assert_same_file(golden("gemma4-e"), tmp(0));
    assert_int_equal(ash_patch_undo(tmp(0), tmp(3), &err), ASH_E_STATE);
    /* a change from outside in between */
    const char *name[] = {"general.name=x"};
    ok(ash_patch(&i, tmp(0), name, 1, &o, &err), &err);
    ash_patch_info_free(&i);
    const char *other[] = {"general.name=y"};
    ok(ash_gguf_edit(tmp(0), other, 1, &err), &err);
    assert_int_equal(ash_patch_undo(tmp(0), tmp(3), &err), ASH_E_STATE);
    ash_buf_free(&b);
}

static void patches_refuse(void **state) {
    (void)state;
    static const struct {
        const char *a;
        ash_status st;
    } t[] = {{"x", ASH_E_USAGE},
             {"=1", ASH_E_USAGE},
             {"[3]=1", ASH_E_USAGE},
             {"gemma4.feed_forward_length[]=1", ASH_E_USAGE},
             {"gemma4.feed_forward_length[-1]=1", ASH_E_USAGE},
             {"gemma4.feed_forward_length[1x]=1", ASH_E_USAGE},
             {"gemma4.feed_forward_length[99999999999999999999999]=1", ASH_E_USAGE},
             {"gemma4.feed_forward_length[8]=1", ASH_E_RANGE},
             {"gemma4.feed_forward_length=3", ASH_E_UNSUPPORTED},
             {"gemma4.feed_forward_length=[1,2]", ASH_E_RANGE},
             {"gemma4.feed_forward_length=[", ASH_E_RANGE},
             {"gemma4.feed_forward_length[0]=x", ASH_E_RANGE},
             {"gemma4.block_count[0]=1", ASH_E_UNSUPPORTED},
             {"gemma4.block_count=-1", ASH_E_RANGE},
             {"gemma4.block_count=7", ASH_E_RANGE},
             {"gemma4.block_count=9", ASH_E_RANGE},
             {"gemma4.embedding_length_per_layer_input=8", ASH_E_RANGE},
             {"gemma4.attention.head_count=3", ASH_E_RANGE},
             {"gemma4.feed_forward_length[3]=49", ASH_E_RANGE},
             {"gemma4.rope.dimension_count=16", ASH_E_RANGE},
             {"tokenizer.ggml.tokens[0]=x", ASH_E_UNSUPPORTED},
             {"general.alignment=64", ASH_E_UNSUPPORTED}};
    for (size_t k = 0; k < ASH_ARRAY_LEN(t); k++) {
        ash_error err = {0};
        ash_patch_info i;
        ash_patch_opts o = {.out = tmp(0)};
        ash_status st = ash_patch(&i, golden("gemma4-e"), &t[k].a, 1, &o, &err);
        if (st != t[k].st) fail_msg("%s: %s, %s", t[k].a, ash_status_name(st), err.msg);
        ash_patch_info_free(&i);
    }
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(rules_name_layers),
                                   cmocka_unit_test(rules_refuse),
                                   cmocka_unit_test_teardown(all_layers_are_the_file, cleanup),
                                   cmocka_unit_test_teardown(a_slice_of_a_slice_is_a_slice, cleanup),
                                   cmocka_unit_test_teardown(embeddings_per_layer_follow, cleanup),
                                   cmocka_unit_test(keys_are_found_or_refused),
                                   cmocka_unit_test_teardown(merging_is_exact, cleanup),
                                   cmocka_unit_test_teardown(patches_are_foreseen_and_taken_back, cleanup),
                                   cmocka_unit_test_teardown(patches_refuse, cleanup)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
