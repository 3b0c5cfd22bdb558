/* test_session.c - a timeline after any history of syncs, edits, rewinds and marks gives the bits of a fresh session; how
 * much is recomputed; batching and threads change nothing; no allocation per token; out of memory is a status. */
#include "golden.h"
#include "ashlar/bake.h"
#include "engine/layer.h"

enum { N_CTX = 160, WINDOW = 16 };

static ash_rng g_rng;
static ash_token rnd_token(void) { return (ash_token)ash_rng_below(&g_rng, 512); }

static ash_session *session(ash_model *m, ash_precision p, uint32_t batch, int threads) {
    return g_session(m, (ash_session_opts){.n_ctx = N_CTX, .n_batch = batch, .n_threads = threads, .precision = p, .cpu_level = -1});
}

static void sync_ok(ash_session *s, const ash_token *t, size_t n, size_t *reused) {
    ash_error err = {0};
    if (ash_session_sync(s, t, n, reused, &err) != ASH_OK) fail_msg("sync: %s", err.msg);
}

static void same_logits(const ash_session *a, const ash_session *b, ash_model *m, const char *what) {
    if (memcmp(ash_session_logits(a), ash_session_logits(b), (size_t)ash_model_n_vocab(m) * sizeof(float)) != 0) fail_msg("%s: logits differ", what);
}

static const char *const k_cases[] = {
#define G_LM(name) name,
#define G_ENC(name)
#include "golden_cases.inc"
#undef G_LM
#undef G_ENC
};

/* The golden model with every matrix that can be in Q8_0: experts and per-layer embeddings on 8-bit activations too. */
static ash_model *q8_model(const char *name) {
    char p[600];
    ash_gguf *g = NULL;
    ash_model *m = NULL;
    ash_error err = {0};
    ash_bake_opts o = ash_bake_defaults();
    o.type = ASH_Q8_0;
    if (ash_gguf_open(&g, g_path(p, sizeof p, name, "model.gguf"), &err) != ASH_OK) fail_msg("%s", err.msg);
    if (ash_bake(NULL, g, "session-q8.gguf", &o, &err) != ASH_OK) fail_msg("%s", err.msg);
    ash_gguf_close(g);
    if (ash_model_load(&m, "session-q8.gguf", &err) != ASH_OK) fail_msg("%s", err.msg);
    unlink("session-q8.gguf"); /* the mapping stays */
    return m;
}

/* Prefill in any chunking, at 1 and 2 threads, equals token by token, bit for bit. */
static void check_chunking(ash_model *m, const char *what) {
    static const uint32_t batches[] = {2, 3, 16, 64, 512};
    enum { N = 70 };
    ash_token t[N];
    for (size_t i = 0; i < N; i++) t[i] = rnd_token();
    ash_error err = {0};
    for (int prec = 0; prec < 2; prec++) {
        ash_session *ref = session(m, (ash_precision)prec, 1, 1);
        sync_ok(ref, t, 1, NULL);
        for (size_t i = 1; i < N; i++) assert_int_equal(ash_session_append(ref, t[i], &err), ASH_OK);
        for (size_t b = 0; b < ASH_ARRAY_LEN(batches); b++) {
            ash_session *s = session(m, (ash_precision)prec, batches[b], 1 + (int)b % 2);
            sync_ok(s, t, N, NULL);
            same_logits(s, ref, m, what);
            ash_session_free(s);
        }
        ash_session_free(ref);
    }
    ash_model_free(m);
}

static void chunking(void **st) {
    (void)st;
    static const char *const types[] = {"Q4_K.gguf", "Q8_0.gguf", "IQ4_NL.gguf", "Q6_K.gguf"};
    ash_rng_seed(&g_rng, 1);
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_cases); i++)
        if (g_exists(k_cases[i], "model.gguf")) check_chunking(g_model(k_cases[i], "model.gguf"), k_cases[i]);
    for (size_t i = 0; i < ASH_ARRAY_LEN(types); i++) check_chunking(g_model("quant-models", types[i]), types[i]);
    static const char *const quantized[] = {"mixtral", "qwen3-moe", "gemma4-e", "gemma4-moe", "phi3", "qwen2"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(quantized); i++) check_chunking(q8_model(quantized[i]), quantized[i]);
}

/* On 8-bit activations the logits stay near those on float32 activations: a product that read the wrong 8-bit rows would
 * be off by as much as the logits themselves. How near depends on the model: random layers of gemma4 (attention scale 1) carry
 * rounding on, and it may send a token to another expert. */
static void eight_bit(void **st) {
    (void)st;
    static const char *const models[] = {"mixtral", "qwen3-moe", "gemma4-e", "gemma4-dense", "gemma4-moe", "phi3", "qwen2", "gemma2"};
    ash_rng_seed(&g_rng, 9);
    for (size_t i = 0; i < ASH_ARRAY_LEN(models); i++) {
        ash_model *m = q8_model(models[i]);
        enum { N = 40 };
        const size_t V = (size_t)ash_model_n_vocab(m);
        ash_token t[N];
        for (size_t k = 0; k < N; k++) t[k] = rnd_token();
        float *want = calloc(N * V, sizeof *want), *got = calloc(N * V, sizeof *got);
        ash_error err = {0};
        ash_session *a = session(m, ASH_PREC_EXACT, 64, 1), *b = session(m, ASH_PREC_FAST, 16, 2);
        assert_int_equal(ash_session_eval_all(a, t, N, 0, g_keep, &(g_rows){want, V}, &err), ASH_OK);
        assert_int_equal(ash_session_eval_all(b, t, N, 0, g_keep, &(g_rows){got, V}, &err), ASH_OK);
        g_diff d = g_compare(got, want, N, V);
        if (getenv("ASH_VERBOSE")) print_message("%s Q8_0: rel %.2g rms %.2g kld %.2g\n", models[i], d.rel, d.rms, d.kld);
        if (!(d.rms <= 0.12 && d.kld <= 5e-2)) fail_msg("%s in Q8_0: rel %.3g, rms %.3g, KLD %.3g", models[i], d.rel, d.rms, d.kld);
        free(want), free(got);
        ash_session_free(a);
        ash_session_free(b);
        ash_model_free(m);
    }
}

/* Random edit scripts; a fresh session is the oracle. */
static void edit_scripts(void **st) {
    (void)st;
    static const char *const models[] = {"gemma3", "llama", "gemma4-e", "phi3-longrope", "qwen3-moe"};
    for (size_t mi = 0; mi < ASH_ARRAY_LEN(models); mi++) {
        ash_model *m = g_model(models[mi], "model.gguf");
        for (int script = 0; script < (mi < 2 ? 12 : 4); script++) {
            ash_rng_seed(&g_rng, 100 + (uint64_t)script);
            ash_session *s = session(m, script % 2 ? ASH_PREC_FAST : ASH_PREC_EXACT, 8, 1 + script % 2);
            ash_session *fresh = session(m, script % 2 ? ASH_PREC_FAST : ASH_PREC_EXACT, 64, 1);
            ash_token t[N_CTX];
            size_t n = 0;
            ash_error err = {0};
            for (int step = 0; step < 40; step++) {
                switch (ash_rng_below(&g_rng, 6)) {
                case 0: /* a longer prompt */
                case 1:
                    for (size_t add = 1 + ash_rng_below(&g_rng, 30); add && n < N_CTX - 8; add--) t[n++] = rnd_token();
                    break;
                case 2: /* edit somewhere and cut there */
                    if (n) {
                        n = 1 + ash_rng_below(&g_rng, n);
                        t[n - 1] = rnd_token();
                    }
                    break;
                case 3: /* regenerate from an earlier point */
                    if (n > 1) n = n - ash_rng_below(&g_rng, ASH_MIN(n, 40));
                    break;
                case 4:
                    if (ash_session_n_tokens(s)) assert_int_equal(ash_session_mark(s, &err), ASH_OK);
                    break;
                default: /* rewind without a sync, then append */
                    if (ash_session_n_tokens(s) > 1) {
                        size_t to = ash_rng_below(&g_rng, ash_session_n_tokens(s));
                        assert_int_equal(ash_session_rewind(s, to, &err), ASH_OK);
                        assert_int_equal(ash_session_n_tokens(s), to);
                        assert_null(ash_session_logits(s));
                        t[to] = rnd_token();
                        n = to + 1;
                        assert_int_equal(ash_session_append(s, t[to], &err), ASH_OK);
                    }
                }
                if (!n) continue;
                size_t reused;
                sync_ok(s, t, n, &reused);
                assert_true(reused <= n);
                assert_int_equal(ash_session_n_tokens(s), n);
                assert_memory_equal(ash_session_tokens(s), t, n * sizeof *t);
                sync_ok(fresh, t, 1, NULL);
                assert_int_equal(ash_session_rewind(fresh, 0, &err), ASH_OK);
                sync_ok(fresh, t, n, NULL);
                same_logits(s, fresh, m, models[mi]);
            }
            ash_session_free(s);
            ash_session_free(fresh);
        }
        ash_model_free(m);
    }
}

/* A chat: three turns, then the last answer again, an edit of the last question, and of the one before. */
static void recomputed(void **st) {
    (void)st;
    ash_model *m = g_model("gemma3", "model.gguf");
    ash_session *s = session(m, ASH_PREC_FAST, 8, 1);
    ash_rng_seed(&g_rng, 5);
    ash_token t[N_CTX];
    for (size_t i = 0; i < N_CTX; i++) t[i] = rnd_token();
    ash_error err = {0};
    const size_t turn[] = {40, 80, 120}; /* prompt ends; the 20 tokens after each are the answer */
    for (int i = 0; i < 3; i++) {
        sync_ok(s, t, turn[i], NULL);
        assert_int_equal(ash_session_mark(s, &err), ASH_OK);
        for (size_t a = turn[i]; a < turn[i] + 20; a++) assert_int_equal(ash_session_append(s, t[a], &err), ASH_OK);
        assert_int_equal(ash_session_mark(s, &err), ASH_OK);
    }
    size_t reused;
    sync_ok(s, t, 120, &reused); /* the last answer again: one token, for its logits */
    assert_int_equal(reused, 119);
    for (size_t a = 120; a < 140; a++) assert_int_equal(ash_session_append(s, t[a], &err), ASH_OK);
    t[105] ^= 1; /* the last question edited: from the mark at the end of the answer before it */
    sync_ok(s, t, 120, &reused);
    assert_int_equal(reused, 100);
    t[65] ^= 1; /* an earlier one */
    sync_ok(s, t, 120, &reused);
    assert_int_equal(reused, 60);
    t[30] ^= 1; /* before every mark */
    sync_ok(s, t, 120, &reused);
    assert_int_equal(reused, 0);
    t[118] ^= 1; /* inside what the ring still holds */
    sync_ok(s, t, 120, &reused);
    assert_int_equal(reused, 118);
    ash_session_free(s);

    /* full attention needs no snapshot */
    ash_model *l = g_model("llama", "model.gguf");
    s = session(l, ASH_PREC_FAST, 8, 1);
    sync_ok(s, t, 120, NULL);
    t[30] ^= 1;
    sync_ok(s, t, 120, &reused);
    assert_int_equal(reused, 30);
    ash_session_free(s);

    /* a budget below one snapshot: the windows are lost, the result is not */
    s = g_session(m, (ash_session_opts){.n_ctx = N_CTX, .n_batch = 8, .n_threads = 1, .cpu_level = -1, .snapshot_bytes = 1});
    sync_ok(s, t, 60, NULL);
    assert_int_equal(ash_session_mark(s, &err), ASH_OK);
    sync_ok(s, t, 120, NULL);
    sync_ok(s, t, 60, &reused);
    assert_int_equal(reused, 0);
    ash_session_free(s);
    ash_model_free(l);
    ash_model_free(m);
}

static void no_allocation(void **st) {
    (void)st;
    static const char *const files[][2] = {{"gemma3", "model.gguf"}, {"quant-models", "Q4_K.gguf"}, {"gemma4-e", "model.gguf"},
                                           {"gemma4-moe", "model.gguf"}, {"phi3-longrope", "model.gguf"}};
    for (size_t f = 0; f < ASH_ARRAY_LEN(files); f++)
        for (int prec = 0; prec < 2; prec++) {
            ash_model *m = g_model(files[f][0], files[f][1]);
            ash_session *s = session(m, (ash_precision)prec, 16, 2);
            ash_token t[100];
            ash_rng_seed(&g_rng, 3);
            for (size_t i = 0; i < 100; i++) t[i] = rnd_token();
            sync_ok(s, t, 2, NULL); /* kernel tables may set themselves up */
            uint64_t before = ash_alloc_count();
            ash_error err = {0};
            sync_ok(s, t, 60, NULL);
            ash_session_mark(s, &err);
            for (size_t i = 60; i < 100; i++) assert_int_equal(ash_session_append(s, t[i], &err), ASH_OK);
            sync_ok(s, t, 60, NULL);
            assert_int_equal(ash_session_rewind(s, 10, &err), ASH_OK);
            sync_ok(s, t, 40, NULL);
            assert_int_equal(ash_alloc_count(), before);
            ash_session_free(s);
            ash_model_free(m);
        }
}

static void bad_input(void **st) {
    (void)st;
    ash_model *m = g_model("gemma3", "model.gguf");
    ash_session *s = session(m, ASH_PREC_FAST, 8, 1);
    ash_token t[N_CTX + 1];
    for (size_t i = 0; i <= N_CTX; i++) t[i] = 7;
    ash_error err = {0};
    sync_ok(s, t, 10, NULL);
    assert_int_equal(ash_session_sync(s, t, N_CTX + 1, NULL, &err), ASH_E_LIMIT);
    t[4] = 512;
    assert_int_equal(ash_session_sync(s, t, 10, NULL, &err), ASH_E_RANGE);
    assert_int_equal(err.pos, 4);
    t[4] = -1;
    assert_int_equal(ash_session_sync(s, t, 10, NULL, &err), ASH_E_RANGE);
    assert_int_equal(ash_session_n_tokens(s), 10);
    assert_non_null(ash_session_logits(s)); /* unchanged */
    assert_int_equal(ash_session_append(s, 100000, &err), ASH_E_RANGE);
    assert_int_equal(ash_session_rewind(s, 11, &err), ASH_E_RANGE);
    assert_int_equal(ash_session_sync(s, t, 0, NULL, &err), ASH_E_USAGE);
    t[4] = 7;
    sync_ok(s, t, N_CTX, NULL);
    assert_int_equal(ash_session_append(s, 7, &err), ASH_E_LIMIT);
    ash_session_free(s);
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 1u << 28;
    assert_int_equal(ash_session_new(&s, m, &o, &err), ASH_E_LIMIT);
    assert_null(s);
    ash_model_free(m);
}

/* Every allocation fails in turn. */
static void out_of_memory(void **st) {
    (void)st;
    char p[600];
    g_path(p, sizeof p, "gemma3", "model.gguf");
    ash_error err = {0};
    ash_model *m = NULL;
    int fails = 0;
    for (uint64_t n = 1;; n++, fails++) {
        ash_alloc_fail_after(n);
        ash_status r = ash_model_load(&m, p, &err);
        ash_alloc_fail_after(0);
        if (r == ASH_OK) break;
        assert_int_equal(r, ASH_E_NOMEM);
        assert_null(m);
    }
    assert_true(fails > 3);
    fails = 0;
    ash_session_opts o = {.n_ctx = 64, .n_batch = 8, .n_threads = 2, .cpu_level = -1};
    for (uint64_t n = 1;; n++, fails++) {
        ash_session *s;
        ash_alloc_fail_after(n);
        ash_status r = ash_session_new(&s, m, &o, &err);
        ash_alloc_fail_after(0);
        if (r == ASH_OK) {
            ash_session_free(s);
            break;
        }
        assert_int_equal(r, ASH_E_NOMEM);
        assert_null(s);
    }
    assert_true(fails > 5);
    ash_model_free(m);
}

/* layer.h: embedding, every layer on packed panels, final norm and head give the session's exact bits. */
static void layer_by_layer(void **st) {
    (void)st;
    static const char *const files[][2] = {{"gemma3", "model.gguf"}, {"llama", "model.gguf"}, {"quant-models", "Q4_K.gguf"},
                                           {"gemma4-e", "model.gguf"}, {"gemma4-moe", "model.gguf"}, {"phi3-longrope", "model.gguf"},
                                           {"mistral-swa", "model.gguf"}, {"qwen2", "model.gguf"}};
    for (size_t fi = 0; fi < ASH_ARRAY_LEN(files); fi++) {
        ash_model *m = g_model(files[fi][0], files[fi][1]);
        const ash_kern *k = ash_kern_get(ash_cpu_detect());
        enum { N = 40 };
        const int e = m->hp.n_embd, V = m->hp.n_vocab;
        ash_token t[N];
        ash_rng_seed(&g_rng, 8);
        for (size_t i = 0; i < N; i++) t[i] = rnd_token();
        ash_session *s = session(m, ASH_PREC_EXACT, 16, 2);
        float *want = calloc((size_t)N * (size_t)V, sizeof(float)), *got = calloc((size_t)N * (size_t)V, sizeof(float));
        ash_error err = {0};
        assert_int_equal(ash_session_eval_all(s, t, N, 0, g_keep, &(g_rows){want, (size_t)V}, &err), ASH_OK);
        const size_t sf = ash_layer_state_floats(m, N);
        float *x = calloc(sf, sizeof(float)), *y = calloc(sf, sizeof(float));
        float *scratch = calloc(ash_layer_scratch_floats(m, N), sizeof(float));
        uint64_t before = 0;
        ash_embed_tokens(m, k, t, N, x);
        for (int il = 0; il < m->hp.n_layer; il++) {
            float *packed[ASH_W_COUNT];
            for (int r = 0; r < ASH_W_COUNT; r++) {
                const ash_mat *w = ash_model_mat(m, il, (ash_role)r);
                packed[r] = NULL;
                if (!w->data) continue;
                packed[r] = aligned_alloc(64, (ash_packed_floats(w->n_rows, w->K) * sizeof(float) + 63) / 64 * 64);
                ash_mm_pack(k, NULL, w, packed[r]);
            }
            memcpy(y, x, sf * sizeof(float));
            before = ash_alloc_count();
            ash_layer_apply(m, k, il, (const float *const *)packed, x, N, scratch, NULL, NULL);
            ash_layer_apply_attn(m, k, il, (const float *const *)packed, y, N, scratch, NULL, NULL);
            ash_layer_apply_from(m, k, il, ASH_STAGE_FFN, (const float *const *)packed, y, N, scratch, NULL, NULL);
            assert_int_equal(ash_alloc_count(), before);
            assert_memory_equal(x, y, sf * sizeof(float));
            for (int r = 0; r < ASH_W_COUNT; r++) free(packed[r]);
        }
        ash_final_norm(m, k, x, N, y);
        void *mm = aligned_alloc(64, ash_mm_scratch_bytes(e) * 4);
        ash_mm_job job = {ash_model_head(m), got, V};
        ash_mm_f32(k, NULL, mm, ash_mm_scratch_bytes(e), &job, 1, y, e, N);
        if (m->hp.final_softcap > 0) k->softcap(got, (int64_t)N * V, m->hp.final_softcap);
        assert_memory_equal(want, got, (size_t)N * (size_t)V * sizeof(float));
        free(mm), free(x), free(y), free(scratch), free(want), free(got);
        ash_session_free(s);
        ash_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunking),      cmocka_unit_test(eight_bit),    cmocka_unit_test(edit_scripts), cmocka_unit_test(recomputed),
                                       cmocka_unit_test(no_allocation), cmocka_unit_test(bad_input),    cmocka_unit_test(out_of_memory),
                                       cmocka_unit_test(layer_by_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
