/* test_kv.c - quantized KV caches: blocks come back near and the same at every CPU level; a timeline gives the same bits however
 * it was batched, edited, rewound; errors of the cached types stay in their order. */
#include "golden.h"
#include "engine/session_int.h"
#include "kern/kv_block.h"

#include <math.h>

enum { N_CTX = 320 };

static ash_rng g_rng;
static ash_token rnd_token(void) { return (ash_token)ash_rng_below(&g_rng, 512); }
static float rnd(void) { return (float)(ash_rng_f64(&g_rng) * 2 - 1); }

/* A block as floats, rows of hd': keys by way of two panels, values in two parts of tokens and dimensions. */
static void decode(const ash_kern *k, ash_keys_form form, const uint8_t *block, int hd, float *y) {
    const int hdp = ash_kv_padded(hd);
    memset(y, 0, (size_t)(ASH_KV_BLOCK * hdp) * 4);
    if (form == ASH_KEYS_K8 || form == ASH_KEYS_K4) {
        float *p = calloc((size_t)(2 * 16 * hd), 4);
        (form == ASH_KEYS_K8 ? k->k8_panels : k->k4_panels)(block, hd, 2, p);
        for (int t = 0; t < ASH_KV_BLOCK; t++)
            for (int d = 0; d < hd; d++) y[t * hdp + d] = p[(t / 16 * hd + d) * 16 + t % 16];
        free(p);
        return;
    }
    ash_kvrows_fn rows = form == ASH_KEYS_V8 ? k->v8_rows : k->v4_rows;
    const size_t row = ash_kv_block_bytes(form, hd) / ASH_KV_BLOCK;
    const int cut = hd > 32 ? 32 : 0;
    if (cut) rows(block, hd, 0, cut, ASH_KV_BLOCK, y, hdp);
    rows(block, hd, cut, hd - cut, 7, y + cut, hdp);
    rows(block + 7 * row, hd, cut, hd - cut, ASH_KV_BLOCK - 7, y + 7 * hdp + cut, hdp);
}

static void blocks(void **st) {
    (void)st;
    static const int hds[] = {8, 16, 20, 64, 80, 96, 256};
    static const ash_keys_form forms[] = {ASH_KEYS_K8, ASH_KEYS_V8, ASH_KEYS_K4, ASH_KEYS_V4};
    static const double bound[] = {0.006, 0.006, 0.07, 0.09}; /* RMS relative to the uniform input's */
    ash_rng_seed(&g_rng, 1);
    for (size_t h = 0; h < ASH_ARRAY_LEN(hds); h++)
        for (size_t f = 0; f < ASH_ARRAY_LEN(forms); f++)
            for (int kind = 0; kind < 5; kind++) {
                const int hd = hds[h], hdp = ash_kv_padded(hd);
                const size_t bytes = ash_kv_block_bytes(forms[f], hd), n = (size_t)(ASH_KV_BLOCK * hdp);
                float *x = calloc((size_t)(ASH_KV_BLOCK * hd), 4), *want = calloc(n, 4), *got = calloc(n, 4);
                uint8_t *a = malloc(bytes), *b = malloc(bytes);
                for (int i = 0; i < ASH_KV_BLOCK * hd; i++) x[i] = rnd() * (kind == 1 ? 1e-3f : kind == 2 ? 100.0f : 1);
                if (kind == 3) memset(x, 0, (size_t)(ASH_KV_BLOCK * hd) * 4);
                if (kind == 4) x[3] = NAN, x[5] = INFINITY, x[6] = -INFINITY, x[7] = 3e38f; /* no trap, same bytes */
                memset(a, 0xaa, bytes);
                ash_kv_encode(ash_kern_get(ASH_CPU_SCALAR), forms[f], x, hd, hd, a);
                decode(ash_kern_get(ASH_CPU_SCALAR), forms[f], a, hd, want);
                for (int l = 1; l < ASH_CPU_COUNT; l++) {
                    const ash_kern *k = ash_kern_get((ash_cpu_level)l);
                    ash_kv_encode(k, forms[f], x, hd, hd, b);
                    assert_memory_equal(a, b, bytes);
                    decode(k, forms[f], a, hd, got);
                    if (kind != 4) assert_memory_equal(got, want, n * 4);
                }
                double e = 0, s = 0;
                for (int t = 0; t < ASH_KV_BLOCK; t++)
                    for (int d = 0; d < hd; d++) {
                        const double v = (double)x[t * hd + d], y = (double)want[t * hdp + d];
                        e += (y - v) * (y - v), s += v * v;
                    }
                if (kind == 3)
                    assert_true(e == 0);
                else if (kind < 3 && !(sqrt(e / s) < bound[f]))
                    fail_msg("form %d hd %d kind %d: error %.4f", (int)forms[f], hd, kind, sqrt(e / s));
                free(x), free(want), free(got), free(a), free(b);
            }
}

/* Scores and sums straight from two blocks equal the scalar reference's, and that is the chain over the decoded values. */
static void fused(void **st) {
    (void)st;
    static const int hds[] = {8, 16, 20, 64, 80, 96, 256};
    static const ash_keys_form forms[] = {ASH_KEYS_K8, ASH_KEYS_V8, ASH_KEYS_K4, ASH_KEYS_V4};
    enum { N = 2 * ASH_KV_BLOCK, Q = 13 };
    ash_rng_seed(&g_rng, 9);
    const ash_kern *ref = ash_kern_get(ASH_CPU_SCALAR);
    for (size_t h = 0; h < ASH_ARRAY_LEN(hds); h++)
        for (size_t f = 0; f < ASH_ARRAY_LEN(forms); f++) {
            const int hd = hds[h], hdp = ash_kv_padded(hd);
            const bool keys = forms[f] == ASH_KEYS_K8 || forms[f] == ASH_KEYS_K4, four = forms[f] >= ASH_KEYS_K4;
            const size_t bytes = ash_kv_block_bytes(forms[f], hd);
            float *x = calloc((size_t)(N * hd), 4), *y = calloc((size_t)(N * hdp), 4), *q = calloc((size_t)(Q * 256), 4);
            float *want = calloc(Q * 256, 4), *got = calloc(Q * 256, 4);
            uint8_t *b = malloc(2 * bytes);
            for (int i = 0; i < N * hd; i++) x[i] = rnd();
            for (int i = 0; i < Q * 256; i++) q[i] = rnd();
            for (int i = 0; i < 2; i++) {
                ash_kv_encode(ref, forms[f], x + i * ASH_KV_BLOCK * hd, hd, hd, b + (size_t)i * bytes);
                decode(ref, forms[f], b + (size_t)i * bytes, hd, y + i * ASH_KV_BLOCK * hdp);
            }
            for (int nq = 1; nq <= Q; nq++)
                for (int l = 0; l < ASH_CPU_COUNT; l++) {
                    const ash_kern *k = ash_kern_get((ash_cpu_level)l);
                    for (int i = 0; i < Q * 256; i++) want[i] = got[i] = (float)(i % 7);
                    if (keys) {
                        ref->qkm_f32(q, 256, nq, y, hdp, N, hd, 1.0f, want, 256);
                        (four ? k->qk_k4 : k->qk_k8)(q, 256, nq, b, 2, hd, got, 256);
                    } else { /* tokens from 3 on, and only part of the dimensions where there are several */
                        const int d0 = hd > 64 ? 32 : 0, nd = hd - d0 > 64 ? 64 : hd - d0;
                        ref->pvm_f32(q, 256, nq, y + 3 * hdp + d0, hdp, N - 3, nd, want + d0, 256);
                        (four ? k->pv_v4 : k->pv_v8)(q, 256, nq, b + 3 * (bytes / ASH_KV_BLOCK), hd, d0, nd, N - 3, got + d0, 256);
                    }
                    if (memcmp(want, got, Q * 256 * 4) != 0) fail_msg("form %d hd %d rows %d at %s", (int)forms[f], hd, nq, ash_cpu_level_name(k->level));
                }
            free(x), free(y), free(q), free(want), free(got), free(b);
        }
}

static void rotation(void **st) {
    (void)st;
    ash_rng_seed(&g_rng, 2);
    static const int hds[] = {8, 20, 64, 96, 256};
    for (size_t h = 0; h < ASH_ARRAY_LEN(hds); h++) {
        float x[256], y[256];
        double a = 0, b = 0;
        for (int i = 0; i < hds[h]; i++) y[i] = x[i] = rnd();
        ash_hadamard(y, hds[h]);
        for (int i = 0; i < hds[h]; i++) a += (double)x[i] * (double)x[i], b += (double)y[i] * (double)y[i];
        assert_true(fabs(a - b) < 1e-4 * a);
        ash_hadamard(y, hds[h]);
        for (int i = 0; i < hds[h]; i++) assert_true(fabsf(x[i] - y[i]) < 1e-5f);
    }
}

static const struct {
    ash_kv_type k, v;
} k_pairs[] = {
    {ASH_KV_Q4_0, ASH_KV_Q4_0}, {ASH_KV_Q8_0, ASH_KV_Q8_0}, {ASH_KV_F16, ASH_KV_Q4_0}, {ASH_KV_Q8_0, ASH_KV_F32}, {ASH_KV_F32, ASH_KV_F16}};
/* windows, shared layers, several sizes of heads, experts, two rope tables */
static const char *const k_models[] = {"gemma3", "llama", "gemma4-e", "gemma2", "phi3-longrope", "mistral-swa", "qwen3-moe"};

static ash_session *session(ash_model *m, int pair, ash_precision p, uint32_t batch, int threads) {
    return g_session(m, (ash_session_opts){.n_ctx = N_CTX,
                                           .n_batch = batch,
                                           .n_threads = threads,
                                           .precision = p,
                                           .cpu_level = -1,
                                           .cache_k = k_pairs[pair].k,
                                           .cache_v = k_pairs[pair].v});
}

static void sync_ok(ash_session *s, const ash_token *t, size_t n, size_t *reused) {
    ash_error err = {0};
    if (ash_session_sync(s, t, n, reused, &err) != ASH_OK) fail_msg("sync: %s", err.msg);
}

static void same_logits(const ash_session *a, const ash_session *b, ash_model *m, const char *what) {
    if (memcmp(ash_session_logits(a), ash_session_logits(b), (size_t)ash_model_n_vocab(m) * sizeof(float)) != 0)
        fail_msg("%s: logits differ", what);
}

static void chunking(void **st) {
    (void)st;
    enum { N = 210 };
    static const uint32_t batches[] = {7, 64, 512};
    ash_token t[N];
    ash_error err = {0};
    ash_rng_seed(&g_rng, 3);
    for (size_t i = 0; i < N; i++) t[i] = rnd_token();
    for (size_t mi = 0; mi < ASH_ARRAY_LEN(k_models); mi++) {
        ash_model *m = g_model(k_models[mi], "model.gguf");
        for (int pair = 0; pair < (int)ASH_ARRAY_LEN(k_pairs); pair++) {
            ash_session *ref = session(m, pair, ASH_PREC_FAST, 1, 1);
            sync_ok(ref, t, 1, NULL);
            for (size_t i = 1; i < N; i++) assert_int_equal(ash_session_append(ref, t[i], &err), ASH_OK);
            for (size_t b = 0; b < ASH_ARRAY_LEN(batches); b++) {
                ash_session *s = session(m, pair, ASH_PREC_FAST, batches[b], 1 + (int)b % 2);
                sync_ok(s, t, N, NULL);
                same_logits(s, ref, m, k_models[mi]);
                ash_session_free(s);
            }
            ash_session_free(ref);
        }
        ash_model_free(m);
    }
}

/* Random edits; a fresh session is the oracle. No allocation on the way. */
static void edit_scripts(void **st) {
    (void)st;
    for (size_t mi = 0; mi < 5; mi++) {
        ash_model *m = g_model(k_models[mi], "model.gguf");
        for (int script = 0; script < 4; script++) {
            ash_rng_seed(&g_rng, 100 + (uint64_t)script);
            ash_session *s = session(m, script, (ash_precision)(script % 2), 8, 1 + script % 2);
            ash_session *fresh = session(m, script, (ash_precision)(script % 2), 64, 1);
            ash_token t[N_CTX];
            size_t n = 0, reused;
            ash_error err = {0};
            for (int step = 0; step < 30; step++) {
                switch (ash_rng_below(&g_rng, 6)) {
                case 0:
                case 1:
                    for (size_t add = 1 + ash_rng_below(&g_rng, 80); add && n < N_CTX - 8; add--) t[n++] = rnd_token();
                    break;
                case 2:
                    if (n) n = 1 + ash_rng_below(&g_rng, n), t[n - 1] = rnd_token();
                    break;
                case 3:
                    if (n > 1) n = n - ash_rng_below(&g_rng, ASH_MIN(n, 90));
                    break;
                case 4:
                    if (ash_session_n_tokens(s)) assert_int_equal(ash_session_mark(s, &err), ASH_OK);
                    break;
                default:
                    if (ash_session_n_tokens(s) > 1) {
                        size_t to = ash_rng_below(&g_rng, ash_session_n_tokens(s));
                        assert_int_equal(ash_session_rewind(s, to, &err), ASH_OK);
                        t[to] = rnd_token();
                        n = to + 1;
                        assert_int_equal(ash_session_append(s, t[to], &err), ASH_OK);
                    }
                }
                if (!n) continue;
                const uint64_t before = ash_alloc_count();
                sync_ok(s, t, n, &reused);
                sync_ok(fresh, t, 1, NULL);
                assert_int_equal(ash_session_rewind(fresh, 0, &err), ASH_OK);
                sync_ok(fresh, t, n, NULL);
                assert_int_equal(ash_alloc_count(), before);
                same_logits(s, fresh, m, k_models[mi]);
            }
            ash_session_free(s);
            ash_session_free(fresh);
        }
        ash_model_free(m);
    }
}

/* Divergence from the float32 cache: 8 bits near zero, 4 bits small. */
static void errors(void **st) {
    (void)st;
    enum { N = 300 };
    ash_token t[N];
    ash_error err = {0};
    ash_rng_seed(&g_rng, 4);
    for (size_t i = 0; i < N; i++) t[i] = rnd_token();
    static const char *const models[] = {"llama", "gemma3", "qwen3"};
    for (size_t mi = 0; mi < ASH_ARRAY_LEN(models); mi++) {
        ash_model *m = g_model(models[mi], "model.gguf");
        const size_t V = (size_t)ash_model_n_vocab(m);
        float *want = calloc(N * V, sizeof *want), *got = calloc(N * V, sizeof *got);
        ash_session *s = g_session(m, (ash_session_opts){.n_ctx = N_CTX, .n_batch = 64, .n_threads = 1, .cpu_level = -1});
        assert_int_equal(ash_session_eval_all(s, t, N, 0, g_keep, &(g_rows){want, V}, &err), ASH_OK);
        ash_session_free(s);
        for (int pair = 0; pair < 2; pair++) {
            s = session(m, pair, ASH_PREC_EXACT, 64, 1);
            assert_int_equal(ash_session_eval_all(s, t, N, 0, g_keep, &(g_rows){got, V}, &err), ASH_OK);
            g_diff d = g_compare(got, want, N, V);
            if (getenv("ASH_VERBOSE"))
                print_message("%s %s: rms %.2g kld %.2g\n", models[mi], ash_kv_type_name(k_pairs[pair].k), d.rms, d.kld);
            if (!(d.kld <= (pair ? 1e-4 : 2e-2)))
                fail_msg("%s, cache in %s: KLD %.3g", models[mi], ash_kv_type_name(k_pairs[pair].k), d.kld);
            ash_session_free(s);
        }
        free(want), free(got);
        ash_model_free(m);
    }
}

static void names(void **st) {
    (void)st;
    ash_kv_type t;
    for (int i = 0; i <= (int)ASH_KV_Q4_0; i++) {
        assert_true(ash_kv_type_parse(ash_kv_type_name((ash_kv_type)i), &t));
        assert_int_equal(t, i);
    }
    assert_false(ash_kv_type_parse("q4_1", &t));
    ash_model *m = g_model("llama", "model.gguf");
    ash_session *s;
    ash_error err = {0};
    ash_session_opts o = ash_session_defaults();
    o.cache_k = (ash_kv_type)9;
    assert_int_equal(ash_session_new(&s, m, &o, &err), ASH_E_USAGE);
    /* 4.5 bits against 16, and the halves at both ends */
    o = ash_session_defaults();
    o.n_ctx = 4096, o.cache_k = o.cache_v = ASH_KV_F16;
    ash_session *a = g_session(m, o);
    o.cache_k = o.cache_v = ASH_KV_Q4_0;
    ash_session *b = g_session(m, o);
    assert_true(ash_session_bytes(b) < ash_session_bytes(a));
    ash_session_free(a), ash_session_free(b);
    ash_model_free(m);
}

/* A conversation of three turns that ends in a file; another session goes on from it: appending computes the new tokens only
 * (and the last one again, for its logits), another answer or an edited question starts from the last mark. */
static void session_files(void **st) {
    (void)st;
    static const char *const models[] = {"gemma3", "llama", "gemma4-e", "phi3-longrope"};
    const char *file = "test-kv.session";
    ash_error err = {0};
    ash_token t[N_CTX];
    ash_rng_seed(&g_rng, 6);
    for (size_t i = 0; i < N_CTX; i++) t[i] = rnd_token();
    for (size_t mi = 0; mi < ASH_ARRAY_LEN(models); mi++) {
        ash_model *m = g_model(models[mi], "model.gguf");
        for (int pair = 0; pair < 4; pair++) {
            const bool quantized = pair < 4, windows = mi != 1 && mi != 3;
            size_t reused, n = 0;
            ash_session *a = session(m, pair, ASH_PREC_FAST, 8, 1), *b = session(m, pair, ASH_PREC_FAST, 32, 2);
            ash_session *fresh = session(m, pair, ASH_PREC_FAST, 64, 1);
            for (int turn = 0; turn < 3; turn++) { /* question of 40, answer of 30 */
                sync_ok(a, t, n + 40, &reused);
                assert_true(reused + 1 >= n); /* nothing seen before is computed again but the last token */
                assert_int_equal(ash_session_mark(a, &err), ASH_OK);
                for (size_t i = n + 40; i < n + 70; i++) assert_int_equal(ash_session_append(a, t[i], &err), ASH_OK);
                assert_int_equal(ash_session_mark(a, &err), ASH_OK);
                n += 70;
            }
            if (ash_session_save(a, file, &err) != ASH_OK || ash_session_load(b, file, &err) != ASH_OK)
                fail_msg("%s: %s", models[mi], err.msg);
            assert_int_equal(ash_session_n_tokens(b), n);
            assert_memory_equal(ash_session_tokens(b), t, n * sizeof *t);
            assert_null(ash_session_logits(b));
            sync_ok(b, t, n, &reused); /* nothing new: one token, for its logits */
            assert_int_equal(reused, n - 1);
            same_logits(b, a, m, models[mi]);
            sync_ok(b, t, n + 40, &reused); /* the next question */
            assert_int_equal(reused, n);
            sync_ok(fresh, t, n + 40, NULL);
            same_logits(b, fresh, m, models[mi]);
            assert_int_equal(ash_session_load(b, file, &err), ASH_OK);
            sync_ok(b, t, n - 30, &reused); /* the last answer again: from its question's mark, or a span's start */
            assert_true(reused >= (n - 30) - (quantized ? ASH_KV_SPAN : 1) - (windows ? 1 : 0));
            sync_ok(fresh, t, n - 30, NULL);
            same_logits(b, fresh, m, models[mi]);
            t[n - 60] ^= 1; /* the last question edited */
            sync_ok(b, t, n - 30, &reused);
            assert_true(reused + ASH_KV_SPAN + 10 >= n - 70);
            sync_ok(fresh, t, n - 30, NULL);
            same_logits(b, fresh, m, models[mi]);
            ash_session_free(a), ash_session_free(b), ash_session_free(fresh);
        }
        ash_model_free(m);
    }
    unlink(file);
}

/* ---- replay: what is computed again ---- */
typedef struct {
    ash_model *m;
    const char *name;
    bool windows, quantized;
    size_t part;            /* tokens of a question, and of an answer: more than rings and tails hold */
    size_t marks[16];
    int n_marks;
} talk;

static ash_session *talk_session(const talk *k, ash_kv_type kt, ash_kv_type vt, uint32_t batch) {
    return g_session(k->m, (ash_session_opts){.n_ctx = (uint32_t)(9 * k->part), .n_batch = batch, .n_threads = 0, .precision = ASH_PREC_FAST, .cpu_level = -1,
                                              .cache_k = kt, .cache_v = vt});
}

/* Where a timeline of n tokens, of which `same` are known but lie further back than rings and tails reach, must be taken up:
 * nothing dropped them where there are no windows, else the last mark; with quantized blocks at a multiple of 64. */
static size_t take_up(talk *k, size_t same, size_t n) {
    const size_t limit = ASH_MIN(same, n - 1);
    while (k->n_marks && k->marks[k->n_marks - 1] > same) k->n_marks--; /* of another future */
    if (!k->windows) return k->quantized ? limit / ASH_KV_SPAN * ASH_KV_SPAN : limit;
    for (int i = k->n_marks; i-- > 0;) {
        const size_t at = k->quantized ? k->marks[i] / ASH_KV_SPAN * ASH_KV_SPAN : k->marks[i];
        if (at <= limit + !k->quantized) return ASH_MIN(at, limit);
    }
    return 0;
}

static void go(talk *k, ash_session *s, const ash_token *t, size_t n, size_t want) {
    ash_error err = {0};
    size_t reused;
    sync_ok(s, t, n, &reused);
    if (reused != want) fail_msg("%s: %zu tokens of %zu computed, not %zu", k->name, n - reused, n, n - want);
    k->marks[k->n_marks++] = n;
    assert_int_equal(ash_session_mark(s, &err), ASH_OK);
}

static void one_talk(talk *k, ash_kv_type kt, ash_kv_type vt) {
    const char *file = "test-kv-replay.session";
    const size_t part = k->part;
    const uint32_t V = (uint32_t)ash_model_n_vocab(k->m);
    ash_error err = {0};
    ash_token *t = malloc(9 * part * sizeof *t);
    for (size_t i = 0; i < 9 * part; i++) t[i] = (ash_token)ash_rng_below(&g_rng, V);
    ash_session *s = talk_session(k, kt, vt, 32), *fresh;
    k->quantized = kt >= ASH_KV_Q8_0 || vt >= ASH_KV_Q8_0;
    k->n_marks = 0;
    size_t n = 0;
    for (int turn = 0; turn < 3; turn++, n += 2 * part) { /* appending: not one token twice */
        go(k, s, t, n + part, n);
        go(k, s, t, n + 2 * part, n + part);
    }
    assert_int_equal(ash_session_save(s, file, &err), ASH_OK);
    ash_session_free(s);
    s = talk_session(k, kt, vt, 64);
    if (ash_session_load(s, file, &err) != ASH_OK) fail_msg("%s: %s", k->name, err.msg);
    unlink(file);
    if (k->n_marks > 4) memmove(k->marks, k->marks + k->n_marks - 4, 4 * sizeof *k->marks), k->n_marks = 4; /* a file keeps four */
    go(k, s, t, n + part, n); /* nor after a restart */
    /* the last answer again; its question edited in the middle; an early word of the one before */
    go(k, s, t, n - part, take_up(k, n - part, n - part));
    t[n - part - part / 2] ^= 1;
    go(k, s, t, n + part, take_up(k, n - part - part / 2, n + part));
    t[n - 3 * part + 5] ^= 1;
    go(k, s, t, n, take_up(k, n - 3 * part + 5, n));
    fresh = talk_session(k, kt, vt, 128);
    sync_ok(fresh, t, n, NULL);
    same_logits(s, fresh, k->m, k->name);
    ash_session_free(s), ash_session_free(fresh);
    free(t);
}

/* ASH_REPLAY_MODEL: a file to take instead of the tiny models (tests/long/replay.sh). */
static void replay(void **st) {
    (void)st;
    static const char *const models[] = {"gemma3", "llama", "gemma4-e", "mistral-swa"};
    static const ash_kv_type types[][2] = {{ASH_KV_F16, ASH_KV_F16}, {ASH_KV_Q8_0, ASH_KV_Q8_0}, {ASH_KV_Q4_0, ASH_KV_Q4_0}, {ASH_KV_F16, ASH_KV_Q4_0}};
    const char *real = getenv("ASH_REPLAY_MODEL");
    ash_error err = {0};
    ash_rng_seed(&g_rng, 12);
    for (size_t mi = 0; mi < (real ? 1 : ASH_ARRAY_LEN(models)); mi++) {
        talk k = {.name = real ? real : models[mi]};
        if (!real) k.m = g_model(models[mi], "model.gguf");
        else if (ash_model_load(&k.m, real, &err) != ASH_OK) fail_msg("%s", err.msg);
        k.windows = k.m->hp.max_window > 0;
        k.part = (size_t)k.m->hp.max_window + 64 + 64 + 50; /* window, batch, tail */
        for (size_t i = 0; i < (real ? 3 : ASH_ARRAY_LEN(types)); i++) one_talk(&k, types[i][0], types[i][1]);
        ash_model_free(k.m);
    }
}

static void refused(void **st) {
    (void)st;
    const char *file = "test-kv-bad.session";
    ash_error err = {0};
    ash_model *m = g_model("gemma3", "model.gguf"), *other = g_model("llama", "model.gguf");
    ash_session *s = session(m, 0, ASH_PREC_FAST, 8, 1), *types = session(m, 1, ASH_PREC_FAST, 8, 1),
                *exact = session(m, 0, ASH_PREC_EXACT, 8, 1);
    ash_session *o = session(other, 0, ASH_PREC_FAST, 8, 1);
    ash_session *small = g_session(
        m, (ash_session_opts){
               .n_ctx = 64, .n_threads = 1, .precision = ASH_PREC_FAST, .cpu_level = -1, .cache_k = ASH_KV_Q4_0, .cache_v = ASH_KV_Q4_0});
    ash_token t[100];
    for (size_t i = 0; i < 100; i++) t[i] = (ash_token)(i + 3);
    sync_ok(s, t, 100, NULL);
    assert_int_equal(ash_session_mark(s, &err), ASH_OK);
    assert_int_equal(ash_session_save(s, file, &err), ASH_OK);
    assert_int_equal(ash_session_load(types, file, &err), ASH_E_STATE);
    assert_non_null(strstr(err.msg, "q4_0 keys"));
    assert_int_equal(ash_session_load(exact, file, &err), ASH_E_STATE);
    assert_int_equal(ash_session_load(o, file, &err), ASH_E_STATE);
    assert_non_null(strstr(err.msg, "another model"));
    assert_int_equal(ash_session_load(small, file, &err), ASH_E_LIMIT);
    assert_int_equal(ash_session_load(s, "no-such.session", &err), ASH_E_IO);
    ash_buf b = {0};
    assert_int_equal(ash_file_read(file, 1 << 26, &b, &err), ASH_OK);
    uint8_t *bytes = (uint8_t *)b.p;
    ash_session_head h;
    for (size_t cut = 0; cut < b.n; cut += cut < 100 ? 1 : 997) assert_true(ash_session_parse(&h, bytes, cut, &err) != ASH_OK);
    for (size_t at = 0; at < b.n; at += at < 100 ? 1 : 1009) { /* one bit: refused, and the session stays as it is */
        bytes[at] ^= 0x10;
        assert_int_equal(ash_file_write_atomic(file, bytes, b.n, &err), ASH_OK);
        assert_true(ash_session_load(s, file, &err) != ASH_OK);
        bytes[at] ^= 0x10;
    }
    assert_int_equal(ash_session_n_tokens(s), 100);
    assert_non_null(ash_session_logits(s));
    ash_buf_free(&b);
    unlink(file);
    ash_session_free(s), ash_session_free(types), ash_session_free(exact), ash_session_free(o), ash_session_free(small);
    ash_model_free(m), ash_model_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks),        cmocka_unit_test(fused), cmocka_unit_test(rotation), cmocka_unit_test(chunking),
                                       cmocka_unit_test(edit_scripts),  cmocka_unit_test(errors),   cmocka_unit_test(names),
                                       cmocka_unit_test(session_files), cmocka_unit_test(refused), cmocka_unit_test(replay)};
    if (getenv("ASH_REPLAY_MODEL")) cmocka_set_test_filter("replay");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
