/* test_model.c - what a model file may ask for: any pattern of windows runs; what no code computes is refused with a sentence that
 * names it; which models the sweep's arithmetic covers. */
#include "golden.h"
#include "model/model_int.h"

/* A copy of a golden model with other keys. */
typedef struct {
    const char *key;
    enum { SET_U32, SET_BOOL, SET_STR, SET_FLAGS, UNSET } how;
    uint32_t v;        /* SET_FLAGS: 0 none, 1 all, 2 every second, 3 the first half */
    const char *s;
} change;

static void make(const char *from, const char *out, const change *c, size_t n, const char *extra_tensor) {
    char p[600];
    ash_error e = {0};
    ash_gguf *g = NULL;
    ash_gguf_writer *w = NULL;
    static const float zeros[64];
    const uint64_t ne[] = {64};
    if (ash_gguf_open(&g, g_path(p, sizeof p, from, "model.gguf"), &e) != ASH_OK) fail_msg("%s", e.msg);
    assert_int_equal(ash_gguf_writer_new(&w, &e), ASH_OK);
    assert_int_equal(ash_gguf_copy_kv(w, g, &e), ASH_OK);
    for (size_t i = 0; i < n; i++) {
        ash_status st = ASH_OK;
        bool flags[32];
        for (size_t k = 0; k < 32; k++) flags[k] = c[i].v == 1 || (c[i].v == 2 && k % 2) || (c[i].v == 3 && k < 4);
        switch (c[i].how) {
        case SET_U32: st = ash_gguf_set_u32(w, c[i].key, c[i].v, &e); break;
        case SET_BOOL: st = ash_gguf_set_bool(w, c[i].key, c[i].v != 0, &e); break;
        case SET_STR: st = ash_gguf_set_str(w, c[i].key, c[i].s, strlen(c[i].s), &e); break;
        case SET_FLAGS: st = ash_gguf_set_array(w, c[i].key, ASH_GV_BOOL, flags, 32, &e); break;
        case UNSET: st = ash_gguf_unset(w, c[i].key); break;
        }
        assert_int_equal(st, ASH_OK);
    }
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        assert_int_equal(ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, &e), ASH_OK);
    }
    if (extra_tensor) assert_int_equal(ash_gguf_add_tensor(w, extra_tensor, ASH_F32, 1, ne, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_begin(w, out, &e), ASH_OK);
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        assert_int_equal(ash_gguf_writer_data(w, t->data, t->n_bytes, &e), ASH_OK);
    }
    if (extra_tensor) assert_int_equal(ash_gguf_writer_data(w, zeros, sizeof zeros, &e), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, &e), ASH_OK);
    ash_gguf_writer_free(w);
    ash_gguf_close(g);
}

enum { N = 60 };
static void logits(ash_model *m, uint32_t batch, float *out) {
    ash_error e = {0};
    ash_token t[N];
    for (int i = 0; i < N; i++) t[i] = (ash_token)(i * 37 % 500);
    ash_session *s = g_session(m, (ash_session_opts){.n_ctx = 64, .n_batch = batch, .n_threads = 1, .cpu_level = -1});
    if (ash_session_eval_all(s, t, N, 0, g_keep, &(g_rows){out, (size_t)ash_model_n_vocab(m)}, &e) != ASH_OK) fail_msg("%s", e.msg);
    ash_session_free(s);
}

/* All sliding, all full, mixed: each loads, and chunking changes no bit. A window that holds the whole text is none. */
static void any_pattern_of_windows(void **state) {
    (void)state;
    const char *const f = "t.pattern.gguf";
    static float a[N * 512], b[N * 512], full[N * 512];
    for (uint32_t v = 0; v < 4; v++)
        for (int wide = 0; wide < 2; wide++) {
            const change c[] = {{"gemma2.attention.sliding_window_pattern", SET_FLAGS, v, NULL},
                                {"gemma2.attention.sliding_window", SET_U32, wide ? N : 16, NULL}};
            make("gemma2", f, c, 2, NULL);
            ash_error e = {0};
            ash_model *m = NULL;
            if (ash_model_load(&m, f, &e) != ASH_OK) fail_msg("%s", e.msg);
            for (int il = 0; il < m->hp.n_layer; il++) assert_int_equal(m->layers[il].window > 0, v == 1 || (v == 2 && il % 2) || (v == 3 && il < 4));
            logits(m, 64, a);
            logits(m, 3, b);
            assert_memory_equal(a, b, sizeof a);
            if (v == 0) memcpy(full, a, sizeof full);
            if (v != 0) assert_int_equal(memcmp(a, full, sizeof a) == 0, wide);
            ash_model_free(m);
            unlink(f);
        }
}

static void refusals_name_what_is_missing(void **state) {
    (void)state;
    static const struct {
        const char *from;
        change c;
        const char *tensor, *says;
    } bad[] = {
        {"llama", {"general.architecture", SET_STR, 0, "falcon"}, NULL, "architecture \"falcon\" is not supported"},
        {"llama", {"x", UNSET, 0, NULL}, "blk.0.attn_gate.weight", "tensor blk.0.attn_gate.weight is not known"},
        {"llama", {"llama.attention.clamp_kqv", SET_U32, 8, NULL}, NULL, "key llama.attention.clamp_kqv is set"},
        {"llama", {"llama.rope.scaling.type", SET_STR, 0, "su"}, NULL, "rope scaling \"su\" is not supported"},
        {"qwen3-moe", {"qwen3moe.expert_shared_count", SET_U32, 1, NULL}, NULL, "expert_shared_count is set"},
        {"qwen3-moe", {"qwen3moe.expert_weights_norm", SET_BOOL, 0, NULL}, NULL, "expert_weights_norm is set"},
        {"qwen3-moe", {"qwen3moe.expert_used_count", SET_U32, 9, NULL}, NULL, "expert_used_count is 9; 1 to 8"},
        {"qwen3-moe", {"qwen3moe.expert_used_count", UNSET, 0, NULL}, NULL, "expert_used_count is missing"},
        {"qwen2", {"qwen2.attention.sliding_window", SET_U32, 16, NULL}, NULL, "qwen2 with a sliding window"},
        {"qwen2", {"qwen2.expert_count", SET_U32, 4, NULL}, NULL, "qwen2 with 4 experts"},
        {"gemma4-e", {"gemma4.attention.sliding_window_pattern", UNSET, 0, NULL}, NULL, "sliding_window_pattern is missing"},
        {"gemma4-e", {"gemma4.attention.shared_kv_layers", SET_U32, 8, NULL}, NULL, "shared_kv_layers is 8"},
        {"gemma4-e", {"gemma4.attention.shared_kv_layers", SET_U32, 6, NULL}, NULL, "no layer of its kind"},
        {"gemma4-e", {"gemma4.embedding_length_per_layer_input", SET_U32, 24, NULL}, NULL, "per_layer_token_embd.weight is"},
        {"bert", {"bert.attention.causal", SET_BOOL, 1, NULL}, NULL, "bert with causal attention"},
        {"bert", {"bert.pooling_type", SET_U32, 9, NULL}, NULL, "pooling_type is 9"},
        {"phi3", {"phi3.rope.dimension_count", SET_U32, 18, NULL}, NULL, "dimension_count is 18; 2 to 16"},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        make(bad[i].from, "t.bad.gguf", &bad[i].c, 1, bad[i].tensor);
        ash_error e = {0};
        ash_model *m = NULL;
        ash_status st = ash_model_load(&m, "t.bad.gguf", &e);
        if (st == ASH_OK || !strstr(e.msg, bad[i].says)) fail_msg("%s with %s: \"%s\", not \"%s\"", bad[i].from, bad[i].c.key, e.msg, bad[i].says);
        if (st != ASH_E_UNSUPPORTED && st != ASH_E_FORMAT && st != ASH_E_RANGE) fail_msg("%s: status %d", bad[i].says, st);
        assert_null(m);
        unlink("t.bad.gguf");
    }
}

static void plain_models(void **state) {
    (void)state;
    static const struct {
        const char *name, *why; /* NULL: plain */
    } cases[] = {{"llama", NULL},       {"llama-yarn", NULL}, {"gemma2", NULL},        {"gemma3", NULL},          {"qwen3", NULL}, {"mixtral", "experts"},
                 {"qwen2", "biases"},   {"phi3", "fused"},    {"gemma4-e", "layer"},   {"gemma4-moe", "experts"}, {"bert", "encoder"}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        ash_model *m = g_model(cases[i].name, "model.gguf");
        char why[80] = "";
        bool plain = ash_model_plain(m, why, sizeof why);
        if (plain != !cases[i].why || (cases[i].why && !strstr(why, cases[i].why))) fail_msg("%s: plain %d, \"%s\"", cases[i].name, plain, why);
        ash_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_pattern_of_windows), cmocka_unit_test(refusals_name_what_is_missing),
                                       cmocka_unit_test(plain_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
